"""Bytes on the wire, acknowledgements too, for a change of one attribute of ten characters."""

from __future__ import annotations

from typing import Any

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Row, Store
from bench.turns import prepare
from bench.workload import MANY

ACKED = 6
SIZE = 10


def measure(bench: Bench, outcome: Outcome) -> None:
    """In a batch, which is what requests at the same moment make, and alone."""
    for batch in (32, 1):

        def member(kind: str) -> Sample:
            settings: dict[str, Any] = {"native": True} if kind == OURS else {}
            team = bench.team(kind, manager="delta", options=ACKED, **settings)
            prepare(team, MANY, SIZE)
            return Sample(team.first.ask("bytes", batch, SIZE)["bytes"])

        def store(kind: Store) -> Sample:
            return Sample(bench.store_team(kind).first.ask("bytes", batch, SIZE)["bytes"])

        bench.compare(
            outcome,
            f"batch of {batch}" if batch > 1 else "alone",
            {
                OURS: lambda: member(OURS),
                "tribes": lambda: member("tribes"),
                "redis": lambda: store("redis"),
                "memcached": lambda: store("memcached"),
            },
            warm=False,
        )
        if bench.size.only_main:
            return


ROW = Row(
    "wire-bytes",
    "bytes both ways for a change of 10 characters, one other member, 32 changes at once",
    "bytes",
    Goal("≤ 100 in a batch of 32", 100),
    measure,
)
