"""Sessions for every ASGI application: one middleware.

The way of a request: read the cookie, find the session in this process's memory, run the
application, and commit what it changed *before* the response head leaves. So whoever has seen the
answer can rely on the copies that the send options promise (DESIGN §5.4, 6). A commit that is on
too few members is answered as ``on_unreplicated`` says; with ``"error"`` by 503 in place of the
application's answer.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from tribes.errors import ConfigError, SessionNotReplicatedError, StoreError
from tribes.runtime.background import BackgroundNode
from tribes.runtime.commits import Committer
from tribes.runtime.local import LocalCommitter, LocalSessions
from tribes.runtime.native import ChannelTask
from tribes.runtime.waiters import in_thread
from tribes.web.cookies import CookieSettings, cookie_values, join_route, split_route
from tribes.web.refusal import refuse
from tribes.web.request_session import RequestSession

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.runtime.group_channel import GroupChannel

__all__ = ["SessionMiddleware"]

log = structlog.get_logger("tribes")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class SessionMiddleware:
    """Gives ``scope["session"]`` (Starlette: ``request.session``) to an ASGI application.

    ::

        node = BackgroundNode(NodeConfig(name="web-1", contexts=("shop",)))
        app = SessionMiddleware(app, node)

    The node is started with the application and stopped with it, unless somebody else has
    started it. Start-up waits until this node has the others' sessions, at most
    ``state_transfer_timeout_s``; with a server without start-up, or in a forked worker, the first
    requests do.

    A request whose commit is refused is answered by 503 with its cookie: the change stands here
    and reaches the others later, so a client that tries again finds its session. What a request
    changes after its response head is committed too, but can no longer be refused.

    Args:
        app: The application.
        node: The member of the group in this process: a :class:`BackgroundNode`, or under a server
            that runs trio a :class:`GroupChannel`, which then needs no thread. For sessions of
            this process alone, perhaps with a store, a :class:`LocalSessions`.
        context: Which of the node's contexts; may be left out when it has one.
        cookie: How the cookie is written.
        route: This node's name for a sticky balancer (Tomcat: ``jvmRoute``), appended to the id
            in the cookie after a dot.
        on_unreplicated: What to do when a commit is on too few members, instead of what the
            manager's configuration says: ``"serve"``, ``"error"``, or a function of the
            ``CommitResult`` that returns to serve, or raises ``SessionNotReplicatedError(result)``
            for a 503 (anything else it raises is the application's error). Called in the event
            loop; must not block.

    Raises:
        ConfigError: The node does not have that context, the route cannot be in a cookie, or
            ``on_unreplicated`` cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        node: BackgroundNode | GroupChannel | LocalSessions,
        *,
        context: str | None = None,
        cookie: CookieSettings | None = None,
        route: str = "",
        on_unreplicated: OnUnreplicated | None = None,
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
        self._committer: Committer | LocalCommitter
        self._path_filter = None
        if isinstance(node, LocalSessions):
            self._committer = node.committer(on_unreplicated)
            self._path_filter = node.path_filter
        else:
            self._committer = Committer(node.config.manager, on_unreplicated=on_unreplicated)
        self._started_in = 0
        """The process in which the middleware started the node."""
        self._native: ChannelTask | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, connection or lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind in ("http", "websocket") and not self._is_filtered(scope):
            if self.manager.revive is not None or not self.node.is_running:
                # A server without lifespan support, or a worker forked from a running node.
                await self._join()
            await self._request(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    # One request.

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            offered, session = await self._find(scope)
        except StoreError:
            # Nobody knows whether there is a session; a new one would log the user out.
            await refuse(scope, send, ())
            return
        held = RequestSession(self.manager, session)
        scope["session"] = held
        is_secure = scope.get("scheme") in ("https", "wss")
        is_refused = False

        async def send_with_cookie(message: Message) -> None:
            nonlocal is_refused
            if is_refused:
                return
            if message["type"] in ("http.response.start", "websocket.accept"):
                try:
                    await self._commit(held)
                except SessionNotReplicatedError:
                    is_refused = True
                cookie = self._set_cookie(held, offered, is_secure=is_secure)
                headers = [] if cookie is None else [(b"set-cookie", cookie)]
                held.is_sealed = True
                if is_refused:
                    await refuse(scope, send, headers)
                    return
                if headers:
                    message = dict(message)
                    message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        try:
            await self.app(scope, receive, send_with_cookie)
        except BaseException:
            if held.is_sealed or not held.needs_cookie:
                await self._commit(held, can_refuse=False)
            raise
        # Changes made while the body was sent.
        await self._commit(held, can_refuse=False)

    async def _find(self, scope: Scope) -> tuple[str, Session | None]:
        """The cookie's value and its session; the first value that names one counts."""
        headers = [value for name, value in scope["headers"] if name == b"cookie"]
        if not headers:
            return "", None
        for value in cookie_values(headers, self.cookie.name):
            session_id = split_route(value)[0]
            if self.manager.is_away(session_id):
                session = await in_thread(partial(self.manager.find, session_id))
            else:
                session = self.manager.find(session_id)
            if session is not None:
                return value, session
        return "", None

    def _is_filtered(self, scope: Scope) -> bool:
        pattern = self._path_filter
        return pattern is not None and pattern.fullmatch(scope["path"]) is not None

    async def _commit(self, held: RequestSession, *, can_refuse: bool = True) -> None:
        if held.session is not None:
            await self._committer.acommit(
                held.session, known_failures=held.failed, can_refuse=can_refuse
            )

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

    async def _join(self) -> None:
        """Start the node unless that was done, and wait until it has the others' sessions."""
        node = self.node
        if isinstance(node, BackgroundNode | LocalSessions):
            if self.manager.revive is None and node.was_started and not node.is_running:
                # It has ended. What is in this process's memory can still be served.
                return
            if not node.was_started and self._started_in != os.getpid():
                self._started_in = os.getpid()
                if self.manager.revive is None:
                    await in_thread(node.start)
        elif not node.is_running:
            self._native = self._native or ChannelTask(node)
            await self._native.start()
        if not await node.await_joined():
            log.warning("serving before all sessions have arrived")

    async def _leave(self) -> None:
        if self._native is not None:
            await self._native.stop()
        elif (
            isinstance(self.node, BackgroundNode | LocalSessions)
            and self._started_in == os.getpid()
        ):
            await in_thread(self.node.stop)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_start() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._join()
            return message

        async def send_and_stop(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self._leave()
            await send(message)

        try:
            await self.app(scope, receive_and_start, send_and_stop)
        finally:
            await self._leave()
