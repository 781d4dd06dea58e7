"""Clients and senders: what they do, what they write down."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.invariants import WorldState, check_converged, check_history, check_now
from tribes.testing.sim import SimNode, World
from tribes.testing.workload import MIX, Workload

if TYPE_CHECKING:
    from tribes.testing.history import History


def cluster(seed: int, names: str = "abc", options: int = 6) -> tuple[World, list[SimNode]]:
    world = World(seed)
    config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=options))
    nodes = [world.start(name, config) for name in names]
    world.run(3)
    return world, nodes


def work(world: World, seconds: float, **settings: Any) -> History:
    load = Workload(world, **{"clients": 6, "seed": 1, "routing": "random", **settings})
    load.start()
    world.run(seconds)
    load.stop()
    world.run(5)
    return load.history


@pytest.mark.parametrize(("options", "routing"), [(6, "random"), (8, "sticky")])
def test_everything_happens_and_succeeds_in_a_healthy_cluster(options: int, routing: str) -> None:
    """Each kind of operation and each send option; no failure but the intended ones."""
    world, nodes = cluster(1, options=options)
    history = work(world, 30, messages_per_s=20, routing=routing)
    assert {op.kind for op in history.ops} == {"create", *MIX} - {"abandon"}
    assert {op.outcome for op in history.ops} == {"ok"}
    assert {send.option for send in history.sends} == {0, 2, 6, 8, 10, 14}
    assert all(send.end is not None for send in history.sends)
    assert any(send.faulty for send in history.sends)
    assert any(d.failed for d in history.deliveries)
    assert not history.waiting
    assert check_now(world, history) == []
    assert check_history(history, WorldState.of(world)) == []
    assert check_converged(world, nodes, 0, 1, history=history) == []


def test_acknowledged_members_are_named_by_incarnation() -> None:
    """With option 6 every write names the two others."""
    world, _ = cluster(2)
    history = work(world, 5)
    writes = [op for op in history.ops if op.version is not None]
    assert writes
    for op in writes:
        assert sorted((op.node, *op.acked)) == ["a#1", "b#1", "c#1"]
        assert op.missing == {}


def test_a_sticky_client_stays_until_its_node_refuses() -> None:
    """One node per client before the crash, another one after it."""
    world, nodes = cluster(3)
    load = Workload(world, clients=3, seed=5, routing="sticky", messages_per_s=0)
    load.start()
    world.run(5)
    homes = {
        op.client: {o.node for o in load.history.ops if o.client == op.client}
        for op in load.history.ops
    }
    assert all(len(nodes_of) == 1 for nodes_of in homes.values())
    victim = next(n for n in nodes if any(f"{n.name}#1" in h for h in homes.values()))
    victim.crash()
    begin = world.now
    world.run(5)
    later = [op for op in load.history.ops if op.begin > begin]
    refused = [op for op in later if op.outcome == "failed"]
    assert refused
    assert {op.missing.get("") for op in refused if op.kind != "lost"} == {"refused"}
    moved = {op.client for op in refused}
    assert any(op.client in moved and op.outcome == "ok" for op in later)


def test_a_crash_during_an_operation_makes_its_outcome_unknown() -> None:
    """The client cannot tell; the process that asked has nobody left who waits."""
    world, nodes = cluster(4)
    load = Workload(world, clients=6, seed=1, think_s=0.01, messages_per_s=0)
    load.start()
    world.run(1)
    while not any(op.node == "a#1" for op in load.history.waiting.values()):
        world.run(0.0002)
    nodes[0].crash()
    unknown = [op for op in load.history.ops if op.outcome == "unknown"]
    assert unknown
    assert {op.node for op in unknown} == {"a#1"}
    assert not any(op.node == "a#1" for op in load.history.waiting.values())


def test_a_client_gives_up_after_its_timeout() -> None:
    """The node is paused in the middle: the answer comes too late."""
    world, nodes = cluster(5)
    load = Workload(world, clients=6, seed=1, think_s=0.01, messages_per_s=0, client_timeout_s=2)
    load.start()
    world.run(1)
    while not any(op.node == "a#1" for op in load.history.waiting.values()):
        world.run(0.0002)
    nodes[0].pause()
    world.run(2.5)
    given_up = [op for op in load.history.ops if op.outcome == "unknown"]
    assert given_up
    assert all(op.end is not None and abs(op.end - op.begin - 2) < 0.01 for op in given_up)
    nodes[0].resume()
    world.run(2)
    assert all(op.settled is not None for op in given_up)


def test_faults_are_noted_whoever_causes_them() -> None:
    """Starts, crashes, stops, pauses, partitions; also of nodes that come later."""
    world, nodes = cluster(6)
    history = Workload(world, clients=1).history
    late = world.start("d", NodeConfig(contexts=("app",)))
    nodes[0].crash()
    world.start("a")
    nodes[1].pause()
    nodes[1].resume()
    world.partition(nodes[:1], [*nodes[1:], late])
    world.heal()
    late.stop()
    assert [(fault.kind, fault.nodes) for fault in history.faults] == [
        ("present", ("a#1",)),
        ("present", ("b#1",)),
        ("present", ("c#1",)),
        ("start", ("d#1",)),
        ("crash", ("a#1",)),
        ("start", ("a#3",)),
        ("pause", ("b#1",)),
        ("resume", ("b#1",)),
        ("partition", ()),
        ("heal", ()),
        ("stop", ("d#1",)),
    ]
    assert set(history.deaths) == {"a#1", "d#1"}


def test_same_seed_gives_the_same_history() -> None:
    """Byte for byte; another seed gives another."""

    def run(seed: int) -> bytes:
        world, _ = cluster(7)
        return work(world, 5, seed=seed, tabs=2).to_json()

    assert run(1) == run(1) != run(2)


def test_what_lasts_in_the_network_is_noted_with_its_end() -> None:
    """Cut twice is cut once; a reset is over at once; a heal of nothing is no fault."""
    world, (a, b, c) = cluster(8)
    history = Workload(world, clients=1).history
    world.heal()
    world.cut(a, b, both=True)
    world.cut(b, a)
    assert not history.is_calm(world.now + 60, world.now + 61)
    world.uncut(b, a)
    world.clog(b, c)
    world.unclog(b, c)
    world.run(1)
    world.reset(a, c)
    assert history.is_calm(world.now + 60, world.now + 61)
    assert [f.kind for f in history.faults if f.kind not in ("present", "jolt")] == [
        "disturb",
        "disturb",
        "mend",
        "mend",
        "disturb",
        "mend",
        "reset",
    ]
    assert history.faults[-1].nodes == ("a#1", "c#1")
    world.half_open(a, b)
    assert not history.is_calm(world.now + 60, world.now + 61)
    world.heal()
    assert history.is_calm(world.now + 60, world.now + 61)


def test_what_nodes_tell_is_noted() -> None:
    """Views with the ports, destroyed events, and failures after the sender had gone on."""
    world, (a, b, _) = cluster(9)
    load = Workload(world, clients=1)
    session = a.manager().create()
    session.max_inactive = 2
    a.manager().commit(session)
    world.clog(a, b)
    send = load.observer.send(a, [b], 10, ())
    world.run(3.2)
    assert (send.faulty, send.late) == ({}, {"b#1": "SendTimeoutError"})
    world.unclog(a, b)
    world.nodes["c"].stop()
    world.run(4)
    told = [(t.node, t.kind, t.subject, t.detail) for t in load.history.told]
    assert ("a#1", "removed", "c#1", "left") in told
    assert [subject for _, kind, subject, _ in told if kind == "expired"] == [session.key]
    world.start("c")
    world.run(2)
    told = [(t.node, t.kind, t.subject, t.detail) for t in load.history.told]
    assert ("a#1", "added", "c#3", "4002") in told


def test_tabs_meet_at_ticks_and_some_values_are_long() -> None:
    """Two requests of one session in one moment, on different nodes."""
    world, _ = cluster(10)
    load = Workload(
        world, clients=4, tabs=4, tick=0.05, think_s=0.05, routing="random", large_share=0.5, seed=2
    )
    load.start()
    world.run(5)
    load.stop()
    world.run(3)
    ops = [op for op in load.history.ops if op.is_done]
    assert {round(op.begin % 0.05, 4) for op in ops} == {0.0005}
    nodes_of: defaultdict[tuple[str, float], set[str]] = defaultdict(set)
    for op in ops:
        nodes_of[op.key, round(op.begin, 3)].add(op.node)
    assert max(map(len, nodes_of.values())) > 1
    lengths = [len(op.value) for op in ops if op.kind == "write" and op.version is not None]
    assert max(lengths) < 50
    assert any("(" in op.value for op in ops if op.kind == "write" and op.version is not None)
    assert check_history(load.history, WorldState.of(world)) == []
