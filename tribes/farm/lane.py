"""What waits to be sent to one member."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

import trio

from tribes.farm.messages import State
from tribes.farm.outputs import ReadChunk

if TYPE_CHECKING:
    from tribes.farm.messages import Message

__all__ = ["LANE_MAX", "Lane"]

LANE_MAX: Final = 64
"""Messages that wait for one member; the oldest is dropped: whatever it was is asked for again."""


@final
class Lane:
    """Messages and pieces, in order; of states only the newest.

    Attributes:
        waiting: What is to be sent.
        wake: Set when there is something.
        dropped: What found no room.
    """

    def __init__(self) -> None:
        self.waiting: deque[Message | ReadChunk] = deque()
        self.wake = trio.Event()
        self.dropped = 0

    def put(self, item: Message | ReadChunk) -> ReadChunk | None:
        """Add something; returns a piece that was dropped for it."""
        if isinstance(item, State):
            # The newest says all that an older one says.
            older = [each for each in self.waiting if isinstance(each, State)]
            if older:
                self.waiting = deque(e for e in self.waiting if not isinstance(e, State))
                ask = item.ask or any(each.ask for each in older)
                item = State(ask, item.entries, item.keys, item.reports)
        self.waiting.append(item)
        self.wake.set()
        if len(self.waiting) <= LANE_MAX:
            return None
        self.dropped += 1
        dropped = self.waiting.popleft()
        return dropped if isinstance(dropped, ReadChunk) else None
