"""Numbers of sessions' lives: how many, how long, how often."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tribes.errors import SessionLimitError
from tribes.manager.lives import Lives
from tribes.manager.merge import expired
from tribes.testing.manager_strategies import FakeTime, make_manager


def test_nothing_has_lived() -> None:
    lives = Lives(lambda: 0.0)
    assert (lives.average_s, lives.create_rate, lives.expire_rate) == (0, 0, 0)


def test_t15_the_numbers_of_two_hundred_scripted_sessions() -> None:
    """One a second; each but the last five ends after 5 s, and those after 61 to 65 s."""
    clocks = FakeTime()
    manager = make_manager(clocks=clocks, max_active_sessions=11)
    open_since: list[tuple[float, str]] = []
    rejected = 0

    def end_due(now: float) -> None:
        while open_since and open_since[0][0] <= now:
            _, key = open_since.pop(0)
            session = manager.find(key)
            assert session is not None
            if len(open_since) % 2:
                manager.invalidate(session)
            else:
                record = manager.table.get(key)
                assert record is not None
                manager.table.swap(key, record, expired(record))
                manager.notify_destroyed(key, "expired")

    for second in range(200):
        end_due(second)
        session = manager.create()
        manager.commit(session)
        open_since.append((second + 5, session.key))
        clocks.sleep(1)
    numbers = manager.statistics()
    assert numbers.active == 5
    assert numbers.max_active == 5
    assert (numbers.created, numbers.ended, numbers.session_counter) == (200, 195, 200)
    assert (numbers.average_life_s, numbers.longest_life_s) == (5, 5)
    # A hundred in as many seconds, since the first of them.
    assert numbers.create_rate == pytest.approx(60)
    assert numbers.expire_rate == pytest.approx(60)

    for _ in range(7):
        try:
            manager.commit(manager.create())
        except SessionLimitError:
            rejected += 1
    assert (rejected, manager.statistics().rejected) == (1, 1)
    clocks.sleep(60)
    end_due(1000)
    numbers = manager.statistics()
    assert numbers.longest_life_s == 65
    assert numbers.average_life_s == pytest.approx((95 * 5 + 61 + 62 + 63 + 64 + 65) / 100)

    manager.reset_statistics()
    after = manager.statistics()
    kept = {"active", "max_active", "session_counter", "bytes", "expired", "sent", "received"}
    assert {each.name for each in fields(after) if getattr(after, each.name)} <= kept
    assert (after.active, after.max_active) == (6, 6)
