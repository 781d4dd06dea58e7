"""What the others' acknowledged messages take while one member hangs, and while one joins."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Row

if TYPE_CHECKING:
    from bench.processes import Team

ACKED = 6
SIZE = 1024
SUSPECTED_S = 3.0
HUNG_S = 1.5
"""Within these it is suspected and still a member."""


def measure(bench: Bench, outcome: Outcome) -> None:
    """Three members; the figure is p99 while one hangs over p99 before."""
    bench.compare(
        outcome,
        "one of three hangs, from its suspicion on",
        {
            OURS: lambda: _hung(bench, bench.team("ours", 3, native=True), is_ours=True),
            "tribes": lambda: _hung(bench, bench.team("tribes", 3, manager="none"), is_ours=False),
        },
        warm=False,
    )
    if bench.size.only_main:
        return
    bench.compare(
        outcome,
        "a fourth one joins",
        {
            OURS: lambda: _joining(bench, OURS, bench.team("ours", 3, native=True)),
            "tribes": lambda: _joining(bench, "tribes", bench.team("tribes", 3, manager="none")),
        },
        warm=False,
    )


def _before(bench: Bench, team: Team) -> float:
    team.await_together()
    seconds = 0.1 if bench.size.is_quick else HUNG_S
    team.first.ask("latency", "native", SIZE, ACKED, seconds)
    return float(team.first.ask("latency", "native", SIZE, ACKED, seconds)["p99"])


def _ratio(before: float, meanwhile: dict[str, float]) -> Sample:
    p99 = meanwhile["p99"]
    return Sample(p99 / before, more={"p99_before_us": before, "p99_meanwhile_us": p99})


def _hung(bench: Bench, team: Team, *, is_ours: bool) -> Sample:
    before, victim, at = _before(bench, team), team.others[-1], time.time()
    victim.signal(signal.SIGSTOP)
    try:
        if is_ours:
            team.first.await_event("suspected", "", SUSPECTED_S, after=at)
        found = team.first.ask("latency", "native", SIZE, ACKED, HUNG_S)
    finally:
        victim.signal(signal.SIGCONT)
    return _ratio(before, found)


def _joining(bench: Bench, kind: str, team: Team) -> Sample:
    before = _before(bench, team)
    settings: dict[str, Any] = {"native": True} if kind == OURS else {}
    team.first.say("latency", "native", SIZE, ACKED, 2 * HUNG_S)
    joiner = bench.member(kind, team.group, waits=False, manager="none", **settings)
    try:
        found = team.first.hear()
        joiner.await_start()
    finally:
        joiner.end()
    for child in team.children:
        child.await_alone(len(team.others))
    return _ratio(before, found)


ROW = Row(
    "hung-neighbour",
    "p99 of acknowledged messages among the others while a member hangs, over p99 before",
    "×",
    Goal("≤ 1.2 × from the suspicion on", 1.2),
    measure,
)
