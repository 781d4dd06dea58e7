"""Checks of suspicion: who is suspected, when, and what it costs (DESIGN §4.3)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tribes.testing.history import SETTLE_S
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.testing.history import Fault, History

__all__ = ["check_suspicions"]

SUSPECTED_S: Final = 2.0
"""Within which a process that was stopped is suspected by everybody whose member it is."""
REFUTED_S: Final = 1.0
"""Within which it is no longer once it goes on."""
_KINDS: Final = ("pause", "resume")


def check_suspicions(
    history: History, until: float, *, all_answer: bool = False
) -> list[Violation]:
    """Compare whom the nodes told to suspect with who was stopped.

    - ``suspected without cause``: nobody suspects a process that runs while nothing is wrong but
      that others were stopped, itself among them: its own pause is no sign of theirs.
    - ``suspected late``: who is stopped, and nothing else is wrong, is suspected (or removed) by
      every member within `SUSPECTED_S`.
    - ``refuted late``: and within `REFUTED_S` of going on it is suspected by nobody.

    Args:
        history: The run, of nodes that all suspect within a second.
        until: When it ended.
        all_answer: Whether no fault kept anybody from answering on a stream, but for stops.
    """
    found = []
    # (observer, subject): when it began to be suspected, or None; was it a member.
    spans: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for told in history.told:
        if told.kind in ("added", "removed", "suspected", "refuted"):
            spans.setdefault((told.node, told.subject), []).append((told.time, told.kind))
        if told.kind != "suspected" or history.is_dead(told.subject, told.time):
            continue
        if history.was_slow(told.subject, told.time - SUSPECTED_S - REFUTED_S, told.time):
            continue
        if all_answer or _only_stops(history, told.time - SETTLE_S, told.time):
            text = f"{told.node} suspects {told.subject}, which runs"
            facts = told.node, told.subject
            found.append(Violation("suspected without cause", text, facts, told.time))
    for stop, end in _lone_stops(history, until):
        (name,) = stop.nodes
        for (node, subject), words in spans.items():
            if subject != name or history.is_dead(node, end):
                continue
            if history.was_slow(node, stop.time - REFUTED_S, end + REFUTED_S):
                continue
            found += _check_stop(stop, end, node, words, until)
    return found


def _check_stop(
    stop: Fault, end: float, node: str, words: list[tuple[float, str]], until: float
) -> list[Violation]:
    (name,) = stop.nodes

    def state(time: float) -> str:
        return next((kind for when, kind in reversed(words) if when <= time), "removed")

    if state(stop.time) not in ("added", "refuted"):
        return []
    found = []
    due = stop.time + SUSPECTED_S
    if end >= due and state(due) in ("added", "refuted"):
        text = f"{node} does not suspect {name}, which was stopped {SUSPECTED_S:g} s before"
        found.append(Violation("suspected late", text, (node, name), due))
    due = end + REFUTED_S
    if due <= until and state(due) == "suspected":
        text = f"{node} still suspects {name}, which has gone on {REFUTED_S:g} s before"
        found.append(Violation("refuted late", text, (node, name), due))
    return found


def _only_stops(history: History, begin: float, end: float) -> bool:
    """Whether nothing was wrong at first, and later only stops of processes."""
    return history.is_calm(begin, begin, settle=0.0) and all(
        fault.kind in _KINDS for fault in history.faults_in(begin, end)
    )


def _lone_stops(history: History, until: float) -> list[tuple[Fault, float]]:
    """Stops of a process that nothing else is near to, and when each ended."""
    faults = history.faults_in(0.0, until)
    found = []
    for stop, resume in pairwise(faults):
        if (stop.kind, resume.kind, stop.nodes) != ("pause", "resume", resume.nodes):
            continue
        if not _only_stops(history, stop.time - SETTLE_S, stop.time):
            continue
        # Another one that is still behind with its work would answer late itself.
        near = history.faults_in(stop.time - REFUTED_S, resume.time + REFUTED_S)
        if len(near) == 2:
            found.append((stop, resume.time))
    return found
