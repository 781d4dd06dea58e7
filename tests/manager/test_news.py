"""What other members did is told where it is wanted, by the runtime, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.manager.test_delta_rows import Recorder
from tribes.manager.rules import Rules
from tribes.testing.manager_strategies import make_manager

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session


def replicate(source: SessionManager, target: SessionManager, key: str) -> None:
    record = source.table.get(key)
    assert record is not None
    target.clock.observe(source.clock.last)
    before, after, has_changed = target.table.merge_in(key, record)
    if has_changed:
        target.merged(key, before, after)


def test_without_listeners_or_settings_nothing_is_left_to_tell() -> None:
    for rules, has_listener in ((Rules(), True), (Rules(tells_attributes=True), False)):
        here, there = make_manager(), make_manager(actor=2, rules=rules)
        if has_listener:
            there.add_listener(Recorder())
        session = here.create()
        here.commit(session)
        replicate(here, there, session.key)
        assert len(there.news) == 0


def test_a_value_that_cannot_be_read_here_is_told_as_none() -> None:
    @dataclass
    class Unknown:
        pass

    here, there = make_manager(), make_manager(actor=2, rules=Rules(tells_attributes=True))
    here.codec.register(Unknown)
    recorder = Recorder()
    there.add_listener(recorder)
    session = here.create()
    session["x"] = Unknown()
    here.commit(session)
    replicate(here, there, session.key)
    session["x"] = 1
    here.commit(session)
    replicate(here, there, session.key)
    there.news.tell()
    assert recorder.log == ["added x None", "replaced x None"]


def test_what_is_kept_of_a_session_that_is_gone_is_found_in_the_end() -> None:
    """It left the table without anybody's word: two looks later the value is unbound."""
    log: list[str] = []

    class Value:
        def value_unbound(self, session: Session, name: str) -> None:
            log.append(name)

    manager = make_manager(rules=Rules(name_filter=re.compile("-")))
    for name in ("gone", "stays"):
        session = manager.create()
        session[name] = Value()
        manager.commit(session)
        if name == "gone":
            record = manager.table.get(session.key)
            assert record is not None
            manager.table.drop(session.key, record)
    for _ in range(3):
        manager.sweep(0, manager.now_ds())
        manager.news.tell()
    assert log == ["gone"]
    assert len(manager.watch.kept) == 1


def test_what_is_kept_here_is_unbound_when_another_member_ends_the_session() -> None:
    """Values behind a filter live with their session, wherever that is ended."""
    log: list[str] = []

    class Value:
        def value_unbound(self, session: Session, name: str) -> None:
            log.append(name)

    rules = Rules(name_filter=re.compile("-"))
    here, there = make_manager(), make_manager(actor=2, rules=rules)
    session = here.create()
    here.commit(session)
    replicate(here, there, session.key)
    copy = there.find(session.id)
    assert copy is not None
    copy["x"] = Value()
    there.commit(copy)
    here.clock.observe(there.clock.last)
    here.invalidate(session)
    replicate(here, there, session.key)
    assert len(there.watch.kept) == 1
    assert there.news.tell() == 1
    assert log == ["x"]
    assert len(there.watch.kept) == 0
