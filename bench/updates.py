"""Session updates per second, applied at every other member: the two rows of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Row
from bench.turns import prepare, rated, updates
from bench.workload import MANY

if TYPE_CHECKING:
    from bench.runner import Bench, Measure, Store

SIZE = 1024
ASYNC = 8
NODES = (2, 4)
THREADS = (4, 1)


def updates_row(kind: str, options: int) -> Row:
    """The row of this name: option 8, that no request waits for, or 6."""
    return Row(
        f"session-updates-{kind}",
        "updates of one attribute of 1 KB, applied at the other node; "
        f"option {options}, 2 nodes, 4 threads",
        "updates/s",
        Goal("≥ 3 × DeltaManager", 3, of="tribes", at_most=False),
        lambda bench, outcome: _measure(bench, outcome, options),
    )


def _measure(bench: Bench, outcome: Outcome, options: int) -> None:
    """By manager, members and threads; one attribute of 1 KB in one of a hundred sessions."""
    for manager in ("delta", "backup"):
        for nodes in NODES:
            for threads in THREADS:
                seconds = bench.seconds(outcome)

                def run(kind: str, how: str = "thread") -> Sample:
                    team = bench.team(kind, nodes, manager=manager, options=options)
                    prepare(team, MANY, SIZE)
                    return updates(team, how, threads, SIZE, seconds)

                contenders: dict[str, Measure | str] = {
                    OURS: lambda: run("ours"),
                    "tribes": lambda: run("tribes"),
                }
                if manager == "delta" and nodes == min(NODES):
                    contenders |= _stores(bench, threads, seconds, options)
                name = f"{manager.capitalize()}Manager, {nodes} nodes, {threads} thread"
                bench.compare(outcome, name + "s" * (threads > 1), contenders)
                if bench.size.only_main:
                    return
            if manager == "delta":
                _tasks(bench, outcome, nodes, options)
            bench.release()


def _stores(bench: Bench, threads: int, seconds: float, options: int) -> dict[str, Measure | str]:
    """Whole sessions written to a server, which has no members."""
    is_async = options == ASYNC

    def store(kind: Store, how: str) -> Sample:
        return rated(bench.store_team(kind), "update", how, threads, SIZE, seconds)

    return {
        # redis-py reads an answer to each command, so this one waits in both rows.
        "redis": lambda: store("redis", "thread"),
        "memcached": lambda: store("memcached", "later" if is_async else "thread"),
        "pysyncobj": lambda: rated(bench.raft(), "update", "thread", 1, SIZE, seconds),
    }


def _tasks(bench: Bench, outcome: Outcome, nodes: int, options: int) -> None:
    """Ours from event loops, with as many requests at once as such servers have."""
    for how in ("native", "asyncio"):
        for at_once in (4, 64):

            def run() -> Sample:
                native = how == "native"
                team = bench.team("ours", nodes, manager="delta", options=options, native=native)
                prepare(team, MANY, SIZE)
                return updates(team, how, at_once, SIZE, bench.size.brief_s)

            name = f"DeltaManager, {nodes} nodes, {at_once} tasks, {how}"
            bench.compare(outcome, name, {OURS: run})
