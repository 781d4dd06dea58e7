"""``flask.session`` kept by Tribes: what Flask's own gives, and what only ours can."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import flask
import pytest
import structlog
from markupsafe import Markup

from tests.web.nodes import Node, node_without_its_key
from tribes.errors import ConfigError, SessionError, StoreError
from tribes.web.cookies import CookieSettings
from tribes.web.flask import TribesSessions

Views = dict[str, Callable[..., Any]]


def make(views: Views, node: Any = None, *, own: bool = False, **settings: Any) -> Any:
    """An application with one view per path; with ``own`` it keeps Flask's cookie sessions."""
    app = flask.Flask(__name__)
    app.testing = True
    app.secret_key = "of Flask's own sessions"
    if not own:
        app.session_interface = TribesSessions(node or Node(), **settings)  # type: ignore[arg-type]
    for path, view in views.items():
        app.add_url_rule(f"/{path}", path, view)
    return app


def count() -> str:
    flask.session["count"] = flask.session.get("count", 0) + 1
    return str(flask.session["count"])


def look() -> str:
    return repr(dict(flask.session))


def cookie_of(response: Any) -> str:
    [header] = response.headers.getlist("Set-Cookie")
    text: str = header.partition(";")[0].partition("=")[2]
    return text


def test_session_lives_from_request_to_request() -> None:
    """One cookie, sent once; a client without it has nothing, and looking makes nothing."""
    node = Node()
    app = make({"count": count, "look": look}, node)
    client = app.test_client()
    assert client.get("/look").headers.getlist("Set-Cookie") == []
    assert len(node.manager("app").table) == 0
    [header] = client.get("/count").headers.getlist("Set-Cookie")
    assert header.startswith("session=")
    assert header.endswith("; Path=/; HttpOnly; SameSite=Lax")
    again = client.get("/count")
    assert (again.text, again.headers.getlist("Set-Cookie")) == ("2", [])
    assert app.test_client().get("/look").text == "{}"


@pytest.mark.parametrize("own", [False, True])
def test_vary_new_modified_and_accessed_are_as_flasks(own: bool) -> None:
    """The same views under Flask's own interface say the same."""
    said: list[Any] = []

    def untouched() -> str:
        return ""

    def read() -> str:
        said.append(flask.session.get("x"))
        said.append(flask.session.modified)
        return ""

    def write() -> str:
        flask.session["x"] = 1
        said.append((flask.session.modified, flask.session.accessed))
        return ""

    views: Views = {"untouched": untouched, "read": read, "write": write}
    client = make(views, own=own).test_client()
    varies = [client.get(f"/{name}").headers.get("Vary") for name in views]
    assert varies == [None, "Cookie", "Cookie"]
    client.get("/read")
    assert said == [None, False, (True, True), 1, False]


def test_new_says_whether_the_client_has_the_id() -> None:
    """True in the first request, and in each of a client that keeps no cookies."""
    said: list[bool] = []

    def view() -> str:
        flask.session["x"] = 1
        said.append(flask.session.new)
        return ""

    app = make({"view": view})
    client = app.test_client()
    client.get("/view")
    client.get("/view")
    app.test_client(use_cookies=False).get("/view")
    assert said == [True, False, True]


@pytest.mark.parametrize("own", [False, True])
def test_flashed_messages_are_shown_once(own: bool) -> None:
    """With their categories, over a redirect, also markup, which stays markup."""

    def say() -> Any:
        flask.flash("saved", "info")
        flask.flash(Markup("<b>bold</b>"))
        return flask.redirect("/show")

    def show() -> str:
        return repr(flask.get_flashed_messages(with_categories=True))

    client = make({"say": say, "show": show}, own=own).test_client()
    assert client.get("/say", follow_redirects=True).text == (
        "[('info', 'saved'), ('message', Markup('<b>bold</b>'))]"
    )
    assert client.get("/show").text == "[]"


@pytest.mark.parametrize(
    "value",
    [
        (1, ("two", [3])),
        b"\x00\xff",
        Markup("<i>"),
        UUID(int=7),
        datetime(2024, 2, 29, 12, 30, 15, 123_456, tzinfo=UTC),
        {"nested": [Markup("x"), (b"y", UUID(int=1))]},
    ],
)
def test_types_of_flasks_serializer_come_back(value: Any) -> None:
    """Each with its type, and times with their microseconds, which Flask's own loses."""
    found: list[Any] = []

    def write() -> str:
        flask.session["value"] = value
        return ""

    def read() -> str:
        found.append(flask.session["value"])
        return ""

    client = make({"write": write, "read": read}).test_client()
    client.get("/write")
    client.get("/read")
    assert [repr(each) for each in found] == [repr(value)]


def test_what_cannot_be_stored_is_named_with_its_remedy() -> None:
    """Attribute, type, and the line to write; with it, it works."""

    class Basket:
        def __init__(self, size: int) -> None:
            self.size = size

    def write() -> str:
        flask.session["basket"] = Basket(3)
        flask.session["good"] = 1
        return ""

    node = Node()
    client = make({"write": write, "look": look}, node).test_client()
    with structlog.testing.capture_logs() as lines:
        client.get("/write")
    [line] = [line for line in lines if line["event"] == "session attribute not stored"]
    assert line["attribute"] == "basket"
    assert "Basket, which has no codec" in line["error"]
    assert "codec.register(Basket, encode=..., decode=...)" in line["error"]
    assert client.get("/look").text == "{'good': 1}"
    node.manager("app").codec.register(Basket, encode=lambda basket: basket.size, decode=Basket)
    client.get("/write")
    assert "Basket object" in client.get("/look").text


def test_changes_in_place_need_no_modified() -> None:
    """Unlike under Flask's own interface."""

    def add() -> str:
        flask.session.setdefault("cart", []).append("book")
        return ""

    client = make({"add": add, "look": look}).test_client()
    client.get("/add")
    client.get("/add")
    assert client.get("/look").text == "{'cart': ['book', 'book']}"


def test_permanent_sessions_outlive_the_browser() -> None:
    """Cookie and session live as long as the configuration says, and end as others do after."""
    node = Node()

    def keep(value: str) -> str:
        if value != "look":
            flask.session.permanent = value == "yes"
        return str(flask.session.permanent)

    app = make({"<value>": keep}, node)
    app.permanent_session_lifetime = timedelta(hours=2)
    client = app.test_client()

    def session() -> Any:
        return node.manager("app").find(client.get_cookie("session").value)

    client.get("/no")
    assert session().max_inactive == 1800
    assert "; Max-Age=7200; " in client.get("/yes").headers["Set-Cookie"]
    assert session().max_inactive == 7200
    refreshed = client.get("/look")
    assert refreshed.text == "True"
    assert "; Max-Age=7200; " in refreshed.headers["Set-Cookie"]
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    assert "Set-Cookie" not in client.get("/look").headers
    client.get("/no")
    assert session().max_inactive == 1800


def test_cookie_is_written_as_flasks_settings_or_ours_say() -> None:
    """``cookie=`` wins; ``Secure`` comes by itself over TLS."""
    app = make({"count": count})
    app.config.update(
        SESSION_COOKIE_NAME="sid",
        SESSION_COOKIE_PATH="/",
        SESSION_COOKIE_DOMAIN="shop.test",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_PARTITIONED=True,
        SESSION_COOKIE_HTTPONLY=False,
    )
    header = app.test_client().get("/count").headers["Set-Cookie"]
    assert header.startswith("sid=")
    assert header.endswith("; Path=/; Domain=shop.test; Secure; SameSite=Strict; Partitioned")
    app = make({"count": count}, cookie=CookieSettings(path="/shop"), route="n1")
    header = app.test_client().get("/count", base_url="https://h").headers["Set-Cookie"]
    assert header.startswith("JSESSIONID=")
    assert ".n1; Path=/shop; Secure; HttpOnly" in header


def test_clear_logs_out_and_at_a_login_changes_the_id() -> None:
    """An id known before ``clear`` is worth nothing after it; what is set then has a new one."""

    def login() -> str:
        flask.session.clear()
        flask.session["user"] = "eve"
        return ""

    def logout() -> str:
        flask.session.clear()
        return ""

    node = Node()
    client = make({"count": count, "login": login, "logout": logout, "look": look}, node)
    client = client.test_client()
    old = cookie_of(client.get("/count"))
    new = cookie_of(client.get("/login"))
    assert new != old
    assert node.manager("app").find(old) is None
    assert client.get("/look").text == "{'user': 'eve'}"
    assert "Max-Age=0" in client.get("/logout").headers["Set-Cookie"]
    assert node.manager("app").find(new) is None
    assert "Set-Cookie" not in client.get("/logout").headers


def test_invalidate_and_rotate_are_there_too() -> None:
    """What Flask has no name for."""

    def rotate() -> str:
        flask.session.rotate_id(grace_s=0)  # type: ignore[attr-defined]
        flask.session.max_inactive = 60  # type: ignore[attr-defined]
        return ""

    def end() -> str:
        flask.session.invalidate()  # type: ignore[attr-defined]
        return ""

    node = Node()
    client = make({"count": count, "rotate": rotate, "end": end}, node).test_client()
    old = cookie_of(client.get("/count"))
    new = cookie_of(client.get("/rotate"))
    assert new != old
    assert node.manager("app").find(new).max_inactive == 60  # type: ignore[union-attr]
    assert "Max-Age=0" in client.get("/end").headers["Set-Cookie"]


def test_session_of_a_test_can_be_prepared() -> None:
    """Flask's ``session_transaction`` works as its documentation shows."""
    client = make({"count": count}).test_client()
    with client.session_transaction() as session:
        session["count"] = 41
    assert client.get("/count").text == "42"


def test_changes_after_the_view_are_committed() -> None:
    """By a streamed body and by a teardown function; what begins too late says so."""
    begin = False

    def stream() -> Any:
        if not begin:
            flask.session["by"] = "view"

        def body() -> Any:
            yield "one"
            flask.session["by"] = "body"

        return flask.Response(flask.stream_with_context(body()))

    def note(_: Any) -> None:
        if flask.request.path == "/count":
            flask.session["torn"] = "down"

    app = make({"stream": stream, "count": count, "look": look})
    app.teardown_request(note)
    client = app.test_client()
    with client.get("/stream") as response:
        assert response.text == "one"
    assert client.get("/look").text == "{'by': 'body'}"
    client.get("/count").close()
    assert client.get("/look").text == "{'by': 'body', 'count': 1, 'torn': 'down'}"
    begin = True
    with pytest.raises(SessionError, match="after the response head"):
        _ = app.test_client().get("/stream").text


def test_late_change_is_served_and_counted() -> None:
    """Too late for 503: the body has been sent."""
    node = Node(on_unreplicated="error")

    def stream() -> Any:
        flask.session["part"] = 0

        def body() -> Any:
            yield "one"
            flask.session["part"] = 1
            node.lose()

        return flask.Response(flask.stream_with_context(body()))

    client = make({"stream": stream, "look": look}, node).test_client()
    with client.get("/stream") as response:
        assert (response.status_code, response.text) == (200, "one")
    assert node.counters == (1, 1, 0)
    assert client.get("/look").text == "{'part': 1}"


def test_stream_commits_when_it_says_so() -> None:
    """And sees then what other requests did meanwhile."""
    node = Node()
    seen: list[Any] = []

    def stream() -> Any:
        flask.session["part"] = 0

        def body() -> Any:
            yield "one"
            flask.session["part"] = 1
            flask.session.commit()  # type: ignore[attr-defined]
            yield "two"
            flask.session.commit()  # type: ignore[attr-defined]
            seen.append(flask.session.get("count"))

        return flask.Response(flask.stream_with_context(body()))

    app = make({"stream": stream, "count": count, "look": look}, node)
    with app.test_client().get("/stream", buffered=False) as response:
        parts = iter(response.response)
        assert next(parts) == b"one"
        headers = {"Cookie": f"session={cookie_of(response)}"}
        others = app.test_client(use_cookies=False)
        assert others.get("/look", headers=headers).text == "{'part': 0}"
        assert next(parts) == b"two"
        assert others.get("/look", headers=headers).text == "{'part': 1}"
        others.get("/count", headers=headers)
        assert list(parts) == []
    assert seen == [1]


def test_failing_view_keeps_its_changes() -> None:
    """Its 500 is an answer like another, with the cookie."""

    def broken() -> str:
        flask.session["seen"] = 1
        raise RuntimeError("mine")

    app = make({"broken": broken, "look": look})
    app.testing = False
    client = app.test_client()
    response = client.get("/broken")
    assert response.status_code == 500
    assert cookie_of(response)
    assert client.get("/look").text == "{'seen': 1}"


def test_refused_commit_is_answered_by_503() -> None:
    """Nothing of the view's answer is left, its body is closed, a second try finds the session."""
    node = Node(on_unreplicated="error")
    node.lose()
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Any:
            yield b"mine"

        def close(self) -> None:
            closed.append(True)

    def view() -> Any:
        count()
        return flask.Response(Body(), headers={"X-Mine": "1"}, direct_passthrough=True)

    client = make({"view": view, "look": look}, node).test_client()
    with client.get("/view") as response:
        assert response.status == "503 Service Unavailable"
        assert b"try again" in response.data
        assert int(response.headers["Content-Length"]) == len(response.data)
    assert "X-Mine" not in response.headers
    assert closed == [True]
    node.acked, node.missing = ("n2",), {}
    assert client.get("/look").text == "{'count': 1}"
    assert client.head("/view").status_code == 200


def test_a_session_that_cannot_be_looked_up_is_answered_by_503() -> None:
    """A store that does not answer: a 500 would say that the application is broken, and a session
    that is begun in place of the one nobody found would log the user out.
    """
    node = Node()

    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("does not answer")

    app = make({"count": count}, node)
    client = app.test_client()
    client.get("/count")
    node.manager("app").find = fail  # type: ignore[method-assign]
    answer = client.get("/count")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers.getlist("Set-Cookie") == []


def test_a_session_that_cannot_be_looked_up_is_nobody_elses_to_answer() -> None:
    """Also where the application asks for the login before each view: it would send the user to
    log in again, because the session that nobody found seems to be empty.
    """
    node = Node()

    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("does not answer")

    app = make({"count": count}, node)

    def log_in() -> Any:
        return None if "count" in flask.session else flask.redirect("/login")

    def sorry(_: Any) -> Any:
        return "sorry", 503

    app.before_request(log_in)
    app.register_error_handler(503, sorry)

    client = app.test_client()
    with client.session_transaction() as session:
        session["count"] = 1
    assert client.get("/count").text == "2"
    node.manager("app").find = fail  # type: ignore[method-assign]
    answer = client.get("/count")
    assert answer.status_code == 503
    assert "try again" in answer.text
    app.before_request_funcs.clear()
    assert client.get("/count").text == "sorry", "the application's page of a 503 stays"


@pytest.mark.parametrize("own", [True, False])
def test_a_view_that_fails_in_debug_mode_keeps_nothing(own: bool) -> None:
    """As with Flask's own sessions: the debugger's page is the answer, and Flask saves none."""

    def broken() -> str:
        flask.session["seen"] = 1
        raise RuntimeError("mine")

    app = make({"broken": broken, "count": count, "look": look}, own=own)
    client = app.test_client()
    client.get("/count")
    app.debug = True
    with pytest.raises(RuntimeError, match="mine"):
        client.get("/broken")
    assert client.get("/look").text == "{'count': 1}"
    app.debug = app.testing = False
    client.get("/broken")
    assert client.get("/look").text == "{'count': 1, 'seen': 1}"


def test_why_a_node_cannot_start_is_the_only_error_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Flask wants to save a session that could not be opened as well."""
    app = make({"count": count}, node_without_its_key())
    app.testing = False
    assert app.test_client().get("/count").status_code == 500
    [logged] = caplog.records
    assert logged.exc_info is not None
    assert isinstance(logged.exc_info[1], ConfigError)
