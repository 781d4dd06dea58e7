"""What Tomcat's ReplicationValve does, and which valves there are (tomcat-sessions §2, §8)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tests.web.nodes import Node, make_node
from tribes.config.managers import ContextConfig, StandardConfig
from tribes.config.model import NodeConfig
from tribes.config.valves import PRIMARY_INDICATOR, ReplicationConfig
from tribes.runtime.background import BackgroundNode
from tribes.web import valve as valve_module
from tribes.web.cookies import CookieSettings
from tribes.web.valve import ReplicationValve
from tribes.web.wsgi import SESSION, SessionMiddleware


def ask(app: Any, path: str = "/", cookie: str = "", script: str = "") -> tuple[str, str, Any]:
    """Status, cookie and environ of one request."""
    environ: dict[str, Any] = {
        "SCRIPT_NAME": script,
        "PATH_INFO": path,
        "REQUEST_METHOD": "GET",
        "HTTP_COOKIE": cookie,
        "wsgi.url_scheme": "http",
    }
    heads: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
        heads.append((status, headers))
        return lambda _: None

    b"".join(app(environ, start))
    status, headers = heads[-1]
    cookies = [value.partition(";")[0] for name, value in headers if name == "Set-Cookie"]
    return status, "; ".join(cookies), environ


def page(environ: Any, start_response: Any) -> list[bytes]:
    environ[SESSION]["n"] = environ[SESSION].get("n", 0) + 1
    start_response("200 OK", [])
    return [b""]


def streamed(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    environ[SESSION]["n"] = 1
    yield b"a"
    environ[SESSION]["n"] = 2
    yield b"b"


def with_replication(config: NodeConfig, **settings: Any) -> NodeConfig:
    return msgspec.structs.replace(config, replication=ReplicationConfig(**settings))


PICTURES = r".*\.gif|.*\.js"


@pytest.mark.parametrize(
    ("pattern", "path", "is_filtered"),
    [
        ("", "/", False),
        ("", "/x.gif", False),
        ("/", "/", True),
        ("/", "/shop", False),
        (PICTURES, "/shop/a.gif", True),
        (PICTURES, "/shop/a.gif/more", False),
        (PICTURES, "/a.html", False),
        (r"/shop/ä b\.gif", "/shop/ä b.gif", True),
        ("/a.gif", "/shop/a.gif", False),
    ],
)
def test_t105_the_filter_matches_the_whole_decoded_path(
    pattern: str, path: str, is_filtered: bool
) -> None:
    """With the context's path; the guides' ``/`` matches the root alone, an empty one nothing."""
    assert ReplicationValve(ReplicationConfig(filter=pattern)).is_filtered(path) is is_filtered


def test_t105_a_filter_that_is_no_expression_leaves_the_one_before() -> None:
    valve = ReplicationValve(ReplicationConfig(filter=PICTURES))
    with capture_logs() as logs:
        valve.pattern = "("
    assert valve.pattern == PICTURES
    assert [each["log_level"] for each in logs] == ["error"]
    valve.pattern = ""
    assert not valve.is_filtered("/a.gif")


def test_t105_nobody_waits_for_what_a_filtered_request_changed() -> None:
    """It is committed all the same, and the next request finds it; the path is decoded."""
    node = Node(on_unreplicated="error")
    node.config = with_replication(node.config, filter=r"/shöp/.*\.gif")
    node.lose()
    app = SessionMiddleware(page, node)  # type: ignore[arg-type]
    path = b"/a.gif".decode("latin-1")
    script = "/shöp".encode().decode("latin-1")
    status, cookie, _ = ask(app, path, script=script)
    assert status == "200 OK"
    assert ask(app, "/a.html", cookie)[0].startswith("503")
    node.acked, node.missing = ("n2",), {}
    _, _, environ = ask(app, "/a.html", cookie)
    assert environ[SESSION]["n"] == 3


def test_t32_what_a_filtered_request_changed_is_there_when_the_next_one_is_answered() -> None:
    """Nobody waits for it; the next request that is not filtered waits for both, and then the other
    member has both. Tomcat keeps it back until then; here it goes out at once.
    """
    port = free_udp_port()
    a, b = (
        BackgroundNode(with_replication(make_node(name, port).config, filter=PICTURES))
        for name in ("a", "b")
    )
    for node in (a, b):
        node.start()
    try:
        wait_until(lambda: a.manager("app").copies_on and b.manager("app").copies_on)
        app = SessionMiddleware(page, a)
        _, cookie, _ = ask(app)
        session_id = cookie.partition(";")[0].partition("=")[2]
        for filtered in range(20):
            ask(app, "/a.gif", cookie)
            _, _, environ = ask(app, "/a.html", cookie)
            there = b.manager("app").find(session_id)
            assert there is not None
            assert there["n"] == environ[SESSION]["n"] == 3 + 2 * filtered
        ask(app, "/a.gif", cookie)
        wait_until(lambda: b.manager("app").find(session_id)["n"] == 42)  # type: ignore[index]
    finally:
        for node in (a, b):
            node.stop()


def test_t106_the_application_is_told_whether_this_member_is_the_sessions_first() -> None:
    """True on one of the members and false on the other, before the request; nothing without."""
    port = free_udp_port()
    nodes = [
        BackgroundNode(with_replication(make_node(name, port).config, primary_indicator=True))
        for name in ("a", "b")
    ]
    for node in nodes:
        node.start()
    try:
        wait_until(lambda: all(node.manager("app").copies_on for node in nodes))
        first, second = (SessionMiddleware(page, node) for node in nodes)
        for _ in range(8):
            _, cookie, environ = ask(first)
            assert PRIMARY_INDICATOR not in environ, "there was no session"
            told = [ask(app, "/", cookie)[2][PRIMARY_INDICATOR] for app in (first, second)]
            assert sorted(told) == [False, True]
    finally:
        for node in nodes:
            node.stop()
    plain = SessionMiddleware(page, Node())  # type: ignore[arg-type]
    _, cookie, _ = ask(plain)
    assert PRIMARY_INDICATOR not in ask(plain, "/", cookie)[2]


def test_t107_an_application_that_includes_another_commits_both_sessions() -> None:
    """Each by its own manager, and both are on the other member."""
    port = free_udp_port()
    config = [
        msgspec.structs.replace(make_node(name, port).config, contexts=("app1", "app2"))
        for name in ("a", "b")
    ]
    a, b = map(BackgroundNode, config)
    inner = SessionMiddleware(page, a, context="app2", cookie=CookieSettings(name="INNER"))

    def includes(environ: Any, start_response: Any) -> list[bytes]:
        mine = environ[SESSION]
        mine["included"] = True
        heads: list[Any] = []
        b"".join(inner(dict(environ), lambda *head: heads.append(head)))  # type: ignore[arg-type]
        start_response("200 OK", [each for each in heads[-1][1] if each[0] == "Set-Cookie"])
        return [b""]

    outer = SessionMiddleware(includes, a, context="app1")
    for node in (a, b):
        node.start()
    try:
        wait_until(lambda: all(n.manager(c).copies_on for n in (a, b) for c in ("app1", "app2")))
        _, cookie, _ = ask(outer)
        ids = dict(each.split("=") for each in cookie.split("; "))
        found = b.manager("app1").find(ids["JSESSIONID"]), b.manager("app2").find(ids["INNER"])
        assert found[0] is not None
        assert found[0]["included"]
        assert found[1] is not None
        assert found[1]["n"] == 1
        counted = [app.binding.pipeline.replication.statistics for app in (outer, inner)]  # type: ignore[union-attr]
        assert [each.cross_context_sent for each in counted] == [0, counted[1].sent]
        assert counted[1].sent > 0
    finally:
        for node in (a, b):
            node.stop()


def test_t108_requests_are_counted_and_the_counters_can_be_reset() -> None:
    """A scripted run, compared exactly."""
    node = Node()
    node.config = with_replication(node.config, filter=PICTURES)
    app = SessionMiddleware(page, node)  # type: ignore[arg-type]
    valve = app.binding.pipeline.replication
    assert valve is not None
    _, cookie, _ = ask(app)
    for path in ("/", "/a.gif", "/b.js"):
        ask(app, path, cookie)
    counted = valve.statistics
    assert (counted.requests, counted.filtered) == (4, 2)
    assert counted.cross_context_sent == 0
    included = dict(ask(app, "/", cookie)[2])
    b"".join(app(included, lambda *_: print))  # as another application's request
    assert counted.cross_context_sent == counted.requests - 5 == 1
    assert counted.sent >= 4
    assert 0 < counted.last_send_s <= counted.send_s <= counted.request_s
    valve.reset()
    assert valve.statistics.requests == valve.statistics.sent == valve.statistics.send_s == 0


def test_a_request_that_commits_twice_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its head and at its end: from finding the session to the last of the two."""
    node = Node()
    app = SessionMiddleware(streamed, node)  # type: ignore[arg-type]
    counted = app.binding.pipeline.replication
    assert counted is not None
    ticks = itertools.count(1)
    monkeypatch.setattr(valve_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    body = app({"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}, lambda *_: print)
    assert list(body) == [b"a", b"b"]
    body.close()  # type: ignore[attr-defined]
    assert counted.statistics.sent == 2
    assert counted.statistics.request_s == 2


def test_t07_valves_are_added_only_where_none_is_configured() -> None:
    """The default ones; with one of one's own that one alone, and it does what it says."""
    node = Node()
    app = SessionMiddleware(page, node, route="n1")  # type: ignore[arg-type]
    assert app.binding.pipeline.names == ("JvmRouteBinderValve", "ReplicationValve")
    _, cookie, _ = ask(app)
    foreign = cookie.replace(".n1", ".n9")
    assert ask(app, "/", foreign)[1] == cookie, "bound to this node again"
    node.config = msgspec.structs.replace(node.config, valves=("ReplicationValve",))
    app = SessionMiddleware(page, node, route="n1")  # type: ignore[arg-type]
    assert app.binding.pipeline.names == ("ReplicationValve",)
    assert ask(app, "/", foreign)[1] == "", "nothing binds it"
    node.config = msgspec.structs.replace(node.config, valves=("JvmRouteBinderValve",))
    app = SessionMiddleware(page, node, route="n1")  # type: ignore[arg-type]
    assert app.binding.pipeline.replication is None
    assert ask(app, "/", foreign)[1] == cookie


def test_sessions_in_no_group_have_no_such_valve() -> None:
    node = BackgroundNode(NodeConfig(context={"app": ContextConfig(manager=StandardConfig())}))
    assert SessionMiddleware(page, node).binding.pipeline.replication is None
