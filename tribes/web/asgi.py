"""Sessions for every ASGI application: one middleware.

The way of a request: read the cookie, find the session in this process's memory, run the
application, and commit what it changed *before* the response head leaves. So whoever has seen the
answer can rely on the copies that the send options promise (DESIGN §5.4, 6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog

from tribes.errors import ConfigError
from tribes.runtime.waiters import async_waiter, in_thread
from tribes.web.cookies import CookieSettings, cookie_values, join_route, split_route
from tribes.web.request_session import RequestSession
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session
    from tribes.runtime.background import BackgroundNode

__all__ = ["SessionMiddleware"]

log = structlog.get_logger("tribes")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_USE_ACK = int(SendOptions.USE_ACK)
_ASYNC = int(SendOptions.ASYNCHRONOUS)

_BACKSTOP_S = 1.0
"""Added to ``commit_timeout``: the channel's thread answers within that, or it is dead."""


class SessionMiddleware:
    """Gives ``scope["session"]`` (Starlette: ``request.session``) to an ASGI application.

    ::

        node = BackgroundNode(NodeConfig(name="web-1", contexts=("shop",)))
        app = SessionMiddleware(app, node)

    The node is started with the application and stopped with it, unless somebody else has
    started it. Start-up waits until this node has the others' sessions, at most
    ``state_transfer_timeout_s``.

    Args:
        app: The application.
        node: The member of the group in this process.
        context: Which of the node's contexts; may be left out when it has one.
        cookie: How the cookie is written.
        route: This node's name for a sticky balancer (Tomcat: ``jvmRoute``), appended to the id
            in the cookie after a dot.

    Raises:
        ConfigError: The node does not have that context, or the route cannot be in a cookie.
    """

    def __init__(
        self,
        app: ASGIApp,
        node: BackgroundNode,
        *,
        context: str | None = None,
        cookie: CookieSettings | None = None,
        route: str = "",
    ) -> None:
        contexts = node.config.contexts
        if context is None:
            if len(contexts) != 1:
                raise ConfigError(
                    f"the node has the contexts {contexts!r}; say which one this application is, "
                    "for example context='app'",
                    key="context",
                )
            context = contexts[0]
        if context not in contexts:
            raise ConfigError(
                f"{context!r} is not one of the node's contexts {contexts!r}", key="context"
            )
        if route and not (route.isascii() and route.replace("-", "").replace("_", "").isalnum()):
            raise ConfigError(
                f"{route!r} must consist of letters, digits, '-' and '_'", key="route"
            )
        self.app = app
        self.node = node
        self.manager: SessionManager = node.manager(context)
        self.cookie = cookie or CookieSettings()
        self.route = route
        settings = node.config.manager
        options = settings.channel_send_options
        self._waits = bool(options & _USE_ACK) and not options & _ASYNC
        self._wait_s = settings.commit_timeout / 1000 + _BACKSTOP_S
        self._started_here = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, connection or lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind in ("http", "websocket"):
            if not self.node.is_running:
                # A server without lifespan support.
                await self._start_node()
            await self._request(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # One request.

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        offered, session = self._find(scope)
        held = RequestSession(self.manager, session)
        scope["session"] = held
        is_secure = scope.get("scheme") in ("https", "wss")

        async def send_with_cookie(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                await self._commit(held)
                cookie = self._set_cookie(held, offered, is_secure=is_secure)
                if cookie is not None:
                    message = dict(message)
                    message["headers"] = [*message.get("headers", ()), (b"set-cookie", cookie)]
                held.is_sealed = True
            await send(message)

        try:
            await self.app(scope, receive, send_with_cookie)
        except BaseException:
            if held.is_sealed or not held.needs_cookie:
                await self._commit(held)
            raise
        # Changes made while the body was sent.
        await self._commit(held)

    def _find(self, scope: Scope) -> tuple[str, Session | None]:
        """The cookie's value and its session; the first value that names one counts."""
        headers = [value for name, value in scope["headers"] if name == b"cookie"]
        if not headers:
            return "", None
        for value in cookie_values(headers, self.cookie.name):
            session = self.manager.find(split_route(value)[0])
            if session is not None:
                return value, session
        return "", None

    async def _commit(self, held: RequestSession) -> None:
        session = held.session
        if session is None:
            return
        waiter = async_waiter() if self._waits else None
        outcome = self.manager.commit(session, waiter)
        for name, error in outcome.failed.items():
            if name not in held.failed:
                held.failed.add(name)
                log.error("session attribute not stored", attribute=name, error=str(error))
        if waiter is None or outcome.version is None:
            return
        result = await waiter.wait(self._wait_s)
        if result is None:
            log.error("the channel does not answer; the session is stored on this node only")
        elif result.missing:
            log.warning("session not on all members", missing=dict(result.missing))

    def _set_cookie(self, held: RequestSession, offered: str, *, is_secure: bool) -> bytes | None:
        session = held.session
        if session is None:
            return None
        if not session.is_valid:
            return self.cookie.header("", is_secure=is_secure) if offered else None
        value = join_route(session.id, self.route)
        if value == offered:
            return None
        return self.cookie.header(value, is_secure=is_secure)

    # Life of the node.

    async def _start_node(self) -> None:
        if self.node.was_started:
            return
        self._started_here = True
        await in_thread(self.node.start)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_start() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start_node()
                if not await in_thread(self.node.wait_joined):
                    log.warning("serving before all sessions have arrived")
            return message

        async def send_and_stop(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown.") and self._started_here:
                await in_thread(self.node.stop)
            await send(message)

        try:
            await self.app(scope, receive_and_start, send_and_stop)
        finally:
            if self._started_here and self.node.is_running:
                await in_thread(self.node.stop)
