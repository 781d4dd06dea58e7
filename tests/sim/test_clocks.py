"""Clocks of a simulated machine: what lies, what only drifts, what never jumps."""

from __future__ import annotations

import pytest

from tribes.testing.sim import EPOCH_MS, MachineClock, World


class Time:
    now = 0.0


def clock(offset_ms: int = 0) -> tuple[Time, MachineClock]:
    time = Time()
    return time, MachineClock(lambda: time.now, offset_ms)


def test_offset_and_steps_move_the_wall_clock_only() -> None:
    time, machine = clock(500)
    time.now = 2.0
    assert machine.wall_ms() == EPOCH_MS + 2500
    machine.step(-10_000)
    assert machine.wall_ms() == EPOCH_MS - 7500
    assert machine.monotonic() == 2.0
    assert machine.steps == 1


def test_drift_counts_from_when_it_is_set() -> None:
    time, machine = clock()
    time.now = 10.0
    machine.drift = 1.5
    assert machine.wall_ms() == EPOCH_MS + 10_000
    time.now = 20.0
    assert machine.wall_ms() == EPOCH_MS + 25_000
    machine.drift = 1.0
    time.now = 21.0
    assert machine.wall_ms() == EPOCH_MS + 26_000
    assert machine.monotonic() == 21.0


def test_monotonic_clock_has_a_rate_of_its_own_and_never_jumps() -> None:
    time, machine = clock()
    time.now = 10.0
    machine.monotonic_drift = 0.5
    assert machine.monotonic() == 10.0
    time.now = 14.0
    assert machine.monotonic() == 12.0
    assert machine.true_time_of(13.0) == 16.0
    machine.monotonic_drift = 1.0
    time.now = 15.0
    assert machine.monotonic() == 13.0
    assert machine.wall_ms() == EPOCH_MS + 15_000
    with pytest.raises(ValueError, match="forward"):
        machine.monotonic_drift = 0.0


def test_heartbeats_follow_the_monotonic_clock() -> None:
    """At half speed there are half as many; a wall clock at double speed changes nothing."""
    world = World(1)
    a, b, c = (world.start(name) for name in "abc")
    b.clock.monotonic_drift = 0.5
    c.clock.drift = 2.0
    world.run(9.9)
    sent = [n.core.channel.membership.statistics.heartbeats_sent for n in (a, b, c)]
    assert sent == [20, 10, 20]


def test_rounding_of_a_drifting_clock_never_stops_the_world() -> None:
    """A timer that comes a rounding error early would be armed again for no time at all."""
    world = World(2)
    a, b = world.start("a"), world.start("b")
    a.clock.monotonic_drift = 1.0000501
    b.clock.monotonic_drift = 0.9999333
    before = world.events
    world.run(60)
    assert a.names() == b.names() == ["a", "b"]
    assert world.events - before < 3000


def test_steps_do_not_disturb_membership() -> None:
    world = World(3)
    a, b = world.start("a"), world.start("b")
    world.run(2)
    a.clock.step(86_400_000)
    world.run(2)
    a.clock.step(-2 * 86_400_000)
    world.run(10)
    assert a.names() == b.names() == ["a", "b"]
    assert "member removed" not in [event.name for _, event in a.events + b.events]
    assert b.wall_ms() - a.wall_ms() == 86_400_000
