"""What a client sees when the commit of its request is on too few members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from tests.web.nodes import MISSING, Node
from tribes.errors import ConfigError, SessionNotReplicatedError
from tribes.web.asgi import SessionMiddleware

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def write(session: Any, respond: Any) -> None:
    session["count"] = session.get("count", 0) + 1
    await respond()


def ask(
    node: Any,
    handler: Any = write,
    *,
    cookie: str = "",
    kind: str = "http",
    extensions: Any = None,
    run: Callable[[Any], Any] = asyncio.run,
    **settings: Any,
) -> list[Any]:
    """One request; returns what the server was given to send."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def respond() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        await handler(scope["session"], respond if kind == "http" else send)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"cookie", f"JSESSIONID={cookie}".encode())] if cookie else []
    scope = {"type": kind, "headers": headers, "extensions": extensions}
    middleware = SessionMiddleware(app, node, **settings)
    run(middleware(scope, None, send))  # type: ignore[arg-type]
    return sent


def cookie_of(sent: list[Any]) -> str:
    [value] = [value for name, value in sent[0]["headers"] if name == b"set-cookie"]
    text: str = value.decode().partition(";")[0].partition("=")[2]
    return text


def run_trio(awaitable: Any) -> None:
    async def main() -> None:
        await awaitable

    trio.run(main)


@pytest.mark.parametrize("run", [asyncio.run, run_trio])
def test_by_default_it_is_answered_counted_and_logged(lines: list[Any], run: Any) -> None:
    """One line names context, members and reasons; no id and no content is in it."""
    node = Node()
    cookie = cookie_of(ask(node, run=run))
    node.lose()

    async def secret(session: Any, respond: Any) -> None:
        session["card"] = "4000-1234"
        await respond()

    for _ in range(5):
        sent = ask(node, secret if _ == 0 else write, cookie=cookie, run=run)
        assert sent[0]["status"] == 200
    assert node.counters == (5, 5, 0)
    [line] = [each for each in lines if each["log_level"] == "warning"]
    assert line["event"] == "session not on enough members"
    assert (line["context"], line["missing"]) == ("app", MISSING)
    assert cookie not in repr(lines)
    assert "4000" not in repr(lines)


def test_error_is_answered_by_503_before_the_head() -> None:
    """The application's answer is dropped, body and all."""
    node = Node(on_unreplicated="error")
    assert ask(node)[0]["status"] == 200
    node.lose()
    head, body = ask(node)
    assert (head["type"], head["status"]) == ("http.response.start", 503)
    assert dict(head["headers"])[b"retry-after"] == b"1"
    assert dict(head["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert b"ok" not in body["body"]
    assert not body.get("more_body")
    assert node.counters == (1, 0, 1)


def test_client_that_tries_again_finds_its_session() -> None:
    """Refused does not mean undone: the change stands here, and the cookie went with the 503."""
    node = Node(on_unreplicated="error")
    node.lose()
    cookie = cookie_of(ask(node))
    node.acked, node.missing = ("n2",), {}
    assert ask(node, cookie=cookie)[0]["status"] == 200
    session = node.manager("app").find(cookie)
    assert session is not None
    assert session["count"] == 2


def test_request_that_changes_nothing_is_never_refused() -> None:
    """There is nothing that a member could lack."""
    node = Node(on_unreplicated="error", min_copies=1)
    cookie = cookie_of(ask(node))
    node.lose()

    async def look(session: Any, respond: Any) -> None:
        assert session["count"] == 1
        await respond()

    assert ask(node, look, cookie=cookie)[0]["status"] == 200
    assert node.counters == (0, 0, 0)


def test_after_the_head_it_is_too_late() -> None:
    """What changed while the body was sent is committed and counted as served."""
    node = Node(on_unreplicated="error")

    async def late(session: Any, respond: Any) -> None:
        session["x"] = 1
        await respond()
        session["x"] = 2
        node.lose()

    sent = ask(node, late)
    assert [each.get("status") for each in sent] == [200, None]
    assert node.counters == (1, 1, 0)


def test_error_of_the_application_is_not_covered() -> None:
    """It raises before the head: its exception is what the server sees."""
    node = Node(on_unreplicated="error")
    cookie = cookie_of(ask(node))
    node.lose()

    async def broken(session: Any, respond: Any) -> None:
        session["x"] = 1
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        ask(node, broken, cookie=cookie)
    assert node.counters == (1, 1, 0)


def test_too_few_copies_are_refused_although_nobody_is_missing() -> None:
    """A node that is alone, with ``min_copies`` of 1."""
    node = Node(on_unreplicated="error", min_copies=1)
    node.acked = ()
    assert ask(node)[0]["status"] == 503
    assert node.counters == (0, 0, 1)


def test_function_decides_by_the_result() -> None:
    """It returns to serve, raises for 503; another exception is the application's error."""
    node = Node()
    node.lose()
    asked: list[CommitResult] = []

    def strict(result: CommitResult) -> None:
        asked.append(result)
        raise SessionNotReplicatedError(result)

    def broken(result: CommitResult) -> None:
        raise LookupError("a bug")

    assert ask(node, on_unreplicated=asked.append)[0]["status"] == 200
    assert ask(node, on_unreplicated=strict)[0]["status"] == 503
    with pytest.raises(LookupError):
        ask(node, on_unreplicated=broken)
    assert [dict(result.missing) for result in asked] == [MISSING] * 2
    assert ask(node, on_unreplicated="error")[0]["status"] == 503
    assert node.counters == (4, 1, 3)


@pytest.mark.parametrize(
    ("extensions", "types"),
    [
        (None, ["websocket.close"]),
        (
            {"websocket.http.response": {}},
            ["websocket.http.response.start", "websocket.http.response.body"],
        ),
    ],
)
def test_websocket_is_refused_in_its_handshake(extensions: Any, types: list[str]) -> None:
    """By 503 where the server can, else by closing it, and nothing is sent after."""
    node = Node(on_unreplicated="error")
    node.lose()

    async def talk(session: Any, send: Any) -> None:
        session["x"] = 1
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})

    sent = ask(node, talk, kind="websocket", extensions=extensions)
    assert [each["type"] for each in sent] == types


def test_channel_that_is_silent_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has a backstop; nobody can say who has the commit then."""
    monkeypatch.setattr("tribes.runtime.commits._BACKSTOP_S", 0.0)
    node = Node(on_unreplicated="error", commit_timeout=10)
    node.sessions.inbox.wake = None
    assert ask(node)[0]["status"] == 503
    assert node.counters == (1, 0, 1)


def test_argument_that_cannot_work_is_refused() -> None:
    """At once, where it is written."""
    node = Node()
    with pytest.raises(ConfigError, match="'serve', 'error' or a function"):
        SessionMiddleware(None, node, on_unreplicated="503")  # type: ignore[arg-type]
    node = Node(channel_send_options=8)
    with pytest.raises(ConfigError, match="channel_send_options = 6"):
        SessionMiddleware(None, node, on_unreplicated="error")  # type: ignore[arg-type]
