"""The demo's web app: what counts, what only looks, and what the page shows."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import httpx
import pytest

from tribes.cli.demo_app import make_app
from tribes.cli.demo_page import PageFacts, render_page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

CONTROL = "http://127.0.0.1:9099"
PEERS = {f"node-{i}": f"http://127.0.0.1:{8079 + i}" for i in (1, 2, 3)}
SESSION_ID = "0123456789ABCDEF0123456789ABCDEF"
CREATED_MS = 1_763_650_000_000
HOSTILE = """<img src=x onerror="alert('1')">&amp;</script><!--"""


class Session(dict[str, object]):
    """A session that is always the same one."""

    id = SESSION_ID
    created_ms = CREATED_MS
    is_new = False


class OneSession:
    """Middleware with one session for everybody."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.session = Session()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "session": self.session}, receive, send)


def app_of(members: list[str]) -> ASGIApp:
    return make_app("node-2", lambda: members, CONTROL, PEERS)


def client_of(app: ASGIApp, host: str = "127.0.0.1:8081") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://{host}")


async def test_session_adds_1_and_answers_who_what_and_where() -> None:
    async with client_of(OneSession(app_of(["node-1", "node-2"]))) as client:
        answers = [(await client.get("/session")).json() for _ in range(2)]
    expected = {
        "node": "node-2",
        "pid": os.getpid(),
        "session_id": SESSION_ID,
        "created_ms": CREATED_MS,
        "count": 1,
        "members": ["node-1", "node-2"],
    }
    assert answers == [expected, {**expected, "count": 2}]


async def test_the_page_makes_a_session_and_does_not_count() -> None:
    wrapped = OneSession(app_of(["node-2"]))
    async with client_of(wrapped) as client:
        await client.get("/")
        assert wrapped.session == {"count": 0}  # something is stored, so the session is real
        wrapped.session["count"] = 41
        page = (await client.get("/")).text
    assert wrapped.session == {"count": 41}
    assert ">41</output>" in page


@pytest.mark.parametrize("path", ["/members", "/health", "/favicon.ico"])
async def test_looking_does_not_touch_the_session(path: str) -> None:
    """No session is in reach here: touching it would fail."""
    async with client_of(app_of(["node-1", "node-2"])) as client:
        assert (await client.get(path)).status_code == 200


async def test_members_and_health() -> None:
    async with client_of(app_of(["node-1", "node-2"])) as client:
        assert (await client.get("/members")).json() == ["node-1", "node-2"]
        assert (await client.get("/health")).text == "ok"
        assert (await client.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("path", ["/", "/session", "/members", "/health", "/favicon.ico"])
async def test_nothing_is_stored_by_caches(path: str) -> None:
    async with client_of(OneSession(app_of(["node-2"]))) as client:
        assert (await client.get(path)).headers["cache-control"] == "no-store"


async def test_links_keep_the_host_name_that_the_cookie_belongs_to() -> None:
    app = OneSession(app_of(["node-2"]))
    async with client_of(app, "localhost:8081") as client:
        by_name = Page((await client.get("/")).text)
    async with client_of(app, "attacker.example:8081") as client:
        by_stranger = Page((await client.get("/")).text)
    assert by_name.links() == {f"http://localhost:{port}/" for port in (8080, 8081, 8082)}
    assert by_stranger.links() == {f"{url}/" for url in PEERS.values()}


async def test_the_policy_allows_only_the_pages_own_script_and_style() -> None:
    async with client_of(OneSession(app_of(["node-2"]))) as client:
        first, second = await client.get("/"), await client.get("/")
    policies = [answer.headers["content-security-policy"] for answer in (first, second)]
    assert policies[0] != policies[1]
    assert f"connect-src 'self' {CONTROL};" in policies[0]
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    [nonce] = set(re.findall(r"'nonce-([^']+)'", policies[0]))
    active = Page(first.text).active()
    assert [attributes["nonce"] for _, attributes in active] == [nonce, nonce]


def facts(**changes: object) -> PageFacts:
    plain = {
        "node": "node-2",
        "pid": 1234,
        "session_id": SESSION_ID,
        "created_ms": CREATED_MS,
        "count": 7,
        "members": ["node-1", "node-2"],
        "control_url": CONTROL,
        "peers": PEERS,
    }
    return PageFacts(**{**plain, **changes})  # type: ignore[arg-type]


def test_the_page_shows_everything_without_javascript() -> None:
    page = Page(render_page(facts(), nonce="n"))
    text = " ".join(page.text.split())
    assert "Tribes for Python — demo" in text
    assert "Answered by 2 node-2 pid 1234 · 127.0.0.1:8081" in text
    assert "01234567…ABCDEF" in text
    assert "2025-11-20 14:46:40 UTC" in text
    assert "node-1 port 8080 Live Open Kill (kill -9) Start" in text
    assert "node-2 port 8081 This node Open Kill (kill -9) Start" in text
    assert "node-3 port 8082 Not seen Open Kill (kill -9) Start" in text
    assert page.by_id("count") == "7"
    assert page.by_id("members") == "node-1node-2"
    assert page.attributes("sid")["title"] == SESSION_ID


def test_the_page_is_well_formed_and_self_contained() -> None:
    page = Page(render_page(facts(), nonce="n"))
    assert page.errors == []
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.elements:
        assert "style" not in attributes, "the policy forbids it"
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "button" or attributes.get("type") == "button"
        assert attributes.get("src") is None
        assert tag != "link" or attributes["href"] == "/favicon.ico"
        assert attributes.get("aria-labelledby", page.ids[0]) in page.ids


def test_hostile_text_is_only_text() -> None:
    peers = {HOSTILE: "http://127.0.0.1:8080", **PEERS}
    hostile = facts(node=HOSTILE, session_id=HOSTILE, members=[HOSTILE], peers=peers)
    source = render_page(hostile, nonce="n")
    page = Page(source)
    assert page.errors == []
    assert "<img" not in source
    assert "<!--" not in source
    assert page.by_id("members") == HOSTILE
    assert page.attributes("sid")["title"] == HOSTILE
    assert [tag for tag, _ in page.active()] == ["style", "script"]


def test_members_stand_in_the_order_of_the_nodes() -> None:
    peers = {f"node-{i}": f"http://127.0.0.1:{8079 + i}" for i in range(1, 11)}
    members = ["guest", "node-10", "node-2", "node-1"]
    page = Page(render_page(facts(peers=peers, members=members), nonce="n"))
    assert page.by_id("members") == "node-1node-2node-10guest"


def test_sixteen_nodes_have_sixteen_tiles() -> None:
    peers = {f"node-{i}": f"http://127.0.0.1:{8079 + i}" for i in range(1, 17)}
    page = Page(render_page(facts(peers=peers, members=list(peers)), nonce="n"))
    assert [a["data-node"] for _, a in page.elements if "data-node" in a] == list(peers)
    assert len(page.links()) == 16


class Page(HTMLParser):
    """A parsed page that notices what isn't closed, or closed in the wrong order."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.errors: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._id_open: list[str | None] = []
        self._texts: dict[str, str] = {}
        assert source.startswith("<!doctype html>\n<html lang=")
        self.feed(source)
        self.close()
        self.errors += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
            self._id_open.append(dict(attrs).get("id"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.errors.append(f"</{tag}> after {self._open[-3:]}")
            return
        self._open.pop()
        self._id_open.pop()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text += data if data.isspace() else data + " "
        for element_id in self._id_open:
            if element_id:
                self._texts[element_id] = self._texts.get(element_id, "") + data

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]

    def by_id(self, element_id: str) -> str:
        return self._texts[element_id]

    def attributes(self, element_id: str) -> dict[str, str | None]:
        [found] = [a for _, a in self.elements if a.get("id") == element_id]
        return found

    def links(self) -> set[str | None]:
        return {a["href"] for tag, a in self.elements if tag == "a"}

    def active(self) -> list[tuple[str, dict[str, str | None]]]:
        """Return what a browser runs or applies; the block of data is neither."""
        active = [(t, a) for t, a in self.elements if t in ("script", "style")]
        return [(t, a) for t, a in active if a.get("type") != "application/json"]
