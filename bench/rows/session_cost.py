"""What a request pays for its session: find or load it, change an attribute, commit or save it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Measure, Row, Store
from bench.turns import prepare, timed
from bench.workload import MANY

if TYPE_CHECKING:
    from bench.processes import Team

ASYNC = 8
SIZE = 229
"""Bytes of the attribute: what a small session comes to."""


def measure(bench: Bench, outcome: Outcome) -> None:
    """By itself, one request after the other, and as part of a Flask request."""
    count = 50 if bench.size.is_quick else 1500

    def member(kind: str, manager: str = "delta") -> Sample:
        team = bench.team(kind, manager=manager, options=ASYNC)
        prepare(team, MANY, SIZE)
        return timed(team, "request", count, SIZE)

    def store(kind: Store) -> Sample:
        return timed(bench.store_team(kind), "request", count, SIZE)

    bench.compare(
        outcome,
        "session work alone, option 8, 2 nodes",
        {
            OURS: lambda: member("ours"),
            "tribes": lambda: member("tribes"),
            "redis": lambda: store("redis"),
            "memcached": lambda: store("memcached"),
            "django-redis": lambda: timed(_frameworks(bench), "django", count, SIZE),
            "pysyncobj": "no sessions; see acked-latency for a write",
        },
    )
    if bench.size.only_main:
        return
    bench.compare(
        outcome,
        "the same, Backup manager",
        {OURS: lambda: member("ours", "backup"), "tribes": lambda: member("tribes", "backup")},
    )

    def flask(kind: str) -> Measure:
        return lambda: timed(_frameworks(bench), "flask", kind, count // 3, SIZE)

    bench.compare(
        outcome,
        "in a Flask request, over the request without a session",
        {OURS: flask("ours"), "redis": flask("redis"), "memcached": flask("memcached")},
    )


def _frameworks(bench: Bench) -> Team:
    return bench.helper("frameworks", bench.store("redis").port, bench.store("memcached").port)


ROW = Row(
    "session-cost",
    "find or load a session, change one attribute, commit or save: p50 of a request's share",
    "µs",
    Goal("≤ 15 µs", 15),
    measure,
)
