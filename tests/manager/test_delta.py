"""The Delta manager through a session's whole life, on three nodes of a simulated cluster."""

from __future__ import annotations

from tests.manager.cluster import start
from tribes.manager import DeltaManager
from tribes.testing.sim import SimWaiter, World


def commit(world: World, manager: DeltaManager, session: object) -> SimWaiter:
    waiter = SimWaiter()
    manager.commit(session, waiter)  # type: ignore[arg-type]
    world.run(0.1)
    return waiter


def test_session_lives_on_all_members_from_creation_to_logout() -> None:
    """Created, changed on another node, rotated on a third, ended on the first: seen everywhere."""
    world = World(1)
    a, b, c = (node.manager() for node in start(world, "abc"))
    assert isinstance(a, DeltaManager)
    assert sorted(a.copies_on) == ["b", "c"]
    session = a.create()
    session["cart"] = ["book"]
    waiter = commit(world, a, session)
    assert waiter.result is not None
    assert waiter.result.replicated

    other = b.find(session.id)
    assert other is not None
    other["cart"].append("pen")
    commit(world, b, other)

    third = c.find(session.id)
    assert third is not None
    assert third["cart"] == ["book", "pen"]
    old, new = third.id, third.rotate_id(grace_s=0)
    commit(world, c, third)
    assert [m.find(old) for m in (a, b, c)] == [None] * 3

    last = a.find(new)
    assert last is not None
    assert last.created_ms == session.created_ms
    last.invalidate()
    commit(world, a, last)
    assert [m.find(new) for m in (a, b, c)] == [None] * 3


def test_joiner_has_all_sessions_and_says_so() -> None:
    """``is_joined`` turns true when a fourth node has what the others had."""
    world = World(2)
    nodes = start(world, "abc")
    ids = []
    for number in range(100):
        manager = nodes[number % 3].manager()
        session = manager.create()
        session["number"] = number
        commit(world, manager, session)
        ids.append(session.id)
    joiner = world.start("d", nodes[0].config)
    assert not joiner.manager().is_joined
    world.run(2)
    assert joiner.manager().is_joined
    found = [joiner.manager().find(session_id) for session_id in ids]
    assert [session and session["number"] for session in found] == list(range(100))


def test_idle_session_expires_on_every_member() -> None:
    """Nobody used it for its idle limit: it is gone everywhere, and one member reports it."""
    world = World(3)
    nodes = start(world, "ab", max_inactive_s=4)
    manager = nodes[0].manager()
    session = manager.create()
    session["x"] = 1
    commit(world, manager, session)
    world.run(8)
    assert [node.manager().find(session.id) for node in nodes] == [None, None]
    told = [e for node in nodes for _, e in node.events if e.name == "session expired"]
    assert len(told) == 1


def test_manager_that_no_node_runs_is_alone() -> None:
    """Before a node runs it, there are no copies and it has not joined."""
    world = World(4)
    node = world.start("a")
    alone = node.manager("other")
    assert alone.copies_on == ()
    assert not alone.is_joined
