"""Requests that go on after their response head, under uvicorn: sockets, streams, background tasks.

Two members; the application runs at the first one, and what it commits is looked for at the other.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator
from socket import create_server
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from tests.waiting import wait_until
from tests.web.nodes import Node, group
from tribes.errors import SessionNotReplicatedError
from tribes.web import SessionMiddleware

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its remark on an asyncio function that it imports
    from websockets.sync.client import connect

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from tribes.runtime.background import BackgroundNode


async def put(request: Request) -> JSONResponse:
    request.session.update(request.query_params)
    return JSONResponse(dict(request.session))


async def logout(request: Request) -> PlainTextResponse:
    request.session.invalidate()  # type: ignore[attr-defined]
    return PlainTextResponse("")


async def talk(websocket: WebSocket) -> None:
    """``NAME=VALUE`` sets; ``commit`` commits; each is answered by what the session has."""
    session: Any = websocket.session
    session["opened"] = True
    await websocket.accept()
    async for text in websocket.iter_text():
        name, _, value = text.partition("=")
        if name == "commit":
            await session.acommit()
        else:
            session[name] = value
        await websocket.send_json(dict(session) if session.is_valid else None)


class Held:
    """What a stream or task of the application waits for, and a test lets go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def wait(self) -> None:
        self.begun.set()
        assert self.go_on.wait(20)


held = Held()


async def stream(request: Request) -> StreamingResponse:
    session: Any = request.session
    session["part"] = 0

    def body() -> Iterator[bytes]:
        yield b"one"
        session["part"] = 1
        session.commit()
        held.wait()
        session["part"] = 2
        yield b"two"

    return StreamingResponse(body())


async def later(request: Request) -> PlainTextResponse:
    session = request.session
    session["task"] = "to do"

    def work() -> None:
        held.wait()
        session["task"] = "done"

    return PlainTextResponse("", background=BackgroundTask(work))


ROUTES = [
    Route("/put", put),
    Route("/logout", logout),
    Route("/stream", stream),
    Route("/later", later),
    WebSocketRoute("/talk", talk),
]


class Served:
    """The application under uvicorn, in a thread; a client, and the members."""

    def __init__(self, node: Any, other: BackgroundNode | None = None) -> None:
        self.other = other
        # Bound here and now, so that nobody else can have it before the server does.
        listener = create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        middleware = [Middleware(SessionMiddleware, node=node)]
        self._server = uvicorn.Server(
            uvicorn.Config(
                Starlette(routes=ROUTES, middleware=middleware),
                lifespan="off",
                ws="websockets-sansio",
                log_level="error",
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        wait_until(lambda: self._server.started)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False
        )

    def socket(self) -> Any:
        cookies = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        headers = {"Cookie": cookies} if cookies else {}
        return connect(f"ws://127.0.0.1:{self.port}/talk", additional_headers=headers, proxy=None)

    def close(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def elsewhere(self, session_id: str = "") -> dict[str, Any] | None:
        """The session at the other member, or None."""
        assert self.other is not None
        found = self.other.manager("app").find(session_id or self.http.cookies["JSESSIONID"])
        return None if found is None else dict(found)


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[BackgroundNode, BackgroundNode]]:
    with group("n1", "n2") as (one, two):
        yield one, two


@pytest.fixture
def served(nodes: tuple[BackgroundNode, BackgroundNode]) -> Iterator[Served]:
    held.__init__()  # type: ignore[misc]  # events of its own for each test
    made = Served(*nodes)
    try:
        yield made
    finally:
        held.go_on.set()
        made.close()


def test_socket_reads_and_writes_and_commits_when_it_says_so(served: Served) -> None:
    """At its acceptance, by ``acommit``, and at its end; not in between."""
    served.http.get("/put?user=eve")
    with served.socket() as socket:
        assert served.elsewhere() == {"user": "eve", "opened": True}
        socket.send("seat=4")
        assert "4" in socket.recv()
        assert served.elsewhere() == {"user": "eve", "opened": True}
        socket.send("commit")
        socket.recv()
        assert served.elsewhere() == {"user": "eve", "opened": True, "seat": "4"}
        socket.send("row=7")
        socket.recv()
    wait_until(
        lambda: served.elsewhere() == {"user": "eve", "opened": True, "seat": "4", "row": "7"}
    )


def test_socket_that_begins_a_session_tells_it_in_its_handshake(served: Served) -> None:
    with served.socket() as socket:
        session_id = socket.response.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
        assert served.elsewhere(session_id) == {"opened": True}


def test_socket_whose_connection_breaks_keeps_what_it_changed(served: Served) -> None:
    """Nobody says good-bye: the TCP connection is gone."""
    served.http.get("/put?user=eve")
    with served.socket() as socket:
        socket.send("draft=hello")
        socket.recv()
        socket.socket.shutdown(2)
        wait_until(lambda: (served.elsewhere() or {}).get("draft") == "hello")


def test_socket_sees_what_other_requests_did_when_it_commits(
    served: Served, nodes: tuple[BackgroundNode, BackgroundNode]
) -> None:
    """Here and on other members, also if it has changed nothing itself; both changes stay."""
    served.http.get("/put?user=eve")
    with served.socket() as socket:
        served.http.get("/put?page=1")
        socket.send("commit")
        assert '"page":"1"' in socket.recv()
        there = nodes[1].manager("app").find(served.http.cookies["JSESSIONID"])
        assert there is not None
        there["elsewhere"] = 1
        nodes[1].commit(there)
        socket.send("seat=4")
        assert "elsewhere" not in socket.recv()
        socket.send("commit")
        assert '"elsewhere":1' in socket.recv()
    assert (served.elsewhere() or {}).keys() == {"user", "opened", "page", "elsewhere", "seat"}


@pytest.mark.parametrize("has_changed", [False, True])
def test_socket_learns_of_a_logout_when_it_commits(served: Served, has_changed: bool) -> None:
    """``is_valid`` is false then; the session does not come back, and the log says what is lost."""
    served.http.get("/put?user=eve")
    session_id = served.http.cookies["JSESSIONID"]
    with structlog.testing.capture_logs() as lines, served.socket() as socket:
        served.http.get("/logout")
        if has_changed:
            socket.send("seat=4")
            socket.recv()
        socket.send("commit")
        assert socket.recv() == "null"
    assert served.elsewhere(session_id) is None
    told = [line for line in lines if line["event"] == "session had ended: changes dropped"]
    assert [line["attributes"] for line in told] == ([["seat"]] if has_changed else [])


def test_stream_commits_when_it_says_so_and_at_its_end(served: Served) -> None:
    with served.http.stream("GET", "/stream") as answer:
        parts = answer.iter_bytes()
        assert next(parts) == b"one"
        assert held.begun.wait(20)
        session_id = answer.cookies["JSESSIONID"]
        assert served.elsewhere(session_id) == {"part": 1}
        held.go_on.set()
        assert b"".join(parts) == b"two"
    wait_until(lambda: served.elsewhere(session_id) == {"part": 2})


def test_background_task_commits_at_its_true_end(served: Served) -> None:
    """The client has its answer long before."""
    answer = served.http.get("/later")
    session_id = answer.cookies["JSESSIONID"]
    assert held.begun.wait(20)
    assert served.elsewhere(session_id) == {"task": "to do"}
    held.go_on.set()
    wait_until(lambda: served.elsewhere(session_id) == {"task": "done"})


def test_background_task_whose_session_ended_meanwhile_is_reported(served: Served) -> None:
    """A logout wins; the log names what the task wanted to store."""
    with structlog.testing.capture_logs() as lines:
        served.http.get("/later")
        session_id = served.http.cookies["JSESSIONID"]
        assert held.begun.wait(20)
        # uvicorn keeps a connection for its request until the task is over.
        httpx.get(
            f"http://127.0.0.1:{served.port}/logout",
            headers={"Cookie": f"JSESSIONID={session_id}"},
            trust_env=False,
        )
        held.go_on.set()
        wait_until(lambda: any("had ended" in line["event"] for line in lines))
    [line] = [line for line in lines if "had ended" in line["event"]]
    assert line["attributes"] == ["task"]
    assert line["log_level"] == "warning"
    assert served.elsewhere(session_id) is None


def test_background_task_that_is_refused_is_reported() -> None:
    """Too few members have it: its client has gone, so the log and the counter say it."""
    node = Node(on_unreplicated="error")
    held.__init__()  # type: ignore[misc]
    served = Served(node)
    try:
        with structlog.testing.capture_logs() as lines:
            assert served.http.get("/later").status_code == 200
            assert held.begun.wait(20)
            node.lose()
            held.go_on.set()
            # The counters are first.
            wait_until(lambda: any("not on enough" in line["event"] for line in lines))
        assert node.counters == (1, 1, 0)
        [line] = [line for line in lines if line["event"] == "session not on enough members"]
        assert "n2" in str(line)
    finally:
        served.close()


def test_commit_that_a_socket_asks_for_can_be_refused() -> None:
    """The application is told, and may tell its client; the change stands here."""
    node = Node(on_unreplicated="error")
    told: list[Exception] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        session["x"] = 1
        await send({"type": "websocket.accept"})
        node.lose()
        session["x"] = 2
        try:
            await session.acommit()
        except SessionNotReplicatedError as error:
            told.append(error)
        assert session["x"] == 2

    async def nothing(_: Any = None) -> Any: ...

    scope = {"type": "websocket", "headers": [], "path": "/"}
    middleware = SessionMiddleware(application, node)  # type: ignore[arg-type]
    asyncio.run(middleware(scope, nothing, nothing))
    assert len(told) == 1
