"""RPC channels of a simulated process: handlers that answer at once, and calls whose results are
noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.errors import RemoteProtocolError
from tribes.rpc.calls import RpcBody, RpcMode, RpcResult
from tribes.wire.rpc import RpcKind, decode_envelope, is_rpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.testing.sim.node import SimNode
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["SimRpc", "SimRpcCall", "deliver_rpc"]


class SimRpcCall:
    """A call: its result, and when it came, in seconds of the world."""

    def __init__(self) -> None:
        self.result: RpcResult | None = None
        self.when = 0.0

    @property
    def replies(self) -> list[tuple[str, RpcBody]]:
        """Who replied what, sorted by name."""
        assert self.result is not None, "the call has not ended"
        return sorted((reply.source.label, reply.body) for reply in self.result.replies)

    @property
    def missing(self) -> dict[str, str]:
        """Who did not, by name, and the name of the error."""
        assert self.result is not None, "the call has not ended"
        return {m.label: type(why).__name__ for m, why in self.result.missing.items()}


class SimRpc:
    """One RPC channel of one process; gone with it.

    Args:
        node: Where.
        rpc_id: Of the channel.
        answer: Answers requests, at once; None: it only asks.
        is_mute: Its answers are not sent, like those of a handler that never ends.
        takes_left_over: Whether it gathers replies that no call waits for.

    Attributes:
        left_over: Those replies, by name of the member.
    """

    def __init__(
        self,
        node: SimNode,
        rpc_id: bytes,
        answer: Callable[[RpcBody, Member], RpcBody] | None = None,
        *,
        is_mute: bool = False,
        takes_left_over: bool = False,
    ) -> None:
        self.left_over: list[tuple[str, RpcBody]] = []
        self.takes_requests = answer is not None
        self.takes_left_over = takes_left_over
        self._node = node
        self._rpc_id = rpc_id
        self._answer = answer
        self._is_mute = is_mute
        node.process.endpoints.add(rpc_id, self)

    def ask(
        self,
        to: Iterable[SimNode],
        body: RpcBody,
        *,
        mode: RpcMode = RpcMode.ALL_REPLY,
        timeout: float = 5.0,
        options: int = 2,
    ) -> SimRpcCall:
        """Ask nodes, as the processes that they are now."""
        node, call = self._node, SimRpcCall()

        def done(result: RpcResult) -> None:
            assert call.result is None, "a call has one result"
            call.result, call.when = result, node.world.now

        node.core.rpc.call(
            self._rpc_id,
            [other.core.local for other in to],
            body,
            mode=mode,
            timeout=timeout,
            options=options,
            now=node.clock.monotonic(),
            done=done,
        )
        node.pump()
        return call

    def deliver(self, data: ChannelData) -> None:
        """What the core gave to the driver for this channel."""
        envelope = decode_envelope(data.message)
        try:
            body = envelope.body()
        except RemoteProtocolError:
            return
        if envelope.kind is not RpcKind.REQUEST:
            self.left_over.append((data.source.label, body))
        elif self._answer is not None:
            reply = self._answer(body, data.source)
            if self._is_mute:
                return
            now = self._node.clock.monotonic()
            self._node.core.rpc.answer(data.source, envelope, reply, options=0, now=now)


def deliver_rpc(node: SimNode, data: ChannelData) -> None:
    """Give a message to the RPC channel that it is for, if it is for one of this process."""
    if data.options & 1 or not is_rpc(data.message):
        return
    endpoint = node.process.endpoints.get(decode_envelope(data.message).rpc_id)
    if isinstance(endpoint, SimRpc):
        endpoint.deliver(data)
