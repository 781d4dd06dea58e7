"""The id of a session on the wire: cookies, routes, signatures, and what clients make up."""

from __future__ import annotations

import string
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.web.nodes import Node
from tests.web.test_asgi import ask as asgi_ask
from tests.web.test_asgi import count as asgi_count
from tests.web.test_urls import LINK, asgi, wsgi
from tests.web.test_valve import ask, page
from tribes.config.cookies import CookieConfig
from tribes.config.managers import ContextConfig, PersistentConfig
from tribes.config.model import check_config
from tribes.config.stores import FileStoreConfig
from tribes.config.valves import ORIGINAL_ID, RouteBinderConfig
from tribes.errors import ConfigError
from tribes.runtime.local import LocalSessions
from tribes.runtime.parts import Sessions
from tribes.web import encode_url
from tribes.web.cookies import CookieSettings
from tribes.web.signing import WireIds
from tribes.web.wsgi import SESSION, SessionMiddleware

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.manager.session import Session

KEY, OTHER_KEY = "the first of the keys", "another of the keys"


def configured(node: Node, **settings: Any) -> Node:
    node.config = msgspec.structs.replace(node.config, **settings)
    return node


def set_cookie(node: Any, cookie: CookieSettings | None, scheme: str = "http") -> str:
    """The header of a first request."""
    heads: list[Any] = []
    environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "wsgi.url_scheme": scheme}
    SessionMiddleware(page, node, cookie=cookie)(environ, lambda *head: heads.append(head))  # type: ignore[arg-type]
    [found] = [value for name, value in heads[0][1] if name == "Set-Cookie"]
    name, _, rest = found.partition("=")
    value, _, attributes = rest.partition("; ")
    assert len(value) == 32
    return f"{name}: {attributes}"


@pytest.mark.parametrize(
    ("context", "application", "scheme", "header"),
    [
        ({}, None, "http", "JSESSIONID: Path=/; HttpOnly; SameSite=Lax"),
        ({}, None, "https", "JSESSIONID: Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({}, {"name": "SID"}, "http", "SID: Path=/; HttpOnly; SameSite=Lax"),
        ({"name": "C"}, {"name": "SID"}, "http", "C: Path=/; HttpOnly; SameSite=Lax"),
        ({"name": "C"}, None, "http", "C: Path=/; HttpOnly; SameSite=Lax"),
        ({}, {"path": "/shop"}, "http", "JSESSIONID: Path=/shop; HttpOnly; SameSite=Lax"),
        (
            {"path_uses_trailing_slash": True},
            {"path": "/shop"},
            "http",
            "JSESSIONID: Path=/shop/; HttpOnly; SameSite=Lax",
        ),
        (
            {"path": "/c/"},
            {"path": "/shop", "path_uses_trailing_slash": True},
            "http",
            "JSESSIONID: Path=/c/; HttpOnly; SameSite=Lax",
        ),
        (
            {},
            {"path_uses_trailing_slash": True},
            "http",
            "JSESSIONID: Path=/; HttpOnly; SameSite=Lax",
        ),
        (
            {"domain": "c.test"},
            {"domain": "a.test"},
            "http",
            "JSESSIONID: Path=/; Domain=c.test; HttpOnly; SameSite=Lax",
        ),
        (
            {},
            {"domain": "a.test"},
            "http",
            "JSESSIONID: Path=/; Domain=a.test; HttpOnly; SameSite=Lax",
        ),
        ({"secure": True}, None, "http", "JSESSIONID: Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"secure": False}, None, "https", "JSESSIONID: Path=/; HttpOnly; SameSite=Lax"),
        ({"http_only": False}, None, "http", "JSESSIONID: Path=/; SameSite=Lax"),
        (
            {"http_only": True},
            {"http_only": False},
            "http",
            "JSESSIONID: Path=/; HttpOnly; SameSite=Lax",
        ),
        ({"same_site": ""}, None, "http", "JSESSIONID: Path=/; HttpOnly"),
        ({"same_site": "strict"}, None, "http", "JSESSIONID: Path=/; HttpOnly; SameSite=Strict"),
        (
            {"same_site": "none"},
            None,
            "http",
            "JSESSIONID: Path=/; Secure; HttpOnly; SameSite=None",
        ),
        (
            {"partitioned": True},
            None,
            "http",
            "JSESSIONID: Path=/; Secure; HttpOnly; SameSite=Lax; Partitioned",
        ),
        ({}, {"max_age_s": 60}, "http", "JSESSIONID: Path=/; Max-Age=60; HttpOnly; SameSite=Lax"),
        (
            {"max_age_s": 5},
            {"max_age_s": 60},
            "http",
            "JSESSIONID: Path=/; Max-Age=5; HttpOnly; SameSite=Lax",
        ),
    ],
)
def test_t98_what_the_cookie_says(
    context: dict[str, Any], application: dict[str, Any] | None, scheme: str, header: str
) -> None:
    """The context's configuration goes over the application's settings, those over the default.

    The default path is ``/`` and not the context's, whose name need not be its path; SameSite=Lax
    is ours.
    """
    node = Node()
    own = ContextConfig(cookie=CookieConfig(**context))
    configured(node, context={"app": own})
    cookie = None if application is None else CookieSettings(**application)
    assert set_cookie(node, cookie, scheme) == header


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": "a=b"}, "context.app.cookie.name"),
        ({"path": "/;x"}, "context.app.cookie.path"),
        ({"domain": "a\r\nSet-Cookie: x"}, "context.app.cookie.domain"),
        ({"same_site": "Lax"}, "context.app.cookie.same_site"),
        ({"max_age_s": 0}, "context.app.cookie.max_age_s"),
    ],
)
def test_t98_a_context_whose_cookie_would_break_the_header_is_refused(
    settings: dict[str, Any], key: str
) -> None:
    node = configured(Node(), context={"app": ContextConfig(cookie=CookieConfig(**settings))})
    with pytest.raises(ConfigError) as caught:
        check_config(node.config)
    assert caught.value.key == key


def test_t100_no_offered_id_is_adopted_also_not_a_sibling_applications() -> None:
    """Neither from a cookie nor from a URL, and not if another application of the node has it.

    Tomcat adopts that one where the cookie's path is ``/``. Here it is another session with an id
    of its own, whatever the path: who may read one application's ids gets no other's.
    """
    two = configured(Node(), contexts=("app", "other"))
    two.sessions = Sessions(two.config)
    two.sessions.inbox.wake = two.answer
    one = SessionMiddleware(page, two, context="app")  # type: ignore[arg-type]
    sibling = SessionMiddleware(page, two, context="other")  # type: ignore[arg-type]
    _, cookie, _ = ask(one)
    name, _, session_id = cookie.partition("=")
    _, others, _ = ask(sibling, cookie=cookie)
    assert others.partition("=")[0] == name
    assert others.partition("=")[2] != session_id
    assert two.manager("other").find(session_id) is None
    for made_up in ("A" * 32, "", "x", "A" * 32 + ".n1"):
        _, fresh, environ = ask(one, cookie=f"JSESSIONID={made_up}")
        assert environ[SESSION]["n"] == 1
        assert fresh.partition("=")[2] not in ("", made_up)


def test_t100_the_id_changes_at_a_login_and_the_old_one_is_worth_nothing() -> None:
    node = Node()

    def login(environ: Any, start_response: Any) -> list[bytes]:
        environ[SESSION].rotate_id(grace_s=0)
        environ[SESSION].principal = "ann"
        return page(environ, start_response)

    _, old, _ = ask(SessionMiddleware(page, node))  # type: ignore[arg-type]
    _, new, environ = ask(SessionMiddleware(login, node), cookie=old)  # type: ignore[arg-type]
    assert new not in ("", old)
    assert environ[SESSION]["n"] == 2
    _, third, environ = ask(SessionMiddleware(page, node), cookie=old)  # type: ignore[arg-type]
    assert environ[SESSION]["n"] == 1
    assert environ[SESSION].principal is None
    assert third not in ("", old, new)


# JvmRouteBinderValve. Ids do not change here, the route is in the cookie alone: so what Tomcat
# calls the new id is the same one with another route, and no member needs to be told.


def seen(app: Any, cookie: str) -> tuple[str, Any, Any]:
    """The next cookie or empty, the counter in the session, and the application's old id."""
    _, after, environ = ask(app, cookie=cookie)
    return after, environ[SESSION]["n"], environ.get(ORIGINAL_ID)


def test_t101_a_session_from_another_node_is_bound_to_this_one() -> None:
    """Same session and id; the cookie has this node's route, the application the old value, and
    the counter one more. With the right route, none, or no session nothing is counted.
    """
    node = Node()
    a = SessionMiddleware(page, node, route="a")  # type: ignore[arg-type]
    b = SessionMiddleware(page, node, route="b")  # type: ignore[arg-type]
    _, cookie, _ = ask(a)
    value = cookie.partition("=")[2]
    after, count, told = seen(b, cookie)
    assert (after, count, told) == (cookie.replace(".a", ".b"), 2, value)
    binder = b.binding.pipeline.binder
    assert binder is not None
    assert binder.rebound == 1
    assert seen(b, after) == ("", 3, None)
    assert seen(b, cookie.removesuffix(".a"))[2] is None
    assert binder.rebound == 1
    configured(node, route_binder=RouteBinderConfig(session_id_attribute="was"))
    named = SessionMiddleware(page, node, route="b")  # type: ignore[arg-type]
    assert ask(named, cookie=cookie)[2]["was"] == value
    configured(node, route_binder=RouteBinderConfig(session_id_attribute=""))
    silent = SessionMiddleware(page, node, route="b")  # type: ignore[arg-type]
    assert value not in map(str, ask(silent, cookie=cookie)[2].values())


def test_t102_a_second_request_with_the_old_route_is_bound_too_and_unknown_ids_never() -> None:
    """Parallel requests of a page all have the old cookie; each finds the session."""
    node = Node()
    a = SessionMiddleware(page, node, route="a")  # type: ignore[arg-type]
    b = SessionMiddleware(page, node, route="b")  # type: ignore[arg-type]
    _, cookie, _ = ask(a)
    first, second = seen(b, cookie), seen(b, cookie)
    assert first[0] == second[0] == cookie.replace(".a", ".b")
    assert (first[1], second[1]) == (2, 3)
    binder = b.binding.pipeline.binder
    assert binder is not None
    assert binder.rebound == 2
    fresh, count, told = seen(b, "JSESSIONID=" + "A" * 32 + ".a")
    assert (count, told, binder.rebound) == (1, None, 2)
    assert "A" * 32 not in fresh


def test_t102_binding_can_be_switched_at_run_time() -> None:
    """Off, the session is served all the same and keeps its route, so the client goes back."""
    node = configured(Node(), route_binder=RouteBinderConfig(enabled=False))
    _, cookie, _ = ask(SessionMiddleware(page, node, route="a"))  # type: ignore[arg-type]
    b = SessionMiddleware(page, node, route="b")  # type: ignore[arg-type]
    binder = b.binding.pipeline.binder
    assert binder is not None
    assert seen(b, cookie) == ("", 2, None)
    binder.enabled = True
    assert seen(b, cookie)[0] == cookie.replace(".a", ".b")
    binder.enabled = False
    assert seen(b, cookie) == ("", 4, None)
    assert binder.rebound == 1


@pytest.mark.parametrize("ask_by", [wsgi, asgi])
def test_t102_ids_in_urls_are_bound_and_get_a_cookie_too(ask_by: Any) -> None:
    """Links have the new route; where cookies are used at all, there is one besides."""
    node = Node()
    first = ask_by(node, route="a")
    moved = ask_by(node, f"/shop/;jsessionid={first.id}", route="b")
    assert moved.id == first.id.replace(".a", ".b")
    assert moved.cookie.startswith(f"JSESSIONID={moved.id};")


def test_t102_sessions_of_a_persistent_manager_are_bound_too(tmp_path: Path) -> None:
    config = PersistentConfig(file=FileStoreConfig(directory=str(tmp_path)))
    sessions = LocalSessions("app", config)
    sessions.start()
    try:
        _, cookie, _ = ask(SessionMiddleware(page, sessions, route="a"))
        b = SessionMiddleware(page, sessions, route="b")
        assert seen(b, cookie)[:2] == (cookie.replace(".a", ".b"), 2)
        binder = b.binding.pipeline.binder
        assert binder is not None
        assert binder.rebound == 1
    finally:
        sessions.stop()


# Signed ids.


def signed(node: Node, *keys: str, **settings: Any) -> Any:
    cookie = CookieSettings(signing_keys=keys)
    return SessionMiddleware(page, node, cookie=cookie, **settings)  # type: ignore[arg-type]


def test_an_id_that_nobody_signed_is_as_unknown() -> None:
    """Also the right id without its signature, or with one by another key or for another context;
    and nobody is asked for the session.
    """
    node = Node()
    app = signed(node, KEY, route="a")
    _, cookie, _ = ask(app)
    assert seen(app, cookie)[1] == 2
    value = cookie.partition("=")[2]
    session_id, _, signature = value.removesuffix(".a").partition("~")
    assert len(session_id) == 32
    asked: list[str] = []
    manager = node.manager("app")
    finds = manager.find

    def find(session_id: str, **how: Any) -> Session | None:
        asked.append(session_id)
        return finds(session_id, **how)

    manager.find = find  # type: ignore[method-assign]
    forged = WireIds("app", "a", (OTHER_KEY,)).written(session_id)
    foreign = WireIds("other", "a", (KEY,)).written(session_id)
    longer = session_id + "0~" + signature
    for bad in (
        session_id,
        session_id + ".a",
        f"{session_id}~",
        forged,
        foreign,
        longer,
        "~",
        "é~ü",
    ):
        assert seen(app, f"JSESSIONID={bad}")[1] == 1
    assert session_id not in asked
    assert app.binding.ids.refused >= 8


def test_keys_are_changed_without_ending_sessions() -> None:
    """All keys are accepted; the next answer has the id signed by the first of them."""
    node = Node()
    _, old, _ = ask(signed(node, OTHER_KEY))
    both = signed(node, KEY, OTHER_KEY)
    new, count, _ = seen(both, old)
    assert count == 2
    assert new not in ("", old)
    only_new = signed(node, KEY)
    assert seen(only_new, new)[1] == 3
    assert seen(only_new, old)[1] == 1


def test_signed_ids_in_links() -> None:
    cookie = CookieSettings(signing_keys=(KEY,))
    node = Node()
    links: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        page(environ, start_response)
        links.append(encode_url(environ, LINK))
        return [b""]

    made = SessionMiddleware(app, node, cookie=cookie, tracking="url")  # type: ignore[arg-type]
    ask(made, "/shop/")
    _, _, environ = ask(made, links[0])
    assert environ[SESSION]["n"] == 2
    _, _, environ = ask(made, links[0].partition("~")[0])
    assert environ[SESSION]["n"] == 1


def test_keys_are_long_and_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        signed(Node(), "short")
    assert caught.value.key == "cookie.signing_keys"
    assert "short" not in str(caught.value)
    assert KEY not in repr(CookieSettings(signing_keys=(KEY,)))


def test_an_answer_that_sets_a_cookie_is_not_for_everybody() -> None:
    """``Vary: Cookie``, under WSGI and ASGI; one that sets none does not say so."""
    node = Node()
    app = SessionMiddleware(page, node)  # type: ignore[arg-type]
    heads: list[Any] = []
    environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}
    app(dict(environ), lambda *head: heads.append(head))  # type: ignore[arg-type]
    headers = dict(heads[0][1])
    assert headers["Vary"] == "Cookie"
    cookie = headers["Set-Cookie"].partition(";")[0]
    app(environ | {"HTTP_COOKIE": cookie}, lambda *head: heads.append(head))  # type: ignore[arg-type]
    assert heads[1][1] == []
    first = asgi_ask(node, asgi_count)  # type: ignore[arg-type]
    assert (b"vary", b"Cookie") in first.messages[0]["headers"]
    second = asgi_ask(node, asgi_count, cookie=first.session_cookie)  # type: ignore[arg-type]
    assert second.messages[0]["headers"] == []


# What clients make up.


@pytest.mark.parametrize(
    "sent",
    [
        "JSESSIONID=" + "A" * 100_000,
        "; ".join(f"c{n}=v" for n in range(5_000)),
        "; ".join("JSESSIONID=" + "A" * 32 for _ in range(5_000)),
        "JSESSIONID=x\r\nSet-Cookie: evil=1",
        "JSESSIONID=\0; JSESSIONID",
        "JSESSIONID=\xff\xfe; $Version=1; =; ;;; {}[]<>@,",
        'JSESSIONID="unended',
        "JSESSIONID=../../etc/passwd",
        "JSESSIONID='; drop table sessions; --",
        "JSESSIONID-seen=" + "A" * 16,
        "JSESSIONID-seen=!!!!!!!!!!!!!!!!",
    ],
)
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_odd_cookies_neither_hide_the_sessions_nor_come_back(
    sent: str, keys: tuple[str, ...]
) -> None:
    """Oversized, far too many, binary, with line breaks: a session of one's own is found behind
    them if it is among the first 64 of that name, and nothing of what was sent is in the answer.
    """
    node = Node()
    app = signed(node, *keys)
    status, cookie, _ = ask(app, cookie=sent)
    assert status == "200 OK"
    name, _, value = cookie.partition("=")
    assert name == "JSESSIONID"
    assert set(value) <= set(string.ascii_letters + string.digits + "~_-")
    assert seen(app, f"{cookie}; {sent}")[1] == 2
    assert len(node.manager("app").list_ids()) == 1


@given(st.text(max_size=80))
@example("\ud800~\udcff.a")
def test_no_value_raises_or_passes_for_signed(value: str) -> None:
    """Whatever a cookie or a URL names, also lone surrogates: servers decode what clients send."""
    for ids in (WireIds("app", "a", ()), WireIds("app", "a", (KEY,))):
        session_id, _ = ids.read(value)
        assert len(session_id) <= len(value)
    assert WireIds("app", "a", (KEY,)).read(value)[0] == ""


@pytest.mark.parametrize("ask_by", [wsgi, asgi])
@pytest.mark.parametrize("bad", ["x\r\nSet-Cookie: a=b", "x\0", "%0d%0aSet-Cookie:a=b", "é" * 200])
def test_odd_ids_in_urls_come_back_in_no_header(ask_by: Any, bad: str) -> None:
    if ask_by is wsgi:
        bad = bad.encode().decode("latin-1")
    answer = ask_by(Node(), f"/shop/a;jsessionid={bad}")
    assert answer.path == "/shop/a"
    for text in (answer.link, answer.cookie):
        assert text.isascii()
        assert text.isprintable()
        assert "a=b" not in text


def test_ids_look_random() -> None:
    """4,000 ids: none twice, and every bit is set in about half of them (6 sigma)."""
    manager = Node().manager("app")
    ids = [manager.ids.new() for _ in range(4_000)]
    assert len(set(ids)) == 4_000
    assert {len(each) for each in ids} == {32}
    counted: Counter[int] = Counter()
    for each in ids:
        high, low = struct.unpack(">QQ", bytes.fromhex(each))
        counted.update(bit for bit in range(128) if (high << 64 | low) >> bit & 1)
    assert all(abs(counted[bit] - 2_000) < 190 for bit in range(128))
    assert len(counted) == 128


def test_no_content_of_a_session_is_in_the_log() -> None:
    """Neither values, principals nor ids, whatever goes wrong on the way."""
    node = Node(on_unreplicated="serve")
    node.lose()
    secret = "the-card-number"

    class Odd:
        def __repr__(self) -> str:
            return secret

    def store(environ: Any, start_response: Any) -> list[bytes]:
        session = environ[SESSION]
        session["secret"] = secret
        session["odd"] = Odd()
        session.principal = secret
        start_response("200 OK", [])
        return [b""]

    with capture_logs() as logs:
        app = SessionMiddleware(store, node)  # type: ignore[arg-type]
        _, cookie, environ = ask(app)
        ask(app, cookie=cookie)
        ask(app, cookie=f"JSESSIONID={secret}")
        held: Session | None = environ[SESSION].session
    assert held is not None
    assert logs, "what is not stored, and not replicated, is told"
    text = repr(logs)
    assert secret not in text
    assert held.id not in text
    assert secret not in repr(held)
