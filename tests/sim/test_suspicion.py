"""One member that stops answering costs the others one short wait, and loses nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.errors import MemberSuspectedError
from tribes.testing.invariants import check_converged
from tribes.testing.sim import SimNode, World

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult


def cluster(options: int) -> tuple[World, list[SimNode]]:
    world = World(1)
    config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=options))
    nodes = [world.start(name, config) for name in "abc"]
    world.run(3)
    return world, nodes


def events(node: SimNode, name: str) -> list[float]:
    return [when for when, event in node.events if event.name == name]


@pytest.mark.parametrize("busy", [False, True])
def test_stopped_member_is_suspected_within_two_seconds_and_refuted_within_one(busy: bool) -> None:
    """And it is not removed for a pause of less than three seconds."""
    world, (a, b, c) = cluster(6)
    stopped = world.now
    c.pause()
    if busy:
        a.send(b"x", [b, c], 6)
    world.run(2.5)
    assert [t - stopped <= 2.0 for t in events(a, "member suspected")] == [True]
    assert [m.label for m in a.core.view.suspected] == ["c"]
    resumed = world.now
    c.resume()
    world.run(2)
    assert [t - resumed <= 1.0 for t in events(a, "member refuted")] == [True]
    assert a.core.view.suspected == frozenset()
    for node in (a, b, c):
        assert events(node, "member removed") == []


def test_nobody_waits_for_a_suspected_member() -> None:
    """The send that was waiting when it stopped is let go; later ones return at once."""
    world, (a, b, c) = cluster(6)
    c.pause()
    first = a.send(b"first", [b, c], 6)
    world.run(2.0)
    assert list(a.done[first]) == [c.core.local]
    assert isinstance(a.done[first][c.core.local], MemberSuspectedError)
    later = a.send(b"later", [b, c], 6)
    world.run(0.01)
    assert list(a.done[later]) == [c.core.local]
    assert [m.message for m in b.messages] == [b"first", b"later"]


def test_suspected_member_gets_what_it_missed() -> None:
    """Changes of its pause are there soon after it, and commits did not wait for it."""
    world, nodes = cluster(6)
    a, b, c = nodes
    c.pause()
    world.run(2.0)
    keys = []
    for i in range(20):
        session = (a, b)[i % 2].manager().create()
        session["i"] = i
        results: list[CommitResult] = []
        waiter = SimpleNamespace(resolve=results.append)
        (a, b)[i % 2].manager().commit(session, waiter)
        world.run(0.01)
        assert list(results[0].missing) == ["c"]
        assert len(results[0].acked) == 1
        keys.append(session.id)
    assert len(events(a, "member removed")) == 0
    c.resume()
    healed = world.now
    world.run(1.5)
    assert [key for key in keys if c.manager().find(key) is None] == []
    assert check_converged(world, nodes, healed, 1.5) == []


def test_suspicion_costs_no_message_in_the_quiet() -> None:
    """Nobody is asked while heartbeats come and nothing is unanswered."""
    world, nodes = cluster(6)
    world.run(30)
    assert sum(node.core.channel.health.statistics.pings for node in nodes) <= 3
    assert [events(node, "member suspected") for node in nodes] == [[], [], []]


def test_member_without_tcp_is_removed_although_its_heartbeats_come() -> None:
    """Suspected first; nobody waits for it meanwhile. It comes back with everything."""
    world, nodes = cluster(6)
    a, b, c = nodes
    world.tcp_blocked.update({("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")})
    cut = world.now
    a.send(b"x", [c], 6)
    b.send(b"x", [c], 6)
    world.run(8)
    assert a.names() == b.names() == ["a", "b"]
    assert [t - cut <= 2.0 for t in events(a, "member suspected")] == [True]
    world.tcp_blocked.clear()
    healed = world.now
    world.run(5)
    assert check_converged(world, nodes, healed, 5) == []


def test_connection_that_hangs_after_a_cut_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels wait longer and longer before they send again; nobody waits for that."""
    monkeypatch.setattr("tribes.testing.sim.streams.RETRY_FIRST_S", 60.0)
    world, (a, b, _) = cluster(6)
    world.tcp_blocked.update({("a", "b"), ("b", "a")})
    a.send(b"lost on the way", [b], 6)
    world.run(1.2)
    # Quietly, so that no kernel tries at once.
    world.network.tcp_blocked.clear()
    world.run(5)
    ticket = a.send(b"later", [b], 6)
    world.run(0.1)
    assert a.done[ticket] == {}
    assert [m.message for m in b.messages] == [b"lost on the way", b"later"]
    assert events(a, "member removed") == []
