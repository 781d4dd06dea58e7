"""Real nodes to be hurt, users that move on when refused, and the history that is checked.

Every operation is recorded; :func:`check` says whether the record is one that a single counter per
user could have given, and whether the nodes agree in the end. Figures that tests measure are
printed at the end of the run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
import pytest

from tests.ports import free_tcp_port, free_udp_port
from tests.standstill import Stopwatch, standstill
from tests.waiting import wait_until

ROUNDS = int(os.environ.get("TRIBES_CHAOS_ROUNDS", "1"))
"""How often each plan is repeated on the same cluster."""

READY_S = 30.0
EQUAL_S = 45.0
"""The comparison in the background takes 16 s for all partitions, with one other member a time."""

REQUEST_S = 8.0
POLL_S = 0.02
PAUSE_S = 0.01
"""Between two requests of one thread, so that the delays measured are the nodes' own."""

_PAGE_DATA = re.compile(r'<script type="application/json" id="demo-data">(.*?)</script>')


class Place(Protocol):
    """Where nodes and clients live: loopback, or a network of namespaces."""

    def address(self, node: str) -> str: ...
    def http_port(self, node: str) -> int: ...
    def multicast_port(self) -> int: ...
    def prefix(self, node: str) -> list[str]: ...
    def enter(self) -> None: ...


class Loopback:
    """All on 127.0.0.1, told apart by their ports."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._multicast_port = free_udp_port()

    def address(self, node: str) -> str:
        del node
        return "127.0.0.1"

    def http_port(self, node: str) -> int:
        return self._ports.setdefault(node, free_tcp_port())

    def multicast_port(self) -> int:
        return self._multicast_port

    def prefix(self, node: str) -> list[str]:
        del node
        return []

    def enter(self) -> None:
        """Clients are on loopback already."""


class Nodes:
    """Real node processes; each is stopped, continued and ended by its pid."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.command: tuple[str, ...] = ("-m", "tribes", "demo-node")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._asker = ThreadPoolExecutor(1, initializer=place.enter)
        # Shorter than the server keeps a connection: it would close one in the middle of a request.
        limits = httpx.Limits(keepalive_expiry=2.0)
        self._http = httpx.Client(timeout=REQUEST_S, trust_env=False, limits=limits)

    def start(self, *names: str) -> None:
        """Start nodes and wait until each serves, which is after it has joined."""
        for name in names:
            command = [
                *self.place.prefix(name),
                *(sys.executable, *self.command, "--name", name),
                *("--address", self.place.address(name)),
                *("--http-port", str(self.place.http_port(name))),
                *("--multicast-port", str(self.place.multicast_port())),
                *("--control-url", "http://127.0.0.1:1", "--peers", f"{name}={self.url(name)}"),
            ]
            # The nodes' logs go where pytest catches them, and shows them if the test fails.
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2)
        for name in names:
            self._wait_ready(name)

    def _wait_ready(self, name: str) -> None:
        def serves() -> bool:
            assert self.processes[name].poll() is None, f"{name} ended"
            with contextlib.suppress(httpx.TransportError):
                return self.get(self.url(name) + "/health").status_code == 200
            return False

        wait_until(serves, READY_S, every=POLL_S, what=f"{name} does not serve")

    def get(self, url: str, cookie: str = "") -> httpx.Response:
        """One request, from where the clients live."""

        def run() -> httpx.Response:
            try:
                return visit(self._http, url, cookie)
            finally:
                self._http.cookies.clear()

        return self._asker.submit(run).result()

    def url(self, name: str) -> str:
        return f"http://{self.place.address(name)}:{self.place.http_port(name)}"

    def members(self, name: str) -> list[str]:
        return sorted(self.get(self.url(name) + "/members").json())

    def wait_members(self, expected: Sequence[str], within: float, at: Sequence[str] = ()) -> float:
        """Seconds until each of the nodes ``at`` (default: the expected) sees just these."""
        names, wanted = at or expected, sorted(expected)
        return wait_until(
            lambda: all(self.members(name) == wanted for name in names),
            within,
            every=POLL_S,
            what=lambda: str({name: self.members(name) for name in names}),
        )

    def read(self, name: str, cookie: str) -> tuple[str, int]:
        """The session id and count that a node's page shows; nothing is written."""
        found = _PAGE_DATA.search(self.get(self.url(name) + "/", cookie).text)
        assert found is not None
        data = json.loads(found[1])
        return data["session_id"], data["count"]

    def pause(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGCONT)

    def kill(self, *names: str) -> None:
        """``kill -9``, all at once."""
        gone = [self.processes.pop(name) for name in names]
        for process in gone:
            process.kill()
        for process in gone:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def close(self) -> None:
        self.kill(*self.processes)
        self._asker.shutdown()
        self._http.close()


def visit(http: httpx.Client, url: str, cookie: str = "") -> httpx.Response:
    headers = {"cookie": f"JSESSIONID={cookie}"} if cookie else {}
    response = http.get(url, headers=headers)
    response.raise_for_status()
    return response


@dataclass(frozen=True)
class Op:
    """One attempt to count; without an answer nobody knows whether it counted."""

    node: str
    begin: float
    end: float
    count: int | None
    session_id: str = ""
    error: str = ""

    @property
    def waited_s(self) -> float:
        """How long it took, but for the time in which the process of the users stood still."""
        return self.end - self.begin - standstill().between(self.begin, self.end)


@dataclass
class User:
    """A browser: one cookie, the nodes it is sent to, and all that it did."""

    targets: list[str]
    cookie: str = ""
    history: list[Op] = field(default_factory=list)
    turn: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> int:
        return next((op.count for op in reversed(self.history) if op.count is not None), 0)

    def go(self, http: httpx.Client, url_of: Callable[[str], str]) -> None:
        """Count once, at the first of the targets that answers."""
        with self.lock:
            for _ in range(len(self.targets)):
                node = self.targets[self.turn % len(self.targets)]
                self.turn += 1
                if self._try(http, node, url_of(node)):
                    return

    def _try(self, http: httpx.Client, node: str, url: str) -> bool:
        begin = time.monotonic()
        try:
            response = visit(http, url + "/session", self.cookie)
        except httpx.HTTPError as error:
            self.history.append(Op(node, begin, time.monotonic(), None, error=repr(error)))
            return False
        finally:
            http.cookies.clear()
        end = time.monotonic()
        self.cookie = response.cookies.get("JSESSIONID") or self.cookie
        answer = response.json()
        self.history.append(Op(node, begin, end, answer["count"], answer["session_id"]))
        return True


class Load:
    """Threads of users that go on counting until told to end."""

    def __init__(self, nodes: Nodes, users: int, targets: Sequence[str], threads: int = 4) -> None:
        standstill()
        self.users = [User(list(targets), turn=i) for i in range(users)]
        self._nodes = nodes
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(self.users[i::threads],))
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, users: list[User]) -> None:
        try:
            self._nodes.place.enter()
            with httpx.Client(timeout=REQUEST_S, trust_env=False) as http:
                for user in itertools.cycle(users):
                    if self._stop.wait(PAUSE_S):
                        return
                    user.go(http, self._nodes.url)
        except BaseException as error:
            self._errors.append(error)
            raise

    def direct(self, *targets: str, users: Sequence[User] | None = None) -> None:
        """Send users elsewhere; returns when nothing of theirs is under way at the old targets."""
        for user in self.users if users is None else users:
            with user.lock:
                user.targets = list(targets)

    def warm_up(self, within: float = 30) -> None:
        """Wait until each user has counted twice."""
        deadline = time.monotonic() + within
        while not all(user.count() > 1 for user in self.users):
            assert not self._errors
            stuck = [user.history[-8:] for user in self.users if user.count() < 2]
            seen = {name: self._nodes.members(name) for name in self._nodes.processes}
            assert time.monotonic() < deadline, f"members {seen}, stuck {stuck[:3]}"
            time.sleep(POLL_S)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * REQUEST_S)
        assert not any(thread.is_alive() for thread in self._threads)
        assert not self._errors

    def ops(self, begin: float = 0, end: float = float("inf")) -> list[Op]:
        """What was begun within this time."""
        return [op for user in self.users for op in user.history if begin <= op.begin < end]

    def unanswered(self, begin: float = 0, end: float = float("inf")) -> list[Op]:
        return [op for op in self.ops(begin, end) if op.count is None]

    def check(self, *names: str, within: float = EQUAL_S) -> float:
        """Check the history, then that these nodes agree; returns the seconds until they did."""
        for user in self.users:
            check_history(user)
        watch = Stopwatch()
        for user in self.users:
            while wrong := self._disagreement(user, names):
                assert watch.seconds < within, wrong
                time.sleep(POLL_S)
        return watch.seconds

    def _disagreement(self, user: User, names: Sequence[str]) -> str:
        seen = {name: self._nodes.read(name, user.cookie) for name in names}
        session_id = user.cookie.partition(".")[0]
        ids = {found.partition(".")[0] for found, _ in seen.values()}
        counts = {count for _, count in seen.values()}
        lowest, highest = user.count(), len(user.history)
        if ids == {session_id} and len(counts) == 1 and lowest <= counts.pop() <= highest:
            return ""
        return f"user {session_id} was answered {lowest} of {highest}, the nodes say {seen}"


def check_history(user: User) -> None:
    """The answers of one user: always more, and always the same session."""
    answers = [op for op in user.history if op.count is not None]
    counts = [op.count for op in answers]
    for earlier, later in itertools.pairwise(answers):
        assert later.count is not None
        assert earlier.count is not None
        assert later.count > earlier.count, f"{earlier} and then {later}"
    assert len({op.session_id.partition(".")[0] for op in answers}) <= 1
    assert not counts or (counts[-1] or 0) <= len(user.history), "counted more than was asked"


def delays(ops: Sequence[Op]) -> str:
    """The median and the longest of these operations, for the report."""
    seconds = [op.end - op.begin for op in ops if op.count is not None]
    if not seconds:
        return "none answered"
    middle, longest = statistics.median(seconds), max(seconds)
    return f"{len(seconds)} answers, median {middle * 1e3:.0f} ms, longest {longest * 1e3:.0f} ms"


@pytest.fixture(scope="session")
def rounds() -> int:
    """How often a plan is repeated: ``TRIBES_CHAOS_ROUNDS``."""
    return ROUNDS


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Note a line to be printed at the end of the run."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, [])
        if getattr(report, "when", "") == "call"
        for key, text in report.user_properties
        if key == "figure"
    ]
    if lines:
        terminalreporter.section("measured under faults")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture
def make_nodes() -> Iterator[Callable[[Place], Nodes]]:
    """Clusters that leave no process behind."""
    with contextlib.ExitStack() as stack:

        def make(place: Place) -> Nodes:
            nodes = Nodes(place)
            stack.callback(nodes.close)
            return nodes

        yield make


@pytest.fixture
def nodes(make_nodes: Callable[[Place], Nodes]) -> Nodes:
    """A cluster on loopback."""
    return make_nodes(Loopback())


@pytest.fixture
def make_load() -> Iterator[Callable[..., Load]]:
    """Loads, ended with the test."""
    made: list[Load] = []

    def make(nodes: Nodes, users: int, targets: Sequence[str]) -> Load:
        load = Load(nodes, users, targets)
        made.append(load)
        return load

    try:
        yield make
    finally:
        for load in made:
            load.end()


@pytest.fixture
def describe() -> Callable[[Sequence[Op]], str]:
    """Says how long operations took."""
    return delays


@pytest.fixture
def history_check() -> Callable[[User], None]:
    """The checker of one user's history."""
    return check_history


@pytest.fixture
def make_user() -> type[User]:
    """Makes users that have done nothing yet."""
    return User


@pytest.fixture
def make_op() -> type[Op]:
    """Makes records of one operation."""
    return Op
