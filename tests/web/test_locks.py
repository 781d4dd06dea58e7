"""Requests of one session wait for each other under each adapter, and none keeps the lock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flask
import pytest

from tests.waiting import wait_until
from tests.web.nodes import Node
from tests.web.test_asgi import ask
from tests.web.test_wsgi import PLAIN, serve
from tribes.runtime.session_locks import SessionLocks
from tribes.web.asgi import SessionMiddleware as AsgiMiddleware
from tribes.web.binding import SessionBinding
from tribes.web.flask import TribesSessions
from tribes.web.wsgi import SESSION, SessionMiddleware

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager


def new_session(node: Node, **values: Any) -> str:
    session = node.manager("app").create()
    session.update(values)
    node.manager("app").commit(session)
    return session.id


def value(node: Node, session_id: str, name: str = "n") -> Any:
    session = node.manager("app").find(session_id)
    assert session is not None
    return session[name]


def is_free(node: Node) -> bool:
    """Whether no request of any session has or awaits its turn."""
    binding = SessionBinding(node)  # type: ignore[arg-type]
    assert isinstance(binding.locks, SessionLocks)
    return binding.locks.keys == 0


class Inside:
    """Counts the requests that run; the first one stays until all others are seen to wait, or one
    that does not wait.
    """

    def __init__(self, manager: SessionManager, others: int) -> None:
        self._manager = manager
        self._others = others
        self._running: list[None] = []
        self.counted: list[int] = []
        """How many ran when each came in, itself too."""

    def __enter__(self) -> None:
        self._running.append(None)
        self.counted.append(len(self._running))
        if len(self.counted) == 1:
            wait_until(self._is_decided)

    def _is_decided(self) -> bool:
        return self._manager.locks_waited >= self._others or len(self.counted) > 1

    def __exit__(self, *_: object) -> None:
        self._running.pop()


def together(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_parallel_wsgi_requests_of_one_session_run_one_after_the_other() -> None:
    node = Node(lock="local")
    session_id = new_session(node, n=0)
    inside = Inside(node.manager("app"), others=3)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with inside:
            environ[SESSION]["n"] += 1
        start_response("200 OK", PLAIN)
        return [b""]

    middleware = SessionMiddleware(app, node)  # type: ignore[arg-type]
    together(*[lambda: [serve(middleware, cookie=session_id) for _ in range(20)]] * 4)
    assert inside.counted == [1] * 80
    assert value(node, session_id) == 80
    assert is_free(node)


def test_the_lock_is_held_while_a_body_is_made_and_given_back_when_it_is_closed() -> None:
    node = Node(lock="local", lock_timeout=50)
    session_id = new_session(node, n=0)
    inner: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/inner":
            return [b"x"]

        def body() -> Any:
            yield b"a"
            inner.append(serve(middleware, cookie=session_id, PATH_INFO="/inner").status)
            yield b"b"

        return body()

    middleware = SessionMiddleware(app, node)  # type: ignore[arg-type]
    assert serve(middleware, cookie=session_id).body == b"ab"
    assert inner[0].startswith("503")
    assert serve(middleware, cookie=session_id, PATH_INFO="/inner").status == "200 OK"
    assert node.manager("app").statistics().locks_timed_out == 1


@pytest.mark.parametrize("is_early", [True, False])
def test_a_wsgi_request_that_raises_gives_it_back(*, is_early: bool) -> None:
    node = Node(lock="local")
    session_id = new_session(node)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if is_early:
            raise ZeroDivisionError
        start_response("200 OK", PLAIN)
        return (1 / 0 for _ in range(1))

    with pytest.raises(ZeroDivisionError):
        serve(SessionMiddleware(app, node), cookie=session_id)  # type: ignore[arg-type]
    assert is_free(node)


def test_parallel_asgi_requests_of_one_session_run_one_after_the_other() -> None:
    node = Node(lock="local")
    session_id = new_session(node, n=0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        seen = session["n"]
        await asyncio.sleep(0)
        session["n"] = seen + 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        middleware = AsgiMiddleware(app, node)  # type: ignore[arg-type]
        headers = [(b"cookie", f"JSESSIONID={session_id}".encode())]

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                scope = {"type": "http", "scheme": "http", "headers": headers, "path": "/"}
                group.create_task(middleware(scope, receive, send))

    asyncio.run(main())
    assert value(node, session_id) == 30
    assert is_free(node)


def test_an_asgi_request_that_cannot_have_it_is_answered_503_and_does_not_run() -> None:
    node = Node(lock="local", lock_timeout=20)
    session_id = new_session(node, n=0)
    binding = SessionBinding(node)  # type: ignore[arg-type]
    assert binding.locks is not None
    other = binding.locks.acquire(session_id)

    async def handler(session: Any, respond: Any) -> None:
        raise AssertionError("it must not run")

    answer = ask(node, handler, cookie=session_id)  # type: ignore[arg-type]
    assert answer.messages[0]["status"] == 503
    assert (b"retry-after", b"1") in answer.messages[0]["headers"]
    other.release()


@pytest.mark.parametrize("kind", ["raises", "releases", "websocket", "invalidates"])
def test_an_asgi_request_does_not_keep_it(kind: str) -> None:
    """Nor does a connection that lasts; and a handler may give it back early."""
    node = Node(lock="local")
    session_id = new_session(node, n=0)

    async def handler(session: Any, respond: Any) -> None:
        if kind == "raises":
            raise ZeroDivisionError
        if kind == "releases":
            session.release_lock()
        if kind == "invalidates":
            session.invalidate()
        if kind in ("releases", "websocket"):
            assert is_free(node)
        else:
            assert not is_free(node)
        if kind != "websocket":
            await respond()

    try:
        ask(
            node,  # type: ignore[arg-type]
            handler,
            cookie=session_id,
            kind="websocket" if kind == "websocket" else "http",
        )
    except ZeroDivisionError:
        assert kind == "raises"
    assert is_free(node)


def test_who_waited_sees_what_the_request_before_did_also_its_logout() -> None:
    node = Node(lock="local")
    session_id = new_session(node, n=0)
    binding = SessionBinding(node)  # type: ignore[arg-type]
    first = binding.open([f"JSESSIONID={session_id}".encode()])
    seen: list[Any] = []

    def second() -> None:
        held = binding.open([f"JSESSIONID={session_id}".encode()])
        seen.append(held.exists)
        binding.close(held)

    thread = threading.Thread(target=second)
    thread.start()
    wait_until(lambda: node.manager("app").locks_waited == 1)
    first.invalidate()
    binding.commit(first)
    binding.close(first)
    thread.join(20)
    assert seen == [False]
    assert is_free(node)


def test_flask_requests_take_turns_and_give_it_back() -> None:
    node = Node(lock="local", lock_timeout=50)
    app = flask.Flask(__name__)
    app.session_interface = TribesSessions(node)  # type: ignore[arg-type]

    @app.route("/add")
    def add() -> str:
        flask.session["n"] = flask.session.get("n", 0) + 1
        return str(flask.session["n"])

    @app.route("/fail")
    def fail() -> str:
        raise ZeroDivisionError

    client = app.test_client()
    assert client.get("/add").text == "1"
    assert client.get("/fail").status_code == 500
    assert client.get("/add").text == "2"
    binding = app.session_interface.binding
    (key,) = node.manager("app").table.keys()
    assert binding.locks is not None
    other = binding.locks.acquire(key)
    refused = client.get("/add")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    other.release()
    assert client.get("/add").text == "3"
