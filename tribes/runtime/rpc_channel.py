"""Asking members and answering them: the RPC channel as users meet it (Tomcat: ``RpcChannel``)."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from tribes.errors import ChannelClosedError
from tribes.rpc.calls import RpcBody, RpcMode, RpcResult
from tribes.runtime.background import BackgroundNode
from tribes.runtime.crossing import now_or_soon
from tribes.runtime.rpc_dispatch import Endpoint, RpcHandler
from tribes.runtime.waiters import refuse_in_event_loop, result_of
from tribes.wire.member import Member
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.runtime.group_channel import GroupChannel

__all__ = ["RpcChannel"]

_BACKSTOP_S = 5.0
"""Added to a call's timeout: the channel's thread answers within that, or it is dead."""


class RpcChannel:
    """Requests to members that have an RPC channel of the same id, and answers to theirs.

    ::

        rpc = RpcChannel(channel, b"prices", lambda body, source: b"42")
        result = await rpc.asend(b"what is the price?", timeout=2)
        for reply in result.replies:
            print(reply.source.label, reply.body)

    It is open until :meth:`close`, or the end of a ``with`` block. Tomcat's members can take part:
    a body of bytes is a ``ByteMessage`` there, and text and numbers are String, Integer and Long.

    A handler runs as a message listener does: ``async def`` in a task of the channel's trio run,
    any other function in a worker thread, or in the channel's own loop with ``inline``. Messages of
    one member are handled one after the other. What a handler returns is the reply, None too. If it
    raises, there is no reply.

    Args:
        channel: A `GroupChannel` or a `BackgroundNode`; it may be started later.
        rpc_id: 1 to 4,096 bytes, the same on all members.
        callback: ``callback(body, source)`` answers requests. None: this member only asks, and
            others are told that it has no such channel.
        left_over: ``left_over(body, source)`` gets the replies that no call waits for: late ones,
            and those to requests in mode ``NO_REPLY``.
        inline: Call both in the channel's own loop. They must be quick and never block.
        reply_options: How replies are sent. Default 0, as Tomcat's.

    Raises:
        LocalProtocolError: The id is taken or cannot be one, or a coroutine function is inline.
    """

    def __init__(
        self,
        channel: GroupChannel | BackgroundNode,
        rpc_id: bytes,
        callback: RpcHandler | None = None,
        *,
        left_over: RpcHandler | None = None,
        inline: bool = False,
        reply_options: int = 0,
    ) -> None:
        self.rpc_id = bytes(rpc_id)
        self._host = channel
        self._endpoint = Endpoint(
            callback, left_over, inline=inline, reply_options=int(reply_options)
        )
        channel.sessions.endpoints.add(self.rpc_id, self._endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more requests; calls that wait go on. A second call does nothing."""
        self._host.sessions.endpoints.remove(self.rpc_id, self._endpoint)

    def send(
        self,
        body: RpcBody,
        to: Iterable[Member] | Member | None = None,
        *,
        mode: RpcMode = RpcMode.FIRST_REPLY,
        timeout: float = 5.0,
        options: int = SendOptions.DEFAULT,
    ) -> RpcResult:
        """Ask members; block this thread until enough of them have replied.

        Args:
            body: Bytes, text, a number of up to 64 bits, or None.
            to: Who is asked; None: all members. Nobody: the result is empty at once.
            mode: How many replies to wait for.
            timeout: Seconds to wait at most; 0: not at all. Members that leave, do not answer, or
                have no such channel are not waited for.
            options: How the request is sent; SYNCHRONIZED_ACK has no effect.

        Returns:
            The replies, and who is missing and why. That members are missing is no error.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`asend`. Or the body cannot
                travel, or this member is among the destinations.
            QueueFullError: Too many calls wait for replies.
            ChannelClosedError: The channel does not run.
        """
        refuse_in_event_loop("await rpc.asend(body)")
        future = self._begin(body, to, RpcMode(mode), timeout, int(options))
        return future.result(timeout + _BACKSTOP_S)

    async def asend(
        self,
        body: RpcBody,
        to: Iterable[Member] | Member | None = None,
        *,
        mode: RpcMode = RpcMode.FIRST_REPLY,
        timeout: float = 5.0,
        options: int = SendOptions.DEFAULT,
    ) -> RpcResult:
        """The same in a task of asyncio or trio.

        Cancelling is safe: members may still do what was asked; replies are dropped.
        """
        future = self._begin(body, to, RpcMode(mode), timeout, int(options))
        return await result_of(future, timeout + _BACKSTOP_S)

    def _begin(
        self,
        body: RpcBody,
        to: Iterable[Member] | Member | None,
        mode: RpcMode,
        timeout: float,
        options: int,
    ) -> Future[RpcResult]:
        channel = self._host.channel if isinstance(self._host, BackgroundNode) else self._host
        shell, token = channel.shell, channel.token
        closed = ChannelClosedError("the channel is not running")
        if not channel.is_running or token is None:
            raise closed
        if isinstance(to, Member):
            to = (to,)
        targets = None if to is None else tuple(to)
        future: Future[RpcResult] = Future()

        def begin() -> None:
            try:
                if not channel.is_running:
                    raise closed
                shell.core.rpc_call(
                    self.rpc_id,
                    channel.members if targets is None else targets,
                    body,
                    mode=mode,
                    timeout=timeout,
                    options=options,
                    now=shell.now(),
                    done=future.set_result,
                )
            except Exception as error:  # noqa: BLE001 - the caller's, in its own thread
                future.set_exception(error)
            shell.pump()

        now_or_soon(token, begin, closed)
        return future
