"""Real runs under random crashes, pauses and partitions break no invariant."""

from __future__ import annotations

from random import Random

import pytest

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.invariants import (
    Violation,
    WorldState,
    check_converged,
    check_history,
    check_now,
)
from tribes.testing.sim import World
from tribes.testing.workload import Workload

SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 20))]
FAULTY_S = 12.0
"""Of the 20 seconds under load."""
RECOVERY_S = 12.0


class Run:
    """One cluster, its load and its faults, all from one seed."""

    def __init__(self, seed: int, options: int) -> None:
        chance = self.chance = Random(seed * 7 + options)
        self.world = World(seed)
        config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=options))
        self.nodes = [self.world.start(name, config) for name in "abcd"[: chance.randint(3, 4)]]
        self.world.run(3)
        self.load = Workload(
            self.world,
            clients=8,
            seed=seed,
            routing="sticky" if chance.random() < 0.5 else "random",
            tabs=chance.choice((1, 2)),
        )
        self.history = self.load.history
        self.found: list[Violation] = []

    def go(self) -> list[Violation]:
        world = self.world
        self.load.start()
        begin = world.now
        while world.now < begin + FAULTY_S:
            self.pass_time(self.chance.uniform(0.2, 2))
            self.fault()
        healed = world.now
        self.pass_time(max(0.0, begin + 20 - world.now))
        self.load.stop()
        self.pass_time(RECOVERY_S)
        state = check_converged(world, self.nodes, healed, RECOVERY_S, history=self.history)
        return [*self.found, *state, *check_history(self.history, WorldState.of(world))]

    def fault(self) -> None:
        chance, world, nodes = self.chance, self.world, self.nodes
        victim = chance.choice(nodes)
        kind = chance.choice(("crash", "pause", "partition"))
        if kind == "crash":
            victim.crash()
            self.pass_time(chance.choice((0.05, 1, 4)))
            world.start(victim.name)
        elif kind == "pause":
            victim.pause()
            self.pass_time(chance.choice((0.1, 1, 5)))
            victim.resume()
        else:
            mixed = chance.sample(nodes, len(nodes))
            cut = chance.randint(1, len(nodes) - 1)
            world.partition(mixed[:cut], mixed[cut:])
            self.pass_time(chance.choice((0.3, 2, 6)))
            world.heal()

    def pass_time(self, seconds: float) -> None:
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.run_until(min(self.world.now + 0.1, end))
            self.found += check_now(self.world, self.history)


@pytest.mark.parametrize("options", [6, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_invariant_breaks(seed: int, options: int) -> None:
    """Twenty seconds of load, faults in the first twelve, then twelve to recover."""
    run = Run(seed, options)
    found = run.go()
    assert len(run.history.ops) > 100
    assert "\n".join(map(str, found)) == ""
