"""How long it takes until the others know that a member hangs (``SIGSTOP``): suspected, removed."""

from __future__ import annotations

import signal
import time

from bench.outcomes import OURS, Case, Goal, Outcome
from bench.rows.crash_noticed import summed
from bench.runner import Bench, MissingError, Row
from bench.victims import APART_S, Group

VICTIMS = 5
WATCH_S = 15.0
LIMIT_S = 12.0


def measure(bench: Bench, outcome: Outcome) -> None:
    """The same victims again and again: they come back by themselves when they go on."""
    outcome.runs = bench.size.trials
    suspected = Case(f"{bench.size.trials} hangs, suspected", outcome.unit)
    removed = Case(f"{bench.size.trials} hangs, removed", outcome.unit)
    found: dict[str, list[float]] = {"suspected": [], "removed": []}
    with Group(bench, OURS) as group:
        victims = min(VICTIMS, bench.size.trials)
        group.add(victims)
        for _ in range(max(1, bench.size.trials // victims)):
            for kind, seconds in _round(group).items():
                found[kind] += seconds
    for case, kind in ((suspected, "suspected"), (removed, "removed")):
        if found[kind]:
            case.of(OURS).samples.append(summed(found[kind]))
    suspected.of("tribes").absent = "it knows members and no members, nothing between"
    removed.of("tribes").absent = _theirs(bench)
    outcome.cases += [suspected, removed]


def _round(group: Group) -> dict[str, list[float]]:
    stopped = {}
    found: dict[str, list[float]] = {"suspected": [], "removed": []}
    try:
        for name in group.victims:
            stopped[name] = group.stop(name)
            time.sleep(APART_S)
        for name, at in stopped.items():
            for kind in found:
                seen = group.observer.await_event(kind, name, LIMIT_S, after=at)
                found[kind].append((seen or at + LIMIT_S) - at)
    finally:
        for name in stopped:
            group.victims[name].signal(signal.SIGCONT)
    group.await_all()
    return found


def _theirs(bench: Bench) -> str:
    """What became of a Tomcat member that hung."""
    try:
        with Group(bench, "tribes") as group:
            group.add(1)
            (name,) = group.victims
            at = group.stop(name)
            watch = 1.0 if bench.size.is_quick else WATCH_S
            seen = group.observer.await_event("removed", name, watch)
            if seen is not None:
                return f"removed after {seen - at:.1f} s in the one trial"
            return f"not removed in the {watch:.0f} s that it was watched"
    except MissingError as error:
        return str(error)


ROW = Row(
    "hang-noticed",
    "a stopped process is suspected, so that nobody waits for it: p99",
    "s",
    Goal("suspected ≤ 2 s, removed ≤ 4.5 s", 2),
    measure,
)
