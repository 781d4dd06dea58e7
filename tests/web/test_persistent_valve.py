"""Sessions in a store, loaded before and saved after each request, one request at a time (Tomcat:
PersistentValve).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import flask
import pytest

from tests.web.test_locks import Inside, together
from tests.web.test_wsgi import PLAIN, serve
from tribes.config.managers import PersistentConfig, check_manager
from tribes.config.stores import FileStoreConfig
from tribes.errors import ConfigError
from tribes.manager.persistent import PersistentManager
from tribes.runtime.local import LocalSessions
from tribes.web.asgi import SessionMiddleware as AsgiMiddleware
from tribes.web.flask import TribesSessions
from tribes.web.wsgi import SESSION, SessionMiddleware

if TYPE_CHECKING:
    from pathlib import Path


class Processes:
    """Sessions of several processes on one store."""

    def __init__(self, path: Path) -> None:
        self.store = FileStoreConfig(directory=str(path), fsync="off")
        self.made: list[LocalSessions] = []

    def one(self, **settings: Any) -> LocalSessions:
        config = PersistentConfig(
            **{"file": self.store, "per_request": True, "lock": "local", **settings}
        )
        self.made.append(LocalSessions("shop", config))
        return self.made[-1]

    def value(self, session_id: str, name: str = "n") -> Any:
        """What another process finds."""
        session = self.one().manager("shop").find(session_id)
        assert session is not None
        return session[name]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    for each in made.made:
        each.stop()


def new_session(sessions: LocalSessions, **values: Any) -> str:
    session = sessions.manager("shop").create()
    session.update(values)
    sessions.commit(session)
    return session.id


def counting(environ: MutableMapping[str, Any], start_response: Any) -> list[bytes]:
    environ[SESSION]["n"] += 1
    start_response("200 OK", PLAIN)
    return [b""]


def asgi(middleware: AsgiMiddleware, session_id: str, path: str = "/") -> Any:
    """Begin a request; returns its status."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> int:
        headers = [(b"cookie", f"JSESSIONID={session_id}".encode())]
        scope = {"type": "http", "scheme": "http", "headers": headers, "path": path}
        await middleware(scope, receive, send)
        return int(sent[0]["status"])

    return run()


def test_t96_each_request_loads_and_saves_and_memory_is_empty_after_it(
    processes: Processes,
) -> None:
    one, two = processes.one(), processes.one()
    session_id = new_session(one, n=0)
    for sessions in (one, two) * 5:
        serve(SessionMiddleware(counting, sessions), cookie=session_id)
        manager = sessions.manager("shop")
        assert isinstance(manager, PersistentManager)
        assert manager.table.get(session_id) is None
    assert processes.value(session_id) == 10


def test_t96_one_request_of_a_session_runs_at_a_time(processes: Processes) -> None:
    sessions = processes.one()
    session_id = new_session(sessions, n=0)
    inside = Inside(sessions.manager("shop"), others=3)

    def app(environ: MutableMapping[str, Any], start_response: Any) -> list[bytes]:
        with inside:
            return counting(environ, start_response)

    middleware = SessionMiddleware(app, sessions)
    statuses: list[str] = []

    def run() -> None:
        statuses.extend(serve(middleware, cookie=session_id).status for _ in range(10))

    together(*[run] * 4)
    assert inside.counted == [1] * 40
    assert statuses == ["200 OK"] * 40
    assert processes.value(session_id) == 40


def test_t96_who_shall_not_wait_gets_429_and_has_not_run(processes: Processes) -> None:
    """Another session, and the same one afterwards, are served."""
    sessions = processes.one(block_on_acquire=False)
    session_id, other = new_session(sessions, n=0), new_session(sessions, n=0)
    inner: list[str] = []

    def app(environ: MutableMapping[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/outer":
            both = (session_id, other)
            inner.extend(serve(middleware, cookie=each, PATH_INFO="/").status for each in both)
        return counting(environ, start_response)

    middleware = SessionMiddleware(app, sessions)
    assert serve(middleware, cookie=session_id, PATH_INFO="/outer").status == "200 OK"
    assert inner == ["429 Too Many Requests", "200 OK"]
    assert serve(middleware, cookie=session_id, PATH_INFO="/").status == "200 OK"
    assert processes.value(session_id) == 2
    assert sessions.manager("shop").locks_timed_out == 1


def test_t96_who_waits_too_long_gets_503(processes: Processes) -> None:
    sessions = processes.one(lock_timeout=20)
    session_id = new_session(sessions, n=0)
    inner: list[str] = []

    def app(environ: MutableMapping[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/outer":
            inner.append(serve(middleware, cookie=session_id, PATH_INFO="/").status)
        return counting(environ, start_response)

    middleware = SessionMiddleware(app, sessions)
    assert serve(middleware, cookie=session_id, PATH_INFO="/outer").status == "200 OK"
    assert inner == ["503 Service Unavailable"]
    assert processes.value(session_id) == 1


def test_t96_an_asynchronous_request_keeps_it_until_it_is_over(processes: Processes) -> None:
    """Saved and given back when the application has returned, not when its answer began."""
    sessions = processes.one(block_on_acquire=False)
    session_id = new_session(sessions, n=0)

    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if scope["path"] == "/slow":
                begun.set()
                await go_on.wait()
            scope["session"]["n"] += 1
            await send({"type": "http.response.body", "body": b""})

        middleware = AsgiMiddleware(app, sessions)
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(asgi(middleware, session_id, "/slow"))
            await begun.wait()
            assert await asgi(middleware, session_id) == 429
            go_on.set()
        assert slow.result() == 200
        assert await asgi(middleware, session_id) == 200
        with pytest.raises(ZeroDivisionError):
            await asgi(AsgiMiddleware(broken, sessions), session_id)
        assert await asgi(middleware, session_id) == 200

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    asyncio.run(main())
    assert processes.value(session_id) == 3


def test_t96_requests_that_match_the_filter_have_no_session(processes: Processes) -> None:
    """Nothing is loaded for them, nothing saved, and no cookie goes out; under each adapter."""
    sessions = processes.one(filter=r".*\.gif")
    session_id = new_session(sessions, n=0)
    manager = sessions.manager("shop")
    assert isinstance(manager, PersistentManager)
    loads = manager.shelf.statistics().loads

    def app(environ: MutableMapping[str, Any], start_response: Any) -> list[bytes]:
        assert SESSION not in environ
        start_response("200 OK", PLAIN)
        return [b"picture"]

    answer = serve(SessionMiddleware(app, sessions), cookie=session_id, PATH_INFO="/a.gif")
    assert (answer.body, answer.cookies) == (b"picture", [])

    async def task(scope: Any, receive: Any, send: Any) -> None:
        assert "session" not in scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert asyncio.run(asgi(AsgiMiddleware(task, sessions), session_id, "/a.gif")) == 200
    site = flask.Flask("shop")
    site.session_interface = TribesSessions(sessions)
    site.add_url_rule("/a.gif", view_func=lambda: str("n" in flask.session))
    with site.test_client() as client:
        client.set_cookie("session", session_id)
        response = client.get("/a.gif")
    assert (response.text, response.headers.getlist("Set-Cookie")) == ("False", [])
    assert manager.shelf.statistics().loads == loads


def test_t96_flask_answers_429_too(processes: Processes) -> None:
    sessions = processes.one(block_on_acquire=False, lock_timeout=50)
    session_id = new_session(sessions, n=0)
    site = flask.Flask("shop")
    site.session_interface = TribesSessions(sessions)
    site.add_url_rule("/", view_func=lambda: "page")
    lock = site.session_interface.binding.locks
    assert lock is not None
    with site.test_client() as client:
        client.set_cookie("session", session_id)
        held = lock.acquire(session_id)
        assert client.get("/").status_code == 429
        held.release()
        assert client.get("/").status_code == 200


def test_locks_that_cannot_be_are_refused(processes: Processes) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"lock": "cluster"}, "shop.lock: .*'local'"),
        ({"lock": "none", "block_on_acquire": False}, "shop.block_on_acquire: .*lock = 'local'"),
        ({"per_request": False, "block_on_acquire": False}, "shop.block_on_acquire"),
    )
    for settings, named in refused:
        made = PersistentConfig(
            **{"file": processes.store, "per_request": True, "lock": "local", **settings}
        )
        with pytest.raises(ConfigError, match=named):
            check_manager(made, "shop")
