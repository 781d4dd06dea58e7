"""What happens when there are too many sessions."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.manager.cluster import start
from tests.manager.test_delta import commit
from tribes.errors import SessionLimitError
from tribes.manager.clock import Clock
from tribes.manager.inbox import Inbox
from tribes.manager.rules import Rules
from tribes.manager.standard import StandardManager
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.testing.manager_strategies import FakeTime, make_manager
from tribes.testing.sim import World

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session


class Told:
    def __init__(self) -> None:
        self.log: list[str] = []

    def session_destroyed(self, session: Session, reason: str) -> None:
        self.log.append(f"destroyed {session['n']} {reason}")

    def session_evicted(self, session: Session, reason: str) -> None:
        self.log.append(f"evicted {session['n']} {reason}")


def numbered(manager: SessionManager, number: int) -> Session:
    session = manager.create()
    session["n"] = number
    manager.commit(session)
    return session


def test_t13_one_session_too_many_is_rejected_with_an_error_and_counted() -> None:
    """Limit 2: the third creation fails, and ``rejected`` is 1; an ended one makes room."""
    manager = make_manager(max_active_sessions=2)
    first = numbered(manager, 1)
    numbered(manager, 2)
    with pytest.raises(SessionLimitError, match="2 sessions"):
        manager.create()
    assert manager.statistics().rejected == 1
    manager.invalidate(first)
    numbered(manager, 3)
    assert manager.statistics().active == 2


def test_t13_copies_of_other_members_sessions_count() -> None:
    """As Tomcat's manual says of the Delta manager."""
    world = World(1)
    a, b = start(world, "ab", max_active_sessions=2)
    for number in range(2):
        session = a.manager().create()
        session["n"] = number
        commit(world, a.manager(), session)
    with pytest.raises(SessionLimitError):
        b.manager().create()


def test_the_least_recently_used_go_on_all_members_and_are_told_once() -> None:
    """``on_full = "evict"``: the owner ends them with the reason; who is used stays."""
    world = World(2)
    nodes = start(world, "ab", max_active_sessions=5, on_full="evict")
    a, b = (node.manager() for node in nodes)
    told = {node.name: Told() for node in nodes}
    for node in nodes:
        node.manager().add_listener(told[node.name])
    sessions = []
    for number in range(5):
        sessions.append(numbered(a, number))
        world.run(1)
    used = b.find(sessions[0].id)
    assert used is not None
    used["n"] = 0.5
    commit(world, b, used)
    numbered(a, 5)
    numbered(a, 6)
    assert a.statistics().evicted == 2
    world.run(3)
    for manager in (a, b):
        assert manager.table.live == 5
        assert [manager.find(session.id) is None for session in sessions] == [
            False, True, True, False, False,
        ]  # fmt: skip
    assert sorted(told["a"].log + told["b"].log) == ["destroyed 1 evicted", "destroyed 2 evicted"]


def test_a_session_that_is_used_after_it_was_chosen_stays() -> None:
    """Somebody uses it on another member, before its owner has asked."""
    world = World(3)
    nodes = start(world, "ab", max_active_sessions=2, on_full="evict", expiry_interval=5000)
    a, b = (node.manager() for node in nodes)
    sessions = []
    for number in range(2):
        sessions.append(numbered(a, number))
        world.run(1)
    numbered(a, 2)
    assert list(a.table.marked) == [sessions[0].key]
    world.run(0.5)
    assert list(b.table.marked) == [sessions[0].key]
    used = b.find(sessions[0].id)
    assert used is not None
    used["n"] = "used"
    commit(world, b, used)
    world.run(12)
    assert [manager.find(sessions[0].id) is not None for manager in (a, b)] == [True, True]
    assert (a.table.marked, b.table.marked) == ({}, {})


def test_evicting_is_bounded_so_a_flood_is_rejected_in_the_end() -> None:
    manager = make_manager(max_active_sessions=10, rules=Rules(evicts=True))
    for number in range(26):
        numbered(manager, number)
    with pytest.raises(SessionLimitError):
        manager.create()
    assert manager.statistics().rejected == 1


def test_a_session_in_use_is_not_chosen() -> None:
    clocks = FakeTime()
    rules = Rules(evicts=True, checks_activity=True)
    manager = make_manager(max_active_sessions=2, clocks=clocks, rules=rules)
    keys = []
    for number in range(2):
        keys.append(numbered(manager, number).key)
        clocks.sleep(1)
    held = manager.find(keys[0])
    assert held is not None
    numbered(manager, 2)
    assert list(manager.table.marked) == [keys[1]]


def test_without_a_group_the_least_recently_used_go_with_the_next_look() -> None:
    """A Standard manager: the same rule, and nobody to ask."""
    clocks = FakeTime()
    manager = make_standard(clocks, max_active_sessions=3, rules=Rules(evicts=True))
    told = Told()
    manager.add_listener(told)
    for number in range(5):
        numbered(manager, number)
        clocks.sleep(1)
    assert manager.process_expires() == 2
    assert told.log == ["destroyed 0 evicted", "destroyed 1 evicted"]
    assert manager.statistics().active == 3


def make_standard(clocks: FakeTime, **settings: Any) -> StandardManager:
    inbox = Inbox(threading.Lock())
    return StandardManager(
        "shop",
        SessionTable(threading.Lock(), inbox),
        Clock(clocks.wall_ms, 1, threading.Lock()),
        inbox=inbox,
        codec=ValueCodec(),
        entropy=random.Random(1).randbytes,
        monotonic=clocks.monotonic,
        **settings,
    )
