"""What an update costs by the number of sessions held, and by the number of members."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from bench.outcomes import OURS, Case, Goal, Outcome, Sample
from bench.runner import Bench, MissingError, Row
from bench.turns import updates

if TYPE_CHECKING:
    from bench.processes import Team

ASYNC = 8
SIZE = 100
CHUNK = 50_000
MEMBERS = {"delta": (2, 4, 8, 16, 32), "backup": (2, 8, 32)}
CONSTANT = 0.15
"""An exponent below this is called constant, one above its double no longer."""


def measure(bench: Bench, outcome: Outcome) -> None:
    """Processor time of all members per update of 100 bytes; option 8, one thread."""
    counts = (100, 200) if bench.size.is_quick else (1000, 10_000, 100_000, 1_000_000)
    teams: dict[tuple[str, int], Team] = {}
    missing = "not in a quick run" if bench.size.is_quick else ""
    # Tomcats start one after the other, which takes longer than a quick run may.
    for kind in (OURS,) if bench.size.is_quick else (OURS, "tribes"):
        # A JVM of the size that all have here does not hold a million.
        for count in counts if kind == OURS else counts[:3]:
            try:
                teams[kind, count] = _full(bench, kind, count)
            except MissingError as error:
                missing = str(error)
    found: dict[tuple[str, int], list[Sample]] = {key: [] for key in teams}
    try:
        for turn in range(bench.size.runs + 1):
            for key, team in teams.items():
                sample = _cost(team, bench.size.seconds)
                if turn or bench.size.is_quick:
                    found[key].append(sample)
        pauses = [
            teams[OURS, at].others[0].ask("memory")["gc_ms"] for at in (counts[-1], counts[0])
        ]
    finally:
        for team in teams.values():
            team.end()
    main = Case(f"{counts[-1]:,} sessions over {counts[0]:,}", outcome.unit)
    outcome.cases.append(main)
    for kind in (OURS, "tribes"):
        mine = [count for count in counts if (kind, count) in teams]
        if not mine:
            main.of(kind).absent = missing
            continue
        pairs = zip(found[kind, mine[0]], found[kind, mine[-1]], strict=True)
        main.of(kind).samples = [Sample(big.value / small.value) for small, big in pairs]
        outcome.notes.append(
            _growth(kind, "sessions", {count: found[kind, count] for count in mine})
        )
    for count in counts:
        case = Case(f"{count:,} sessions, 2 members", "µs of processor time per update")
        for kind in (OURS, "tribes"):
            case.of(kind).samples = found.get((kind, count), [])
            case.of(kind).absent = missing or "not in its heap"
        outcome.cases.append(case)
    # Of modules and the like there is as much with few sessions.
    pause = Case(f"pause of a full collection for {counts[-1]:,} sessions", "ms")
    pause.of(OURS).samples = [Sample(pauses[0] - pauses[1])]
    outcome.cases.append(pause)
    if not bench.size.only_main:
        for manager in MEMBERS:
            _by_members(bench, outcome, manager)


def _full(bench: Bench, kind: str, count: int) -> Team:
    team = bench.fresh_team(kind, manager="delta", options=ASYNC)
    for begin in range(0, count, CHUNK):
        team.first.ask("sessions", min(CHUNK, count - begin), SIZE, 1)
    return team


def _cost(team: Team, seconds: float) -> Sample:
    """Processor time of all members per update; µs."""
    found = updates(team, "thread", 1, SIZE, seconds)
    return Sample(max(found.cpu_s, 1e-3) / found.updates * 1e6, more={"rate": found.value})


def _by_members(bench: Bench, outcome: Outcome, manager: str) -> None:
    found = {}
    for members in MEMBERS[manager]:
        team = bench.fresh_team(OURS, members, manager=manager, options=ASYNC)
        try:
            team.first.ask("sessions", 100, SIZE, 1)
            _cost(team, bench.size.brief_s)
            case = Case(
                f"{members} members, {manager.capitalize()}Manager",
                "µs of processor time per update",
            )
            runs = [_cost(team, bench.size.brief_s) for _ in range(bench.size.runs)]
            found[members] = case.of(OURS).samples = runs
            outcome.cases.append(case)
        finally:
            team.end()
    outcome.notes.append(_growth(f"{OURS}, {manager}", "members", found))


def _growth(who: str, of: str, found: dict[int, list[Sample]]) -> str:
    """How the cost follows the number, in a word: the exponent between the first and the last."""
    small, big = min(found), max(found)
    costs = [statistics.median(each.value for each in found[at]) for at in (small, big)]
    exponent = math.log(costs[1] / costs[0]) / math.log(big / small)
    word = "constant" if abs(exponent) < CONSTANT else "linear" if exponent > 0.7 else "in between"
    return (
        f"{who}: from {small:,} to {big:,} {of} the cost goes from {costs[0]:.0f} to "
        f"{costs[1]:.0f} µs, exponent {exponent:.2f}: {word}"
    )


ROW = Row(
    "growth",
    "cost of an update with 1,000,000 sessions over that with 1,000",
    "×",
    Goal("reported: constant in sessions, linear in members with Delta", float("inf")),
    measure,
)
