"""How long a message takes whose sender waits until every member has processed it."""

from __future__ import annotations

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Measure, Row
from bench.turns import latency, prepare, timed
from bench.workload import MANY

SIZE = 1024
ACKED = 6


def measure(bench: Bench, outcome: Outcome) -> None:
    """With two members and four; from each kind of host."""
    for nodes in (2,) if bench.size.only_main else (2, 4):
        seconds = bench.seconds(outcome)
        peers: dict[str, Measure | str] = {
            "tribes": lambda: latency(
                bench.team("tribes", nodes, manager="none"), "native", SIZE, ACKED, seconds
            ),
            "redis": lambda: latency(bench.store_team("redis"), "native", SIZE, 0, seconds),
            "memcached": lambda: latency(bench.store_team("memcached"), "native", SIZE, 0, seconds),
            "pysyncobj": lambda: latency(bench.raft(nodes), "native", SIZE, 0, seconds),
            "floor": lambda: latency(bench.floor(), "native", SIZE, 0, seconds),
        }

        bench.compare(
            outcome,
            f"{nodes} nodes, 1 KB, trio task",
            {
                OURS: lambda: latency(
                    bench.team("ours", nodes, native=True), "native", SIZE, ACKED, seconds
                ),
                **(peers if nodes == 2 else {"tribes": peers["tribes"]}),
            },
        )
        if bench.size.only_main:
            return
        for how in ("thread", "asyncio"):
            bench.compare(
                outcome,
                f"{nodes} nodes, 1 KB, {how}",
                {
                    OURS: lambda: latency(bench.team("ours", nodes), how, SIZE, ACKED, seconds),
                    "tribes": peers["tribes"],
                },
            )
        bench.release()
    _commits(bench, outcome)


def _commits(bench: Bench, outcome: Outcome) -> None:
    """What the same costs a request that changes a session, by where it runs."""
    for how in ("native", "thread", "asyncio"):

        def commit(how: str = how) -> Sample:
            team = bench.team("ours", manager="delta", options=ACKED, native=how == "native")
            prepare(team, MANY, SIZE)
            return timed(team, "commits", how, SIZE, bench.size.brief_s)

        bench.compare(outcome, f"2 nodes, commit of a session, {how}", {OURS: commit})


ROW = Row(
    "acked-latency",
    "a message of 1 KB that waits until the other has processed it, one sender: p50",
    "µs",
    Goal("≤ 1.5 × Tribes, then 1.2 ×", 1.5, of="tribes"),
    measure,
)
