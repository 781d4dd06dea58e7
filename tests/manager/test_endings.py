"""In which order the end of a session is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tribes.errors import AttributeNotEncodableError
from tribes.manager.merge import expired
from tribes.testing.manager_strategies import make_manager

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session

LOG: list[str] = []


@dataclass
class User:
    """Who is logged in; can be logged out."""

    name: str

    def logout(self) -> None:
        LOG.append(f"logout {self.name}")


@dataclass
class Bound:
    """A value that listens."""

    number: int = 0

    def value_unbound(self, session: Session, name: str) -> None:
        LOG.append(f"unbound {name}")


@dataclass
class Replicated:
    """A listener of one session that travels with it."""

    name: str
    is_replicated: ClassVar[bool] = True
    log: ClassVar[list[str]] = []

    def session_destroyed(self, session: Session, reason: str) -> None:
        Replicated.log.append(f"{self.name} {reason}")

    def session_id_changed(self, session: Session, old_id: str) -> None:
        Replicated.log.append(f"{self.name} has another id")


@dataclass
class Watcher:
    """An application's listener, which tells the order."""

    number: int
    manager: SessionManager

    def session_destroyed(self, session: Session, reason: str) -> None:
        ended = self.manager.statistics().ended
        LOG.append(f"destroyed {self.number} {reason} {ended} {sorted(session)}")

    def container_event(self, context: str, kind: str, data: object) -> None:
        if kind == "session_destroyed":
            LOG.append(f"removed {self.manager.statistics().ended}")

    def attribute_removed(self, session: Session, name: str, old: Any) -> None:
        LOG.append(f"removed {name}")


@pytest.fixture(autouse=True)
def empty_logs() -> None:
    LOG.clear()
    Replicated.log.clear()


def manager_with_classes() -> SessionManager:
    manager = make_manager()
    for cls in (User, Bound, Replicated):
        manager.codec.register(cls)
    return manager


def test_t21_an_end_is_told_to_listeners_in_reverse_then_counted_logged_out_and_unbound() -> None:
    """Listeners, the last first, see all of it; then removal, logout, unbinding, in this order."""
    for reason in ("invalidated", "expired"):
        LOG.clear()
        manager = manager_with_classes()
        manager.add_listener(Watcher(1, manager))
        manager.add_listener(Watcher(2, manager))
        session = manager.create()
        session["a"], session["b"] = Bound(), "text"
        session.principal = User("ann")
        manager.commit(session)
        if reason == "invalidated":
            manager.invalidate(session)
        else:
            record = manager.table.get(session.key)
            assert record is not None
            manager.table.swap(session.key, record, expired(record))
            manager.notify_destroyed(session.key, "expired")
        assert [
            f"destroyed 2 {reason} 0 ['a', 'b']",
            f"destroyed 1 {reason} 0 ['a', 'b']",
            "removed 1",
            "removed 1",
            "logout ann",
            "unbound a",
            "removed a",
            "removed a",
            "removed b",
            "removed b",
        ] == LOG


def test_a_session_that_a_late_request_brought_back_is_not_told_of() -> None:
    """Between its expiry and the telling somebody used it: it lives, and its end comes later."""
    manager = manager_with_classes()
    manager.add_listener(Watcher(1, manager))
    session = manager.create()
    session["a"] = Bound()
    manager.commit(session)
    record = manager.table.get(session.key)
    assert record is not None
    manager.table.swap(session.key, record, expired(record))
    session["b"] = 1
    manager.commit(session)
    manager.notify_destroyed(session.key, "expired")
    assert LOG == []
    manager.invalidate(session)
    assert LOG[0] == "destroyed 1 invalidated 0 ['a', 'b']"


def test_t29_only_listeners_of_a_session_with_the_marker_travel() -> None:
    """One with it is told where the session ends, on another member; one without it is not."""

    class Local:
        def session_destroyed(self, session: Session, reason: str) -> None:
            LOG.append("told")

    here, there = manager_with_classes(), manager_with_classes()
    session = here.create()
    session.add_listener(Replicated("x"))
    session.add_listener(Replicated("x"))
    session.add_listener(Replicated("gone"))
    session.add_listener(Local())
    here.commit(session)
    session.remove_listener(Replicated("gone"))
    session.rotate_id()
    here.commit(session)
    assert Replicated.log == ["x has another id"]
    record = here.table.get(session.key)
    assert record is not None
    there.table.merge_in(session.key, record)
    there.clock.observe(here.clock.last)
    copy = there.find(session.id)
    assert copy is not None
    there.invalidate(copy)
    assert Replicated.log[1:] == ["x invalidated"]
    assert LOG == []
    here.invalidate(session)
    assert Replicated.log[2:] == ["x invalidated"]
    assert LOG == ["told"]


def test_a_listener_that_stays_can_be_removed() -> None:
    manager = manager_with_classes()

    class Local:
        def session_destroyed(self, session: Session, reason: str) -> None:
            raise AssertionError("removed before")

    listener = Local()
    session = manager.create()
    session.add_listener(listener)
    manager.commit(session)
    session.remove_listener(listener)
    manager.commit(session)
    manager.invalidate(session)
    assert manager.statistics().listener_failures == 0


def test_a_replicated_listener_of_an_unknown_class_is_refused() -> None:
    @dataclass
    class Unknown:
        is_replicated = True

    with pytest.raises(AttributeNotEncodableError):
        make_manager().create().add_listener(Unknown())


def test_a_failing_logout_is_counted() -> None:
    manager = manager_with_classes()

    @manager.codec.register
    @dataclass
    class Sour:
        def logout(self) -> None:
            raise RuntimeError("no")

    session = manager.create()
    session.principal = Sour()
    manager.commit(session)
    manager.invalidate(session)
    assert manager.statistics().listener_failures == 1
