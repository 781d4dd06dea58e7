"""Checks of a world: while it runs and when it should be whole again."""

from __future__ import annotations

import pytest

from tests.sim.histories import facts_of, healthy
from tests.sim.test_invariants_messages import swapped, twice
from tribes.interceptors import MessageDispatchInterceptor
from tribes.links.own_sender import OwnSender
from tribes.testing.drain_checks import DrainedCopies
from tribes.testing.history import History
from tribes.testing.invariants import WorldState, check_converged, check_history, check_now
from tribes.testing.sim import SimNode, World
from tribes.testing.workload import Workload

# While the run goes on.


def test_online_checks_report_each_violation_once() -> None:
    """Deliveries are looked at when they are new."""
    world, history = World(1), healthy()
    swapped(history)
    assert [v.invariant for v in check_now(world, history)] == ["order"]
    assert check_now(world, history) == []
    twice(history)
    assert [v.invariant for v in check_now(world, history)] == ["no duplicate"] * 2


def test_a_bound_that_is_passed_is_seen_once() -> None:
    """Here the inbox claims to have held more than it may."""
    world = World(1)
    node = world.start("a")
    world.run(2)
    history = History()
    assert check_now(world, history) == []
    node.manager().inbox.peak_bytes = node.manager().inbox.max_bytes + 1
    (seen,) = check_now(world, history)
    assert (seen.invariant, seen.witness) == ("bound", ("a#1", "bytes in the inbox"))
    assert check_now(world, history) == []


def test_a_session_that_comes_back_is_seen() -> None:
    """The table is tampered with: the live record takes the place of the destroyed one."""
    world = World(1)
    node = world.start("a")
    world.run(2)
    manager, history = node.manager(), History()
    session = manager.create()
    manager.commit(session)
    before = manager.table.get(session.key)
    assert before is not None
    outcome = manager.invalidate(session)
    assert outcome.version is not None
    history.op("c", "a#1", "invalidate", session.key, world.now, version=(outcome.version, 1))
    assert check_now(world, history) == []
    manager.table._records[session.key] = before
    (seen,) = check_now(world, history)
    assert (seen.invariant, seen.witness) == ("logged out", ("op 0", "a#1"))


# Afterwards.


def test_converged_is_what_the_name_says() -> None:
    """A split cluster is not: two views, different copies, sessions missing."""
    world = World(2)
    nodes = [world.start(name) for name in "ab"]
    world.run(3)
    assert check_converged(world, nodes, 0.0, 3.0) == []
    world.partition(nodes[:1], nodes[1:])
    world.run(6)
    session = nodes[0].manager().create()
    nodes[0].manager().commit(session)
    found = check_converged(world, nodes, 0.0, 3.0)
    assert sorted((v.invariant, v.witness[0]) for v in found) == [
        ("equal copies", found[2].witness[0]),
        ("one view", "a"),
        ("one view", "b"),
        ("required copies", "b"),
    ]


def test_a_request_that_waits_for_ever_is_seen() -> None:
    """Nobody resolved its waiter, and its node runs."""
    world = World(3)
    node = world.start("a")
    world.run(5)
    history = History()
    op = history.op("c", "a#1", "write", "K", 1.0)
    history.waiting[op.number] = op
    (seen,) = check_converged(world, [node], 0.0, 3.0, history=history)
    assert (seen.invariant, seen.witness) == ("blocked", ("op 0",))


def test_demanding_too_early_is_an_error() -> None:
    """A check that could not fail would look like one that passed."""
    with pytest.raises(ValueError, match="less than 5 s"):
        check_converged(World(1), [], 0.0, 5.0)


def test_a_broken_product_is_caught() -> None:
    """A node that drops what it acknowledges, in a real run: the checks say so."""
    world = World(4)
    nodes = [world.start(name) for name in "abc"]
    world.run(3)
    load = Workload(world, clients=6, seed=4, routing="random", messages_per_s=0)
    replicator = nodes[1].core.sessions.replicators["app"]
    replicator.transfer.merge = lambda pairs, now: None  # type: ignore[method-assign]
    load.start()
    world.run(10)
    load.stop()
    world.run(3)
    found = check_history(load.history, WorldState.of(world))
    assert "lost session" in {v.invariant for v in found}


def test_a_target_that_is_no_member_is_seen_once() -> None:
    """Somebody still sends changes to a node that left the view."""
    world = World(5)
    nodes = [world.start(name) for name in "ab"]
    world.run(3)
    history = History()
    gone = nodes[1].core.local
    nodes[1].stop()
    world.run(1)
    assert check_now(world, history) == []
    nodes[0].core.sessions.replicators["app"]._targets = (gone,)
    (seen,) = check_now(world, history)
    assert (seen.invariant, seen.witness) == ("target is no member", ("a#1", "b"))
    assert check_now(world, history) == []


def test_a_sender_to_a_process_that_is_gone_is_seen() -> None:
    """A queue that nobody will ever empty."""
    world = World(6)
    nodes = [world.start(name) for name in "ab"]
    world.run(3)
    gone = nodes[1].core.local
    nodes[1].stop()
    world.run(1)
    assert check_converged(world, nodes, 0.0, 3.0) == []
    channel = nodes[0].core.channel
    channel.senders.get(gone, nodes[0].clock.monotonic())
    found = check_converged(world, nodes, 0.0, 3.0)
    assert facts_of(found) == [("sender kept", ("a", "b"))]


def test_the_bound_of_a_queue_may_be_passed_by_one_message_only() -> None:
    """How long a message can be decides what is too much."""
    world = World(7)
    node = world.start("a")
    world.run(2)
    dispatch = next(
        each
        for each in node.core.channel._chain.interceptors
        if isinstance(each, MessageDispatchInterceptor)
    )
    dispatch.max_queue_size, dispatch.queued_bytes = 1000, 5000
    assert check_now(world, History(), message_max_bytes=5000) == []
    (seen,) = check_now(world, History(), message_max_bytes=4999)
    assert (seen.invariant, seen.witness) == ("bound", ("a#1", "bytes in the dispatch queue"))


def test_the_bounds_of_what_is_kept_for_one_member_are_checked() -> None:
    """Each kind has its own; of a member that needs sync no session may be remembered."""
    world = World(9)
    a, b = world.start("a"), world.start("b")
    world.run(3)
    member, debt = b.core.local, a.core.sessions.replicators["app"].repair
    sender = a.core.channel.senders._senders[member]
    assert isinstance(sender, OwnSender)
    four = 4 * 1024 * 1024
    sender.outbox.waiting_bytes[:] = four, four
    sender.outbox.unacked_bytes = four
    debt._debts[member].dirty = dict.fromkeys(map(str, range(debt.dirty_max)))
    history = History()
    assert check_now(world, history, message_max_bytes=1000) == []
    sender.outbox.waiting_bytes[:] = four + 1, four + 1
    sender.outbox.unacked_bytes = four + 1
    debt._debts[member].needs_sync = True
    found = check_now(world, history, message_max_bytes=1000)
    assert {violation.invariant for violation in found} == {"bound"}
    assert [violation.witness[1] for violation in found] == [
        "bytes of messages for b",
        "bytes of changes for b",
        "bytes of unacknowledged frames for b",
        "keys that b misses",
    ]


def drained() -> tuple[World, list[SimNode], str, DrainedCopies]:
    world = World(8)
    nodes = [world.start(name) for name in "abc"]
    world.run(3)
    session = nodes[0].manager().create()
    session["w"] = "x"
    nodes[0].manager().commit(session)
    world.run(1)
    copies = DrainedCopies(nodes[0])
    nodes[0].stop()
    return world, nodes, session.key, copies


def test_a_drained_node_has_left_its_changes_with_all() -> None:
    """Its own must be everywhere; of a target that has not started yet nothing is asked."""
    world, nodes, key, copies = drained()
    assert copies.missing(world) == []
    world.start("d")
    assert copies.missing(world) == []
    del nodes[1].manager().table._records[key]
    (seen,) = copies.missing(world)
    assert (seen.invariant, seen.witness) == ("drained copies", ("a#1", "b#1", key[:8]))


def test_what_a_drained_node_had_of_others_is_somewhere() -> None:
    """A target may have to ask for it, but there must be somebody to ask."""
    world, nodes, key, copies = drained()
    copies._actor = 0
    del nodes[1].manager().table._records[key]
    assert copies.missing(world) == []
    del nodes[2].manager().table._records[key]
    assert {seen.invariant for seen in copies.missing(world)} == {"drained copies"}
