"""Asynchronous sends: the caller goes on when its message is in a bounded queue.

Tomcat's ``MessageDispatchInterceptor`` (tribes-wire §7.1), with two differences that its users wish
for: the queue is the members' own ordered queues, so asynchronous messages keep their order, also
among synchronous ones; and a full queue makes the caller wait for a bounded time instead of sending
past the queue.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, SendNext
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ChannelClosedError, QueueFullError
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["MessageDispatch15Interceptor", "MessageDispatchInterceptor"]


MESSAGE_OVERHEAD_BYTES = 256
"""What a queued message is counted for beyond its bytes: the frame and the objects around it."""


class MessageDispatchInterceptor(Interceptor):
    """Releases the caller of a message with ``ASYNCHRONOUS`` set as soon as it is queued.

    Args:
        max_queue_size: Bytes of messages that may be on their way (``maxQueueSize``).
        queue_timeout: Milliseconds a caller waits for room; then its send fails with
            :class:`QueueFullError`.
    """

    option_flag = int(SendOptions.ASYNCHRONOUS)

    def __init__(
        self, *, max_queue_size: int = 64 * 1024 * 1024, queue_timeout: int = 3000
    ) -> None:
        self.max_queue_size = max_queue_size
        self.queue_timeout = queue_timeout
        self.queued_bytes = 0
        self.rejected = 0
        self._waiting: deque[tuple[Outgoing, SendNext]] = deque()

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Queue an asynchronous message; pass any other on."""
        if self._waiting:
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
            message, _ = self._waiting.popleft()
            message.ticket.fail(ChannelClosedError("the channel was stopped"), now)

    def _has_room(self, message: Outgoing) -> bool:
        # A message larger than the whole queue is let through when nothing else is there.
        return not self.queued_bytes or self.queued_bytes + _size(message) <= self.max_queue_size

    def _admit(self, message: Outgoing, now: float, following: SendNext) -> None:
        size = _size(message)
        self.queued_bytes += size

        def gone(faulty: dict[Member, Exception], then: float) -> None:
            self.queued_bytes -= size
            for member in message.destinations:
                message.ticket.settle(member, faulty.get(member), then)
            self._admit_waiting(then)

        inner = Ticket(message.destinations, settled=gone)
        message.ticket.release(now)
        _pass_on(Outgoing(message.data, message.destinations, inner), following, now)

    def _wait(self, message: Outgoing, now: float, following: SendNext) -> None:
        entry = (message, following)
        self._waiting.append(entry)

        def give_up(then: float) -> None:
            if entry in self._waiting:
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

        self.context.timers.at(now + self.queue_timeout / 1000, give_up)

    def _admit_waiting(self, now: float) -> None:
        while self._waiting:
            message, following = self._waiting[0]
            is_asynchronous = self.wants(message.data.options)
            if is_asynchronous and not self._has_room(message):
                return
            self._waiting.popleft()
            if is_asynchronous:
                self._admit(message, now, following)
            else:
                _pass_on(message, following, now)


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
