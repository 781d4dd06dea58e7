"""How often a group that is well is wrong about itself: long runs of a lossy network with pauses.

Nobody dies in such a run, so every removal is a false one. ``python -m tribes.testing.health_run``
runs one per seed and prints the figures; `docs/testing.md` says which ones are promised.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import click

from tribes.channel.outputs import MemberRefuted, MemberRemoved, MemberSuspected
from tribes.config.model import NodeConfig
from tribes.testing.sim import World

if TYPE_CHECKING:
    from tribes.testing.sim import SimNode

__all__ = ["REFUTED_S", "HealthFigures", "measure_health"]

REFUTED_S = 1.0
"""Within which a suspicion ends once its subject and its observer run."""

_START_S = 2.0
_END_S = 15.0
"""Without pauses and losses: for everything to be put right again."""


@dataclass
class HealthFigures:
    """What came of one run.

    Attributes:
        seed: Of everything random in it.
        members: How many there were.
        member_s: Virtual seconds times members.
        pauses: How often one was stopped.
        suspected: Suspicions; all of members that run, or will again.
        false_removals: Of members that were never away for longer than a pause.
        refuted_late: Suspicions that lasted for more than `REFUTED_S` after the last pause of
            either side.
        refuted_max_s: The longest time that one did.
        has_converged: Whether everybody saw everybody at the end, and nobody suspected anybody.
        asked: Questions to second observers.
        contradicted: Removals that one of them stopped.
        doubted: Times a member was told that it is suspected.
        pings: Questions to silent members.
        events: Events of the simulator.
        real_s: Seconds of this machine.
        witness: What was wrong, for people to look at.
    """

    seed: int
    members: int
    member_s: float = 0.0
    pauses: int = 0
    suspected: int = 0
    false_removals: int = 0
    refuted_late: int = 0
    refuted_max_s: float = 0.0
    has_converged: bool = False
    asked: int = 0
    contradicted: int = 0
    doubted: int = 0
    pings: int = 0
    events: int = 0
    real_s: float = 0.0
    witness: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether all that is promised held."""
        return self.has_converged and not self.false_removals and not self.refuted_late


class _Run:
    def __init__(
        self, seed: int, members: int, *, loss: float, pause_max_s: float, pause_every_s: float
    ) -> None:
        self.figures = HealthFigures(seed, members)
        self.world = World(seed)
        self._random = Random(f"health {seed}")
        self._pause_max_s = pause_max_s
        self._pause_every_s = pause_every_s
        self._runs_since: dict[str, float] = {}
        self._open: dict[tuple[str, str], float] = {}
        self.is_over = False
        config = NodeConfig(contexts=())
        self.nodes = [self.world.start(f"n{i}", config) for i in range(members)]
        self.world.watch(("event",), self._told)
        self.world.run(_START_S)
        for link in self.world.every_link():
            link.loss = loss
        for node in self.nodes:
            self._later(self._talk, node, 1.0)
            self._later(self._pause, node, pause_every_s)

    def _later(self, what: object, node: SimNode, mean_s: float) -> None:
        self.world.schedule(self._random.expovariate(1 / mean_s), what, node)  # type: ignore[arg-type]

    def _talk(self, node: SimNode) -> None:
        if self.is_over:
            return
        others = [each for each in self.nodes if each is not node]
        if not node.is_paused:
            node.send(b"hello", [self._random.choice(others)], 6)
        self._later(self._talk, node, 1.0)

    def _pause(self, node: SimNode) -> None:
        if self.is_over:
            return
        self.figures.pauses += 1
        node.pause()
        seconds = self._random.uniform(0.1, self._pause_max_s)
        self.world.at(seconds, partial(self._resume, node))

    def _resume(self, node: SimNode) -> None:
        node.resume()
        self._runs_since[node.name] = self.world.now
        self._later(self._pause, node, self._pause_every_s)

    def _told(self, now: float, name: str, kind: str, event: object) -> None:
        del kind
        figures = self.figures
        if isinstance(event, MemberRemoved):
            figures.false_removals += 1
            self._note(f"{now:.3f} {name} removed {event.member.label}: {event.reason}")
            self._open.pop((name, event.member.label), None)
        elif isinstance(event, MemberSuspected):
            figures.suspected += 1
            self._open[name, event.member.label] = now
        elif isinstance(event, MemberRefuted):
            self._ended(name, event.member.label, now)

    def _ended(self, name: str, subject: str, now: float) -> None:
        begin = self._open.pop((name, subject), now)
        ran = (self._runs_since.get(each, 0.0) for each in (name, subject))
        took = now - max(begin, *ran)
        self.figures.refuted_max_s = max(self.figures.refuted_max_s, took)
        if took > REFUTED_S:
            self.figures.refuted_late += 1
            self._note(f"{now:.3f} {name} suspected {subject} for {took:.3f} s too long")

    def _note(self, text: str) -> None:
        if len(self.figures.witness) < 20:
            self.figures.witness.append(text)

    def finish(self) -> None:
        self.is_over = True
        self.world.calm()
        self.world.run(_END_S)
        names = sorted(node.name for node in self.nodes)
        self.figures.has_converged = all(
            sorted(node.names()) == names and not node.core.view.suspected for node in self.nodes
        )
        for node in self.nodes:
            channel = node.core.channel
            self.figures.asked += channel.witnesses.statistics.asked
            self.figures.contradicted += channel.witnesses.statistics.contradicted
            self.figures.doubted += channel.health.statistics.doubted
            self.figures.pings += channel.health.statistics.pings


def measure_health(
    seed: int,
    *,
    members: int = 10,
    seconds: float = 1000.0,
    loss: float = 0.05,
    pause_max_s: float = 2.0,
    pause_every_s: float = 60.0,
) -> HealthFigures:
    """Run a group in a bad network for a long time.

    Args:
        seed: Of everything random.
        members: How many.
        seconds: Virtual seconds of it.
        loss: Share of the datagrams that is lost, and of the segments of streams that are sent
            again after a timeout.
        pause_max_s: Members are stopped for 0.1 s up to so long;
        pause_every_s: each every so many seconds, on average.
    """
    begin = time.perf_counter()
    run = _Run(seed, members, loss=loss, pause_max_s=pause_max_s, pause_every_s=pause_every_s)
    run.world.run(seconds)
    run.finish()
    run.figures.member_s = seconds * members
    run.figures.events = run.world.events
    run.figures.real_s = round(time.perf_counter() - begin, 1)
    run.figures.refuted_max_s = round(run.figures.refuted_max_s, 3)
    return run.figures


@click.command("health")
@click.option("--members", type=click.IntRange(2, 1000), default=10, show_default=True)
@click.option("--member-seconds", type=click.FloatRange(1), default=1e5, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The first one.")
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--loss", type=click.FloatRange(0, 0.9), default=0.05, show_default=True)
@click.option("--pause-max", type=click.FloatRange(0.1), default=2.0, show_default=True)
def main(
    members: int, member_seconds: float, seed: int, runs: int, loss: float, pause_max: float
) -> None:
    """Look for false removals and late refutations; one line of JSON per run."""
    is_well = True
    for number in range(seed, seed + runs):
        figures = measure_health(
            number,
            members=members,
            seconds=member_seconds / members / runs,
            loss=loss,
            pause_max_s=pause_max,
        )
        is_well = is_well and figures.is_well
        click.echo(json.dumps(asdict(figures)))
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
