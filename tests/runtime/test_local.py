"""Local sessions as a program and the middleware use them: real files, real threads, real forks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tribes.config.managers import PersistentConfig, StandardConfig
from tribes.config.stores import EnvelopeConfig, FileStoreConfig, SQLStoreConfig
from tribes.errors import ConfigError, LocalProtocolError, SessionNotReplicatedError, StoreError
from tribes.runtime.local import LocalSessions
from tribes.stores.file import FileStore
from tribes.web.asgi import SessionMiddleware

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.manager.session import Session

Make = Callable[..., LocalSessions]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[LocalSessions] = []

    def start(*args: Any, **settings: Any) -> LocalSessions:
        made.append(LocalSessions("shop", *args, **settings))
        return made[-1]

    yield start
    for sessions in made:
        sessions.stop()


def per_request(directory: Path, **settings: Any) -> PersistentConfig:
    store = FileStoreConfig(directory=str(directory), fsync="off")
    return PersistentConfig(file=store, per_request=True, **settings)


async def count(scope: Any, receive: Any, send: Any) -> None:
    session = scope["session"]
    if scope["path"] == "/logout":
        session.invalidate()
        text = "bye"
    else:
        session["count"] = session.get("count", 0) + 1
        text = str(session["count"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


class Browser:
    """Requests with the cookie that the last answer set."""

    def __init__(self) -> None:
        self.cookie = b""
        self.status = 0

    async def ask(self, sessions: LocalSessions, path: str = "/", app: Any = count) -> str:
        body = b""

        async def send(message: Any) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                self.status = message["status"]
                for name, value in message["headers"]:
                    if name == b"set-cookie":
                        self.cookie = value.partition(b";")[0]
            else:
                body += message["body"]

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        headers = [(b"cookie", self.cookie)] if self.cookie else []
        scope = {"type": "http", "scheme": "http", "headers": headers, "path": path}
        await SessionMiddleware(app, sessions)(scope, receive, send)
        return body.decode()

    def ask_in_asyncio(self, sessions: LocalSessions, **settings: Any) -> str:
        return asyncio.run(self.ask(sessions, **settings))


def test_the_middleware_starts_them_and_keeps_sessions(make: Make) -> None:
    sessions, browser = make(), Browser()
    assert [browser.ask_in_asyncio(sessions) for _ in range(3)] == ["1", "2", "3"]
    assert sessions.is_running


def test_t88_sessions_survive_a_clean_restart(make: Make, tmp_path: Path) -> None:
    config, browser = StandardConfig(pathname=str(tmp_path / "sessions")), Browser()
    for wanted in "123":
        sessions = make(config)
        assert browser.ask_in_asyncio(sessions) == wanted
        sessions.stop()
        sessions.stop()


@pytest.mark.parametrize("kind", ["file", "sqlite", "postgresql", "mariadb"])
def test_persistent_sessions_survive_a_restart(
    make: Make, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    browser = Browser()
    config = PersistentConfig(file=FileStoreConfig(directory=str(tmp_path / "s")))
    if kind != "file":
        url = f"sqlite:///{tmp_path}/s.db"
        if kind != "sqlite":
            url = request.getfixturevalue(kind)
        envelope = EnvelopeConfig(keys=("ab" * 32,), encrypt=True, compress=True)
        sql = SQLStoreConfig(url=url, table="restarts")
        config = PersistentConfig(sql=sql, envelope=envelope)
    for wanted in "123":
        sessions = make(config)
        assert browser.ask_in_asyncio(sessions) == wanted
        sessions.stop()


def test_per_request_any_process_serves_any_request(make: Make, tmp_path: Path) -> None:
    """Under asyncio and trio: two processes' worth of sessions, one browser, no stickiness."""
    both, browser = [make(per_request(tmp_path)) for _ in range(2)], Browser()
    answers = []
    for turn in range(6):
        if turn % 3:
            answers.append(browser.ask_in_asyncio(both[turn % 2]))
        else:
            answers.append(trio.run(browser.ask, both[turn % 2]))
    assert answers == ["1", "2", "3", "4", "5", "6"]
    assert all(len(sessions.manager("shop").table) == 0 for sessions in both)
    old = browser.cookie
    browser.ask_in_asyncio(both[0], path="/logout")
    browser.cookie = old
    assert browser.ask_in_asyncio(both[1]) == "1"


def test_paths_that_need_no_session_have_none(make: Make, tmp_path: Path) -> None:
    sessions, browser = make(per_request(tmp_path, filter=r".*\.(png|css)")), Browser()
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("session" in scope)

    browser.ask_in_asyncio(sessions, path="/logo.png", app=app)
    browser.ask_in_asyncio(sessions, path="/logo.png/x", app=app)
    assert seen == [False, True]


class DownStore:
    """A store that does not answer."""

    name = "down"

    def __init__(self, real: FileStore) -> None:
        self._real = real
        self.is_down = False

    def __getattr__(self, name: str) -> Any:
        if self.is_down and name != "close":
            raise StoreError("the store is down")
        return getattr(self._real, name)


def test_a_store_that_is_down_costs_a_503_not_the_login(make: Make, tmp_path: Path) -> None:
    store, browser = DownStore(FileStore(tmp_path)), Browser()
    sessions = make(PersistentConfig(per_request=True), store=store)
    assert browser.ask_in_asyncio(sessions) == "1"
    cookie = browser.cookie
    store.is_down = True
    assert "try again" in browser.ask_in_asyncio(sessions)
    assert (browser.status, browser.cookie) == (503, cookie)
    store.is_down = False
    assert browser.ask_in_asyncio(sessions) == "2"


@pytest.mark.parametrize("choice", ["serve", "error"])
def test_a_save_that_fails_is_counted_and_served_or_refused(
    make: Make, tmp_path: Path, choice: Any
) -> None:
    store = DownStore(FileStore(tmp_path))
    config = PersistentConfig(per_request=True, on_unreplicated=choice)
    sessions = make(config, store=store)
    session = sessions.manager("shop").create()
    store.is_down = True
    if choice == "error":
        with pytest.raises(SessionNotReplicatedError, match="store: the store is down"):
            sessions.commit(session)
    else:
        assert sessions.commit(session).missing == {"store": "the store is down"}
    numbers = sessions.manager("shop").statistics()
    assert (numbers.commits_served_unreplicated, numbers.commits_refused) == (
        choice == "serve",
        choice == "error",
    )
    store.is_down = False


async def test_committing_to_a_store_in_an_event_loop_is_refused(
    make: Make, tmp_path: Path
) -> None:
    sessions = make(per_request(tmp_path))
    session = sessions.manager("shop").create()
    with pytest.raises(LocalProtocolError, match=r"await sessions\.acommit"):
        sessions.commit(session)
    assert (await sessions.acommit(session)).replicated


async def test_a_commit_whose_request_is_cancelled_is_stored_all_the_same(
    make: Make, tmp_path: Path
) -> None:
    """Under trio every wait of a cancelled task ends at once."""
    sessions = make(per_request(tmp_path))
    session = sessions.manager("shop").create()
    session["a"] = 1
    with trio.CancelScope() as scope:
        scope.cancel()
        await sessions.acommit(session)
    other = make(per_request(tmp_path))
    found = await trio.to_thread.run_sync(other.manager("shop").find, session.id)
    assert found is not None
    assert found["a"] == 1


def test_a_commit_that_waits_for_a_thread_outlives_its_cancelled_task(
    make: Make, tmp_path: Path
) -> None:
    """Under asyncio, while other requests have all threads."""
    sessions = make(per_request(tmp_path))
    session = sessions.manager("shop").create()
    go_on = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, go_on.wait, 20)
        task = asyncio.create_task(sessions.acommit(session))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await busy
        await loop.shutdown_default_executor()

    asyncio.run(main())
    assert make(per_request(tmp_path)).manager("shop").find(session.id) is not None


def test_the_thread_expires_sessions(make: Make) -> None:
    expired = threading.Event()

    class Listener:
        def session_created(self, session: Session) -> None: ...
        def session_id_changed(self, session: Session, old_id: str) -> None: ...
        def session_destroyed(self, session: Session, reason: str) -> None:
            if reason == "expired":
                expired.set()

    sessions = make(StandardConfig(max_inactive_s=1, expiry_interval=20))
    sessions.manager("shop").add_listener(Listener())
    sessions.start()
    sessions.commit(sessions.manager("shop").create())
    assert expired.wait(20)


def test_a_forked_child_has_no_sessions_and_a_life_of_its_own(make: Make, tmp_path: Path) -> None:
    sessions = make(StandardConfig(pathname=str(tmp_path / "s")))
    sessions.start()
    manager = sessions.manager("shop")
    session = manager.create()
    sessions.commit(session)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            is_clean = manager.find(session.id) is None and not sessions.was_started
            sessions.start()
            sessions.commit(manager.create())
            code = 0 if is_clean and sessions.is_running else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert manager.find(session.id) is not None


def test_misuse_is_refused(make: Make, tmp_path: Path) -> None:
    sessions = make()
    sessions.start()
    with pytest.raises(LocalProtocolError, match="started once"):
        sessions.start()
    with pytest.raises(LocalProtocolError, match="is not 'shop'"):
        sessions.manager("blog")
    with pytest.raises(LocalProtocolError, match="another manager"):
        sessions.commit(make().manager("shop").create())
    with pytest.raises(ConfigError, match="exactly one store"):
        make(PersistentConfig())
    with pytest.raises(ConfigError, match="only a Persistent manager has one"):
        make(store=FileStore(tmp_path))
    for pattern in ("(", "a{99999999999}"):
        with pytest.raises(ConfigError, match="no regular expression"):
            make(per_request(tmp_path, filter=pattern))
    with pytest.raises(ConfigError, match="hexadecimal"):
        make(StandardConfig(envelope=EnvelopeConfig(keys=("xy",))))
