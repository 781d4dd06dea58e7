"""Session ids in URLs: taken from requests, put into links, and nowhere else (feature 99)."""

from __future__ import annotations

import asyncio
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.nodes import Node
from tribes.errors import ConfigError
from tribes.web import SessionMiddleware, encode_url
from tribes.web.cookies import CookieSettings
from tribes.web.urls import take_id
from tribes.web.wsgi import SESSION
from tribes.web.wsgi import SessionMiddleware as WsgiMiddleware

LINK = "/shop/next"


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/a;jsessionid=X", ("/a", "X")),
        ("/a;v=1;jsessionid=X;w=2", ("/a;v=1;w=2", "X")),
        ("/a;jsessionid=X/b", ("/a;jsessionid=X/b", "")),
        ("/;jsessionid=X.n1", ("/", "X.n1")),
        ("/a;JSESSIONID=X", ("/a;JSESSIONID=X", "")),
        ("/a;jsessionid", ("/a;jsessionid", "")),
        ("/a;jsessionid=" + "x" * 300, ("/a", "")),
        ("/a;jsessionid=X;jsessionid=Y", ("/a", "X")),
        ("", ("", "")),
    ],
)
def test_id_is_taken_from_the_last_segment(path: str, taken: tuple[str, str]) -> None:
    """Other parameters stay; what cannot be an id is dropped."""
    assert take_id(path, "jsessionid") == taken


@given(st.text(max_size=60))
def test_any_path_without_an_id_stays_as_it_is(path: str) -> None:
    """No input raises."""
    if "jsessionid" not in path:
        assert take_id(path, "jsessionid") == (path, "")


class Answer:
    def __init__(self, link: str, path: str, cookie: str | None) -> None:
        self.link = link
        self.path = path
        self.cookie = cookie

    @property
    def id(self) -> str:
        return self.link.partition(";jsessionid=")[2]


def wsgi(
    node: Any, path: str = "/shop/", *, cookie: str = "", url: str = LINK, **settings: Any
) -> Answer:
    """One request that counts and links to ``url``."""
    found: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        session = environ[SESSION]
        session["count"] = session.get("count", 0) + 1
        found.extend((encode_url(environ, url), environ["PATH_INFO"]))
        start_response("200 OK", [])
        return [b""]

    environ = {"SCRIPT_NAME": "/shop", "PATH_INFO": path.removeprefix("/shop")}
    environ |= {"HTTP_HOST": "h.test:8080"}
    if cookie:
        environ["HTTP_COOKIE"] = f"JSESSIONID={cookie}"
    setup_testing_defaults(environ)
    heads: list[Any] = []
    settings = {"tracking": "both", **settings}

    def start_response(*head: Any) -> Any:
        heads.append(head)

    WsgiMiddleware(app, node, **settings)(environ, start_response)
    set_cookie = dict(heads[0][1]).get("Set-Cookie")
    return Answer(found[0], "/shop" + found[1], set_cookie)


def asgi(
    node: Any, path: str = "/shop/", *, cookie: str = "", url: str = LINK, **settings: Any
) -> Answer:
    """The same under ASGI."""
    found: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session["count"] = session.get("count", 0) + 1
        assert scope["raw_path"].decode() == scope["path"]
        found.extend((encode_url(scope, url), scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"h.test:8080")]
    if cookie:
        headers.append((b"cookie", f"JSESSIONID={cookie}".encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "headers": headers,
        "root_path": "/shop",
    }
    scope |= {"path": path, "raw_path": path.encode()}
    settings = {"tracking": "both", **settings}
    asyncio.run(SessionMiddleware(app, node, **settings)(scope, None, send))  # type: ignore[arg-type]
    set_cookie = dict(sent[0]["headers"]).get(b"set-cookie")
    return Answer(found[0], found[1], None if set_cookie is None else set_cookie.decode())


either = pytest.mark.parametrize("ask", [wsgi, asgi])


@either
def test_t99_client_without_cookies_is_led_by_links(ask: Any) -> None:
    """The application sees the path without the id; the session goes on, route and all."""
    node = Node()
    first = ask(node, tracking="url", route="n1")
    assert first.cookie is None
    assert first.link == f"{LINK};jsessionid={first.id}"
    assert first.id.endswith(".n1")
    second = ask(node, f"/shop/a;x=1;jsessionid={first.id}", tracking="url", route="n2")
    assert second.path == "/shop/a;x=1"
    assert second.id == first.id.replace(".n1", ".n2")
    session = node.manager("app").find(first.id.removesuffix(".n1"))
    assert session is not None
    assert session["count"] == 2


@either
def test_t99_cookie_counts_before_the_url_and_makes_links_plain(ask: Any) -> None:
    """The first answer has both, since nobody knows yet; a stale cookie does not hide the URL."""
    node = Node()
    first, other = ask(node), ask(node)
    assert first.cookie is not None
    assert first.cookie.startswith(f"JSESSIONID={first.id};")
    by_cookie = ask(node, f"/shop/;jsessionid={other.id}", cookie=first.id)
    assert (by_cookie.link, by_cookie.cookie) == (LINK, None)
    stale = ask(node, f"/shop/;jsessionid={first.id}", cookie="A" * 32)
    assert stale.id == first.id
    counts = [node.manager("app").find(each.id)["count"] for each in (first, other)]  # type: ignore[index]
    assert counts == [3, 1]


@either
def test_t100_unknown_id_in_a_url_is_never_adopted(ask: Any) -> None:
    """Session fixation by a link."""
    assert ask(Node(), "/shop/;jsessionid=" + "A" * 32).id != "A" * 32


@either
def test_urls_are_left_alone_unless_asked_for(ask: Any) -> None:
    """With cookies only, an id in a URL means nothing and none is put there."""
    node = Node()
    known = ask(node).id
    answer = ask(node, f"/shop/;jsessionid={known}", tracking="cookie")
    assert answer.path == f"/shop/;jsessionid={known}"
    assert answer.link == LINK
    assert known not in (answer.cookie or "")
    only_urls = ask(node, cookie=known, tracking="url")
    assert only_urls.id != known


@either
@pytest.mark.parametrize(
    ("url", "encoded"),
    [
        ("next", "next;ID"),
        ("/shop", "/shop;ID"),
        ("/shop/a?b=1#c", "/shop/a;ID?b=1#c"),
        ("/shop/a#c", "/shop/a;ID#c"),
        ("?page=2", "/shop/here;ID?page=2"),
        ("/shop/a;jsessionid=OLD?b", "/shop/a;ID?b"),
        ("http://h.test:8080/shop/a", "http://h.test:8080/shop/a;ID"),
        ("//H.test:8080/shop/a", "//H.test:8080/shop/a;ID"),
        ("/shopping", "/shopping"),
        ("/", "/"),
        ("http://h.test/shop/a", "http://h.test/shop/a"),
        ("https://h.test:8080/shop/a", "https://h.test:8080/shop/a"),
        ("http://evil.test/shop/a", "http://evil.test/shop/a"),
        ("//evil.test/shop/a", "//evil.test/shop/a"),
        ("mailto:a@h.test", "mailto:a@h.test"),
        ("#top", "#top"),
        ("", ""),
        ("http://[broken", "http://[broken"),
    ],
)
def test_t99_id_goes_to_links_of_this_application_only(ask: Any, url: str, encoded: str) -> None:
    """Before query and fragment; never to another host, port, scheme or path."""
    answer = ask(Node(), "/shop/here", url=url)
    session_id = answer.cookie.partition("=")[2].partition(";")[0]
    assert answer.link == encoded.replace("ID", f"jsessionid={session_id}")


def test_parameter_has_the_cookies_name() -> None:
    """As Tomcat's; a request without our session, and a session that has ended, get no id."""
    node, links = Node(), []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        links.append(encode_url(environ, "/a"))
        environ[SESSION]["x"] = 1
        links.append(encode_url(environ, "/a"))
        environ[SESSION].invalidate()
        links.append(encode_url(environ, "/a"))
        start_response("200 OK", [])
        return []

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    assert encode_url(environ, "/a") == "/a"
    cookie = CookieSettings(name="Sid")
    WsgiMiddleware(app, node, cookie=cookie, tracking="url")(environ, lambda *_: print)  # type: ignore[arg-type]
    assert [link.partition("=")[0] for link in links] == ["/a", "/a;Sid", "/a"]
    with pytest.raises(ConfigError, match="cookie, url, both"):
        WsgiMiddleware(app, node, tracking="urls")  # type: ignore[arg-type]
