"""The cluster lock in the simulated world: one holder, in turn, and never stuck."""

from __future__ import annotations

from typing import Any

import pytest

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.manager.expiry import owner_of
from tribes.manager.locks import LEASE_S, ClusterLocks
from tribes.manager.session_ids import partition_of
from tribes.testing.sim import SimNode, World

KEY = "ABC" + "0" * 29
CONFIG = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=6))


def start(world: World, names: str = "abc", settle: float = 5) -> list[SimNode]:
    nodes = [world.start(name, CONFIG) for name in names]
    world.run(settle)
    return nodes


def locks(node: SimNode) -> ClusterLocks:
    return node.core.sessions.replicators["app"].locks


def holds(node: SimNode, key: str = KEY) -> bool:
    return node.is_alive and key in locks(node).held(node.clock.monotonic())


def keeper(nodes: list[SimNode], key: str = KEY) -> SimNode:
    ids = {node.core.local.unique_id: node for node in nodes}
    return ids[owner_of(partition_of(key), tuple(ids))]


def lose_next(node: SimNode) -> None:
    """Lose the next thing that a node says about locks."""
    speaker: Any = locks(node)

    def lose(*what: object) -> None:
        del speaker._say

    speaker._say = lose


class Client:
    """One request that wants the lock."""

    def __init__(self, node: SimNode, log: list[str], name: str) -> None:
        self.node = node
        self.is_granted = False

        def granted() -> None:
            self.is_granted = True
            log.append(name)

        self.number = locks(node).acquire(KEY, granted, node.clock.monotonic())
        node.pump()

    def release(self) -> None:
        locks(self.node).release(self.number, self.node.clock.monotonic())
        self.node.pump()


def test_each_gets_it_in_turn_wherever_it_asks() -> None:
    world = World(1)
    nodes = start(world)
    log: list[str] = []
    clients = []
    for turn in range(6):
        clients.append(Client(nodes[turn % 3], log, str(turn)))
        world.run(0.01)
    for turn, client in enumerate(clients):
        assert log == [str(n) for n in range(turn + 1)]
        assert [holds(node) for node in nodes].count(True) == 1
        client.release()
        world.run(0.01)
    assert not any(holds(node) for node in nodes)
    assert all(not locks(node)._locks for node in nodes)


def test_a_long_request_keeps_it_by_renewing() -> None:
    world = World(2)
    a, b, _ = start(world)
    first = Client(a, [], "a")
    world.run(0.01)
    other = Client(b, [], "b")
    for _ in range(40):
        world.run(0.25)
        assert holds(a)
        assert not other.is_granted
    first.release()
    world.run(0.05)
    assert other.is_granted


def test_who_gives_up_waiting_is_passed_over() -> None:
    world = World(3)
    a, b, c = start(world)
    first, second, third = (Client(node, [], node.name) for node in (a, b, c))
    world.run(0.1)
    second.release()
    first.release()
    world.run(0.1)
    assert third.is_granted
    assert not second.is_granted


def test_a_holder_that_crashes_is_freed_as_soon_as_that_is_known() -> None:
    world = World(4)
    nodes = start(world)
    kept_by = keeper(nodes)
    holder, waiter = (node for node in nodes if node is not kept_by)
    Client(holder, [], "holder")
    world.run(0.1)
    waiting = Client(waiter, [], "waiter")
    world.run(0.1)
    holder.crash()
    world.run(1.0)
    assert waiting.is_granted
    assert locks(kept_by).freed == 1


def test_a_holder_that_hangs_loses_it_by_the_lease_and_knows_it_afterwards() -> None:
    world = World(5)
    nodes = start(world)
    kept_by = keeper(nodes)
    holder, waiter = (node for node in nodes if node is not kept_by)
    Client(holder, [], "holder")
    world.run(0.1)
    waiting = Client(waiter, [], "waiter")
    holder.pause()
    assert world.run_until(world.now + LEASE_S + 1, lambda: waiting.is_granted)
    assert not holds(holder)
    holder.resume()
    world.run(1)
    assert not holds(holder)
    assert locks(holder).lost == 1


def test_the_keepers_death_leaves_the_lock_with_its_holder() -> None:
    """Whoever keeps it next grants nothing for a lease; the holder claims it meanwhile."""
    world = World(6)
    nodes = start(world, "abcd")
    kept_by = keeper(nodes)
    holder, waiter, _ = (node for node in nodes if node is not kept_by)
    first = Client(holder, [], "holder")
    world.run(0.1)
    waiting = Client(waiter, [], "waiter")
    world.run(0.1)
    kept_by.crash()
    for _ in range(60):
        world.run(0.1)
        assert holds(holder)
        assert not waiting.is_granted
    first.release()
    world.run(0.5)
    assert waiting.is_granted


def test_a_joiner_that_becomes_the_keeper_gives_nothing_away_that_is_held() -> None:
    for seed in range(7, 30):
        world = World(seed)
        nodes = start(world, "ab")
        old = keeper(nodes)
        holder = next(node for node in nodes if node is not old)
        Client(holder, [], "holder")
        world.run(0.1)
        waiting = Client(old, [], "waiter")
        nodes.append(world.start("c", CONFIG))
        world.run(5)
        assert holds(holder)
        assert not waiting.is_granted
        if keeper(nodes) is nodes[-1]:
            return
    pytest.fail("no joiner became the keeper")


def test_both_sides_of_a_split_have_a_holder_and_one_is_left_afterwards() -> None:
    """What is documented: the lock is no consensus."""
    world = World(9)
    nodes = start(world, "abcd")
    world.partition(nodes[:2], nodes[2:])
    world.run(10)
    clients = [Client(nodes[0], [], "left"), Client(nodes[3], [], "right")]
    world.run(3)
    assert [client.is_granted for client in clients] == [True, True]
    world.heal()
    world.run(10)
    assert [holds(node) for node in nodes].count(True) == 1
    assert sum(locks(node).lost for node in nodes) == 1


def test_lost_messages_only_delay_it() -> None:
    """The question, the answer, and that it is over, which the lease ends then."""
    world = World(10)
    nodes = start(world)
    kept_by = keeper(nodes)
    node = next(node for node in nodes if node is not kept_by)
    for speaker in (node, kept_by):
        lose_next(speaker)
        client = Client(node, [], "x")
        world.run(0.1)
        assert not client.is_granted
        assert world.run_until(world.now + LEASE_S, lambda c=client: c.is_granted)  # type: ignore[misc]
        client.release()
        world.run(0.1)
        assert not locks(kept_by)._locks
    client = Client(node, [], "x")
    world.run(0.1)
    lose_next(node)
    client.release()
    waiting = Client(kept_by, [], "waiter")
    world.run(0.1)
    assert not waiting.is_granted
    assert world.run_until(world.now + LEASE_S, lambda: waiting.is_granted)


def test_a_grant_for_a_request_that_has_given_up_is_given_back() -> None:
    """At once, though nobody has heard that it has given up."""
    world = World(11)
    nodes = start(world)
    node = next(node for node in nodes if node is not keeper(nodes))
    client = Client(node, [], "x")
    lose_next(node)
    client.release()
    world.run(0.1)
    assert not holds(node)
    assert not locks(keeper(nodes))._locks
