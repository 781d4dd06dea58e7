"""Nodes of this release and of a later one in one group, under faults and one replaced by another:
what the later one says and stores passes through the other and is lost nowhere (row 119).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.sim.later_release import later_interceptors, say_more, store_more, stored
from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.invariants import WorldState, check_converged, check_history, check_now
from tribes.testing.sim import SimNode, World
from tribes.testing.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "ABC" + "0" * 29
NAMES = "abcd"
LATER = "bd"


def start(world: World, names: str, later: str) -> list[SimNode]:
    config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=6))
    nodes = []
    for name in names:
        node = world.start(name, config)
        nodes.append(node)
        if name in later:
            replace(node, is_later=True)
    world.run(3)
    return nodes


def replace(node: SimNode, *, is_later: bool) -> None:
    """Start a node with the other release."""
    node.make_interceptors = later_interceptors if is_later else None
    node.restart()


def settle(world: World, load: Workload, nodes: list[SimNode]) -> None:
    load.stop()
    world.calm()
    for node in nodes:
        if not node.is_alive:
            node.restart()
    world.run(15)
    assert check_now(world, load.history) == []
    assert check_converged(world, nodes, world.now - 15, 15, history=load.history) == []
    assert check_history(load.history, WorldState.of(world)) == []


@pytest.mark.parametrize("seed", range(6))
def test_t119_what_a_later_release_stores_passes_through_this_one_under_faults(seed: int) -> None:
    """Splits, crashes and lost heartbeats; every element and entry is on all nodes in the end."""
    world, chance = World(seed), Random(seed)
    nodes = start(world, NAMES, LATER)
    load = Workload(world, clients=4, seed=seed, routing="random", messages_per_s=2)
    load.start()
    later = [node for node in nodes if node.name in LATER]
    written: list[str] = []

    def store(node: SimNode) -> None:
        if node.is_alive and not node.is_paused:
            written.append(f"{node.name}.{len(written)}")
            store_more(node, KEY, written[-1])
            say_more(node)

    store(later[0])
    world.run(0.5)
    faults: list[Callable[[], object]] = [
        lambda: world.partition(nodes[:2], nodes[2:]),
        lambda: world.partition([nodes[0], nodes[3]], [nodes[1], nodes[2]]),
        # Nodes of this release: what they alone had to hand on must not go with them.
        lambda: nodes[chance.choice((0, 2))].crash(),
        lambda: nodes[chance.choice((0, 2))].pause(),
    ]
    for _ in range(6):
        chance.choice(faults)()
        for _ in range(4):
            store(chance.choice(later))
            world.run(chance.uniform(0.1, 0.8))
        world.heal()
        for node in nodes:
            if node.is_paused:
                node.resume()
            if not node.is_alive:
                node.start()
        world.run(2)
    settle(world, load, nodes)
    held = [stored(node, KEY) for node in nodes]
    assert held == [held[0]] * len(nodes)
    elements, plain, names, flag = held[0]
    assert elements == names == set(written)
    assert plain in written
    assert flag
    this_release = [node for node in nodes if node.name not in LATER]
    assert all(node.core.sessions.unknown_messages for node in this_release)


def test_t119_nodes_are_replaced_one_by_one_by_a_later_release_and_back() -> None:
    """Old nodes alone hold, for a while, what a later release has written, and give it back."""
    world = World(7)
    nodes = start(world, NAMES, "")
    load = Workload(world, clients=4, seed=7, routing="random", messages_per_s=2)
    load.start()
    world.run(2)
    written = []
    for is_later in (True, False, True):
        for node in nodes:
            node.drain()
            world.run(1)
            replace(node, is_later=is_later)
            world.run(3)
            if is_later:
                written.append(f"{node.name}.{world.now:.0f}")
                store_more(node, KEY, written[-1])
            world.run(1)
        elements, plain, names, _ = stored(nodes[0], KEY)
        assert elements == names == set(written)
        assert plain == written[-1]
    settle(world, load, nodes)
    assert {stored(node, KEY)[1] for node in nodes} == {written[-1]}
