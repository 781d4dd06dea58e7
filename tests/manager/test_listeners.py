"""Who is told what, in which order, and what a listener that fails can break: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tribes.errors import SessionInvalidError
from tribes.manager.merge import expired
from tribes.testing.manager_strategies import make_manager

if TYPE_CHECKING:
    from tribes.manager.session import Session


class Recorder:
    def __init__(self, name: str = "", events: list[str] | None = None) -> None:
        self.name = name
        self.events = [] if events is None else events
        self.fails = False

    def session_created(self, session: Session) -> None:
        session["by"] = "listener"
        self._note(f"created {session.is_new}")

    def session_destroyed(self, session: Session, reason: str) -> None:
        self._note(f"destroyed {dict(session)} {reason}")

    def session_id_changed(self, session: Session, old_id: str) -> None:
        self._note(f"id changed {old_id != session.id and old_id == session.key}")

    def _note(self, event: str) -> None:
        self.events.append(f"{self.name}{event}")
        if self.fails:
            raise RuntimeError(event)


def test_a_life_is_told_in_order() -> None:
    manager = make_manager()
    listener = Recorder()
    manager.add_listener(listener)
    session = manager.create()
    manager.commit(session)
    session.rotate_id()
    assert listener.events == ["created True"]
    manager.commit(session)
    manager.commit(session)
    manager.invalidate(session)
    assert listener.events == [
        "created True",
        "id changed True",
        "destroyed {'by': 'listener'} invalidated",
    ]


def test_an_end_is_told_once_however_many_requests_cause_it() -> None:
    manager = make_manager()
    listener = Recorder()
    session = manager.create()
    manager.commit(session)
    parallel = manager.find(session.id)
    assert parallel is not None
    manager.add_listener(listener)
    assert manager.invalidate(session).version is not None
    outcome = manager.invalidate(parallel)
    assert (outcome.version, outcome.is_gone) == (None, True)
    assert listener.events == ["destroyed {} invalidated"]


def test_an_expiry_is_told_with_the_last_content() -> None:
    manager = make_manager()
    session = manager.create()
    session["a"] = 1
    manager.commit(session)
    listener = Recorder()
    manager.add_listener(listener)
    record = manager.table.get(session.key)
    assert record is not None
    manager.table.swap(session.key, record, expired(record))
    manager.notify_destroyed(session.key, "expired")
    manager.notify_destroyed("nobody", "expired")
    assert listener.events == ["destroyed {'a': 1} expired"]


def test_ends_are_told_in_the_reverse_order_of_adding() -> None:
    manager = make_manager()
    events: list[str] = []
    first, second = Recorder("1 ", events), Recorder("2 ", events)
    manager.add_listener(first)
    manager.add_listener(second)
    session = manager.create()
    manager.commit(session)
    manager.invalidate(session)
    assert [event.split()[:2] for event in events] == [
        ["1", "created"],
        ["2", "created"],
        ["2", "destroyed"],
        ["1", "destroyed"],
    ]
    manager.remove_listener(first)
    manager.remove_listener(first)
    manager.create()
    assert events[4:] == ["2 created True"]


def test_a_listener_that_raises_is_counted_and_harms_nobody() -> None:
    errors: list[Exception] = []
    manager = make_manager(on_listener_error=errors.append)
    failing, other = Recorder(), Recorder()
    failing.fails = True
    manager.add_listener(failing)
    manager.add_listener(other)
    session = manager.create()
    manager.commit(session)
    assert manager.find(session.id) is not None
    assert [str(error) for error in errors] == ["created True"]
    assert other.events == ["created True"]
    assert manager.statistics().listener_failures == 1


def test_what_a_listener_does_to_the_copy_has_no_effect() -> None:
    manager = make_manager()
    copies: list[Session] = []

    class Keeper(Recorder):
        def session_destroyed(self, session: Session, reason: str) -> None:
            session["late"] = 1
            copies.append(session)

    manager.add_listener(Keeper())
    session = manager.create()
    manager.commit(session)
    manager.invalidate(session)
    outcome = manager.commit(copies[0])
    assert (outcome.version, outcome.is_gone) == (None, True)
    with pytest.raises(SessionInvalidError):
        copies[0]["late"]
