"""Checks of sessions that lie on some nodes, and of locks: each broken world, and no good one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim.backup_nodes import bystanders, core, holders, manager, put, start
from tribes.config.model import NodeConfig
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import part_of
from tribes.testing.backup_checks import check_places, is_whole
from tribes.testing.drain_checks import DrainedCopies
from tribes.testing.lock_checks import check_locks, check_locks_over
from tribes.testing.sim import SimNode, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.manager.record import Record

KEY = "ABC" + "0" * 29


def record_of(node: SimNode, key: str) -> Record:
    record = manager(node).table.get(key)
    assert record is not None
    return record


def forgotten(nodes: list[SimNode], key: str) -> None:
    """One holder drops its copy."""
    node = holders(nodes, key)[0]
    manager(node).table.drop(key, record_of(node, key))


def forgotten_by_all(nodes: list[SimNode], key: str) -> None:
    """Only a visitor still has it."""
    first = holders(nodes, key)[0]
    manager(bystanders(nodes, key)[0]).table.merge_in(key, record_of(first, key))
    for node in holders(nodes, key):
        manager(node).table.drop(key, record_of(node, key))


def not_held(nodes: list[SimNode], key: str) -> None:
    """One that should hold a part does not say so."""
    core(holders(nodes, key)[0]).placed.book.states[part_of(key)] = PlaceState.NONE


def owned_by_nobody(nodes: list[SimNode], key: str) -> None:
    """The first holder has announced no epoch."""
    for node in nodes:
        core(node).placed.book.claims[part_of(key)] = 0


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (forgotten, "equal copies"),
        (forgotten_by_all, "orphan"),
        (not_held, "placed"),
        (owned_by_nobody, "one owner"),
    ],
)
def test_sessions_that_lie_where_they_should_not_are_seen(
    spoil: Callable[[list[SimNode], str], None], invariant: str
) -> None:
    """And nothing is wrong before somebody tampers with the nodes."""
    nodes = start(World(1), "abcd")
    key = put(nodes[0], n=1)
    nodes[0].world.run(1)
    assert is_whole(nodes, "app")
    spoil(nodes, key)
    (seen,) = check_places(nodes, "app", 0.0)
    assert seen.invariant == invariant
    assert not is_whole(nodes, "app")


def test_a_lock_that_two_have_and_one_that_is_left_are_seen() -> None:
    """The second one takes itself for the holder, without asking."""
    world = World(1)
    nodes = [world.start(name, NodeConfig(contexts=("app",))) for name in "abc"]
    world.run(5)
    a, b = (node.core.sessions.replicators["app"].locks for node in nodes[:2])
    assert check_locks(world, nodes) == check_locks_over(world, nodes) == []
    number = a.acquire(KEY, lambda: None, nodes[0].clock.monotonic())
    nodes[0].pump()
    world.run(0.1)
    assert a.is_held(number, nodes[0].clock.monotonic())
    assert check_locks(world, nodes) == []
    assert ("a#1",) in [seen.witness for seen in check_locks_over(world, nodes)]
    ask = b._asks[b.acquire(KEY, lambda: None, nodes[1].clock.monotonic())]
    ask.is_granted, ask.until = True, nodes[1].clock.monotonic() + 1
    (seen,) = check_locks(world, nodes)
    assert (seen.invariant, seen.witness) == ("lock held twice", ("a#1", "b#1"))


def test_who_is_drained_has_left_all_with_one_that_stays() -> None:
    """Where all are about to go, nobody is an heir: then nothing is asked of them."""
    world = World(9)
    nodes = start(world, "abc")
    key = put(nodes[0], a=1)
    leaving = holders(nodes, key)[0]
    others = [node for node in nodes if node is not leaving]
    some = DrainedCopies(leaving, is_placed=True)
    assert some.missing(world) == []
    for node in others:
        if key in manager(node).table:
            manager(node).table.drop(key, record_of(node, key))
    assert [each.invariant for each in some.missing(world)] == ["drained copies"]
    others[0].drain()
    one_stays = DrainedCopies(leaving, is_placed=True)
    assert [each.invariant for each in one_stays.missing(world)] == ["drained copies"]
    others[1].drain()
    assert DrainedCopies(leaving, is_placed=True).missing(world) == []
