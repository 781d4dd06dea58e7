"""A cluster of real nodes with a Backup manager, what they say of it, and requests to them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from tests.waiting import wait_until
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import PARTS, part_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.conftest import Nodes

__all__ = ["FIVE", "Answer", "Cluster"]

FIVE = ("n1", "n2", "n3", "n4", "n5")
WHOLE_S = 20.0
REQUEST_S = 90.0
"""Longer than a node takes to start while requests are held."""
WORKERS = 32
PROGRAM = Path(__file__).parent / "program.py"


class Answer(NamedTuple):
    """Of a request for a session."""

    id: str
    values: dict[str, str]
    cookie: str


class Cluster:
    """Nodes and clients of one test, or of one file of tests.

    Args:
        nodes: Not started yet.
        copies: Beside the owner's.
    """

    def __init__(self, nodes: Nodes, copies: int = 1) -> None:
        self.nodes = nodes
        self.copies = copies
        # Shorter than the server keeps a connection: it would close one in the middle of a request.
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=200, keepalive_expiry=2.0
        )
        self._http = httpx.Client(timeout=REQUEST_S, trust_env=False, limits=limits)
        self._workers = ThreadPoolExecutor(WORKERS, initializer=nodes.place.enter)

    def close(self) -> None:
        """End the requests; the nodes are not this one's."""
        self._workers.shutdown()
        self._http.close()

    def start(self, *names: str, context: str = "") -> None:
        """Start nodes, with the application or another one."""
        more = ("--context", context) if context else ()
        self.nodes.command = (str(PROGRAM), "--copies", str(self.copies), *more)
        self.nodes.start(*names)

    # Requests.

    def begin(self, name: str, path: str, cookie: str = "") -> Future[Any]:
        """Ask a node; the answer comes later."""
        return self._workers.submit(self._ask, self.nodes.url(name) + path, cookie)

    def _ask(self, url: str, cookie: str) -> Any:
        headers = {"cookie": f"JSESSIONID={cookie}"} if cookie else {}
        # Built by itself: a client's own jar of cookies would be shared by all users.
        request = httpx.Request("GET", url, headers=headers)
        response = self._http.send(request)
        self._http.cookies.clear()
        response.raise_for_status()
        found = response.json()
        if "values" not in found:
            return found
        return Answer(**found, cookie=response.cookies.get("JSESSIONID") or cookie)

    def ask(self, name: str, path: str, cookie: str = "") -> Any:
        """Ask a node, and wait for the answer."""
        return self.begin(name, path, cookie).result()

    def ask_all(self, asked: Iterable[tuple[str, str, str]]) -> list[Any]:
        """Ask nodes for pages with cookies, many at a time."""
        return [each.result() for each in [self.begin(*each) for each in asked]]

    def make(self, names: Iterable[str], count: int) -> list[Answer]:
        """Make sessions, on these nodes in turn; each knows its number as ``n``."""
        turn = list(names)
        return self.ask_all((turn[i % len(turn)], f"/write?n={i}", "") for i in range(count))

    # What the nodes say.

    def places(self, name: str) -> Any:
        """What a node holds, knows and counts."""
        return self.ask(name, "/places")

    def all_places(self, names: Iterable[str]) -> dict[str, Any]:
        """The same of several."""
        return {name: self.places(name) for name in names}

    def wait_whole(self, *names: str, others: int = 0) -> float:
        """Seconds until each node holds what it should, and each part has one owner.

        Args:
            names: The nodes.
            others: Members with the application that are not among them.
        """
        seen: list[Any] = []

        def are_whole() -> bool:
            seen[:] = self.all_places(names).values()
            owned = Counter(part for each in seen for part in each["claims"])
            is_whole = all(each["settled"] and not each["under_replicated"] for each in seen)
            is_owned = len(owned) == PARTS or others > 0
            return is_whole and is_owned and set(owned.values()) == {1}

        return wait_until(are_whole, WHOLE_S, every=0.05, what=lambda: seen)

    def holders(self, places: dict[str, Any], key: str) -> set[str]:
        """Who of these holds a session's part, whole."""
        part = part_of(key)
        return {name for name, each in places.items() if each["states"][part] == PlaceState.HOLD}

    def owners(self, places: dict[str, Any], key: str) -> list[str]:
        """Who of these says that it owns a session's part."""
        return [name for name, each in places.items() if part_of(key) in each["claims"]]

    def total(self, name: str, nodes: Iterable[str]) -> int:
        """One number of these nodes, added up."""
        return sum(each[name] for each in self.all_places(nodes).values())

    def expect(self, nodes: Iterable[str], sessions: dict[str, dict[str, str]]) -> None:
        """Check that every node shows every session so; by its cookie."""
        for name in nodes:
            shown = self.ask_all((name, "/show", cookie) for cookie in sessions)
            for cookie, found in zip(sessions, shown, strict=True):
                assert found.id == cookie.partition(".")[0], f"{cookie} is another one on {name}"
                assert found.values == sessions[cookie], f"{cookie} on {name}"
