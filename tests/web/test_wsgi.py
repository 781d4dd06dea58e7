"""The WSGI middleware: when the head leaves, what is committed, what may not happen.

Every request goes through the standard library's validator on both sides of the middleware.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
import structlog

from tests.waiting import wait_until
from tests.web.nodes import Node, make_node
from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.errors import ChannelError, ConfigError, LocalProtocolError, SessionError
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.web.cookies import CookieSettings
from tribes.web.wsgi import SESSION, SessionMiddleware

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]


class Answer:
    """What a server would have sent, and the order in which it got it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.result: Any = None

    @property
    def cookies(self) -> list[str]:
        return [value for name, value in self.headers if name.lower() == "set-cookie"]

    @property
    def cookie(self) -> str:
        [header] = self.cookies
        return header.partition(";")[0].partition("=")[2]


def serve(
    application: Any,
    *,
    cookie: str = "",
    method: str = "GET",
    stop_after: int | None = None,
    answer: Answer | None = None,
    **environ: Any,
) -> Answer:
    """Do with one request what a server does."""
    answer = answer or Answer()
    environ |= {"REQUEST_METHOD": method, "QUERY_STRING": ""}
    if cookie:
        environ["HTTP_COOKIE"] = f"other=1; JSESSIONID={cookie}"
    setup_testing_defaults(environ)

    def write(data: bytes) -> None:
        answer.events.append(f"write {data.decode()}")
        answer.body += data

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info is not None and answer.status:
            raise exc_info[1].with_traceback(exc_info[2])
        answer.events.append(f"head {status[:3]}")
        answer.status, answer.headers = status, headers
        return write

    answer.result = result = application(environ, start_response)
    try:
        for number, chunk in enumerate(result):
            assert answer.status, "bytes before the head"
            answer.events.append(f"chunk {chunk.decode()}")
            answer.body += chunk
            if number + 1 == stop_after:
                break
    finally:
        if hasattr(result, "close"):
            result.close()
    return answer


def ask(node: Any, app: App, settings: Any = None, **request: Any) -> Answer:
    middleware = SessionMiddleware(validator(app), node, **(settings or {}))  # type: ignore[arg-type]
    return serve(validator(middleware), **request)


def count(environ: Any, start_response: Any) -> Iterable[bytes]:
    session = environ[SESSION]
    session["count"] = session.get("count", 0) + 1
    start_response("200 OK", list(PLAIN))
    return [str(session["count"]).encode()]


def look(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return [repr(dict(environ[SESSION])).encode()]


def test_first_write_makes_a_session_and_its_cookie() -> None:
    """The next request with it sets none; one that only looks never does."""
    node = Node()
    assert ask(node, look).cookies == []
    assert len(node.manager("app").table) == 0
    first = ask(node, count)
    assert first.cookies == [f"JSESSIONID={first.cookie}; Path=/; HttpOnly; SameSite=Lax"]
    second = ask(node, count, cookie=first.cookie)
    assert (second.cookies, second.body) == ([], b"2")


def test_cookie_follows_scheme_route_and_settings() -> None:
    """As under ASGI."""
    node = Node()
    answer = ask(node, count, {"route": "n1"}, **{"wsgi.url_scheme": "https"})
    assert answer.cookie.endswith(".n1")
    assert "; Secure;" in answer.cookies[0]
    moved = ask(node, count, {"route": "n2"}, cookie=answer.cookie)
    assert (moved.cookie, moved.body) == (answer.cookie.replace(".n1", ".n2"), b"2")
    named = ask(node, count, {"cookie": CookieSettings(name="sid", path="/shop")})
    assert named.cookies[0].startswith("sid=")


def test_t99_of_several_cookies_the_one_that_names_a_session_counts() -> None:
    """Wherever it stands; and an id that does not exist is not adopted."""
    node = Node()
    cookie = ask(node, count).cookie
    stale = "A" * 32
    assert ask(node, count, cookie=f"{stale}; JSESSIONID={cookie}").body == b"2"
    assert ask(node, count, cookie=stale).cookie != stale


def test_logout_takes_the_cookie_back_and_rotation_sends_another() -> None:
    """Both are told by the head of the very answer."""
    node = Node()

    def login(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION].rotate_id(grace_s=0)
        return look(environ, start_response)

    def logout(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION].invalidate()
        start_response("200 OK", list(PLAIN))
        return [b"bye"]

    old = ask(node, count).cookie
    new = ask(node, login, cookie=old).cookie
    assert new != old
    assert node.manager("app").find(old) is None
    assert "; Max-Age=0;" in ask(node, logout, cookie=new).cookies[0]
    assert node.manager("app").find(new) is None


@pytest.mark.parametrize("options", [6, 8])
def test_a_session_that_began_and_ended_in_one_request_is_not_told(options: int) -> None:
    """The client has no cookie that could be taken back, and needs no token of such a write."""

    def visit(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["x"] = 1
        environ[SESSION].commit()
        environ[SESSION].invalidate()
        start_response("200 OK", list(PLAIN))
        return [b"bye"]

    assert ask(Node(channel_send_options=options), visit).cookies == []


def test_head_waits_for_the_first_bytes() -> None:
    """A generator, or ``write``, may change the session until then; empty chunks send nothing."""
    node = Node()

    def slow(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b""
        environ[SESSION]["made"] = "late"
        yield b"one"
        yield b"two"

    answer = ask(node, slow)
    assert [event for event in answer.events if event != "chunk "] == [
        "head 200",
        "chunk one",
        "chunk two",
    ]
    assert ask(node, look, cookie=answer.cookie).body == b"{'made': 'late'}"

    def writer(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", list(PLAIN))
        write(b"")
        environ[SESSION]["made"] = "by writer"
        write(b"one")
        return [b"two"]

    answer = ask(node, writer)
    assert answer.events == ["head 200", "write one", "chunk two"]
    assert ask(node, look, cookie=answer.cookie).body == b"{'made': 'by writer'}"


def test_change_stands_before_the_server_gets_the_head() -> None:
    """A second request that begins at that moment finds it."""
    node = Node()
    cookie = ask(node, count).cookie
    seen: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        seen.append(node.manager("app").find(cookie)["count"])  # type: ignore[index]
        return None

    environ = {"HTTP_COOKIE": f"JSESSIONID={cookie}"}
    setup_testing_defaults(environ)
    SessionMiddleware(count, node)(environ, start_response)  # type: ignore[arg-type]
    assert seen == [2]


def test_body_without_bytes_sends_its_head() -> None:
    """So for HEAD and 204, from a list and from a generator."""
    node = Node()

    def none(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["x"] = 1
        start_response("204 No Content", [])
        return []

    def nothing(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ[SESSION]["x"] = 1
        start_response("200 OK", list(PLAIN))
        return
        yield

    assert ask(node, none).cookie
    assert ask(node, nothing, method="HEAD").cookie


def test_list_and_file_reach_the_server_as_they_are() -> None:
    """It knows the length of the one, and may send the other by ``sendfile``."""
    node = Node()
    bodies = [[b"list"], FileWrapper(io.BytesIO(b"file"))]
    for body in bodies:

        def app(environ: Any, start_response: Any, body: Any = body) -> Any:
            environ[SESSION]["x"] = 1
            start_response("200 OK", list(PLAIN))
            return body

        answer = serve(SessionMiddleware(app, node), **{"wsgi.file_wrapper": FileWrapper})  # type: ignore[arg-type]
        assert answer.result is body
        assert answer.cookie


def test_changes_of_the_body_are_committed_at_its_end() -> None:
    """When the server closes it, also half-way, and after the application's own ``close``."""
    node = Node()

    class Body:
        def __init__(self, session: Any) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            self.session["read"] = 1
            yield b"two"

        def close(self) -> None:
            self.session["closed"] = True

    def app(environ: Any, start_response: Any) -> Any:
        environ[SESSION]["read"] = 0
        start_response("200 OK", list(PLAIN))
        return Body(environ[SESSION])

    cookie = serve(SessionMiddleware(app, node)).cookie  # type: ignore[arg-type]
    assert ask(node, look, cookie=cookie).body == b"{'closed': True, 'read': 1}"
    cookie = serve(SessionMiddleware(app, node), stop_after=1).cookie  # type: ignore[arg-type]
    assert ask(node, look, cookie=cookie).body == b"{'closed': True, 'read': 0}"


def test_session_cannot_begin_or_change_its_id_after_the_head() -> None:
    """No cookie could tell the client."""
    node = Node()

    def begin(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b"head"
        environ[SESSION]["x"] = 1

    def rotate(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b"head"
        environ[SESSION].rotate_id()

    with pytest.raises(SessionError, match="begin after the response head"):
        ask(node, begin)
    cookie = ask(node, count).cookie
    with pytest.raises(SessionError, match="id cannot change after the response head"):
        ask(node, rotate, cookie=cookie)
    assert ask(node, look, cookie=cookie).body == b"{'count': 1}"


def test_error_page_replaces_a_head_that_has_not_left() -> None:
    """``exc_info``: before the first bytes the later head wins, after them the server decides."""
    node = Node()

    def app(environ: Any, start_response: Any, *, early: bool) -> Iterator[bytes]:
        environ[SESSION]["x"] = 1
        start_response("200 OK", list(PLAIN))
        if not early:
            yield b"begun"
        try:
            raise RuntimeError("mine")
        except RuntimeError:
            start_response("500 Oops", list(PLAIN), sys.exc_info())
        yield b"sorry"

    answer = ask(node, lambda environ, start: app(environ, start, early=True))
    assert answer.events == ["head 500", "chunk sorry"]
    assert answer.cookie
    with pytest.raises(RuntimeError, match="mine"):
        ask(node, lambda environ, start: app(environ, start, early=False))
    with pytest.raises(AssertionError, match="twice"):
        serve(
            SessionMiddleware(
                lambda environ, start: [start("200 OK", []), start("200 OK", [])],  # type: ignore[list-item]
                node,  # type: ignore[arg-type]
            )
        )


@pytest.mark.parametrize("in_body", [False, True])
def test_handler_that_raises_keeps_its_changes_but_begins_no_session(in_body: bool) -> None:
    """As under ASGI; nobody could ever use the session that it began."""
    node = Node()

    def broken(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ[SESSION]["seen"] = True
        raise RuntimeError("mine")
        yield

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = broken(environ, start_response)
        return body if in_body else list(body)

    cookie = ask(node, count).cookie
    before = len(node.manager("app").table)
    for offered in (cookie, ""):
        with pytest.raises(RuntimeError, match="mine"):
            serve(SessionMiddleware(app, node), cookie=offered)  # type: ignore[arg-type]
    assert ask(node, look, cookie=cookie).body == b"{'count': 1, 'seen': True}"
    assert len(node.manager("app").table) == before


def write(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))(b"mine")
    return [b"rest"]


def generate(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", list(PLAIN))
    yield b"mine"
    yield b"rest"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("respond", [count, write, generate])
def test_refused_commit_is_answered_by_503(respond: App, method: str) -> None:
    """Instead of the application's answer, with the cookie; a second try finds the session."""
    node = Node(on_unreplicated="error")
    node.lose()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[SESSION]["x"] = 1
        return respond(environ, start_response)

    # Not through the validator: it forbids a body for HEAD where there must be none anyway.
    answer = serve(SessionMiddleware(app, node), method=method)  # type: ignore[arg-type]
    assert answer.status == "503 Service Unavailable"
    fields = dict(answer.headers)
    assert fields["Retry-After"] == "1"
    assert (b"try again" in answer.body) is (method == "GET")
    assert b"mine" not in answer.body
    assert b"rest" not in answer.body
    if method == "GET":
        assert fields["Content-Length"] == str(len(answer.body))
    session = node.manager("app").find(answer.cookie)
    assert session is not None
    assert session["x"] == 1
    assert node.counters == (1, 0, 1)


def test_late_change_is_served_and_counted() -> None:
    """Too late for 503; what cannot be encoded is logged once for the whole request."""
    node = Node(on_unreplicated="error")

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        environ[SESSION]["bad"] = object()
        start_response("200 OK", list(PLAIN))
        yield b"head"
        environ[SESSION]["x"] = 1
        node.lose()

    with structlog.testing.capture_logs() as lines:
        assert ask(node, app).status == "200 OK"
    assert node.counters == (1, 1, 0)
    assert [line["attribute"] for line in lines if "attribute" in line] == ["bad"]


def test_argument_overrules_the_configuration() -> None:
    """``on_unreplicated`` of the middleware, as under ASGI."""
    node = Node()
    node.lose()
    assert ask(node, count).status == "200 OK"
    assert ask(node, count, {"on_unreplicated": "error"}).status.startswith("503")
    with pytest.raises(ConfigError, match="route"):
        SessionMiddleware(count, node, route="a b")  # type: ignore[arg-type]


def test_event_loop_is_never_blocked() -> None:
    """Whoever calls a WSGI application there is told."""
    node = Node()

    async def main() -> None:
        with pytest.raises(LocalProtocolError, match="event loop"):
            ask(node, count)

    asyncio.run(main())


def test_first_requests_start_the_node_and_wait_for_it() -> None:
    """At the same time: one starts it, all wait until it has joined, and all find sessions."""
    from concurrent.futures import ThreadPoolExecutor

    first = make_node()
    first.start()
    second = make_node("n2", first.config.channel.membership.port)
    try:
        assert first.wait_joined()
        cookie = ask(first, count).cookie
        middleware = SessionMiddleware(look, second)
        with ThreadPoolExecutor(4) as pool:
            early = [pool.submit(serve, middleware, cookie=cookie) for _ in range(2)]
            wait_until(lambda: second.is_running)
            late = serve(middleware, cookie=cookie)
        answers = [late, *(each.result() for each in early)]
        assert [answer.body for answer in answers] == [b"{'count': 1}"] * 3
    finally:
        second.stop()
        first.stop()


def test_node_that_cannot_start_fails_every_request() -> None:
    """Not only the first: a site without sessions would look like one where nobody is logged in."""
    config = NodeConfig(
        contexts=("app",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=make_node().config.channel.membership.port),
            receiver=ReceiverConfig(address="192.0.2.1"),
        ),
        insecure=True,
    )
    middleware = SessionMiddleware(count, BackgroundNode(config))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
            serve(middleware)


def test_node_that_fails_to_start_fails_every_request_whatever_it_was() -> None:
    """Nobody is served by a node that never ran: what is stored there would be nowhere else."""

    def broken() -> list[Any]:
        raise OSError(errno.EMFILE, "Too many open files")

    middleware = SessionMiddleware(count, BackgroundNode(make_node().config, interceptors=broken))
    lengths = []
    for _ in range(3):
        with pytest.raises(OSError, match="Too many open files") as caught:
            serve(middleware)
        lengths.append(len(caught.traceback))
    # Requests do not leave their frames in the error.
    assert lengths[1] == lengths[2]


def test_node_that_is_to_end_without_the_others_sessions_fails_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`terminate_on_start_failure`: nobody is served from a memory that has nothing."""

    async def fail(channel: GroupChannel) -> bool:
        raise ChannelError("the members did not say what they hold")

    monkeypatch.setattr(GroupChannel, "await_joined", fail)
    node = make_node()
    middleware = SessionMiddleware(count, node)
    try:
        for _ in range(3):
            with pytest.raises(ChannelError, match="what they hold"):
                serve(middleware)
            wait_until(lambda: not node.is_running)
    finally:
        node.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: no fork")
@pytest.mark.parametrize("is_running", [False, True])
def test_forked_worker_serves_from_a_node_of_its_own(is_running: bool) -> None:
    """Gunicorn ``--preload`` and multiprocessing, whether or not the parent's node runs.

    A balancer's question starts it as a request does.
    """
    watcher = make_node("watcher")
    watcher.start()
    node = make_node("web", watcher.config.channel.membership.port, commit_timeout=5000)
    middleware = SessionMiddleware(count, node, ready_path="/ready")
    try:
        assert watcher.wait_joined()
        cookie = ask(watcher, count).cookie
        if is_running:
            assert serve(middleware, cookie=cookie).body == b"2"
        read, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            # Whatever happens here, pytest must not go on twice.
            try:
                serve(middleware, PATH_INFO="/ready")
                os.write(tell, b"asked " if node.is_running else b"not started ")
                os.write(tell, serve(middleware, cookie=cookie).body)
                node.stop()
            finally:
                os._exit(0)
        os.close(tell)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        told, _, said = said.rpartition(b" ")
        assert told == b"asked"
        assert said == (b"3" if is_running else b"2")
        assert ask(watcher, look, cookie=cookie).body == b"{'count': %s}" % said
    finally:
        node.stop()
        watcher.stop()
