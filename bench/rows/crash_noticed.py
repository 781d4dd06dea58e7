"""How long a member that was killed (``kill -9``) stays in the others' view."""

from __future__ import annotations

import statistics
import time

from bench.outcomes import OURS, Case, Goal, Outcome, Sample
from bench.runner import Bench, MissingError, Row
from bench.victims import APART_S, Group

WATCH_S = 12.0
AT_ONCE = 6
"""Victims that are members at the same time."""


def measure(bench: Bench, outcome: Outcome) -> None:
    """Batches of ours and of theirs take turns; the figure is the p99 of all."""
    outcome.runs = bench.size.trials
    case = Case(f"{bench.size.trials} kills, 2 members watch", outcome.unit)
    found: dict[str, list[float]] = {}
    for begin in range(0, bench.size.trials, AT_ONCE):
        count = min(AT_ONCE, bench.size.trials - begin)
        for kind in (OURS, "tribes"):
            try:
                found.setdefault(kind, []).extend(_batch(bench, kind, count))
            except MissingError as error:
                case.of(kind).absent = str(error)
    for kind, seconds in found.items():
        if seconds:
            case.of(kind).samples.append(summed(seconds))
    outcome.cases.append(case)


def _batch(bench: Bench, kind: str, count: int) -> list[float]:
    with Group(bench, kind) as group:
        group.add(count)
        killed = {}
        for name in list(group.victims):
            killed[name] = group.kill(name)
            time.sleep(APART_S)
        watch = 1.0 if bench.size.is_quick else WATCH_S
        seen = {name: group.observer.await_event("removed", name, watch) for name in killed}
        return [(seen[name] or at + watch) - at for name, at in killed.items()]


def summed(seconds: list[float]) -> Sample:
    """p99 of the trials, with the median beside it."""
    ordered = sorted(seconds)
    at = min(len(ordered) - 1, round(0.99 * len(ordered)))
    return Sample(ordered[at], more={"p50": statistics.median(ordered), "trials": len(ordered)})


ROW = Row(
    "crash-noticed",
    "a killed process is removed from the others' view: p99",
    "s",
    Goal("≤ 0.5 s", 0.5),
    measure,
)
