"""Identity on the wire and the valves, under each adapter alike."""

from __future__ import annotations

import string
from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
import msgspec
import pytest
from structlog.testing import capture_logs

from tests.web.adapters import ADAPTERS, Asgi, Django, Flask, Wsgi, attributes
from tests.web.nodes import Node
from tests.web.test_valve import ask, page, with_replication
from tests.web.test_wire_identity import KEY, OTHER_KEY, configured
from tribes.config.cookies import CookieConfig
from tribes.config.managers import ContextConfig
from tribes.config.valves import ORIGINAL_ID, PRIMARY_INDICATOR, RouteBinderConfig
from tribes.errors import StoreError
from tribes.runtime.parts import Sessions
from tribes.web.cookies import CookieSettings
from tribes.web.wsgi import SessionMiddleware

each = pytest.mark.parametrize("under", ADAPTERS)


@each
@pytest.mark.parametrize(
    ("context", "application", "header"),
    [
        ({}, {}, "JSESSIONID=; Path=/; HttpOnly; SameSite=Lax"),
        ({"name": "SHOP"}, {}, "SHOP=; Path=/; HttpOnly; SameSite=Lax"),
        ({"name": "SHOP"}, {"name": "SID"}, "SHOP=; Path=/; HttpOnly; SameSite=Lax"),
        ({}, {"name": "SID", "path": "/a"}, "SID=; Path=/a; HttpOnly; SameSite=Lax"),
        (
            {"path": "/shop", "path_uses_trailing_slash": True},
            {},
            "JSESSIONID=; Path=/shop/; HttpOnly; SameSite=Lax",
        ),
        ({"domain": "c.test"}, {}, "JSESSIONID=; Path=/; Domain=c.test; HttpOnly; SameSite=Lax"),
        ({}, {"domain": "a.test"}, "JSESSIONID=; Path=/; Domain=a.test; HttpOnly; SameSite=Lax"),
        ({"secure": True}, {}, "JSESSIONID=; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({}, {"secure": True}, "JSESSIONID=; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"http_only": False}, {}, "JSESSIONID=; Path=/; SameSite=Lax"),
        ({}, {"http_only": False}, "JSESSIONID=; Path=/; SameSite=Lax"),
        ({"same_site": "strict"}, {}, "JSESSIONID=; Path=/; HttpOnly; SameSite=Strict"),
        ({"same_site": "none"}, {}, "JSESSIONID=; Path=/; Secure; HttpOnly; SameSite=None"),
        (
            {"partitioned": True},
            {},
            "JSESSIONID=; Path=/; Secure; HttpOnly; SameSite=Lax; Partitioned",
        ),
        ({"max_age_s": 60}, {}, "JSESSIONID=; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"),
    ],
)
def test_t98_the_context_is_over_the_application_and_that_over_the_default(
    under: Any, context: dict[str, Any], application: dict[str, Any], header: str
) -> None:
    """Each attribute of the cookie; and the cookie of that name is the one that is read."""
    own = ContextConfig(cookie=CookieConfig(**context))
    node = configured(Node(), context={"app": own})
    settings = {"cookie": CookieSettings(**application)} if application else {}
    app = under(node, **settings)
    answer = app.ask()
    [given] = answer.all("set-cookie")
    said, wanted = attributes(given), attributes(header)
    name = header.partition("=")[0]
    session_id = said.pop(name.lower())
    wanted.pop(name.lower())
    assert given.startswith(f"{name}={session_id};")
    assert len(session_id) == 32
    assert said == wanted
    assert app.ask(cookie=f"{name}={session_id}").session["n"] == 2
    assert "Cookie" in answer.all("vary")


@each
def test_t99_of_several_cookies_the_one_that_names_a_session_counts(under: Any) -> None:
    """Wherever it stands: a browser sends one for each path and domain."""
    app = under(Node())
    cookie = app.ask().cookie
    stale = "JSESSIONID=" + "A" * 32
    for count, sent in enumerate((f"{stale}; {cookie}", f"{cookie}; {stale}"), 2):
        answer = app.ask(cookie=sent)
        assert answer.session["n"] == count


@each
def test_t100_no_offered_id_is_adopted(under: Any) -> None:
    for made_up in ("A" * 32, "", "x", "A" * 32 + ".n1"):
        answer = under(Node()).ask(cookie=f"JSESSIONID={made_up}")
        assert answer.session["n"] == 1
        assert answer.cookie.partition("=")[2] not in ("", made_up)


@each
def test_t101_a_session_from_another_node_is_bound_to_this_one(under: Any) -> None:
    """Its id stays; the cookie has this node's route, the application what the client sent."""
    node = Node()
    a, b = under(node, route="a"), under(node, route="b")
    cookie = a.ask().cookie
    assert cookie.endswith(".a")
    answer = b.ask(cookie=cookie)
    assert answer.cookie == cookie.removesuffix(".a") + ".b"
    assert answer.session["n"] == 2
    assert b.seen[ORIGINAL_ID] == cookie.partition("=")[2]
    assert b.middleware.binding.pipeline.binder.rebound == 1
    assert ORIGINAL_ID not in (b.ask(cookie=answer.cookie), b.seen)[1]
    assert b.middleware.binding.pipeline.binder.rebound == 1


@each
def test_t102_binding_can_be_off(under: Any) -> None:
    """The session is served with the count that it has, and nothing is told."""
    node = configured(Node(), route_binder=RouteBinderConfig(enabled=False))
    cookie = under(node, route="a").ask().cookie
    b = under(node, route="b")
    answer = b.ask(cookie=cookie)
    assert answer.session["n"] == 2
    assert ORIGINAL_ID not in b.seen
    assert b.middleware.binding.pipeline.binder.rebound == 0
    assert answer.cookie in ("", cookie), "the client goes back when its node does"


def test_t102_binding_can_be_off_where_the_cookie_is_sent_again() -> None:
    """Flask sends the cookie of a permanent session with every answer."""
    node = configured(Node(), route_binder=RouteBinderConfig(enabled=False))
    cookie = Flask(node, route="a").ask().cookie
    b = Flask(node, route="b")

    @b.app.before_request
    def keep() -> None:
        flask.session.permanent = True

    assert b.ask(cookie=cookie).cookie == cookie


@each
def test_t105_t108_what_the_filter_matches_waits_for_nobody_and_all_is_counted(under: Any) -> None:
    """A request is refused whose change nobody has, but not one that is filtered."""
    node = Node(on_unreplicated="error")
    node.config = with_replication(node.config, filter=r".*\.gif")
    app = under(node)
    node.lose()
    assert app.ask("/shop/a.html").status == 503
    assert app.ask("/shop/ä.gif").status == 200
    valve = app.middleware.binding.pipeline.replication
    counted = valve.statistics
    assert (counted.requests, counted.filtered) == (2, 1)
    assert counted.sent >= 1
    assert 0 <= counted.last_send_s <= counted.request_s < 10
    valve.reset()
    assert valve.statistics.requests == 0


@each
def test_t106_the_application_is_told_whether_the_session_is_first_here(under: Any) -> None:
    node = Node()
    node.config = with_replication(node.config, primary_indicator=True)
    app = under(node)
    cookie = app.ask().cookie
    assert PRIMARY_INDICATOR not in app.seen, "there was none yet"
    app.ask(cookie=cookie)
    assert app.seen[PRIMARY_INDICATOR] is True


@pytest.mark.parametrize("under", [Wsgi, Flask, Django])
def test_t107_each_application_that_answers_a_request_commits_its_own_session(under: Any) -> None:
    """A WSGI application that asks another in the same process; both sessions are stored."""
    both = configured(Node(), contexts=("app", "other"))
    both.sessions = Sessions(both.config)
    both.sessions.inbox.wake = both.answer

    class Half:
        """The node, for the included application, whose only context is the other one."""

        def __init__(self) -> None:
            self.config = msgspec.structs.replace(both.config, contexts=("other",))

        def __getattr__(self, name: str) -> Any:
            return getattr(both, name)

    included = under(Half(), **({} if under is Django else {"cookie": CookieSettings(name="IN")}))
    inner = included.application

    def outer(environ: Any, start_response: Any) -> list[bytes]:
        within = dict(environ)
        setup_testing_defaults(within)
        body = inner(within, lambda *_: None)
        b"".join(body)
        return page(environ, start_response)

    app = SessionMiddleware(outer, both, context="app")  # type: ignore[arg-type]
    _, cookie, _ = ask(app)
    assert cookie
    assert [len(both.manager(name).list_ids()) for name in ("app", "other")] == [1, 1]


@each
def test_an_id_that_nobody_signed_is_as_unknown(under: Any) -> None:
    node = Node()
    app = under(node, cookie=CookieSettings(signing_keys=(KEY,)))
    cookie = app.ask().cookie
    assert app.ask(cookie=cookie).session["n"] == 2
    plain = cookie.partition("~")[0]
    assert app.ask(cookie=plain).session["n"] == 1
    other = under(node, cookie=CookieSettings(signing_keys=(OTHER_KEY,)))
    assert other.ask(cookie=cookie).session["n"] == 1


@each
@pytest.mark.parametrize(
    "sent",
    [
        "JSESSIONID=" + "A" * 100_000,
        "; ".join(f"c{n}=v" for n in range(5_000)),
        "; ".join("JSESSIONID=" + "A" * 32 for _ in range(500)),
        "JSESSIONID=x\r\nSet-Cookie: evil=1",
        "JSESSIONID=\0; JSESSIONID",
        "JSESSIONID=\xff\xfe; $Version=1; =; ;;; {}[]<>@,",
        'JSESSIONID="unended',
        "JSESSIONID-seen=!!!!!!!!!!!!!!!!",
    ],
)
def test_odd_cookies_neither_hide_the_sessions_nor_come_back(under: Any, sent: str) -> None:
    """Oversized, many, binary, with line breaks."""
    app = under(Node())
    answer = app.ask(cookie=sent)
    assert answer.status == 200
    assert set(answer.cookie.removeprefix("JSESSIONID=")) <= set(string.hexdigits)
    for _, value in answer.headers:
        assert value.isprintable()
        assert "evil" not in value
    assert app.ask(cookie=f"{answer.cookie}; {sent}").session["n"] == 2


@each
def test_no_content_of_a_session_is_in_the_log(under: Any) -> None:
    """What could not be replicated is told without value, id or cookie."""
    node = Node(on_unreplicated="serve")
    node.lose()
    app = under(node)
    with capture_logs() as logs:
        answer = app.ask(cookie="JSESSIONID=the-card-number")
    assert logs
    assert "the-card-number" not in repr(logs)
    assert answer.session.id not in repr(logs)


@each
def test_ready_is_answered_where_the_setting_says_and_by_no_view(under: Any) -> None:
    node: Any = Node()
    node.is_ready = True
    app = under(node, ready_path="/ready")
    assert [app.ask("/ready").status, app.ask("/").status] == [200, 200]
    node.is_ready = False
    answer = app.ask("/ready")
    assert (answer.status, answer.session) == (503, None)
    assert answer.all("cache-control") == ["no-store"]
    assert answer.all("set-cookie") == []
    assert under(node).ask("/ready").status == 200, "the application's own"


class _Joining(Node):
    """Was not started, and has not the others' sessions as long as the test lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.is_running = self.was_started = self.is_ready = False

    def start(self) -> None:
        self.is_running = self.was_started = True

    def wait_joined(self, timeout: float | None = None) -> bool:
        raise AssertionError("the balancer waits for an answer")

    async def await_joined(self, timeout: float | None = None) -> bool:
        raise AssertionError("the balancer waits for an answer")


@each
def test_ready_is_answered_at_once_by_a_node_that_joins(under: Any) -> None:
    """The balancer's question is the first request of a process: it starts the node, no more."""
    node = _Joining()
    app = under(node, ready_path="/ready")
    assert app.ask("/ready").status == 503
    assert node.is_running
    node.is_ready = True
    assert app.ask("/ready").status == 200


@pytest.mark.parametrize("under", [Wsgi, Asgi, Flask, Django])
def test_a_session_that_cannot_be_looked_up_is_a_503_and_no_new_session(under: Any) -> None:
    """Nobody knows whether there is one, so no view is asked as if there were none."""
    node = Node()
    app = under(node)
    cookie = app.ask().cookie

    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("does not answer")

    node.manager("app").find = fail  # type: ignore[method-assign]
    answer = app.ask(cookie=cookie)
    assert (answer.status, answer.session) == (503, None)
    assert answer.all("retry-after") == ["1"]
    assert answer.all("set-cookie") == []
