"""Frames that wait for room."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, cast

from tribes.links.base import OutFrame
from tribes.links.blocked import BlockedSends
from tribes.timers import Timers

if TYPE_CHECKING:
    from tribes.links.base import PeerSender


class _Roomy:
    """A sender that takes everything."""

    def __init__(self) -> None:
        self.taken: list[OutFrame] = []

    def has_room(self, size: int, *, is_live: bool) -> bool:
        return True

    def enqueue(self, frame: OutFrame, now: float) -> None:
        self.taken.append(frame)


def test_nobody_is_woken_for_those_that_were_let_in() -> None:
    """A queue that is full now and then would wake the process once for each time."""
    timers, sender = Timers(), _Roomy()
    blocked = BlockedSends("B", 1.0, timers=timers, timed_out=lambda: None)
    for number in range(3):
        frame = OutFrame(b"x", needs_ack=False, settle=lambda error, now: None)
        assert blocked.put(frame, float(number))
        assert timers.next_deadline == number + 1.0
        blocked.admit(cast("PeerSender", sender), number + 0.5)
        assert timers.next_deadline == inf
    assert len(sender.taken) == 3


def test_one_timer_at_a_time_however_often_callbacks_send_again() -> None:
    """An interceptor may send the next message when one fails. Each timer that is left over would
    make another one when it runs.
    """
    timers = Timers()
    blocked = BlockedSends("B", 1.0, timers=timers, timed_out=lambda: None)

    def put(error: Exception | None, now: float) -> None:
        blocked.put(OutFrame(b"x", needs_ack=False, settle=put), now)

    for now in (0.0, 0.5):
        put(None, now)
    for now in (1.0, 1.5, 2.0, 2.5):
        assert timers.next_deadline == now
        timers.run_due(now)
        assert sum(timer.is_armed for _, _, timer in timers._heap) == 1
    assert len(blocked) == 2
