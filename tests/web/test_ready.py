"""What a balancer is told, and how uvicorn is stopped so that nobody meets a closed port."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.waiting import wait_until
from tests.web.nodes import group, make_node
from tests.web.test_asgi import ask, count
from tribes.config.managers import PersistentConfig
from tribes.config.stores import FileStoreConfig
from tribes.manager.drain import DrainReport, Lacking
from tribes.runtime.local import LocalSessions
from tribes.web.asgi import SessionMiddleware
from tribes.web.freshness import TOKEN_SUFFIX
from tribes.web.serving import STATUS_NOT_DRAINED, DrainingServer
from tribes.web.wsgi import SessionMiddleware as WSGIMiddleware

if TYPE_CHECKING:
    from pathlib import Path


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the application's"})


def wsgi_application(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"the application's"]


def ask_asgi(app: Any, path: str = "/ready") -> tuple[int, bytes]:
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "scheme": "http"}
    asyncio.run(app(scope, receive, send))
    return messages[0]["status"], messages[1]["body"]


def ask_wsgi(app: Any, path: str = "/ready", method: str = "GET") -> tuple[str, bytes]:
    heads: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        heads.append(status)

    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.url_scheme": "http"}
    body = b"".join(app(environ, start_response))
    return heads[0], body


def test_a_balancer_is_answered_also_where_paths_have_no_session(tmp_path: Path) -> None:
    """Under both kinds of servers alike."""
    store = FileStoreConfig(directory=str(tmp_path), fsync="off")
    sessions = LocalSessions("app", PersistentConfig(file=store, filter="/r.*"))
    try:
        asgi = SessionMiddleware(application, sessions, ready_path="/ready")
        assert ask_asgi(asgi) == (200, b"ready\n")
        assert ask_asgi(asgi, "/rest") == (200, b"the application's")
        wsgi = WSGIMiddleware(wsgi_application, sessions, ready_path="/ready")
        assert ask_wsgi(wsgi) == ("200 OK", b"ready\n")
    finally:
        sessions.stop()


def test_node_is_ready_when_it_has_joined_and_until_it_is_to_leave() -> None:
    """Both adapters say so, at the path that was chosen, and serve until the end."""
    node = make_node()
    asgi = SessionMiddleware(application, node, ready_path="/ready")
    wsgi = WSGIMiddleware(wsgi_application, node, ready_path="/ready")
    assert not node.is_ready
    # A server without start-up: the first request is the balancer's, and starts the node.
    wait_until(lambda: ask_wsgi(wsgi) == ("200 OK", b"ready\n"))
    assert node.is_ready
    assert ask_asgi(asgi) == (200, b"ready\n")
    assert ask_wsgi(wsgi, method="HEAD") == ("200 OK", b"")
    node.retire()
    node.retire()
    assert not node.is_ready
    assert ask_asgi(asgi) == (503, b"not ready\n")
    assert ask_wsgi(wsgi) == ("503 Service Unavailable", b"not ready\n")
    assert ask_asgi(asgi, "/") == (200, b"the application's")
    assert ask_wsgi(wsgi, "/") == ("200 OK", b"the application's")
    assert node.drain_report is None
    node.stop()
    assert node.drain_report is not None
    assert node.drain_report.is_last
    assert node.drain_report.is_complete
    node.retire()
    assert ask_asgi(asgi) == (503, b"not ready\n")


def test_without_a_path_the_application_has_it() -> None:
    """Nobody's page disappears."""
    node = make_node()
    app = SessionMiddleware(application, node)
    try:
        assert ask_asgi(app) == (200, b"the application's")
    finally:
        node.stop()


def test_others_do_not_wait_for_a_node_that_is_to_leave() -> None:
    """On real sockets; when it has gone nobody lacks a thing."""
    with group("one", "two") as (one, two):
        manager = one.manager("app")
        session = manager.create()
        session["n"] = 1
        assert one.commit(session).acked == ("two",)
        two.retire()
        wait_until(lambda: manager.has_draining)
        session["n"] = 2
        assert one.commit(session).acked == ()
        wait_until(lambda: two.manager("app").find(session.id)["n"] == 2)  # type: ignore[index]
        two.stop()
        assert two.drain_report == DrainReport(False, (), {"app": 1})


def test_client_reads_its_writes_on_a_node_that_is_to_leave() -> None:
    """It still serves, and no commit waits for it any more: so each answer carries a token."""
    with group("one", "two") as (one, two):
        token = "JSESSIONID" + TOKEN_SUFFIX
        answer = ask(one, count)
        assert not any(cookie.startswith(token) for cookie in answer.cookies)
        two.retire()
        wait_until(lambda: one.manager("app").has_draining)
        answer = ask(one, count, cookie=answer.session_cookie)
        assert any(cookie.startswith(token) for cookie in answer.cookies)


class FakeNode:
    """Notes when it was told, and whether its server was to close the port by then."""

    server: DrainingServer
    was_open: bool

    def __init__(self, report: DrainReport | None = None) -> None:
        self.retired = threading.Event()
        self.drain_report = report

    def retire(self) -> None:
        self.was_open = not self.server.should_exit
        self.retired.set()


def make_server(node: FakeNode, notice_s: float) -> DrainingServer:
    any_node: Any = node
    node.server = DrainingServer(uvicorn.Config(application), any_node, notice_s=notice_s)
    return node.server


def test_signal_turns_readiness_off_before_the_port_is_closed() -> None:
    """By so much as the balancer needs to see it."""
    node = FakeNode()
    server = make_server(node, 0.2)
    begin = time.monotonic()
    server.handle_exit(signal.SIGTERM, None)
    wait_until(lambda: server.should_exit)
    assert node.was_open
    assert time.monotonic() - begin >= 0.2


def test_second_signal_does_not_wait() -> None:
    """Neither for the balancer, nor is it taken for uvicorn's second one, which drops requests."""
    node = FakeNode()
    server = make_server(node, 60.0)
    server.handle_exit(signal.SIGTERM, None)
    assert node.retired.wait(5)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert not server.force_exit


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (None, None),
        (DrainReport(), None),
        (DrainReport(lacking=(Lacking("app", "n2", 1, 1, "why"),)), STATUS_NOT_DRAINED),
        (DrainReport(unsent=1), STATUS_NOT_DRAINED),
        (DrainReport(unsaved={"app": "why"}), STATUS_NOT_DRAINED),
    ],
)
def test_exit_status_says_whether_all_was_handed_over(
    monkeypatch: pytest.MonkeyPatch, report: DrainReport | None, status: int | None
) -> None:
    """3, as that of ``tribes node``."""
    monkeypatch.setattr(uvicorn.Server, "run", lambda self: None)
    server = make_server(FakeNode(report), 0.0)
    if status is None:
        server.run()
        return
    with pytest.raises(SystemExit) as caught:
        server.run()
    assert caught.value.code == status
