"""Sessions for every ASGI application: one middleware.

The way of a request: read the cookie, find the session in this process's memory, run the
application, and commit what it changed *before* the response head leaves. So whoever has seen the
answer can rely on the copies that the send options promise (DESIGN §5.4, 6). A commit that is on
too few members is answered as ``on_unreplicated`` says; with ``"error"`` by 503 in place of the
application's answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from tribes.errors import (
    ChannelError,
    ConfigError,
    SessionLockTimeoutError,
    SessionNotReplicatedError,
    StoreError,
    TribesError,
)
from tribes.manager.request_line import RequestLine
from tribes.web.binding import SessionBinding, Tracking
from tribes.web.ready import answer_ready
from tribes.web.refusal import refuse, status_of
from tribes.web.request_session import RequestSession
from tribes.web.urls import strip_scope

if TYPE_CHECKING:
    from tribes.manager.policy import OnUnreplicated
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.handle import NodeHandle
    from tribes.runtime.local import LocalSessions
    from tribes.web.cookies import CookieSettings

__all__ = ["SessionMiddleware"]

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
    requests do. If the application does not wait for the server's shutdown, the node is stopped
    when the process ends.

    A request whose commit is refused is answered by 503 with its cookie: the change stands here
    and reaches the others later, so a client that tries again finds its session. What a request
    changes after its response head is committed too, but can no longer be refused.

    Args:
        app: The application.
        node: The member of the group in this process: a :class:`BackgroundNode`, or under a server
            that runs trio a :class:`GroupChannel`, which then needs no thread. In a worker that
            shares its host's node an :class:`AttachedNode`. For sessions of this process alone,
            perhaps with a store, a :class:`LocalSessions`.
        context: Which of the node's contexts; may be left out when it has one.
        cookie: How the cookie is written.
        route: This node's name for a sticky balancer (Tomcat: ``jvmRoute``), appended to the id
            in the cookie after a dot.
        on_unreplicated: What to do when a commit is on too few members, instead of what the
            manager's configuration says: ``"serve"``, ``"error"``, or a function of the
            ``CommitResult`` that returns to serve, or raises ``SessionNotReplicatedError(result)``
            for a 503 (anything else it raises is the application's error). Called in the event
            loop; must not block.
        tracking: Where ids travel: ``"cookie"``; ``"url"``, as ``;jsessionid=…`` in links that the
            application makes by `encode_url`; or ``"both"``, where a client without cookies needs
            the links.
        ready_path: Path at which a balancer asks whether to send requests here: 200 when this node
            has the others' sessions and is not about to leave, else 503. Empty: there is none.

    Raises:
        ConfigError: The node does not have that context, the route cannot be in a cookie, or
            ``on_unreplicated`` or ``tracking`` cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        node: NodeHandle | GroupChannel | LocalSessions,
        *,
        context: str | None = None,
        cookie: CookieSettings | None = None,
        route: str = "",
        on_unreplicated: OnUnreplicated | None = None,
        tracking: Tracking = "cookie",
        ready_path: str = "",
    ) -> None:
        self.app = app
        self._ready_path = ready_path
        self.binding = SessionBinding(
            node,
            context=context,
            cookie=cookie,
            route=route,
            on_unreplicated=on_unreplicated,
            tracking=tracking,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request, connection or lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        path = scope.get("path", "")
        is_ready_path = kind == "http" and self._ready_path and path == self._ready_path
        is_ours = is_ready_path or not self.binding.is_filtered(path)
        if kind not in ("http", "websocket") or not is_ours:
            await self.app(scope, receive, send)
            return
        life = self.binding.life
        if is_ready_path:
            await answer_ready(send, is_ready=await life.ais_ready())
            return
        if life.must_join:
            await life.ajoin()
        await self._request(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        binding = self.binding
        url = None
        if binding.tracking != "cookie":
            scope = dict(scope)
            url = strip_scope(scope, binding.parameter, binding.ids)
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        line = None
        if binding.wants_request:
            query = scope.get("query_string", b"").decode("latin-1")
            line = RequestLine(scope.get("method", ""), scope.get("path", ""), query)
        try:
            held = await binding.aopen(cookies, url, line)
        except (StoreError, SessionLockTimeoutError) as why:
            # Nobody knows whether there is a session; a new one would log the user out.
            await refuse(scope, send, (), status_of(why))
            return
        is_secure = scope.get("scheme") in ("https", "wss")
        if scope["type"] == "http" and (
            away := binding.away(held, scope, cookies, is_secure=is_secure)
        ):
            status, fields = away
            encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
            await send({"type": "http.response.start", "status": status, "headers": encoded})
            await send({"type": "http.response.body", "body": b""})
            return
        held.is_included = isinstance(scope.get("session"), RequestSession)
        scope["session"] = held
        binding.begin(held, scope.get("path", ""), scope)
        is_refused = False

        async def send_with_cookie(message: Message) -> None:
            nonlocal is_refused
            if is_refused:
                return
            if message["type"] in ("http.response.start", "websocket.accept"):
                try:
                    await binding.acommit(held)
                except SessionNotReplicatedError:
                    is_refused = True
                cookies = binding.set_cookies(held, is_secure=is_secure)
                headers = [(b"set-cookie", cookie) for cookie in cookies]
                if headers and message["type"] == "http.response.start":
                    # No cache may give one client's cookie to another.
                    headers.append((b"vary", b"Cookie"))
                if is_refused:
                    await refuse(scope, send, headers)
                    return
                if headers:
                    message = dict(message)
                    message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        if scope["type"] == "websocket":
            # A connection may last for hours: it must not keep all requests waiting.
            held.release_lock()
        try:
            try:
                await self.app(scope, receive, send_with_cookie)
            except BaseException:
                if held.keeps_changes:
                    await binding.acommit(held, can_refuse=False)
                raise
            # Changes made while the body was sent.
            await binding.acommit(held, can_refuse=False)
        finally:
            binding.close(held)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_ending = False
        refusal: TribesError | None = None

        async def receive_and_start() -> Message:
            nonlocal is_ending, refusal
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.binding.life.ajoin()
                except (ConfigError, ChannelError) as why:
                    # From an error alone uvicorn concludes that there is no lifespan, and serves.
                    refusal = why
                    is_ending = True
                    await send({"type": "lifespan.startup.failed", "message": str(why)})
                    raise
            is_ending = message["type"] == "lifespan.shutdown"
            return message

        async def send_and_stop(message: Message) -> None:
            nonlocal is_ending
            if refusal is not None:
                return  # that was said already
            if message["type"].startswith("lifespan.shutdown."):
                await self.binding.life.aleave()
            is_ending = is_ending or message["type"] == "lifespan.startup.failed"
            await send(message)

        try:
            await self.app(scope, receive_and_start, send_and_stop)
        except TribesError as why:
            if why is not refusal:
                raise
        finally:
            # An application that does not wait for the end has its requests served all the same.
            if is_ending:
                await self.binding.life.aleave()
