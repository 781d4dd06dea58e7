"""Forgetting in time, in bounded steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.manager.clock import ms_to_hlc
from tribes.manager.merge import TOMBSTONE_AGE_MS, destroyed, expired
from tribes.manager.record import Life, header, parse
from tribes.manager.sweeper import DESTROYED_KEPT_MS, Sweeper
from tribes.testing.manager_strategies import START_MS, FakeTime, make_manager

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager

DAY_S = DESTROYED_KEPT_MS / 1000


def make() -> tuple[SessionManager, FakeTime]:
    clocks = FakeTime()
    return make_manager(clocks=clocks), clocks


def sweep(manager: SessionManager, *, limit: int = 1000) -> int:
    return manager.sweep(manager.clock.wall_ms(), manager.now_ds(), limit)


def end_sessions(manager: SessionManager, number: int) -> None:
    for _ in range(number):
        session = manager.create()
        manager.commit(session)
        manager.invalidate(session)


def test_a_destroyed_session_is_remembered_for_a_day() -> None:
    manager, clocks = make()
    end_sessions(manager, 3)
    clocks.sleep(DAY_S)
    assert sweep(manager) == 0
    clocks.sleep(0.001)
    assert sweep(manager) == 3
    assert len(manager.table) == 0
    assert manager.statistics().dropped == 3


def test_an_expired_session_is_remembered_for_ten_minutes_after_its_limit() -> None:
    manager, clocks = make()
    session = manager.create()
    session.max_inactive = 60
    manager.commit(session)
    record = manager.table.get(session.key)
    assert record is not None
    manager.table.swap(session.key, record, expired(record))
    clocks.sleep(659)
    assert sweep(manager) == 0
    clocks.sleep(1)
    assert sweep(manager) == 1


def test_live_sessions_stay_however_idle() -> None:
    """Expiring is agreed on between the nodes; sweeping is not."""
    manager, clocks = make()
    manager.commit(manager.create())
    clocks.sleep(10 * DAY_S)
    assert sweep(manager) == 0


def test_of_too_many_destroyed_sessions_the_oldest_go() -> None:
    manager, _ = make()
    end_sessions(manager, 5)
    oldest = manager.table.dead_keys(Life.DESTROYED, 2)
    sweeper = Sweeper(manager.table, destroyed_max=3)
    assert sweeper.sweep(START_MS, manager.now_ds()) == 2
    assert manager.table.count(Life.DESTROYED) == 3
    assert not set(oldest) & set(manager.table.keys())


def test_one_call_does_a_bounded_number_of_things() -> None:
    manager, clocks = make()
    end_sessions(manager, 50)
    clocks.sleep(DAY_S + 1)
    dropped = [sweep(manager, limit=7) for _ in range(8)]
    assert all(number <= 14 for number in dropped)
    assert sum(dropped) == 50


def test_a_latecomer_with_an_older_end_is_found_by_going_through_all() -> None:
    manager, clocks = make()
    end_sessions(manager, 1)
    clocks.sleep(3600)
    manager.table.merge_in("A1", destroyed(ms_to_hlc(START_MS), 0), manager.now_ds())
    manager.table.merge_in("A2", destroyed(manager.clock.next(), 0), manager.now_ds())
    manager.table.merge_in("A3", destroyed(ms_to_hlc(START_MS), 0), manager.now_ds())
    clocks.sleep(DAY_S - 3599)
    assert sweep(manager) == 3
    assert manager.table.keys() == ["A2"]


def test_removed_attributes_are_forgotten_after_an_hour() -> None:
    manager, clocks = make()
    session = manager.create()
    session["a"] = session["b"] = 1
    manager.commit(session)
    del session["a"]
    manager.commit(session)
    before = manager.table.root_digest()
    clocks.sleep(TOMBSTONE_AGE_MS / 1000)
    sweep(manager)
    assert manager.sweeper.pruned == 0
    clocks.sleep(0.001)
    sweep(manager)
    assert manager.sweeper.pruned == 1
    record = manager.table.get(session.key)
    assert record is not None
    assert (0, b"a") not in parse(record).entries
    assert header(record).life == Life.LIVE
    assert manager.table.root_digest() == before


def remove_an_attribute(manager: SessionManager) -> None:
    session = manager.create()
    session["a"] = 1
    manager.commit(session)
    del session["a"]
    manager.commit(session)


def test_a_wall_clock_that_is_set_ahead_makes_no_removal_old() -> None:
    """Nobody else may know of it yet, and would bring the attribute back (seed 850819)."""
    manager, clocks = make()
    sweep(manager)
    remove_an_attribute(manager)
    for _ in range(3):
        clocks.wall += TOMBSTONE_AGE_MS
        sweep(manager)
        clocks.sleep(1800)
        sweep(manager)
    assert manager.sweeper.pruned == 0


def test_a_wall_clock_that_stays_ahead_is_believed() -> None:
    """Or a machine that began with a clock of years ago would remember all removals for ever."""
    manager, clocks = make()
    sweep(manager)
    clocks.wall += 1000 * TOMBSTONE_AGE_MS
    sweep(manager)
    remove_an_attribute(manager)
    clocks.sleep(TOMBSTONE_AGE_MS / 1000)
    sweep(manager)
    assert manager.sweeper.pruned == 0
    clocks.sleep(0.1)
    for _ in range(2):
        sweep(manager)
    assert manager.sweeper.pruned == 1


def test_a_wall_clock_that_is_set_back_is_followed() -> None:
    """Removals are remembered for longer then."""
    manager, clocks = make()
    sweep(manager)
    remove_an_attribute(manager)
    clocks.wall -= TOMBSTONE_AGE_MS
    clocks.sleep(TOMBSTONE_AGE_MS / 1000 + 1)
    sweep(manager)
    assert manager.sweeper.pruned == 0
    clocks.sleep(TOMBSTONE_AGE_MS / 1000)
    sweep(manager)
    assert manager.sweeper.pruned == 1


def test_retired_ids_go_when_their_grace_is_over() -> None:
    manager, clocks = make()
    session = manager.create()
    manager.commit(session)
    first = session.rotate_id()
    manager.commit(session)
    session.rotate_id()
    manager.commit(session)
    assert manager.find(first) is not None
    known = manager.table._aliases
    before = len(known)
    clocks.sleep(30)
    assert manager.find(first) is None
    assert len(known) == before
    sweep(manager)
    assert len(known) < before, "who looks for it is refused anyway, but it must not be kept"
    assert manager.find(session.id) is not None
