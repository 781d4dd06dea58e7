"""Sessions through a clean restart, and only through a clean one."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tribes.errors import StoreError
from tribes.manager.clock import Clock
from tribes.manager.inbox import CommitResult, Inbox
from tribes.manager.standard import StandardManager
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.stores.envelope import Envelope
from tribes.stores.snapshot import SnapshotFile
from tribes.testing.manager_strategies import FakeTime

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.manager.session import Session


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def session_created(self, session: Session) -> None:
        self.told.append(("created", session.key))

    def session_destroyed(self, session: Session, reason: str) -> None:
        self.told.append((reason, session.key))

    def session_id_changed(self, session: Session, old_id: str) -> None:
        self.told.append(("id changed", session.key))

    def session_will_passivate(self, session: Session) -> None:
        self.told.append(("passivated", session.key))

    def session_activated(self, session: Session) -> None:
        self.told.append(("activated", session.key))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


def make(
    path: Path | None, clocks: FakeTime, *, actor: int = 1, **settings: Any
) -> StandardManager:
    inbox = Inbox(threading.Lock())
    return StandardManager(
        "shop",
        SessionTable(threading.Lock(), inbox),
        Clock(clocks.wall_ms, actor, threading.Lock()),
        snapshot=None if path is None else SnapshotFile(path),
        envelope=settings.pop("envelope", Envelope("shop")),
        inbox=inbox,
        codec=ValueCodec(),
        entropy=random.Random(actor).randbytes,
        monotonic=clocks.monotonic,
        **settings,
    )


def restarted(path: Path | None, clocks: FakeTime, **settings: Any) -> StandardManager:
    """Another process: its monotonic clock begins anew."""
    later = FakeTime(wall_ms=clocks.wall, monotonic_s=5.0)
    manager = make(path, later, actor=2, **settings)
    manager.start()
    return manager


def stored(manager: StandardManager, **values: Any) -> str:
    session = manager.create()
    session.update(values)
    manager.commit(session)
    return str(session.id)


def test_t88_sessions_survive_a_clean_restart(path: Path, clocks: FakeTime) -> None:
    manager = make(path, clocks)
    ids = [stored(manager, number=number, big="x" * 20_000) for number in range(20)]
    login = manager.find(ids[0])
    assert login is not None
    login.principal = "ann"
    new_id = login.rotate_id(0)
    manager.commit(login)
    manager.stop()
    after = restarted(path, clocks)
    assert after.loaded == 20
    found = after.find(new_id)
    assert found is not None
    assert (found.principal, found["number"]) == ("ann", 0)
    assert after.find(ids[0]) is None
    for number, session_id in enumerate(ids[1:], 1):
        session = after.find(session_id)
        assert session is not None
        assert dict(session) == {"number": number, "big": "x" * 20_000}
        session["number"] = -1
        assert after.commit(session).version is not None


def test_idle_time_goes_on_while_the_process_is_down(path: Path, clocks: FakeTime) -> None:
    manager = make(path, clocks, max_inactive_s=60)
    old = stored(manager)
    clocks.sleep(30)
    new = stored(manager)
    manager.stop()
    clocks.sleep(31)
    after = restarted(path, clocks, max_inactive_s=60)
    assert after.find(old) is None
    assert after.find(new) is not None
    assert after.loaded == 1


def test_t88_the_file_is_gone_after_the_start(path: Path, clocks: FakeTime) -> None:
    """Or a crash would bring sessions back that were ended since."""
    manager = make(path, clocks)
    session_id = stored(manager)
    manager.stop()
    assert path.exists()
    after = restarted(path, clocks)
    session = after.find(session_id)
    assert session is not None
    after.invalidate(session)
    assert not path.exists()
    assert restarted(path, clocks).find(session_id) is None


def test_t88_without_a_file_nothing_survives(clocks: FakeTime) -> None:
    manager = make(None, clocks)
    session_id = stored(manager)
    manager.stop()
    assert restarted(None, clocks).find(session_id) is None


def test_ended_and_expired_sessions_are_not_saved(path: Path, clocks: FakeTime) -> None:
    manager = make(path, clocks, max_inactive_s=60)
    stored(manager)
    clocks.sleep(61)
    ended = manager.create()
    manager.commit(ended)
    manager.invalidate(ended)
    manager.stop()
    assert SnapshotFile(path).load() == ([], 0)


def test_damage_costs_the_session_that_it_hits_and_the_file_is_kept(
    path: Path, clocks: FakeTime
) -> None:
    manager = make(path, clocks, envelope=Envelope("shop", keys=[b"k" * 32]))
    ids = [stored(manager, text=f"number {number}") for number in range(10)]
    manager.stop()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"number 4", b"number 5"))
    errors: list[str] = []
    after = restarted(
        path,
        clocks,
        envelope=Envelope("shop", keys=[b"k" * 32]),
        on_store_error=lambda verb, error: errors.append(f"{verb}: {error}"),
    )
    assert [after.find(session_id) is not None for session_id in ids] == [
        number != 4 for number in range(10)
    ]
    assert (after.loaded, after.damaged) == (9, 1)
    assert errors == ["load: no key here authenticates it: tampered with, or another key's"]
    [kept] = path.parent.glob("*.refused")
    assert b"number 5" in kept.read_bytes()


def test_t88_listeners_hear_of_both_ways(path: Path, clocks: FakeTime) -> None:
    manager, listener = make(path, clocks), Listener()
    key = stored(manager)
    manager.add_listener(listener)
    manager.stop()
    assert listener.told == [("passivated", key)]
    after = make(path, clocks, actor=2)
    after.add_listener(listener)
    after.start()
    assert listener.told[1:] == [("activated", key)]


def test_a_disk_that_refuses_is_told_and_stops_nothing(tmp_path: Path, clocks: FakeTime) -> None:
    errors: list[Exception] = []
    manager = make(
        tmp_path / "no" / "file", clocks, on_store_error=lambda verb, error: errors.append(error)
    )
    manager.start()
    stored(manager)
    manager.stop()
    [error] = errors
    assert isinstance(error, StoreError)


def test_idle_sessions_expire_and_listeners_hear_once(clocks: FakeTime) -> None:
    manager, listener = make(None, clocks, max_inactive_s=60), Listener()
    manager.add_listener(listener)
    key = stored(manager)
    clocks.sleep(59)
    assert manager.process_expires() == 0
    clocks.sleep(1)
    assert manager.process_expires() == 1
    assert manager.process_expires() == 0
    assert listener.told == [("created", key), ("expired", key)]
    clocks.sleep(100_000)
    manager.process_expires()
    assert len(manager.table) == 0


def test_commits_leave_nothing_behind_for_a_channel(clocks: FakeTime) -> None:
    """Nobody would ever take it."""
    manager = make(None, clocks)
    session_id = stored(manager, a=1)
    for _ in range(3):
        clocks.sleep(10)
        session = manager.find(session_id)
        assert session is not None
        manager.commit(session)
    session = manager.find(session_id)
    assert session is not None
    manager.invalidate(session)
    assert len(manager.inbox) == len(manager.inbox.dirty) == len(manager.touches) == 0


def test_a_waiter_is_told_at_once(clocks: FakeTime) -> None:
    manager, results = make(None, clocks), []

    class Waiter:
        def resolve(self, result: CommitResult) -> None:
            results.append(result)

    session = manager.create()
    outcome = manager.commit(session, Waiter())
    assert results == [CommitResult(outcome.version or 0, (), {})]
