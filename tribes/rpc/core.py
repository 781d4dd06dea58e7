"""Requests and replies between members, as Tomcat's ``RpcChannel`` has them (tribes-wire §5.3).

The caller's side lives here whole: a call gathers replies until its mode is satisfied, its time is
over, or nobody is left who could reply. A member that left, does not answer or could not be sent to
is not waited for, and a member without such a channel says so at once.

Of the callee's side only the envelope is read here. Handlers are users' code, so a request goes the
way of every message to the driver, one at a time per source, and comes back by :meth:`answer`. A
request that no channel here takes is answered in this core, before anything else happens: a member
of a Tomcat group must not make the others wait (DESIGN §4.3). For the same reason the one other
question that Tomcat's members wait for is answered here: that for all sessions of a context, of
which ours have none that a Tomcat could read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tribes.errors import (
    ChannelClosedError,
    LocalProtocolError,
    MemberSuspectedError,
    MemberUnreachableError,
    NoRpcChannelError,
    QueueFullError,
    RemoteProtocolError,
    SendTimeoutError,
)
from tribes.ids import make_unique_id
from tribes.membership.change import ChangeKind
from tribes.rpc.calls import RpcBody, RpcCall, RpcMode, RpcResult
from tribes.wire.options import SendOptions
from tribes.wire.rpc import (
    RpcEnvelope,
    RpcKind,
    check_rpc_id,
    decode_envelope,
    encode_no_channel,
    encode_rpc,
    is_rpc,
)
from tribes.wire.session_request import encode_no_context, requested_context

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.membership.change import MemberChange
    from tribes.rpc.endpoints import RpcEndpoints
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member
    from tribes.wire.member_message import MemberMessage

__all__ = ["RpcCore", "RpcStatistics"]

CALLS_MAX = 1024
"""Calls that wait for replies at once; one more is an error of its caller."""

STRANGERS_MAX = 64
"""Replies on their way to members that are not (yet) in the view. A joining Tomcat may ask before
its heartbeat was heard; somebody who makes up sources must not make us connect everywhere."""

_BYTES = int(SendOptions.BYTE_MESSAGE)
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_SYNC = int(SendOptions.SYNCHRONIZED_ACK)


class RpcStatistics:
    """Counters of one node's RPC, plain ints."""

    __slots__ = (
        "calls_refused",
        "left_over",
        "malformed",
        "no_channel_received",
        "no_channel_sent",
        "no_context_sent",
        "replies_not_sent",
        "requests",
    )

    def __init__(self) -> None:
        self.calls_refused = 0
        self.requests = 0
        self.replies_not_sent = 0
        self.left_over = 0
        self.no_channel_sent = 0
        self.no_channel_received = 0
        self.no_context_sent = 0
        self.malformed = 0


class RpcCore:
    """All RPC of one node.

    Args:
        channel: Where messages go.
        endpoints: The RPC channels that are open here.
        entropy: Gives n random bytes.
    """

    def __init__(
        self,
        channel: ChannelCore,
        endpoints: RpcEndpoints,
        *,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.statistics = RpcStatistics()
        self._channel = channel
        self._endpoints = endpoints
        self._entropy = entropy
        self._calls: dict[bytes, RpcCall] = {}
        self._strangers = 0
        self._is_stopped = False

    @property
    def open_calls(self) -> int:
        """How many calls wait for replies."""
        return len(self._calls)

    # The caller.

    def call(
        self,
        rpc_id: bytes,
        destinations: Iterable[Member],
        body: RpcBody,
        *,
        mode: RpcMode,
        timeout: float,
        options: int,
        now: float,
        done: Callable[[RpcResult], None],
    ) -> None:
        """Ask members.

        Args:
            rpc_id: Of the channel, the same on all members.
            destinations: Who is asked.
            body: What is asked.
            mode: How many replies to wait for.
            timeout: Seconds to wait at most; 0 does not wait at all.
            options: How the request is sent, but for SYNCHRONIZED_ACK: who waits for a reply must
                not also wait until the request was processed.
            now: Monotonic seconds.
            done: Gets the result, inside the core; perhaps before this method returns.

        Raises:
            LocalProtocolError: The local member is among the destinations, or the id, the body or
                an option cannot be used.
            QueueFullError: `CALLS_MAX` calls wait already.
        """
        check_rpc_id(rpc_id)
        targets = tuple(dict.fromkeys(destinations))
        correlation = bytes(make_unique_id(self._entropy(16)))
        payload = encode_rpc(rpc_id, correlation, body, is_reply=False)
        options = int(options) & ~_SYNC
        if self._is_stopped:
            closed = ChannelClosedError("the channel was stopped")
            done(RpcResult((), dict.fromkeys(targets, closed), not targets))
        elif not targets:
            done(RpcResult())
        elif mode is RpcMode.NO_REPLY:
            self._tell(targets, payload, options, now, done)
        else:
            call = RpcCall(rpc_id, targets, mode, done)
            self._ask(correlation, call, targets, payload, options, timeout, now)

    def _tell(
        self,
        targets: tuple[Member, ...],
        payload: bytes,
        options: int,
        now: float,
        done: Callable[[RpcResult], None],
    ) -> None:
        def settled(faulty: dict[Member, Exception], then: float) -> None:
            del then
            if not options & _ASYNC:
                done(RpcResult((), dict(faulty), not faulty))

        self._channel.post(targets, payload, options, now, settled=settled, is_bytes=False)
        if options & _ASYNC:
            done(RpcResult())

    def _ask(
        self,
        correlation: bytes,
        call: RpcCall,
        targets: tuple[Member, ...],
        payload: bytes,
        options: int,
        timeout: float,
        now: float,
    ) -> None:
        if len(self._calls) >= CALLS_MAX:
            self.statistics.calls_refused += 1
            raise QueueFullError(f"{CALLS_MAX} calls wait for their replies already")

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            del then
            self._lose(correlation, call, faulty)

        def over(then: float) -> None:
            del then
            late = SendTimeoutError(f"no reply within {timeout:g} s")
            self._end(correlation, call, lambda member: late)

        # Known before it is sent: whom the send cannot reach is told during it.
        self._calls[correlation] = call
        try:
            self._channel.post(targets, payload, options, now, settled=settled, is_bytes=False)
        except LocalProtocolError:
            self._calls.pop(correlation, None)
            raise
        suspected = self._channel.view.suspected
        self._lose(correlation, call, {m: _silent(m) for m in targets if m in suspected})
        if self._calls.get(correlation) is not call:
            return
        if timeout <= 0:
            over(now)
        else:
            call.timer = self._channel.timers.at(now + timeout, over)

    def _lose(self, correlation: bytes, call: RpcCall, why: dict[Member, Exception]) -> None:
        if self._calls.get(correlation) is call:
            for member, error in why.items():
                call.lose(member, error)
            self._check(correlation, call)

    def _check(self, correlation: bytes, call: RpcCall) -> None:
        if call.is_over:
            self._end(correlation, call, lambda m: SendTimeoutError(f"{m.name} was not waited for"))

    def _end(self, correlation: bytes, call: RpcCall, why: Callable[[Member], Exception]) -> None:
        if self._calls.pop(correlation, None) is call:
            call.end(why)

    # The view.

    def on_members(self, change: MemberChange, now: float) -> None:
        """The view changed: who left will not reply."""
        del now
        if change.kind is ChangeKind.REMOVED:
            member = change.member
            gone = MemberUnreachableError(f"{member.name} is gone from the group ({change.reason})")
            self._lose_everywhere(member, gone)

    def suspicion(self, member: Member, is_suspected: bool, now: float) -> None:
        """A member stopped answering: nobody waits for it. Its late replies are left over."""
        del now
        if is_suspected:
            self._lose_everywhere(member, _silent(member))

    def _lose_everywhere(self, member: Member, why: Exception) -> None:
        for correlation, call in list(self._calls.items()):
            if call.waits_for(member):
                self._lose(correlation, call, {member: why})

    def stop(self) -> None:
        """Tell all callers that the channel was stopped."""
        self._is_stopped = True
        closed = ChannelClosedError("the channel was stopped")
        for correlation, call in list(self._calls.items()):
            self._end(correlation, call, lambda member: closed)

    # What arrives.

    def consume(self, data: ChannelData, now: float) -> bool:
        """Take a message if it is for this core alone.

        Returns:
            False for everything that is not RPC, and for requests and left-over replies: the driver
            gets those that `RpcEndpoints` knows, and listeners that ask for Java messages any.
        """
        if data.options & _BYTES:
            return False
        if not is_rpc(data.message):
            return self._sessions_requested(data, now)
        try:
            envelope = decode_envelope(data.message)
        except RemoteProtocolError:
            # As Tomcat does with what it cannot decode: dropped, and acknowledged.
            self.statistics.malformed += 1
            return True
        match envelope.kind:
            case RpcKind.REQUEST:
                return self._requested(data.source, envelope, now)
            case RpcKind.REPLY:
                return self._replied(data.source, envelope)
            case RpcKind.NO_CHANNEL:
                self.statistics.no_channel_received += 1
                why = NoRpcChannelError(f"{data.source.name} has no RPC channel of this id")
                self._refused(data.source, envelope, why)
                return True

    def _requested(self, source: Member, envelope: RpcEnvelope, now: float) -> bool:
        endpoint = self._endpoints.get(envelope.rpc_id)
        if endpoint is not None and endpoint.takes_requests:
            try:
                in_core = self._endpoints.in_core.get(envelope.rpc_id)
                if in_core is not None:
                    in_core.handle(source, envelope, now)
                else:
                    envelope.body()
                self.statistics.requests += 1
                return in_core is not None
            except RemoteProtocolError:
                self.statistics.malformed += 1
        self.statistics.no_channel_sent += 1
        payload = encode_no_channel(envelope.rpc_id, envelope.correlation)
        self._reply_to(source, payload, _ASYNC, now)
        return False

    def _sessions_requested(self, data: ChannelData, now: float) -> bool:
        try:
            context = requested_context(data.message)
        except RemoteProtocolError:
            self.statistics.malformed += 1
            return True
        if context is not None and self._reply_to(
            data.source, encode_no_context(context), _ASYNC, now
        ):
            self.statistics.no_context_sent += 1
        return False

    def _replied(self, source: Member, envelope: RpcEnvelope) -> bool:
        call = self._calls.get(envelope.correlation)
        if call is None or call.rpc_id != envelope.rpc_id or not call.waits_for(source):
            self.statistics.left_over += 1
            endpoint = self._endpoints.get(envelope.rpc_id)
            return endpoint is None or not endpoint.takes_left_over
        try:
            body = envelope.body()
        except RemoteProtocolError as error:
            self.statistics.malformed += 1
            self._refused(source, envelope, error)
            return True
        call.reply(source, body)
        self._check(envelope.correlation, call)
        return True

    def _refused(self, source: Member, envelope: RpcEnvelope, why: Exception) -> None:
        call = self._calls.get(envelope.correlation)
        if call is not None and call.rpc_id == envelope.rpc_id:
            self._lose(envelope.correlation, call, {source: why})

    # The callee.

    def answer(
        self,
        source: Member,
        envelope: RpcEnvelope,
        body: RpcBody | MemberMessage,
        *,
        options: int,
        now: float,
    ) -> None:
        """Send what a handler returned for a request.

        Args:
            source: Who asked.
            envelope: The request.
            body: The reply; None is a reply too.
            options: How it is sent, but for SYNCHRONIZED_ACK.
            now: Monotonic seconds.

        Raises:
            LocalProtocolError: The body cannot travel.
        """
        payload = encode_rpc(envelope.rpc_id, envelope.correlation, body, is_reply=True)
        self._reply_to(source, payload, int(options) & ~_SYNC, now)

    def _reply_to(self, source: Member, payload: bytes, options: int, now: float) -> bool:
        is_stranger = source not in self._channel.view
        if self._is_stopped or (is_stranger and self._strangers >= STRANGERS_MAX):
            self.statistics.replies_not_sent += 1
            return False

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            del then
            self._strangers -= is_stranger
            self.statistics.replies_not_sent += bool(faulty)

        self._strangers += is_stranger
        try:
            self._channel.post((source,), payload, options, now, settled=settled, is_bytes=False)
        except LocalProtocolError:
            self._strangers -= is_stranger
            raise
        return True


def _silent(member: Member) -> MemberSuspectedError:
    return MemberSuspectedError(f"{member.name} does not answer now; its reply may arrive yet")
