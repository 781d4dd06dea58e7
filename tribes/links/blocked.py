"""Users' frames that found no room in a member's queue: their senders wait, for a bounded time.

They are let in where room appears, in the order in which they came. Nothing waits for a member that
is suspected: whoever did is told so, and its message is not sent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import QueueFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.links.base import OutFrame, PeerSender
    from tribes.timers import Timer, Timers

__all__ = ["BLOCKED_MAX", "BlockedSends"]

BLOCKED_MAX: Final = 10_000
"""Frames that may wait for room at one member; each is one caller that waits. More fail at once."""


class _Entry(NamedTuple):
    frame: OutFrame
    deadline: float


@final
class BlockedSends:
    """The frames that wait for room in one member's queue.

    Args:
        name: The member's name, for errors.
        timeout: Seconds a frame waits; then it fails with :class:`QueueFullError`.
        timers: Where it asks to be woken.
        timed_out: Told for each frame that failed for want of room.
    """

    def __init__(
        self, name: str, timeout: float, *, timers: Timers, timed_out: Callable[[], None]
    ) -> None:
        self._timed_out = timed_out
        self._name = name
        self._timeout = timeout
        self._timers = timers
        self._entries: deque[_Entry] = deque()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, frame: OutFrame, now: float) -> bool:
        """Let the sender of a frame wait; False when too many do, and the frame has failed."""
        if len(self._entries) >= BLOCKED_MAX:
            self._timed_out()
            why = f"{BLOCKED_MAX} sends already wait for room in the queue for {self._name}"
            frame.settle(QueueFullError(why), now)
            return False
        self._entries.append(_Entry(frame, now + self._timeout))
        if self._timer is None or not self._timer.is_armed:
            self._timer = self._timers.at(now + self._timeout, self._expire)
        return True

    def admit(self, sender: PeerSender, now: float) -> None:
        """Let in what there is room for, in order."""
        entries = self._entries
        while entries and sender.has_room(len(entries[0].frame.data), is_live=False):
            frame = entries.popleft().frame
            sender.enqueue(frame, now)
            if frame.unblocked is not None:
                frame.unblocked(now)
        if not entries and self._timer is not None:
            self._timer.cancel()

    def fail(self, why: Exception, now: float) -> None:
        """Let all senders go: none of these messages is sent."""
        if self._timer is not None:
            self._timer.cancel()
        entries, self._entries = self._entries, deque()
        for entry in entries:
            _end(entry.frame, why, now)

    def _expire(self, now: float) -> None:
        while self._entries and self._entries[0].deadline <= now:
            entry = self._entries.popleft()
            self._timed_out()
            why = f"no room in the queue for {self._name} within {self._timeout * 1000:g} ms"
            _end(entry.frame, QueueFullError(why), now)
        if self._entries:
            if self._timer is not None:
                self._timer.cancel()  # a callback has sent something
            self._timer = self._timers.at(self._entries[0].deadline, self._expire)


def _end(frame: OutFrame, why: Exception, now: float) -> None:
    frame.settle(why, now)
    if frame.unblocked is not None:
        frame.unblocked(now)
