"""Messages per second that nobody waits for, until every receiver has processed the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Row
from bench.turns import rated, stream

if TYPE_CHECKING:
    from bench.processes import Team

ASYNC = 8
SIZES = {"1 KB": 1024, "100 B": 100, "10 KB": 10_240, "100 KB": 102_400}
RECEIVERS = (1, 3, 7)


def measure(bench: Bench, outcome: Outcome) -> None:
    """By size and number of receivers; Tribes' arrive in any order: ``disordered`` tells."""
    for receivers in RECEIVERS:
        for label, size in SIZES.items():
            seconds = bench.seconds(outcome)
            bench.compare(
                outcome,
                f"{receivers} receiver{'s' * (receivers > 1)}, {label}",
                {
                    OURS: lambda: stream(
                        bench.team("ours", receivers + 1, native=True), size, ASYNC, seconds
                    ),
                    "tribes": lambda: stream(
                        bench.team("tribes", receivers + 1, manager="none"), size, ASYNC, seconds
                    ),
                    **(
                        {
                            "floor": lambda: _plain(bench.floor(), size, seconds),
                            "memcached": lambda: rated(
                                bench.store_team("memcached"), "update", "later", 1, size, seconds
                            ),
                            "redis": "redis-py reads an answer to each command: acked-throughput",
                        }
                        if receivers == 1
                        else {}
                    ),
                },
            )
            if bench.size.only_main:
                return
        bench.release()


def _plain(team: Team, size: int, seconds: float) -> Sample:
    before = team.cpu_s()
    found = team.first.ask("stream", size, ASYNC, seconds)
    rate = found["n"] / (found["last"] - found["began"])
    return Sample(rate, found["n"], team.cpu_s() - before)


ROW = Row(
    "async-throughput",
    "messages of 1 KB in order, until the other has processed the last one",
    "messages/s",
    Goal("≥ 1.5 × Tribes, then 3 ×", 1.5, of="tribes", at_most=False),
    measure,
)
