"""The middleware on a real node: cookies, commits before the head, what may not happen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until
from tests.web.nodes import make_node, node_without_its_key
from tribes.errors import ConfigError, SessionError, SessionInvalidError
from tribes.web.asgi import SessionMiddleware
from tribes.web.cookies import CookieSettings

if TYPE_CHECKING:
    from tribes.runtime.background import BackgroundNode

Handler = Callable[[Any, Callable[..., Awaitable[None]]], Awaitable[None]]


@pytest.fixture(scope="module")
def node() -> Iterator[BackgroundNode]:
    made = make_node()
    made.start()
    made.wait_joined()
    yield made
    made.stop()


class Answer:
    """What the server would have sent."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        self.cookies = [
            value.decode()
            for message in messages
            for name, value in message.get("headers", ())
            if name == b"set-cookie"
        ]

    @property
    def session_cookie(self) -> str:
        assert len(self.cookies) == 1
        value: str = self.cookies[0].partition(";")[0].partition("=")[2]
        return value


def ask(
    node: BackgroundNode,
    handler: Handler,
    *,
    cookie: str = "",
    scheme: str = "http",
    kind: str = "http",
    **settings: Any,
) -> Answer:
    """One request through the middleware; ``handler`` gets the session and a ``respond``."""
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def respond(*bodies: bytes) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for body in bodies or (b"",):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        await handler(scope["session"], send if kind == "websocket" else respond)

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"cookie", f"JSESSIONID={cookie}".encode())] if cookie else []
    scope = {"type": kind, "scheme": scheme, "headers": headers, "path": "/"}
    asyncio.run(SessionMiddleware(app, node, **settings)(scope, receive, send))
    return Answer(messages)


async def count(session: Any, respond: Any) -> None:
    session["count"] = session.get("count", 0) + 1
    await respond(str(session["count"]).encode())


async def look(session: Any, respond: Any) -> None:
    await respond(repr(dict(session)).encode())


def body(answer: Answer) -> bytes:
    return b"".join(m.get("body", b"") for m in answer.messages)


def test_first_write_makes_a_session_and_its_cookie(node: BackgroundNode) -> None:
    """HttpOnly, SameSite=Lax, Path; the next request with it sets none."""
    first = ask(node, count)
    value = first.session_cookie
    assert len(value) == 32
    assert first.cookies == [f"JSESSIONID={value}; Path=/; HttpOnly; SameSite=Lax"]
    second = ask(node, count, cookie=value)
    assert second.cookies == []
    assert body(second) == b"2"


def test_looking_makes_no_session(node: BackgroundNode) -> None:
    """A page that only reads costs neither a cookie nor an entry."""
    before = len(node.manager("app").table)
    answer = ask(node, look)
    assert answer.cookies == []
    assert body(answer) == b"{}"
    assert len(node.manager("app").table) == before


def test_cookie_is_secure_when_the_request_was(node: BackgroundNode) -> None:
    """Over https and wss the cookie says so."""
    assert "; Secure;" in ask(node, count, scheme="https").cookies[0]
    assert "Secure" not in ask(node, count, scheme="http").cookies[0]


def test_route_is_appended_and_follows_the_node_that_answers(node: BackgroundNode) -> None:
    """Another node's route in the cookie is replaced; the session stays the same."""
    value = ask(node, count, route="n1").session_cookie
    assert value.endswith(".n1")
    assert ask(node, count, cookie=value, route="n1").cookies == []
    moved = ask(node, count, cookie=value, route="n2")
    assert moved.session_cookie == value.replace(".n1", ".n2")
    assert body(moved) == b"3"


def test_cookie_settings_are_used(node: BackgroundNode) -> None:
    """Name and attributes come from the settings."""
    settings = CookieSettings(name="sid", path="/shop", same_site="strict")
    messages = ask_with(node, settings)
    assert messages.cookies[0].startswith("sid=")
    assert "; Path=/shop; HttpOnly; SameSite=Strict" in messages.cookies[0]


def ask_with(node: BackgroundNode, settings: CookieSettings) -> Answer:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["x"] = 1
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    middleware = SessionMiddleware(app, node, cookie=settings)
    asyncio.run(middleware({"type": "http", "headers": []}, receive, send))
    return Answer(sent)


@pytest.mark.parametrize(
    "offered", ["A" * 32, "junk", "a" * 31, "0" * 64, "../x", "A" * 32 + ".n1"]
)
def test_unknown_id_is_never_adopted(node: BackgroundNode, offered: str) -> None:
    """Whoever offers an id that does not exist gets another one."""
    assert ask(node, count, cookie=offered).session_cookie != offered


def test_in_place_change_is_committed(node: BackgroundNode) -> None:
    """``session["cart"].append`` is enough."""

    async def fill(session: Any, respond: Any) -> None:
        session.setdefault("cart", []).append("book")
        await respond()

    value = ask(node, fill).session_cookie
    ask(node, fill, cookie=value)
    assert body(ask(node, look, cookie=value)) == b"{'cart': ['book', 'book']}"


def test_invalidated_session_is_gone_and_its_cookie_taken_back(node: BackgroundNode) -> None:
    """Logout: the client forgets the cookie, the id is worth nothing, use in the rest raises."""
    errors: list[Exception] = []

    async def logout(session: Any, respond: Any) -> None:
        session.invalidate()
        try:
            session["x"] = 1
        except SessionInvalidError as error:
            errors.append(error)
        await respond()

    value = ask(node, count).session_cookie
    answer = ask(node, logout, cookie=value)
    assert answer.cookies == ["JSESSIONID=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]
    assert len(errors) == 1
    assert node.manager("app").find(value) is None
    assert ask(node, count, cookie=value).session_cookie != value


def test_rotation_sends_the_new_id_and_keeps_the_content(node: BackgroundNode) -> None:
    """At login the id changes, with no grace for the old one."""

    async def login(session: Any, respond: Any) -> None:
        session["user"] = "eve"
        session.rotate_id(grace_s=0)
        await respond()

    old = ask(node, count).session_cookie
    new = ask(node, login, cookie=old).session_cookie
    assert new != old
    assert body(ask(node, look, cookie=new)) == b"{'count': 1, 'user': 'eve'}"
    assert node.manager("app").find(old) is None


def test_changes_made_while_the_body_is_sent_are_committed(node: BackgroundNode) -> None:
    """Streaming handlers and background work: committed at the true end of the request."""

    async def stream(session: Any, respond: Any) -> None:
        session["state"] = "begun"
        await respond(b"head is out")
        session["state"] = "done"

    value = ask(node, stream).session_cookie
    assert body(ask(node, look, cookie=value)) == b"{'state': 'done'}"


def test_session_cannot_begin_or_change_its_id_after_the_head(node: BackgroundNode) -> None:
    """No cookie could tell the client; the error says what to do."""

    async def begin(session: Any, respond: Any) -> None:
        await respond()
        session["x"] = 1

    async def rotate(session: Any, respond: Any) -> None:
        await respond()
        session.rotate_id()

    with pytest.raises(SessionError, match="begin after the response head"):
        ask(node, begin)
    value = ask(node, count).session_cookie
    with pytest.raises(SessionError, match="id cannot change after the response head"):
        ask(node, rotate, cookie=value)
    assert body(ask(node, look, cookie=value)) == b"{'count': 1}"


def test_handler_that_raises_keeps_its_changes(node: BackgroundNode) -> None:
    """What it stored before is committed, as Tomcat does."""
    value = ask(node, count).session_cookie

    async def broken(session: Any, respond: Any) -> None:
        session["seen"] = True
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        ask(node, broken, cookie=value)
    assert body(ask(node, look, cookie=value)) == b"{'count': 1, 'seen': True}"


def test_bad_attribute_costs_only_itself(node: BackgroundNode) -> None:
    """The good ones of the same request are stored."""

    async def mixed(session: Any, respond: Any) -> None:
        session["good"] = 1
        session["bad"] = [object()]
        session["better"] = 2
        await respond()

    value = ask(node, mixed).session_cookie
    assert body(ask(node, look, cookie=value)) == b"{'better': 2, 'good': 1}"


def test_websocket_gets_its_cookie_with_the_acceptance(node: BackgroundNode) -> None:
    """A session made before accepting is told in the handshake."""

    async def socket_handler(session: Any, send: Any) -> None:
        session["x"] = 1
        await send({"type": "websocket.accept"})
        session["x"] = 2

    answer = ask(node, socket_handler, kind="websocket", scheme="wss")
    value = answer.session_cookie
    assert "; Secure;" in answer.cookies[0]
    assert body(ask(node, look, cookie=value)) == b"{'x': 2}"


def test_answer_waits_for_the_other_members(node: BackgroundNode) -> None:
    """With option 6 the head leaves when the other node has processed the commit: whoever looks
    there as soon as it has left finds the session.
    """
    found: list[Any] = []

    async def look_there(session: Any, respond: Any) -> None:
        session["count"] = 1
        await respond()
        found.append(other.manager("app").find(session.id))

    other = make_node("n2", node.config.channel.membership.port)
    other.start()
    try:
        assert other.wait_joined()
        wait_until(lambda: node.view.members and other.view.members)
        for _ in range(20):
            value = ask(node, look_there).session_cookie
            assert body(ask(other, count, cookie=value)) == b"2"
        assert None not in found
        assert len(found) == 20
    finally:
        other.stop()


def test_first_requests_start_the_node_and_wait_for_it(node: BackgroundNode) -> None:
    """Under a server that tells no start-up: all wait until it has joined, and find sessions."""
    second = make_node("n2", node.config.channel.membership.port)
    value = ask(node, count).session_cookie
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["session"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        del message

    async def main() -> None:
        middleware = SessionMiddleware(app, second)
        headers = [(b"cookie", f"JSESSIONID={value}".encode())]
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                scope = {"type": "http", "headers": headers}
                group.create_task(middleware(scope, None, send))  # type: ignore[arg-type]

    try:
        asyncio.run(main())
    finally:
        second.stop()
    assert seen == [{"count": 1}] * 3


def test_node_lives_as_long_as_the_application() -> None:
    """Started at start-up, stopped at shutdown; the application sees both messages."""
    node = make_node()
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen.append(message["type"])
            seen.append(f"running={node.is_running}")
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def run() -> None:
        incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(incoming)

        async def send(message: Any) -> None:
            seen.append(message["type"])
            seen.append(f"running={node.is_running}")

        await SessionMiddleware(app, node)({"type": "lifespan"}, receive, send)

    asyncio.run(run())
    assert seen == [
        *("lifespan.startup", "running=True", "lifespan.startup.complete", "running=True"),
        *("lifespan.shutdown", "running=True", "lifespan.shutdown.complete", "running=False"),
    ]


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_node_outlives_an_application_that_does_not_wait_for_its_shutdown(how: str) -> None:
    """The server goes on with requests, and so must the node."""
    node = make_node()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if how == "raises":
                raise RuntimeError("lifespan is not supported")
            await send({"type": "lifespan.startup.complete"})

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        del message

    try:
        with contextlib.suppress(RuntimeError):
            asyncio.run(SessionMiddleware(app, node)({"type": "lifespan"}, receive, send))
        assert node.is_running
    finally:
        node.stop()


def test_node_ends_with_an_application_that_cannot_start() -> None:
    """The server ends then, too."""
    node = make_node()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        del message

    asyncio.run(SessionMiddleware(app, node)({"type": "lifespan"}, receive, send))
    assert node.was_started
    assert not node.is_running


def test_a_node_that_cannot_start_is_told_to_the_server() -> None:
    """Else uvicorn takes the application for one without a lifespan, and serves."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except BaseException:
            await send({"type": "lifespan.startup.failed", "message": "of the application"})
            raise

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        told.append(message)

    asyncio.run(SessionMiddleware(app, node_without_its_key())({"type": "lifespan"}, receive, send))
    [failed] = told
    assert failed["type"] == "lifespan.startup.failed"
    assert "tribes keygen --output /nowhere/group.key" in failed["message"]


def test_context_must_be_one_of_the_nodes(node: BackgroundNode) -> None:
    """The error names what there is."""
    with pytest.raises(ConfigError, match="app"):
        SessionMiddleware(lambda *_: asyncio.sleep(0), node, context="shop")
    with pytest.raises(ConfigError, match="route"):
        SessionMiddleware(lambda *_: asyncio.sleep(0), node, route="a b")
