"""What a client has written is in the session of its next request, also with a Backup manager; what
is written while parts move; and what becomes of the sessions when all leave.
"""

from __future__ import annotations

import pytest

from tests.sim.backup_nodes import (
    bystanders,
    config,
    core,
    find,
    holders,
    manager,
    owners,
    put,
    start,
)
from tribes.manager.placement import part_of
from tribes.testing.sim import SimNode, SimWaiter, World


def _lose_changes(node: SimNode, key: str) -> None:
    """As a link does on which they take a minute."""
    part = core(node).placed.parts[part_of(key)]
    part._send = lambda commits, now: None  # type: ignore[method-assign]


def _value(node: SimNode, key: str) -> object:
    session = manager(node).find(key)
    return None if session is None else session["a"]


def _ask(node: SimNode, key: str, written: tuple[int, int]) -> float:
    """Bring a session with a write; the seconds that it took."""
    waiter, begin = SimWaiter(), node.world.now
    assert manager(node).lacks(key, written)
    assert manager(node).ask(key, written, waiter)
    node.pump()
    assert node.world.run_until(begin + 1, lambda: waiter.is_done), "no answer"
    assert waiter.result is not None
    assert not waiter.result.missing
    return node.world.now - begin


def _write_unseen(nodes: list[SimNode]) -> tuple[str, SimNode, tuple[int, int]]:
    """A write on a holder of which the other one does not hear; key, the other one, token."""
    key = put(nodes[0], a=1)
    nodes[0].world.run(0.2)
    other = owners(nodes, key)[0]
    writer = next(node for node in holders(nodes, key) if node is not other)
    _lose_changes(writer, key)
    session = find(writer, key)
    assert session is not None
    session["a"] = 2
    version = manager(writer).commit(session).version
    writer.pump()
    assert version is not None
    return key, other, (version, manager(writer).clock.actor)


def test_a_holder_that_lacks_what_its_client_wrote_asks_the_other_one() -> None:
    """Read your writes: the token names the write, and the request waits for that."""
    nodes = start(World(71), "abc", map_send_options=8)
    key, other, written = _write_unseen(nodes)
    session = find(other, key)
    assert session is not None
    assert session["a"] == 1
    assert _ask(other, key, written) < 0.1
    session = find(other, key)
    assert session is not None
    assert session["a"] == 2
    assert not manager(other).lacks(key, written)


def test_a_write_that_an_owner_lacks_is_had_from_the_next_holder() -> None:
    """Also where the session does not lie: the owner's answer is not taken for the last word."""
    nodes = start(World(72), "abc", map_send_options=8)
    key, _, written = _write_unseen(nodes)
    away = bystanders(nodes, key)[0]
    assert _ask(away, key, written) < 0.3
    session = manager(away).find(key)
    assert session is not None
    assert session["a"] == 2


def test_what_a_client_has_seen_outlives_the_holder_that_gave_it() -> None:
    """A holder dies with a write that the other one lacks: who has shown it to a client still has
    it, and gives it to those that hold the session now.
    """
    nodes = start(World(74), "abcd", map_send_options=8)
    key, other, written = _write_unseen(nodes)
    away = bystanders(nodes, key)[0]
    _ask(away, key, written)
    [writer] = [node for node in holders(nodes, key) if node is not other]
    writer.crash()
    left = [node for node in nodes if node is not writer]
    away.world.run(5)
    assert len(holders(left, key)) == 2
    for node in holders(left, key):
        assert _value(node, key) == 2


def test_what_a_visitor_wrote_before_it_died_comes_to_all_holders() -> None:
    """One of them has it, and compares with the others when the visitor is gone: not only with the
    comparison that is due every sixteen seconds.
    """
    nodes = start(World(80), "abcd", map_send_options=8)
    world = nodes[0].world
    key = put(nodes[0], a=1)
    world.run(0.2)
    first, second = holders(nodes, key)
    visitor = bystanders(nodes, key)[0]
    session = find(visitor, key)
    assert session is not None
    world.link(visitor.name, second.name).delay = 5.0
    session["a"] = 2
    manager(visitor).commit(session)
    visitor.pump()
    world.run(0.1)
    assert [_value(node, key) for node in (first, second)] == [2, 1]
    visitor.crash()
    world.run(1.5)
    for node in (first, second):
        assert _value(node, key) == 2


def test_a_holder_that_has_less_than_who_asks_it_gets_that() -> None:
    """As after a split, in which the other holder died."""
    nodes = start(World(76), "abc", map_send_options=8)
    key, other, written = _write_unseen(nodes)
    away = bystanders(nodes, key)[0]
    _ask(away, key, written)
    waiter = SimWaiter()
    [writer] = [node for node in holders(nodes, key) if node is not other]
    world = away.world
    world.link(writer.name, away.name).delay = 1.0
    assert manager(away).ask(key, None, waiter)
    away.pump()
    world.run(0.3)
    assert waiter.is_done
    session = manager(other).find(key)
    assert session is not None
    assert session["a"] == 2


def test_a_write_that_nobody_has_is_looked_for_once() -> None:
    """A forged token costs its sender 0.3 s, and the next request of his nothing."""
    nodes = start(World(73), "abc")
    key = put(nodes[0], a=1)
    forged = 2**62, 7
    for node in (holders(nodes, key)[0], bystanders(nodes, key)[0]):
        assert 0.2 < _ask(node, key, forged) < 0.5
    assert not manager(holders(nodes, key)[0]).lacks(key, forged)
    assert _ask(bystanders(nodes, key)[0], key, forged) < 0.05


def test_a_part_is_given_away_while_its_sessions_are_written() -> None:
    """Copies that change are never equal at one moment; what one had is with the others all the
    same.
    """
    world = World(75)
    nodes = start(world, "abc")
    keys = [put(nodes[0], n=0) for _ in range(60)]
    joiner = world.start("d", config())
    everybody = [*nodes, joiner]
    for turn in range(60):
        for key in keys:
            node = holders(nodes, key)[0]
            session = manager(node).find(key)
            assert session is not None
            session["n"] = turn
            manager(node).commit(session)
            node.pump()
        world.run(0.1)
    assert all(core(node).placed.is_settled for node in everybody)
    assert sum(core(node).placed.statistics.released for node in everybody) > 10
    world.run(1)
    for key in keys:
        for node in holders(everybody, key):
            session = manager(node).find(key)
            assert session is not None
            assert session["n"] == 59


def test_nobody_is_an_heir_where_all_drain() -> None:
    """Then the sessions are saved, where that is configured: nobody waits for the others."""
    world = World(74)
    nodes = start(world, "ab")
    put(nodes[0], a=1)
    for node in nodes:
        assert not node.core.sessions.is_last
        node.drain()
    assert world.run_until(world.now + 3, lambda: all(n.core.is_drained for n in nodes))
    for node in nodes:
        assert node.core.sessions.is_last
        assert node.core.sessions.drain_report().is_complete


@pytest.mark.parametrize("is_written", [False, True], ids=["read", "written"])
def test_who_leaves_without_an_heir_has_one_in_who_used_its_sessions(is_written: bool) -> None:
    """B and C do not see each other. B leaves while A, which sees both, is about to leave: B has
    nobody to give to, and A has a copy of what was used there, for which C is the heir.
    """
    world = World(75)
    a, b, c = start(world, "abc")
    world.cut(b, c, both=True)
    assert world.run_until(20, lambda: c.core.local not in b.core.view.members)
    assert world.run_until(20, lambda: b.core.local not in c.core.view.members)
    a.drain()
    assert world.run_until(world.now + 20, lambda: a.core.is_drained)
    key = put(a if is_written else b, n=1)
    assert bystanders([a, b], key) == [a]
    session = find(a, key)
    assert session is not None
    b.drain()
    assert world.run_until(world.now + 3, lambda: b.core.is_drained)
    b.stop()
    world.run(1)
    assert a.core.is_drained
    a.stop()
    session = find(c, key)
    assert session is not None
    assert session["n"] == 1
