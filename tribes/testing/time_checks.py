"""Checks of time: what was promised within a time came within it (DESIGN §4.1, 5.4).

A send or a commit that ended is judged here by how long it took; whether what it said is true is
for the other checks.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tribes.testing.history import SETTLE_S
from tribes.testing.violation import Violation
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.testing.history import History, Op, Send

__all__ = ["check_soon", "check_times"]

SEND_S: Final = 3.5
"""``sender.timeout`` and, for asynchronous sends, ``queue_timeout`` are 3 s; and half a second."""
COMMIT_S: Final = 1.3
"""``commit_timeout`` is 1 s."""
CALM_S: Final = 0.5
"""A round trip in a calm network is a millisecond or two."""
_SAMPLE_S: Final = 0.5
"""Copies are compared twice a second."""
_USE_ACK: Final = int(SendOptions.USE_ACK)
_BACKLOG_S: Final = 1.0
"""For which a process that was stopped or throttled may still be working off what waited."""


def check_times(history: History, until: float, patience_s: float = 0.0) -> list[Violation]:
    """Check how long sends and commits took.

    - ``late send``: a send ends within its timeout, whatever happens, unless its own process was
      stopped or slow; in a calm time and to members that are there within `CALM_S`, since nothing
      keeps the kernel or the members.
    - ``late commit``: a request waits for `COMMIT_S` at most, or for `CALM_S` in a calm time.
    - ``missing without cause``: in a calm time no member is told to lack a commit. (One that found
      no room in the inbox is repaired later.)
    - ``waited in vain``: whoever begins ``patience_s`` after the last fault and `CALM_S` before the
      next one is done within `CALM_S`, whatever still lasts: nobody waits for a member that is
      known not to answer.

    Args:
        history: The run.
        until: When it ended.
        patience_s: 0: that is not demanded.
    """
    found = []
    there = _there(history)
    for send in history.sends:
        found += _check_send(history, send, there, until)
    for op in history.ops:
        if op.version is not None:
            found += _check_commit(history, op, until)
    if patience_s:
        found += _check_patience(history, until, patience_s)
    return found


def _check_patience(history: History, until: float, patience_s: float) -> list[Violation]:
    waits = [
        *(
            (f"send {s.number}", s.sender, s.begin, s.end, s.targets)
            for s in history.sends
            # Without an acknowledgement it ends when the kernel has it, whose buffer may be full.
            if s.option & _USE_ACK
        ),
        *((f"op {o.number}", o.node, o.begin, o.settled, ()) for o in history.ops if o.version),
    ]
    members = _Members(history)
    found = []
    for fact, node, begin, end, targets in waits:
        took = (until if end is None else end) - begin
        if not all(members.has(node, target, begin) for target in targets):
            # Nobody watches a stranger.
            continue
        if took <= CALM_S or history.is_dead(node, begin + took):
            continue
        steady = begin - patience_s, begin + CALM_S
        if history.faults_in(*steady) or history.was_slow(node, begin - _BACKLOG_S, begin + took):
            continue
        text = f"{fact} on {node} took {took:.3f} s, and nothing had changed for {patience_s:g} s"
        found.append(Violation("waited in vain", text, (fact, node), begin + took))
    return found


class _Members:
    """Who was in whose view when."""

    def __init__(self, history: History) -> None:
        self._words: dict[tuple[str, str], list[tuple[float, bool]]] = {}
        for told in history.told:
            if told.kind in ("added", "removed"):
                words = self._words.setdefault((told.node, told.subject), [])
                words.append((told.time, told.kind == "added"))

    def has(self, node: str, subject: str, time: float) -> bool:
        """Whether a node has taken another one for a member for a while at a time."""
        words = self._words.get((node, subject), [])
        is_member = False
        for when, is_added in words:
            if when > time:
                break
            is_member = is_added and when <= time - _BACKLOG_S
        return is_member


def _there(history: History) -> dict[str, float]:
    kinds = ("start", "present")
    return {node: f.time for f in history.faults if f.kind in kinds for node in f.nodes}


def _check_send(
    history: History, send: Send, there: dict[str, float], until: float
) -> list[Violation]:
    end = until if send.end is None else send.end
    took = end - send.begin
    if took <= CALM_S or history.is_dead(send.sender, end):
        return []
    limit = SEND_S
    if history.is_calm(send.begin, send.begin + CALM_S) and all(
        target in there and not history.is_dead(target, end) for target in send.targets
    ):
        limit = CALM_S
    if took <= limit or history.was_slow(send.sender, send.begin - _BACKLOG_S, end):
        return []
    text = f"option {send.option} from {send.sender} took {took:.3f} s, allowed are {limit:g} s"
    return [Violation("late send", text, (f"send {send.number}",), end)]


def _check_commit(history: History, op: Op, until: float) -> list[Violation]:
    end = until if op.settled is None else op.settled
    took = end - op.begin
    facts = (f"op {op.number}",)
    calm = history.is_calm(op.begin, op.begin + min(took, CALM_S))
    if calm and op.missing and not all(why.startswith("the inbox") for why in op.missing.values()):
        text = f"a commit on {op.node} lacks {', '.join(op.missing)}, and nothing was wrong"
        return [Violation("missing without cause", text, facts, end)]
    limit = CALM_S if calm else COMMIT_S
    if took <= limit or history.is_dead(op.node, end):
        return []
    if history.was_slow(op.node, op.begin - _BACKLOG_S, end):
        return []
    text = f"a commit on {op.node} took {took:.3f} s, allowed are {limit:g} s"
    return [Violation("late commit", text, facts, end)]


def check_soon(history: History, until: float, soon_s: float = SETTLE_S) -> list[Violation]:
    """Check that copies become equal soon after a fault, and stay about equal.

    ``equal soon``: in any ``soon_s`` without a fault, the copies of all live nodes were once found
    equal. Under load a change may be on its way whenever they are compared, but not every time.

    Args:
        history: The run.
        until: When it ended.
        soon_s: How long it may take. The comparison of a window a second would make everything
            equal in the end, so only a short time tells whether what is quicker works.
    """
    times = [copies.time for copies in history.copies]
    found = []
    for begin, end in history.quiet_spans(until):
        if end - begin <= soon_s:
            continue
        inside = times[bisect_right(times, begin) : bisect_right(times, end)]
        for before, after in pairwise((begin, *inside, end)):
            if after - before > soon_s + _SAMPLE_S:
                text = f"the copies were not equal for {after - before:.3f} s after the last fault"
                found.append(Violation("equal soon", text, (f"{before:.3f} s",), after))
    return found
