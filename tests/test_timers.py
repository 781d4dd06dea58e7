"""Deadlines: earliest first, ties in order, cancelled ones never."""

from __future__ import annotations

from math import inf

from tribes.timers import Timers


def test_earliest_runs_first_and_ties_keep_their_order() -> None:
    """Due callbacks run by deadline, and in the order set where deadlines are equal."""
    timers = Timers()
    ran: list[str] = []
    timers.at(2.0, lambda now: ran.append("late"))
    timers.at(1.0, lambda now: ran.append("first"))
    timers.at(1.0, lambda now: ran.append("second"))
    assert timers.next_deadline == 1.0
    timers.run_due(1.5)
    assert ran == ["first", "second"]
    timers.run_due(2.0)
    assert ran == ["first", "second", "late"]
    assert timers.next_deadline == inf


def test_cancelled_timer_neither_runs_nor_wakes() -> None:
    """A cancelled deadline is not the next one and its callback is never called."""
    timers = Timers()
    ran: list[float] = []
    timer = timers.at(1.0, ran.append)
    timer.cancel()
    assert not timer.is_armed
    assert timers.next_deadline == inf
    timers.run_due(5.0)
    assert ran == []


def test_callback_that_sets_a_due_timer_cannot_hold_up_the_call() -> None:
    """A timer set for now by a callback waits for the next call."""
    timers = Timers()
    ran: list[float] = []

    def again(now: float) -> None:
        ran.append(now)
        timers.at(now, again)

    timers.at(1.0, again)
    timers.run_due(1.0)
    assert ran == [1.0]
    timers.run_due(1.0)
    assert ran == [1.0, 1.0]
