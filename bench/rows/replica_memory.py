"""Memory of a member that holds copies, beyond the bytes that applications put into sessions."""

from __future__ import annotations

import json
import time

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Row, Store

ASYNC = 8
PAYLOAD = 1024
HELD_S = 60.0


def measure(bench: Bench, outcome: Outcome) -> None:
    """By number of attributes that share the payload; each run fills members of its own."""
    for attributes in (1,) if bench.size.only_main else (1, 3, 5):
        runs = 0 if attributes == 1 else 2

        def member(kind: str) -> Sample:
            return _filled(bench, kind, attributes)

        def store(kind: Store) -> Sample:
            team = bench.store_team(kind)
            bench.store(kind).flush()
            found = team.first.ask("sessions", bench.size.sessions, PAYLOAD, 1)
            return Sample(found["bytes"] - PAYLOAD)

        bench.compare(
            outcome,
            f"{attributes} attribute{'s' * (attributes > 1)}, 1 KB",
            {
                OURS: lambda: member(OURS),
                "tribes": lambda: member("tribes"),
                **(
                    {"redis": lambda: store("redis"), "memcached": lambda: store("memcached")}
                    if attributes == 1
                    else {}
                ),
            },
            runs=runs,
            warm=False,
        )


def _filled(bench: Bench, kind: str, attributes: int) -> Sample:
    count = bench.size.sessions
    team = bench.fresh_team(kind, manager="delta", options=ASYNC)
    try:
        replica = team.others[0]
        empty = replica.ask("memory")
        team.first.ask("sessions", count, PAYLOAD, attributes)
        end = time.monotonic() + HELD_S
        while (full := replica.ask("memory"))["held"] < count and time.monotonic() < end:
            time.sleep(0.5)
        if full["held"] < count:
            raise RuntimeError(f"{kind}: {json.dumps(full)} instead of {count} sessions")
        return Sample((full["used"] - empty["used"]) / count - PAYLOAD)
    finally:
        team.end()


ROW = Row(
    "replica-memory",
    "memory of one copy of a session over its payload of 1 KB in one attribute",
    "bytes",
    Goal("≤ 205 + 12 per attribute", 217),
    measure,
)
