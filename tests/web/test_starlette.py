"""``request.session`` in Starlette and FastAPI, beside what Starlette's own middleware gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as OwnMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from tests.web.nodes import Node, make_node
from tribes.errors import ConfigError
from tribes.web import SessionMiddleware

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket

with warnings.catch_warnings():
    # Its remark on the HTTP library that it uses.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


def starlettes() -> Middleware:
    return Middleware(OwnMiddleware, secret_key="x")


def tribes() -> Middleware:
    return Middleware(SessionMiddleware, node=Node())  # type: ignore[arg-type]


def client_of(middleware: Middleware, *routes: Any) -> TestClient:
    return TestClient(Starlette(routes=list(routes), middleware=[middleware]))


def steps() -> list[Callable[[Any], Any]]:
    """What applications do with a session, one request each; each says what it found."""

    def remove(session: Any) -> None:
        del session["a"]

    def merge(session: Any) -> None:
        session |= {"m": 1}

    return [
        lambda s: (dict(s), len(s), bool(s), "a" in s, s.get("a"), s.get("a", 7)),
        lambda s: s.update(a=1, b=[2], c={"d": None}),
        lambda s: sorted(s.items()),
        lambda s: (s["a"], s["b"], s["c"]["d"], len(s), bool(s), list(s) == list(s.keys())),
        lambda s: s == {"a": 1, "b": [2], "c": {"d": None}},
        lambda s: s.setdefault("e", "new") + s.setdefault("e", "old"),
        lambda s: (s.pop("e"), s.pop("e", None)),
        remove,
        lambda s: sorted(s),
        merge,
        lambda s: sorted((s | {"n": 2}).items(), key=str),
        lambda s: sorted(s.copy()),
        lambda s: type(s["missing"]),
        lambda s: s.pop("missing"),
        lambda s: s.__delitem__("missing"),
        lambda s: s.clear(),
        lambda s: (dict(s), bool(s)),
        lambda s: s.popitem(),
        lambda s: s.__setitem__("z", 0),
        lambda s: s.popitem(),
        lambda s: (dict(s), bool(s)),
    ]


def run(middleware: Middleware) -> list[str]:
    todo = iter(steps())

    def view(request: Request) -> PlainTextResponse:
        try:
            found = next(todo)(request.session)
        except KeyError:
            found = "KeyError"  # what it says differs
        return PlainTextResponse(repr(found))

    client = client_of(middleware, Route("/", view))
    return [client.get("/").text for _ in steps()]


def test_session_is_a_mapping_as_starlettes_is() -> None:
    """Request by request, everything that is found is the same."""
    own, ours = run(starlettes()), run(tribes())
    assert ours == own
    assert ours.count("'KeyError'") == 4


@pytest.mark.parametrize("middleware", [starlettes, tribes])
def test_websocket_has_the_session_of_its_client(middleware: Callable[[], Middleware]) -> None:
    """What a page stored is there in the connection."""

    def page(request: Request) -> PlainTextResponse:
        request.session["user"] = "eve"
        return PlainTextResponse("")

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(dict(websocket.session))
        await websocket.close()

    client = client_of(middleware(), Route("/", page), WebSocketRoute("/ws", talk))
    client.get("/")
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json() == {"user": "eve"}


def test_websocket_can_change_the_session() -> None:
    """Before it accepts, with a cookie of its own; after that until it is closed."""

    async def talk(websocket: WebSocket) -> None:
        websocket.session["steps"] = ["before"]
        await websocket.accept()
        websocket.session["steps"].append(await websocket.receive_text())
        await websocket.close()

    def look(request: Request) -> PlainTextResponse:
        return PlainTextResponse(repr(dict(request.session)))

    client = client_of(tribes(), Route("/", look), WebSocketRoute("/ws", talk))
    with client.websocket_connect("/ws") as socket:
        socket.send_text("after")
        headers: Any = socket.extra_headers
        [cookie] = [value for name, value in headers if name == b"set-cookie"]
    session = cookie.decode().partition(";")[0]
    found = client.get("/", headers={"cookie": session}).text
    assert found == "{'steps': ['before', 'after']}"


def test_streamed_answers_commit_what_they_change() -> None:
    """Also what a background task changes."""
    from starlette.background import BackgroundTask

    def stream(request: Request) -> StreamingResponse:
        session = request.session
        session["seen"] = 0

        async def body() -> Any:
            yield b"one"
            session["seen"] = 1

        def later() -> None:
            session["task"] = "done"

        return StreamingResponse(body(), background=BackgroundTask(later))

    def look(request: Request) -> PlainTextResponse:
        return PlainTextResponse(repr(dict(request.session)))

    client = client_of(tribes(), Route("/", stream), Route("/look", look))
    client.get("/")
    assert client.get("/look").text == "{'seen': 1, 'task': 'done'}"


def test_fastapi_takes_it_by_add_middleware() -> None:
    """With the node living as long as the application; login changes the id, logout ends it."""
    node = make_node()
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, node=node)

    @app.get("/login/{user}")
    def login(request: fastapi.Request, user: str) -> None:
        request.session.rotate_id(grace_s=0)  # type: ignore[attr-defined]
        request.session["user"] = user

    @app.get("/me")
    async def me(request: fastapi.Request) -> dict[str, Any]:
        return dict(request.session)

    @app.get("/logout")
    def logout(request: fastapi.Request) -> None:
        request.session.invalidate()  # type: ignore[attr-defined]

    with TestClient(app) as client:
        assert node.is_running
        first = client.get("/login/eve").headers["set-cookie"]
        assert client.get("/me").json() == {"user": "eve"}
        assert client.get("/login/bob").headers["set-cookie"] != first
        assert client.get("/me").json() == {"user": "bob"}
        client.get("/logout")
        assert client.get("/me").json() == {}
    assert not node.is_running


def test_settings_go_through_add_middleware() -> None:
    """A wrong one is refused when the application is built."""
    app = Starlette(middleware=[Middleware(SessionMiddleware, node=Node(), context="shop")])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'shop' is not one"):
        TestClient(app).get("/")
