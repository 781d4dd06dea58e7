"""Messages that travel as datagrams: one per destination by UDP, or one to the whole group.

The options UDP and MULTICAST of a message choose it, as in Tribes (tribes-wire §4, 6.1, 8.5).
What they promise is less than what connections do:

1. Nothing is sent again. A lost datagram is a lost message, or, where an acknowledgement was asked
   for, an error after ``sender.timeout``.
2. There is no order between messages.
3. Acknowledgements name no message, so one acknowledged datagram at a time is under way to a
   member. Messages to the group are never acknowledged.
4. A message that finds its source's queue full is dropped: nobody can be told to wait.
5. Nothing protects them, so a group with a key or TLS has none of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.errors import (
    LocalProtocolError,
    QueueFullError,
    RemoteProcessError,
    RemoteProtocolError,
    SendTimeoutError,
)
from tribes.links.plain_receiver import AckSlot
from tribes.wire.data import add_trailer, decode_body, destination_of, destination_trailer
from tribes.wire.frame import (
    ACK_BODY,
    ACK_FRAME,
    FAIL_ACK_BODY,
    FAIL_ACK_FRAME,
    FRAME_START,
    FrameDecoder,
)
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.options import SendOptions
from tribes.wire.outputs import Datagram, UdpDatagram

if TYPE_CHECKING:
    from tribes.channel.inbound import DeliveryQueue, Inbound, Outcomes
    from tribes.config.model import SenderConfig
    from tribes.links.base import OutFrame
    from tribes.timers import Timers
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member
    from tribes.wire.outputs import NetworkOutput

__all__ = ["DatagramStatistics", "Datagrams"]

_USE_ACK = int(SendOptions.USE_ACK)
_SYNC = int(SendOptions.SYNCHRONIZED_ACK)

_NO_SLOT = AckSlot()
"""Datagrams are answered in any order."""

Address = tuple[str, int]


class DatagramStatistics:
    """Counters of messages by datagram, plain ints."""

    __slots__ = ("dropped", "malformed", "received", "sent", "unexpected_acks")

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.malformed = 0
        """Datagrams that are no whole frames, or name another process."""
        self.dropped = 0
        """Messages that found no room to wait for the listeners."""
        self.unexpected_acks = 0
        """Acknowledgements that nobody waited for, late ones most likely."""


class _Waiting:
    """The acknowledged datagrams to one address, by deadline too: the first is under way."""

    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames: deque[tuple[Member, OutFrame]] = deque()
        self.bytes = 0

    def pop(self) -> tuple[Member, OutFrame]:
        """Take the first one out."""
        member, frame = self.frames.popleft()
        self.bytes -= len(frame.data)
        return member, frame


class Datagrams:
    """The datagrams of one channel, in and out.

    Args:
        local: The own record.
        config: Timeout and the bound of what waits.
        timers: Where it asks to be woken.
        emit: Takes outputs.
        rejected: Told of a datagram that is none of ours, where it came from and why.
        outcomes: Recognises a datagram that came twice.
        deliveries: Tells whether a source's queue has room.
        process: Passes a message up; its outcome goes into the given place.
    """

    def __init__(
        self,
        local: Member,
        config: SenderConfig,
        *,
        timers: Timers,
        emit: Callable[[NetworkOutput], None],
        rejected: Callable[[Address, str], None],
        outcomes: Outcomes,
        deliveries: DeliveryQueue,
        process: Callable[[Inbound, ChannelData, float], None],
    ) -> None:
        self.statistics = DatagramStatistics()
        self._local = local
        self._config = config
        self._timeout = config.timeout / 1000
        self._timers = timers
        self._emit = emit
        self._rejected = rejected
        self._outcomes = outcomes
        self._deliveries = deliveries
        self._process = process
        self._waiting: dict[Address, _Waiting] = {}
        """Of each address there is one timer, which ends its entry; empty ones await theirs."""

    # The way out.

    def to_group(self, frame: bytes) -> None:
        """Send a frame to everybody who hears the group, members or not.

        Raises:
            LocalProtocolError: It does not fit in a datagram.
        """
        _check_size(frame)
        self.statistics.sent += 1
        self._emit(Datagram(frame))

    def to_member(self, member: Member, frame: OutFrame, now: float) -> None:
        """Send a frame to a member's UDP port; settles it when it is handed over, or answered."""
        address = (member.address[0], member.udp_port)
        frame.data = add_trailer(frame.data, destination_trailer(member.unique_id))
        try:
            if member.udp_port <= 0:
                raise LocalProtocolError(
                    f"{member.name} has no UDP port; set receiver.udp_port (udpPort) there, or "
                    "send without the option UDP"
                )
            _check_size(frame.data)
        except LocalProtocolError as error:
            frame.settle(error, now)
            return
        if not frame.needs_ack:
            self._send(address, frame)
            frame.settle(None, now)
            return
        waiting = self._waiting.get(address)
        if waiting is None:
            waiting = self._waiting[address] = _Waiting()
            self._wait(address, now + self._timeout)
        if waiting.frames and waiting.bytes + len(frame.data) > self._config.queue_max_bytes:
            frame.settle(
                QueueFullError(
                    f"{waiting.bytes} bytes already wait for {member.name} "
                    f"(sender.queue_max_bytes is {self._config.queue_max_bytes})"
                ),
                now,
            )
            return
        waiting.frames.append((member, frame))
        waiting.bytes += len(frame.data)
        frame.deadline = now + self._timeout
        if len(waiting.frames) == 1:
            self._send(address, frame)

    def stop(self, why: Exception, now: float) -> None:
        """Fail whatever waits for an answer."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            for _, frame in each.frames:
                frame.settle(why, now)

    @property
    def is_idle(self) -> bool:
        """True when no answer is waited for."""
        return not any(waiting.frames for waiting in self._waiting.values())

    def _send(self, address: Address, frame: OutFrame) -> None:
        self.statistics.sent += 1
        self._emit(UdpDatagram(address, frame.data))

    def _wait(self, address: Address, until: float) -> None:
        self._timers.at(until, lambda then: self._expire(address, then))

    def _expire(self, address: Address, now: float) -> None:
        waiting = self._waiting.get(address)
        if waiting is None:
            return
        late = []
        while waiting.frames and waiting.frames[0][1].deadline <= now:
            late.append(waiting.pop())
        if waiting.frames:
            self._wait(address, waiting.frames[0][1].deadline)
            if late:
                self._send(address, waiting.frames[0][1])
        else:
            del self._waiting[address]
        for member, frame in late:
            why = f"{member.name} did not acknowledge within {self._config.timeout} ms"
            frame.settle(SendTimeoutError(why), now)

    # The way in.

    @staticmethod
    def is_frame(data: bytes) -> bool:
        """Whether a datagram of the group claims to be a message."""
        return data.startswith(FRAME_START)

    def received(self, data: bytes, sender: Address, now: float) -> None:
        """Take in what came to the own UDP port: messages, or answers to what was sent from it."""
        for body in self._bodies(data):
            if body in (ACK_BODY, FAIL_ACK_BODY):
                self._answered(sender, ok=body == ACK_BODY, now=now)
            elif self._local.udp_port > 0:
                self._message(body, sender, now)

    def group_received(self, data: bytes, sender: Address, now: float) -> None:
        """Take in messages to the whole group; one's own come back and are ignored."""
        for body in self._bodies(data):
            self._message(body, sender, now, may_answer=False)

    def _bodies(self, data: bytes) -> list[bytes]:
        # A datagram is a stream of its own: what is missing in it does not come later.
        decoder = FrameDecoder(body_max_bytes=DATAGRAM_MAX_BYTES)
        bodies = decoder.feed(data)
        if decoder.broken is not None or decoder.buffered_bytes:
            self.statistics.malformed += 1
        return bodies

    def _answered(self, sender: Address, *, ok: bool, now: float) -> None:
        waiting = self._waiting.get(sender)
        if waiting is None or not waiting.frames:
            self.statistics.unexpected_acks += 1
            return
        member, frame = waiting.pop()
        if waiting.frames:
            self._send(sender, waiting.frames[0][1])
        error: Exception | None = None
        if not ok and self._config.throw_on_failed_ack:
            error = RemoteProcessError(f"the listener at {member.name} failed")
        frame.settle(error, now)

    def _message(
        self, body: bytes, sender: Address, now: float, *, may_answer: bool = True
    ) -> None:
        try:
            data = decode_body(body)
            destination = destination_of(data.trailer) if data.trailer else None
            if destination not in (None, self._local.unique_id):
                raise RemoteProtocolError("meant for another member, which was here before")
        except RemoteProtocolError as error:
            self.statistics.malformed += 1
            self._rejected(sender, f"datagram refused: {error}")
            return
        if data.source == self._local:
            return
        if not self._deliveries.has_room(data.source):
            self.statistics.dropped += 1
            return
        self.statistics.received += 1
        answer = _Answer(sender, self._emit) if may_answer and data.options & _USE_ACK else None
        if answer is not None and not data.options & _SYNC:
            answer.answer(_NO_SLOT, ok=True)
            answer = None
        inbound, is_new = self._outcomes.find_or_add(data)
        if is_new:
            self._process(inbound, data, now)
        if answer is not None:
            inbound.answer_to(answer, _NO_SLOT)


class _Answer:
    """Where the acknowledgement of one datagram goes."""

    __slots__ = ("_emit", "_sender")

    def __init__(self, sender: Address, emit: Callable[[NetworkOutput], None]) -> None:
        self._sender = sender
        self._emit = emit

    def answer(self, slot: AckSlot, *, ok: bool) -> None:
        """Send it."""
        del slot
        self._emit(UdpDatagram(self._sender, ACK_FRAME if ok else FAIL_ACK_FRAME))


def _check_size(frame: bytes) -> None:
    if len(frame) > DATAGRAM_MAX_BYTES:
        raise LocalProtocolError(
            f"a frame of {len(frame)} bytes does not fit in a datagram, which has at most "
            f"{DATAGRAM_MAX_BYTES}: send it without the options UDP and MULTICAST, or put the "
            "FragmentationInterceptor before"
        )
