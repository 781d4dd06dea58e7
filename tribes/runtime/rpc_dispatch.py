"""Requests on their way to the users' handlers, and the handlers' replies on their way back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
import trio

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.runtime.listeners import MessageHandler
from tribes.wire.rpc import RpcEnvelope, RpcKind, decode_envelope, is_rpc

if TYPE_CHECKING:
    from tribes.rpc.calls import RpcBody
    from tribes.runtime.group_channel import GroupChannel
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["Endpoint", "RpcDispatcher", "RpcHandler"]

log = structlog.get_logger("tribes")

RpcHandler: TypeAlias = "Callable[[RpcBody, Member], Any]"
"""Gets a body and who sent it. Its result is the reply; it is awaited first if it is awaitable."""


class Endpoint:
    """The handlers of one RPC channel.

    Args:
        callback: Answers requests; None: this channel only asks.
        left_over: Gets replies that no call waits for.
        inline: Call them in the channel's own loop; they must be quick and never block.
        reply_options: How replies are sent.

    Raises:
        LocalProtocolError: A handler is a coroutine function and inline.
    """

    def __init__(
        self,
        callback: RpcHandler | None,
        left_over: RpcHandler | None,
        *,
        inline: bool,
        reply_options: int,
    ) -> None:
        if inline and any(map(inspect.iscoroutinefunction, (callback, left_over))):
            raise LocalProtocolError("an inline handler cannot be a coroutine function")
        self.callback = callback
        self.left_over = left_over
        self.inline = inline
        self.reply_options = reply_options

    @property
    def takes_requests(self) -> bool:
        """Whether it answers requests."""
        return self.callback is not None

    @property
    def takes_left_over(self) -> bool:
        """Whether it wants the replies that no call waits for."""
        return self.left_over is not None


class RpcDispatcher:
    """Calls the handlers of one channel. What they raise costs their caller the reply, and no more.

    Args:
        channel: Its ``sessions.endpoints`` are the RPC channels.
        limiter: Bounds worker threads.
    """

    def __init__(self, channel: GroupChannel, limiter: trio.CapacityLimiter) -> None:
        self._channel = channel
        self._limiter = limiter
        self.failed = 0
        """Handlers that raised."""

    def find(self, data: ChannelData) -> MessageHandler | None:
        """The function that takes a message, if it is for an RPC channel of this process."""
        if not is_rpc(data.message):
            return None
        envelope = decode_envelope(data.message)
        endpoint = self._channel.sessions.endpoints.get(envelope.rpc_id)
        if not isinstance(endpoint, Endpoint):
            return None
        is_request = envelope.kind is RpcKind.REQUEST
        handler = endpoint.callback if is_request else endpoint.left_over
        if handler is None:
            return None
        try:
            body = envelope.body()
        except RemoteProtocolError:
            # The core has told a caller so already.
            return None
        one = _Message(self, endpoint, handler, envelope, body)
        call = one.handle_inline if endpoint.inline else one.handle
        return MessageHandler(call, None, inline=endpoint.inline, java=True)

    async def run(self, handler: RpcHandler, body: RpcBody, source: Member) -> Any:
        """Call a handler that may block or wait."""
        if inspect.iscoroutinefunction(handler):
            return await handler(body, source)
        result = await trio.to_thread.run_sync(handler, body, source, limiter=self._limiter)
        return await result if inspect.isawaitable(result) else result

    def reply(self, source: Member, envelope: RpcEnvelope, body: Any, endpoint: Endpoint) -> None:
        """Send what a handler returned."""
        shell = self._channel.shell
        shell.core.rpc_answer(
            source, envelope, body, options=endpoint.reply_options, now=shell.now()
        )
        shell.pump()

    def failure(self, envelope: RpcEnvelope) -> None:
        """A handler raised: its caller gets no reply (tribes-wire §5.3)."""
        self.failed += 1
        log.exception("rpc handler failed", rpc_id=envelope.rpc_id.decode("latin-1"))


class _Message:
    """One request or left-over reply, with the handler that it goes to."""

    __slots__ = ("_body", "_dispatcher", "_endpoint", "_envelope", "_handler")

    def __init__(
        self,
        dispatcher: RpcDispatcher,
        endpoint: Endpoint,
        handler: RpcHandler,
        envelope: RpcEnvelope,
        body: RpcBody,
    ) -> None:
        self._dispatcher = dispatcher
        self._endpoint = endpoint
        self._handler = handler
        self._envelope = envelope
        self._body = body

    def handle_inline(self, data: ChannelData) -> None:
        """Call the handler here and now."""
        try:
            self._done(data.source, self._handler(self._body, data.source))
        except Exception:  # noqa: BLE001 - users' code
            self._dispatcher.failure(self._envelope)

    async def handle(self, data: ChannelData) -> None:
        """Call the handler in a worker thread, or await it."""
        try:
            self._done(
                data.source, await self._dispatcher.run(self._handler, self._body, data.source)
            )
        except Exception:  # noqa: BLE001 - users' code
            self._dispatcher.failure(self._envelope)

    def _done(self, source: Member, result: Any) -> None:
        if self._envelope.kind is RpcKind.REQUEST:
            self._dispatcher.reply(source, self._envelope, result, self._endpoint)
