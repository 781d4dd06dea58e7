"""Asynchronous sends: the caller goes on when its message is in a bounded queue.

Tomcat's ``MessageDispatchInterceptor`` (tribes-wire §7.1), with two differences that its users wish
for: the queue is the members' own ordered queues, so asynchronous messages keep their order, also
among synchronous ones; and a full queue makes the caller wait for a bounded time instead of sending
past the queue.

There are two bounds: one on all messages on their way, here, and one per member, below
(``sender.queue_max_bytes``). A member whose queue is full delays only the callers that send to it,
and costs them a faulty member after that queue's timeout; their messages do not count here while
they wait for it. What session managers send has bounds of its own and passes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

from tribes.channel.chain import Interceptor, SendNext
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ChannelClosedError, QueueFullError
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.member import Member

__all__ = ["MessageDispatch15Interceptor", "MessageDispatchInterceptor"]

WAITING_MAX = 10_000
"""Messages that may wait for room; each is one caller that waits. More fail at once."""

MESSAGE_OVERHEAD_BYTES = 256
"""What a queued message is counted for beyond its bytes: the frame and the objects around it."""


@final
class _Waiting:
    """A message that waits for room, and the timer that ends its waiting."""

    __slots__ = ("following", "message", "timer")

    def __init__(self, message: Outgoing, following: SendNext) -> None:
        self.message = message
        self.following = following
        self.timer: Timer | None = None

    def end(self) -> None:
        # The timer would keep the message for as long as it could have waited.
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class MessageDispatchInterceptor(Interceptor):
    """Releases the caller of a message with ``ASYNCHRONOUS`` set as soon as it is queued.

    Args:
        max_queue_size: Bytes of messages that may be on their way (``maxQueueSize``).
        queue_timeout: Milliseconds a caller waits for room; then its send fails with
            :class:`QueueFullError`.

    Attributes:
        queued_bytes: Of the asynchronous messages on their way, with `MESSAGE_OVERHEAD_BYTES` for
            each.
        waited: Messages that found no room at once.
        rejected: Those of them that found none in time, or had to fail since too many wait.
    """

    option_flag = int(SendOptions.ASYNCHRONOUS)

    def __init__(
        self, *, max_queue_size: int = 64 * 1024 * 1024, queue_timeout: int = 3000
    ) -> None:
        self.max_queue_size = max_queue_size
        self.queue_timeout = queue_timeout
        self.queued_bytes = 0
        self.waited = 0
        self.rejected = 0
        self._waiting: deque[_Waiting] = deque()
        self._is_admitting = False

    @property
    def waiting(self) -> int:
        """Messages that wait for room."""
        return len(self._waiting)

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Queue an asynchronous message; pass any other on."""
        if message.ticket.is_live:
            next(message, now)
        elif self._waiting:
            # Nothing overtakes what waits for room, whatever its options.
            self._wait(message, now, next)
        elif not self.wants(message.data.options):
            next(message, now)
        elif not self._has_room(message):
            self._wait(message, now, next)
        else:
            self._admit(message, now, next)

    def stop(self, now: float) -> None:
        """Fail what still waits for room."""
        while self._waiting:
            entry = self._waiting.popleft()
            entry.end()
            entry.message.ticket.fail(ChannelClosedError("the channel was stopped"), now)

    def _has_room(self, message: Outgoing) -> bool:
        # A message larger than the whole queue is let through when nothing else is there.
        return not self.queued_bytes or self.queued_bytes + _size(message) <= self.max_queue_size

    def _admit(self, message: Outgoing, now: float, following: SendNext) -> None:
        outer = message.ticket
        size = _size(message)
        is_counted = True
        self.queued_bytes += size

        def gone(faulty: dict[Member, Exception], then: float) -> None:
            nonlocal is_counted
            del faulty
            if is_counted:
                is_counted = False
                self.queued_bytes -= size
                self._admit_waiting(then)

        def queued(then: float) -> None:
            nonlocal is_counted
            if not inner.is_settled and not is_counted:
                is_counted = True
                self.queued_bytes += size
            outer.release(then)

        inner = Ticket(message.destinations, settled=gone, each=outer.settle)
        _pass_on(Outgoing(message.data, message.destinations, inner), following, now)
        if not inner.held:
            outer.release(now)
            return
        # Some member's queue is full. Who sends to others shall not wait for that one.
        inner.on_free = queued
        if is_counted:
            is_counted = False
            self.queued_bytes -= size

    def _wait(self, message: Outgoing, now: float, following: SendNext) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self.rejected += 1
            why = f"{WAITING_MAX} sends already wait for room in the dispatch queue"
            message.ticket.fail(QueueFullError(why), now)
            return
        self.waited += 1
        entry = _Waiting(message, following)
        self._waiting.append(entry)

        def give_up(then: float) -> None:
            self._waiting.remove(entry)
            self._admit_waiting(then)
            self.rejected += 1
            message.ticket.fail(
                QueueFullError(
                    f"{self.queued_bytes} bytes are queued (max_queue_size is "
                    f"{self.max_queue_size}) and no room came within {self.queue_timeout} ms"
                ),
                then,
            )

        entry.timer = self.context.timers.at(now + self.queue_timeout / 1000, give_up)

    def _admit_waiting(self, now: float) -> None:
        if self._is_admitting:
            # One that is let through and fails at once makes room: the loop below finds it. One
            # call inside the other, as many as wait, would be too deep for the stack.
            return
        self._is_admitting = True
        try:
            while self._waiting and self._may_go(self._waiting[0].message):
                entry = self._waiting.popleft()
                entry.end()
                if self.wants(entry.message.data.options):
                    self._admit(entry.message, now, entry.following)
                else:
                    _pass_on(entry.message, entry.following, now)
        finally:
            self._is_admitting = False

    def _may_go(self, message: Outgoing) -> bool:
        return not self.wants(message.data.options) or self._has_room(message)


def _pass_on(message: Outgoing, following: SendNext, now: float) -> None:
    # Its caller may have gone on, and what made room for it is not to blame.
    try:
        following(message, now)
    except Exception as error:  # noqa: BLE001 - what is below is not ours
        message.ticket.fail(error, now)


def _size(message: Outgoing) -> int:
    return len(message.data.message) + MESSAGE_OVERHEAD_BYTES


MessageDispatch15Interceptor = MessageDispatchInterceptor
"""Name of the same interceptor in configurations for older Tomcats."""
