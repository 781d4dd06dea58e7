"""What the result of a commit promises, on simulated clusters with crashes and hung members."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.manager.cluster import start
from tribes.testing.sim import SimNode, SimWaiter, World


def write(node: SimNode, **values: object) -> tuple[str, SimWaiter]:
    manager = node.manager()
    session = manager.create()
    session.update(values)
    waiter = SimWaiter()
    manager.commit(session, waiter)
    return session.id, waiter


def wait(world: World, waiter: SimWaiter) -> float:
    """Run to the very event that tells the waiter; returns the virtual seconds it took."""
    begin = world.now
    assert world.run_until(begin + 10, lambda: waiter.is_done)
    return world.now - begin


@pytest.mark.parametrize("options", [2, 6])
@pytest.mark.parametrize("victims", list(combinations("abcd", 3)))
def test_complete_commit_survives_as_many_crashes_as_it_was_acknowledged(
    victims: tuple[str, ...], options: int
) -> None:
    """Nobody is missing: at that very moment any ``len(acked)`` nodes may die, the writer too."""
    world = World(options)
    nodes = {node.name: node for node in start(world, "abcd", options)}
    for turn in range(3):
        ids = []
        for name in "abcd":
            session_id, waiter = write(nodes[name], turn=turn)
            wait(world, waiter)
            assert waiter.result is not None
            assert waiter.result.replicated
            assert len(waiter.result.acked) == len(victims)
            ids.append(session_id)
        for name in victims:
            nodes[name].crash()
        world.run(0.5)
        [survivor] = set(nodes) - set(victims)
        for session_id in ids:
            found = nodes[survivor].manager().find(session_id)
            assert found is not None
            assert found["turn"] == turn
        for name in victims:
            nodes[name].start()
        world.run(3)


@pytest.mark.parametrize("seed", range(8))
def test_promise_holds_while_members_fail_meanwhile(seed: int) -> None:
    """Commits during crashes, pauses and starts: each complete one survives what it promises."""
    world = World(seed)
    nodes = start(world, "abcd", commit_timeout=200)
    chance = world.random
    kept: list[tuple[str, int]] = []
    incomplete = 0
    for turn in range(30):
        node = nodes[turn % 4]
        action = chance.choice(["pause", "crash", "none", "none"])
        victim = nodes[(turn + 1 + chance.randrange(3)) % 4]
        if action == "pause":
            victim.pause()
        session_id, waiter = write(node, turn=turn)
        if action == "crash":
            world.run(chance.random() * 0.003)
            victim.crash()
        took = wait(world, waiter)
        assert took <= 0.2 + 1e-9
        assert waiter.result is not None
        if waiter.result.missing:
            incomplete += 1
            assert list(waiter.result.missing) == [victim.name]
        else:
            kept.append((session_id, turn))
            # A member that died after it had acknowledged is one of the crashes.
            holders = {node.name, *waiter.result.acked} & {n.name for n in nodes if n.is_alive}
            dead = len(waiter.result.acked) + 1 - len(holders)
            for name in chance.sample(sorted(holders), len(waiter.result.acked) - dead):
                next(each for each in nodes if each.name == name).crash()
        for each in nodes:
            if each.is_alive:
                each.resume()
        alive = [each for each in nodes if each.is_alive]
        assert alive
        if not waiter.result.missing:
            assert any(each.manager().find(session_id) for each in alive)
        for each in nodes:
            if not each.is_alive:
                each.start()
        world.run(5)
    assert kept
    assert incomplete
    for session_id, turn in kept:
        for each in nodes:
            found = each.manager().find(session_id)
            assert found is not None, (each.name, turn)
            assert found["turn"] == turn


@pytest.mark.parametrize("timeout", [1, 50, 333, 1000])
def test_commit_timeout_is_kept_to_the_millisecond(timeout: int) -> None:
    """A hung member delays the result by just that, and is named with the reason."""
    world = World(3)
    a, _, c = start(world, "abc", commit_timeout=timeout)
    c.pause()
    _, waiter = write(a, x=1)
    assert wait(world, waiter) == pytest.approx(timeout / 1000, abs=0.0005)
    assert waiter.result is not None
    assert waiter.result.missing["c"] == f"TimeoutError: no acknowledgement within {timeout} ms"


def test_each_of_several_hanging_commits_has_its_own_time() -> None:
    """One timer sees to all: those behind the first are given up when their turn comes."""
    world = World(3)
    a, b = start(world, "ab", commit_timeout=500)
    b.pause()
    begin = world.now
    waiters = []
    for _ in range(3):
        waiters.append(write(a, x=1)[1])
        world.run(0.2)
    ends = []
    for waiter in waiters:
        wait(world, waiter)
        ends.append(world.now - begin)
    assert ends == pytest.approx([0.6, 0.7, 0.9], abs=0.0005)


def test_a_commit_that_has_ended_leaves_nothing_to_wake_for() -> None:
    """Thousands a second, each with a timer of its own, woke the node for each one once more."""
    world = World(3)
    a, _ = start(world, "ab", commit_timeout=10_000)
    timers = a.core.channel.timers
    before = timers.count
    for turn in range(200):
        wait(world, write(a, x=turn)[1])
    assert timers.count - before < 50


def test_commit_of_a_node_that_is_alone_has_no_copy() -> None:
    """Nobody is missing and nobody has it: it survives no crash, and says so."""
    world = World(4)
    [a] = start(world, "a", min_copies=1)
    _, waiter = write(a, x=1)
    assert wait(world, waiter) == 0
    assert waiter.result is not None
    assert (waiter.result.acked, dict(waiter.result.missing)) == ((), {})


@pytest.mark.parametrize("options", [0, 8])
def test_commit_that_waits_for_nobody_names_nobody(options: int) -> None:
    """Neither as having it nor as missing: it promises nothing."""
    world = World(5)
    a, b = start(world, "ab", options)
    b.pause()
    _, waiter = write(a, x=1)
    assert wait(world, waiter) == 0
    assert waiter.result is not None
    assert (waiter.result.acked, dict(waiter.result.missing)) == ((), {})


def test_members_of_one_name_are_told_apart() -> None:
    """Two that are both called web: the one that has it does not stand for the one that hangs."""
    world = World(6)
    nodes = start(world, "abc", commit_timeout=100)
    for node in nodes[1:]:
        node.pause()
    core = nodes[0].core
    [replicator] = core.sessions.replicators.values()
    payloads = {member: member.payload for member in replicator.targets}
    for member in replicator.targets:
        object.__setattr__(member, "payload", b"web")
    _, waiter = write(nodes[0], x=1)
    wait(world, waiter)
    for member, payload in payloads.items():
        object.__setattr__(member, "payload", payload)
    assert waiter.result is not None
    assert waiter.result.acked == ()
    assert len(waiter.result.missing) == 2


def test_incomplete_commits_are_counted() -> None:
    """In the replicator's statistics: all commits, and those that somebody lacks."""
    world = World(7)
    a, b = start(world, "ab", commit_timeout=100)
    for _ in range(3):
        wait(world, write(a, x=1)[1])
    b.pause()
    wait(world, write(a, x=1)[1])
    [replicator] = a.core.sessions.replicators.values()
    assert replicator.statistics.commits == 4
    assert replicator.statistics.commits_incomplete == 1
