"""Which sessions may go, and which use counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tribes.config import load_config
from tribes.manager.merge import expired
from tribes.manager.record import from_wire, header
from tribes.manager.rules import Rules
from tribes.testing.manager_strategies import FakeTime, make_manager
from tribes.testing.sim import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session


def stored(manager: SessionManager) -> Session:
    session = manager.create()
    manager.commit(session)
    return session


def candidates(manager: SessionManager) -> list[str]:
    return list(manager.expired_candidates(manager.now_ds()))


def test_t16_the_idle_limit_is_the_applications_until_a_session_has_its_own() -> None:
    """Default, shorter, never; a limit of 0 or less never ends a session."""
    clocks = FakeTime()
    manager = make_manager(clocks=clocks, max_inactive_s=100)
    sessions = [stored(manager) for _ in range(4)]
    for session, limit in zip(sessions[1:], (1, -1, 0), strict=True):
        session.max_inactive = limit
        manager.commit(session)
    ids = [session.id for session in sessions]

    def alive() -> list[bool]:
        return [manager.find(session_id) is not None for session_id in ids]

    assert alive() == [True] * 4
    clocks.sleep(1.5)
    assert alive() == [True, False, True, True]
    clocks.sleep(99)
    assert alive() == [False, False, True, True]
    clocks.sleep(10**6)
    assert alive() == [False, False, True, True]
    assert sorted(candidates(manager)) == sorted(session.key for session in sessions[:2])
    never = make_manager(clocks=clocks, max_inactive_s=-1)
    session = stored(never)
    clocks.sleep(10**6)
    assert never.find(session.id) is not None


@pytest.mark.parametrize("at_start", [False, True])
def test_t17_new_is_only_the_creating_request_and_uses_count_from_where_they_shall(
    at_start: bool,
) -> None:
    """A request of 2 s: its start or its end is the last access, and the idle time's beginning."""
    clocks = FakeTime()
    rules = Rules(access_at_start=at_start)
    manager = make_manager(clocks=clocks, max_inactive_s=10, rules=rules)
    first = manager.create()
    begun = clocks.wall_ms()
    assert first.is_new
    clocks.sleep(2)
    manager.commit(first)
    ended = clocks.wall_ms()
    clocks.sleep(3)
    second = manager.find(first.id)
    assert second is not None
    assert not second.is_new
    assert second.last_accessed_ms == pytest.approx(begun if at_start else ended, abs=100)
    assert second.created_ms == begun
    begun = clocks.wall_ms()
    clocks.sleep(2)
    second["x"] = 1
    manager.commit(second)
    ended = clocks.wall_ms()
    third = manager.find(first.id)
    assert third is not None
    assert third.last_accessed_ms == pytest.approx(begun if at_start else ended, abs=100)
    manager.commit(third)  # a use that changes nothing counts too
    clocks.sleep(9)
    assert manager.find(first.id) is not None

    slow = manager.find(first.id)
    assert slow is not None
    clocks.sleep(5)
    manager.commit(slow)
    clocks.sleep(6)
    # 11 s since the beginning of the last request, 6 s since its end.
    assert (manager.find(first.id) is None) == at_start


def test_a_use_counts_from_its_start_on_other_members_too() -> None:
    """What travels has the age that the use has when it leaves."""
    clocks = FakeTime()
    manager = make_manager(clocks=clocks, rules=Rules(access_at_start=True))
    session = manager.create()
    clocks.sleep(2)
    manager.commit(session)
    [commit] = manager.inbox.drain(9)
    there = from_wire(commit.delta, manager.now_ds())
    here = manager.table.get(session.key)
    assert here is not None
    assert header(there).last_seen == header(here).last_seen == manager.now_ds() - 20


@pytest.mark.parametrize("checks", [False, True])
def test_t18_a_session_whose_request_runs_never_expires(checks: bool) -> None:
    """M = 1 s, a request of 3 s: with the check the session is valid at its end, and found."""
    clocks = FakeTime()
    rules = Rules(checks_activity=checks)
    manager = make_manager(clocks=clocks, max_inactive_s=1, rules=rules)
    key = stored(manager).key
    running = manager.find(key)
    assert running is not None
    clocks.sleep(3)
    assert candidates(manager) == ([] if checks else [key])
    record = manager.table.get(key)
    assert record is not None
    # What another member is answered that asks whether it may expire it:
    assert manager.is_idle(record, manager.now_ds(), key) is not checks
    assert (manager.find(key) is not None) == checks
    del running
    clocks.sleep(3)
    assert candidates(manager) == [key]
    assert manager.find(key) is None
    assert manager.in_use() == set()


def test_a_session_lives_no_longer_than_it_may_however_much_it_is_used() -> None:
    """``max_lifetime_s``: used each second, it is gone after 10, and its listeners know why."""
    clocks = FakeTime()
    manager = make_manager(clocks=clocks, rules=Rules(max_lifetime_s=10))
    reasons: list[str] = []

    class Listener:
        def session_destroyed(self, session: Session, reason: str) -> None:
            reasons.append(reason)

    manager.add_listener(Listener())
    key = stored(manager).key
    for _ in range(9):
        clocks.sleep(1)
        session = manager.find(key)
        assert session is not None
        manager.commit(session)
        assert candidates(manager) == []
    clocks.sleep(1)
    assert manager.find(key) is None
    assert candidates(manager) == [key]
    record = manager.table.get(key)
    assert record is not None
    assert manager.is_idle(record, manager.now_ds(), key)
    manager.table.swap(key, record, expired(record))
    manager.notify_destroyed(key, "expired")
    assert reasons == ["lifetime"]


def test_t14_sessions_are_looked_for_every_so_many_ticks(tmp_path: Path) -> None:
    """``processExpiresFrequency`` times the Engine's tick; what is 0 or less is ignored."""
    for ticks, delay, expected_ms in ((3, 2, 6000), (0, 10, 1000), (-1, 10, 1000)):
        path = tmp_path / "server.xml"
        path.write_text(
            f'<Engine backgroundProcessorDelay="{delay}"><Cluster className="SimpleTcpCluster">'
            f'<Manager className="DeltaManager" processExpiresFrequency="{ticks}"/>'
            '</Cluster><Host name="h"><Context path="/app"/></Host></Engine>'
        )
        config = load_config(path)
        assert config.manager.expiry_interval == expected_ms
        world = World(1)
        node = world.start("a", config)
        looks: list[float] = []
        manager = node.manager(config.contexts[0])
        manager.sweep = _noting(manager.sweep, looks, world)  # type: ignore[method-assign]
        world.run(31)
        assert len(looks) == int(31 // (expected_ms / 1000))


def _noting(sweep: Callable[..., int], looks: list[float], world: World) -> Callable[..., int]:
    def noting(*args: int) -> int:
        looks.append(world.now)
        return sweep(*args)

    return noting
