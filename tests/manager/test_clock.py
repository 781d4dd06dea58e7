"""The hybrid clock: strictly ascending, never behind what it has seen, and hard to lead astray."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manager.test_digests import LockWithAVisitor
from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.manager.clock import AHEAD_MAX_MS, Clock, ClockAheadError, hlc_to_ms, ms_to_hlc
from tribes.testing.manager_strategies import START_HLC, START_MS, FakeTime


def make_clock(time: FakeTime) -> Clock:
    return Clock(time.wall_ms, 1, threading.Lock())


def test_a_reading_is_the_wall_time_with_room_for_255_more() -> None:
    clock = make_clock(FakeTime())
    assert [clock.next(), clock.next(), clock.next()] == [START_HLC, START_HLC + 1, START_HLC + 2]
    assert hlc_to_ms(clock.last) == START_MS == hlc_to_ms(ms_to_hlc(START_MS))
    assert clock.wall_ms() == START_MS
    assert repr(clock) == f"<Clock last={START_HLC + 2} actor=0x00000001>"


def test_it_follows_the_wall_clock_and_counts_on_when_that_jumps_back() -> None:
    time = FakeTime()
    clock = make_clock(time)
    first = clock.next()
    time.sleep(2)
    assert clock.next() == ms_to_hlc(START_MS + 2000) > first
    time.wall -= 3_600_000
    assert clock.next() == ms_to_hlc(START_MS + 2000) + 1


@given(st.lists(st.integers(-(10**9), 10**9) | st.none(), max_size=30))
def test_readings_ascend_and_pass_everything_observed(steps: list[int | None]) -> None:
    time = FakeTime()
    clock = make_clock(time)
    greatest = 0
    for step in steps:
        if step is None:
            reading = clock.next()
            assert reading > greatest
            greatest = reading
        elif step > 0:
            clock.observe(START_HLC + step)
            greatest = max(greatest, START_HLC + step)
        else:
            time.wall = START_MS + step // 1000
        assert clock.last == greatest


def test_a_peer_an_hour_ahead_is_followed() -> None:
    clock = make_clock(FakeTime())
    clock.observe(ms_to_hlc(START_MS + 3_600_000))
    assert clock.next() == ms_to_hlc(START_MS + 3_600_000) + 1


def test_a_peer_more_than_a_day_ahead_is_refused_and_changes_nothing() -> None:
    clock = make_clock(FakeTime())
    clock.observe(ms_to_hlc(START_MS + AHEAD_MAX_MS))
    before = clock.last
    with pytest.raises(ClockAheadError, match="86400 s ahead") as caught:
        clock.observe(ms_to_hlc(START_MS + AHEAD_MAX_MS + 1))
    assert caught.value.ahead_ms == AHEAD_MAX_MS + 1
    assert isinstance(caught.value, RemoteProtocolError)
    assert clock.last == before


def test_an_old_reading_changes_nothing() -> None:
    clock = make_clock(FakeTime())
    now = clock.next()
    clock.observe(now - 1000)
    assert clock.last == now


def test_an_actor_is_a_u32() -> None:
    with pytest.raises(LocalProtocolError):
        Clock(lambda: 0, 2**32, threading.Lock())


def test_a_reading_is_made_of_what_is_there_when_the_lock_is_taken() -> None:
    """Another thread's reading, or what it observed, came first: both count on from there."""
    readings: list[int] = []
    visits: dict[int, Callable[[], None]] = {}
    clock = Clock(FakeTime().wall_ms, 1, LockWithAVisitor(visits))
    visits[1] = lambda: readings.append(clock.next())
    visits[3] = lambda: clock.observe(START_HLC + 90)
    readings.append(clock.next())
    assert readings == [START_HLC, START_HLC + 1]
    clock.observe(START_HLC + 50)
    assert clock.last == START_HLC + 90
    assert not visits


def test_threads_get_different_readings() -> None:
    clock = make_clock(FakeTime())
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: [clock.next() for _ in range(2000)], range(8)))
    assert len({reading for run in runs for reading in run}) == 16_000
    assert all(run == sorted(run) for run in runs)
