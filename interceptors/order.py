"""Messages of one member are handed on in the order in which it sent them.

Tomcat's ``OrderInterceptor`` (tribes-wire §7.2). Each destination has its own count: the number of
a message is appended as four bytes, and the receiver holds back what came too early. Between
members that speak the own link nothing overtakes, so this is for plain members, whose senders use
several connections and threads; since all members must agree on the bytes, it numbers for all.

What is held waits for the missing number for ``expire`` at most. Tomcat looks at that only when the
next message of the same member arrives; here a timer does, so the last messages before a silence
come out too. Tomcat acknowledges what it holds as processed; here the sender learns the outcome
when the message was handed on, so that option 6 keeps its promise. And every destination's bytes
are made on their own: Tomcat reuses one buffer, which damages messages to several destinations when
something below changes their length.
"""

from __future__ import annotations

import heapq
import struct
from collections import OrderedDict, deque
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tribes.channel.chain import Hold, Interceptor, MembersNext, ReceiveNext, SendNext
from tribes.channel.outputs import Notice
from tribes.channel.tickets import Outgoing, divide
from tribes.errors import ConfigError, RemoteProtocolError
from tribes.membership.change import ChangeKind, MemberChange

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["OrderInterceptor"]

_T = TypeVar("_T")

_NUMBER = struct.Struct(">i")
_WRAP = 1 << 32

STRANGERS_MAX = 1024
"""Counts kept of members that are not in the view; beyond it the oldest starts anew."""

MESSAGE_OVERHEAD_BYTES = 256
"""What a held message is counted for beyond its bytes."""


_Kept = tuple["ChannelData", "Hold"]


class _Source:
    """What came from one member: the number that is due, and what is too early."""

    __slots__ = ("_arrivals", "_held", "bytes", "due", "numbers", "timer")

    def __init__(self) -> None:
        # Counts on where the four bytes begin anew.
        self.due = 1
        self.numbers: set[int] = set()
        self.bytes = 0
        self.timer: Timer | None = None
        self._held: list[tuple[int, ChannelData, Hold]] = []
        self._arrivals: deque[tuple[float, int]] = deque()

    def hold(self, number: int, message: ChannelData, held: Hold, now: float) -> None:
        heapq.heappush(self._held, (number, message, held))
        self._arrivals.append((now, number))
        self.numbers.add(number)
        self.bytes += len(message.message) + MESSAGE_OVERHEAD_BYTES

    def take(self, last: int) -> list[_Kept]:
        """Give out what is held up to a number, and what follows it without a gap."""
        taken = []
        while self._held and self._held[0][0] <= max(last, self.due):
            number, message, held = heapq.heappop(self._held)
            self.numbers.discard(number)
            self.bytes -= len(message.message) + MESSAGE_OVERHEAD_BYTES
            self.due = number + 1
            taken.append((message, held))
        while self._arrivals and self._arrivals[0][1] not in self.numbers:
            self._arrivals.popleft()
        return taken

    @property
    def first(self) -> ChannelData:
        """The message with the lowest number; there must be one."""
        return self._held[0][1]

    @property
    def oldest(self) -> float:
        """When the message arrived that has waited longest; there must be one."""
        return self._arrivals[0][0]

    def last_overdue(self, expire: float, now: float) -> int:
        """The greatest number that has been held for so many seconds; 0 when none has."""
        last = 0
        for since, number in self._arrivals:
            if since + expire > now:
                break
            if number in self.numbers:
                last = max(last, number)
        return last


class OrderInterceptor(Interceptor):
    """Numbers what goes out, and puts what comes in into order.

    Args:
        expire: Milliseconds that a message waits for the ones before it (``expire``).
        forward_expired: Hand it on then; False: drop it (``forwardExpired``).
        max_queue: Messages of one member that may wait (``maxQueue``); when so many do, all are
            handed on or dropped, as ``forward_expired`` says.
        max_queue_bytes: The same in bytes; Tomcat has no such bound.
        option_flag: Only messages with these option bits are numbered (``optionFlag``); 0: all.
    """

    def __init__(
        self,
        *,
        expire: int = 3000,
        forward_expired: bool = True,
        max_queue: int = 2**31 - 1,
        max_queue_bytes: int = 16 * 1024 * 1024,
        option_flag: int = 0,
    ) -> None:
        for key, value in (
            ("expire", expire),
            ("max_queue", max_queue),
            ("max_queue_bytes", max_queue_bytes),
        ):
            if value < 1:
                raise ConfigError(f"must be at least 1, found {value}", key=key)
        self.expire = expire
        self.forward_expired = forward_expired
        self.max_queue = max_queue
        self.max_queue_bytes = max_queue_bytes
        self.option_flag = option_flag
        self.expired = 0
        """Messages whose predecessors did not come in time."""
        self.overflows = 0
        """How often a member's queue was full."""
        self._members: set[Member] = set()
        self._sent: OrderedDict[Member, int] = OrderedDict()
        self._sources: OrderedDict[Member, _Source] = OrderedDict()

    @property
    def held(self) -> int:
        """Messages that wait for the ones before them."""
        return sum(len(source.numbers) for source in self._sources.values())

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Number a message for each destination."""
        if not self.wants(message.data.options):
            next(message, now)
            return
        targets = message.destinations
        tickets = divide(message.ticket, [(member,) for member in targets])
        for member, ticket in zip(targets, tickets, strict=True):
            number = _NUMBER.pack(self._count(member))
            data = message.data.with_message(message.data.message + number)
            next(Outgoing(data, (member,), ticket), now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Hand a message on when all before it were; hold it back otherwise.

        Raises:
            RemoteProtocolError: It has no number, or one that a message in the queue has.
        """
        if not self.wants(message.options):
            next(message, now)
            return
        if len(message.message) < _NUMBER.size:
            raise RemoteProtocolError(f"{len(message.message)} bytes cannot end with a number")
        (number,) = _NUMBER.unpack_from(message.message, len(message.message) - _NUMBER.size)
        message = message.with_message(message.message[: -_NUMBER.size])
        source = self._source(message.source)
        place = source.due + _distance(source.due, number)
        ready: list[_Kept] = []
        is_due = place <= source.due
        if is_due and place == source.due:
            source.due += 1
            ready = source.take(0)
        elif place in source.numbers:
            raise RemoteProtocolError(f"number {number} is used twice")
        elif not is_due:
            source.hold(place, message, self.context.hold(), now)
        ready += self._overdue(source, now)
        self._arm(message.source, source)
        try:
            # Earlier than due is as good as due: its turn was given up.
            if is_due:
                next(message, now)
        finally:
            self._hand_on(ready, now)

    def on_members(self, change: MemberChange, now: float, next: MembersNext) -> None:  # noqa: A002
        """Count anew for a member that is gone; what it sent comes out before that is told."""
        if change.kind is ChangeKind.REMOVED:
            self._members.discard(change.member)
            self._sent.pop(change.member, None)
            source = self._sources.pop(change.member, None)
            if source is not None:
                if source.timer is not None:
                    source.timer.cancel()
                self._hand_on(source.take(max(source.numbers, default=0)), now)
        else:
            self._members.add(change.member)
        next(change, now)

    def _count(self, member: Member) -> int:
        number = self._sent.pop(member, 0) + 1
        self._sent[member] = number
        self._forget_strangers(self._sent)
        return (number + _WRAP // 2) % _WRAP - _WRAP // 2

    def _source(self, member: Member) -> _Source:
        source = self._sources.get(member)
        if source is None:
            source = self._sources[member] = _Source()
            for gone in self._forget_strangers(self._sources):
                self._drop_held(gone)
        return source

    def _drop_held(self, source: _Source) -> None:
        """Tell the senders of what is held of a stranger that its count is kept no longer."""
        if source.timer is not None:
            source.timer.cancel()
        if not source.numbers:
            return
        origin = source.first.source.label
        taken = source.take(max(source.numbers))
        text = "messages out of order dropped"
        self.context.event(Notice(text, {"member": origin, "messages": len(taken)}))
        for _, held in taken:
            held.give_up()

    def _forget_strangers(self, table: OrderedDict[Member, _T]) -> list[_T]:
        if len(table) <= STRANGERS_MAX + len(self._members):
            return []
        oldest = next(member for member in table if member not in self._members)
        return [table.pop(oldest)]

    def _hand_on(self, kept: list[_Kept], now: float) -> None:
        for message, held in kept:
            held.hand_on(partial(self.up, message, now))

    def _overdue(self, source: _Source, now: float) -> list[_Kept]:
        """What waits no longer: too old, or with all others in a full queue."""
        if not source.numbers:
            return []
        is_full = len(source.numbers) >= self.max_queue or source.bytes >= self.max_queue_bytes
        last = max(source.numbers) if is_full else source.last_overdue(self.expire / 1000, now)
        if not last:
            return []
        origin = source.first.source.label
        lost = sum(number <= last for number in source.numbers)
        taken = source.take(last)
        self.expired += lost
        self.overflows += is_full
        text = "messages out of order" if self.forward_expired else "messages out of order dropped"
        self.context.event(Notice(text, {"member": origin, "messages": lost}))
        if self.forward_expired:
            return taken
        for _, held in taken[:lost]:
            held.give_up()
        return taken[lost:]

    def _arm(self, member: Member, source: _Source) -> None:
        # One that runs early finds nothing, and is set again; setting one for every message would
        # fill the heap.
        if source.timer is not None or not source.numbers:
            return

        def expired(now: float) -> None:
            source.timer = None
            ready = self._overdue(source, now)
            self._arm(member, source)
            self._hand_on(ready, now)

        source.timer = self.context.timers.at(source.oldest + self.expire / 1000, expired)


def _distance(due: int, number: int) -> int:
    """How far a number on the wire is ahead of the one that is due; it counts in 32 bits."""
    return (number - due + _WRAP // 2) % _WRAP - _WRAP // 2
