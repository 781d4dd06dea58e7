"""Acknowledged messages per second when several senders wait, each for its own."""

from __future__ import annotations

from bench.outcomes import OURS, Goal, Outcome
from bench.runner import Bench, Row
from bench.turns import flood, rated

SIZE = 1024
ACKED = 6
SENDERS = 8


def measure(bench: Bench, outcome: Outcome) -> None:
    """With two members and four; our senders are tasks, the peers' are threads."""
    for nodes in (2,) if bench.size.only_main else (2, 4):
        seconds = bench.seconds(outcome)
        bench.compare(
            outcome,
            f"{nodes} nodes, {SENDERS} senders, 1 KB",
            {
                OURS: lambda: flood(
                    bench.team("ours", nodes, native=True), "native", SENDERS, ACKED, SIZE, seconds
                ),
                "tribes": lambda: flood(
                    bench.team("tribes", nodes, manager="none"),
                    *("native", SENDERS, ACKED, SIZE, seconds),
                ),
                "redis": lambda: rated(
                    bench.store_team("redis"), "update", "thread", SENDERS, SIZE, seconds
                ),
                "memcached": lambda: rated(
                    bench.store_team("memcached"), "update", "thread", SENDERS, SIZE, seconds
                ),
                "pysyncobj": lambda: flood(
                    bench.raft(nodes), "thread", SENDERS, ACKED, SIZE, seconds
                ),
                "floor": lambda: flood(bench.floor(), "native", SENDERS, ACKED, SIZE, seconds),
            },
        )
        if bench.size.only_main:
            return
        bench.compare(
            outcome,
            f"{nodes} nodes, {SENDERS} threads",
            {OURS: lambda: flood(bench.team("ours", nodes), "thread", SENDERS, ACKED, SIZE, 0.5)},
        )
        bench.release()


ROW = Row(
    "acked-throughput",
    "messages of 1 KB that are waited for, 8 senders at once",
    "messages/s",
    Goal("≥ 1 × Tribes, then 2 ×", 1, of="tribes", at_most=False),
    measure,
)
