"""Checks of what merges by element, and of the counting of writes that were overwritten unseen.

Of sets, counters and lists the promise is stronger than of plain values: no write that a node knows
may be missing from what it shows, whoever wrote at the same moment.  Of plain values the later
write stays, and the process whose write is lost that way counts it (DESIGN §5.3).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from tribes.manager.record import Life
from tribes.testing.session_checks import survivors
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.testing.history import History, Op
    from tribes.testing.violation import WorldState

__all__ = ["check_merged", "check_overwritten"]

_PLAIN = frozenset(("write", "append", "counter", "set_add", "remove"))


class _Elements:
    """What some operations have put into the merged values of one session."""

    __slots__ = ("appended", "numbers", "put", "taken", "total")

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.total = 0
        self.appended: set[Any] = set()
        self.put: set[Any] = set()
        self.taken: set[Any] = set()

    def add(self, op: Op) -> None:
        if op.number in self.numbers or op.version is None:
            return
        self.numbers.add(op.number)
        if op.kind == "merged_add":
            self.total += op.value
        elif op.kind == "merged_append":
            self.appended.add(op.value)
        elif op.kind == "merged_put":
            self.put.add(op.value)
        elif op.kind == "merged_take":
            self.taken.add(op.value)

    def wrong(self, name: str, shown: Any, done: _Elements) -> tuple[str, str] | None:
        """What is wrong with a value shown where these operations are known, of all ``done``."""
        if name == "merged count":
            count = shown or 0
            if count < self.total:
                return "lost addition", f"{count}, where {self.total} is known"
            if count > done.total:
                return "invented addition", f"{count}, and {done.total} were added in all"
            return None
        is_set = name == "merged set"
        known = self.put - done.taken if is_set else self.appended
        begun = done.put if is_set else done.appended
        elements = set(shown or ())
        if missing := sorted(known - elements):
            return "lost element", f"no {missing[0]}, which is known"
        if foreign := sorted(elements - begun):
            return "foreign element", f"{foreign[0]}, which nobody has put there"
        if is_set and (back := sorted(elements & self.taken)):
            return "removed element", f"{back[0]}, which is known to be removed"
        if len(elements) != len(shown or ()):
            return "element twice", "an element more than once"
        return None


def check_merged(
    history: History, state: WorldState, kept: set[int] | None = None
) -> list[Violation]:
    """Compare every sight of a merged value, and what is there at the end, with what was done.

    - ``lost addition``, ``lost element``: a node shows the part of every write that it knows, in
      the end of every write that no crash can have taken. A removed member may be missing.
    - ``invented addition``, ``foreign element``, ``element twice``: it shows nothing else, and
      nothing more often.
    - ``removed element``: a member that it knows to be removed stays out; nobody puts one in again.

    With ``kept``, the operations that must be seen in the end, only the end is looked at: where
    sessions lie on some nodes, who knew of a write need not know it any more.
    """
    known: dict[tuple[str, str], _Elements] = {}
    done: dict[str, _Elements] = {}
    acks = sorted(
        (op for op in history.ops if op.settled is not None and op.name.startswith("merged")),
        key=lambda op: op.settled or 0.0,
    )
    told = 0
    found = []
    for op in history.ops:
        if not op.is_done or not op.name.startswith("merged"):
            continue
        while told < len(acks) and (acks[told].settled or 0.0) < op.begin:
            for where in acks[told].acked:
                known.setdefault((where, acks[told].key), _Elements()).add(acks[told])
            told += 1
        here = known.setdefault((op.node, op.key), _Elements())
        everywhere = done.setdefault(op.key, _Elements())
        if kept is not None:
            everywhere.add(op)
            continue
        wrong = here.wrong(op.name, op.seen, everywhere)
        if wrong is not None:
            text = f"{op.node} shows in {op.name} {wrong[1]}"
            found.append(Violation(wrong[0], text, (f"op {op.number}",), op.begin))
        everywhere.add(op)
        here.add(op)
    return found + _check_end(history, state, done, kept)


def _check_end(
    history: History, state: WorldState, done: dict[str, _Elements], kept_ops: set[int] | None
) -> list[Violation]:
    kept: dict[str, _Elements] = {}
    numbers = survivors(history, state) if kept_ops is None else kept_ops
    for op in history.ops:
        if op.number in numbers and op.name.startswith("merged"):
            kept.setdefault(op.key, _Elements()).add(op)
    found = []
    for node, held in state.nodes.items():
        for key, elements in kept.items():
            session = held.get(key)
            if session is None or session.life != Life.LIVE:
                continue
            for name in ("merged count", "merged set", "merged list"):
                shown = session.entries[name][1] if name in session.entries else None
                wrong = elements.wrong(name, shown, done[key])
                if wrong is not None:
                    text = f"{node} has in {name} {wrong[1]}"
                    found.append(Violation(wrong[0], text, (node,), state.time))
    return found


def _came_before(blind: Op, seeing: list[Op], node: str) -> bool:
    """Whether a process had a write before others that had seen more than it were made."""
    settled = blind.settled
    if settled is None or node not in blind.acked:
        return False
    return all(op.begin > settled for op in seeing)


def check_overwritten(history: History, state: WorldState) -> list[Violation]:
    """Compare what processes counted as overwritten with what must and may have been.

    A write is *overwritten unseen* by a later version of its attribute whose writer had read an
    older one. Its process counts that when the later version arrives. It need not if it hears first
    of a still later one whose writer had read something newer, so such a write only may be counted.

    - ``conflict not counted``: a process that runs to the end has counted fewer than those which a
      later version surely replaced there first: one that it acknowledged before anybody wrote what
      had seen more, or any, if all later ones had not seen it and no crash can have taken one. In a
      session that has expired since, only where all copies were equal before that.
    - ``conflict invented``: it has counted more than those that any later version had not seen.
    """
    numbers = survivors(history, state)
    writes: dict[tuple[str, str], list[Op]] = {}
    # A session that ends takes its attributes with it: whoever hears of that first hears no more,
    # and where it has expired on both sides of a split, neither compares them.
    ended = {op.key for op in history.ops if op.kind == "invalidate"}
    live = {k for held in state.nodes.values() for k, s in held.items() if s.life == Life.LIVE}
    expired: dict[str, float] = {}
    for told in history.told:
        if told.kind == "expired":
            expired.setdefault(told.subject, told.time)
    equal = [copies.time for copies in history.copies]

    def have_met(one: Op, other: Op) -> bool:
        if one.key in live:
            return True
        after = bisect_right(equal, max(one.begin, other.begin))
        return after < len(equal) and equal[after] < expired.get(one.key, 0.0)

    for op in history.ops:
        if op.kind in _PLAIN and op.is_done and op.version is not None:
            writes.setdefault((op.key, op.name), []).append(op)
    must = dict.fromkeys(state.overwritten, 0)
    may = dict.fromkeys(state.overwritten, 0)
    for (key, _), ops in writes.items():
        for op in ops:
            if op.node not in may or op.version is None:
                continue
            later = [o for o in ops if o.version is not None and o.version > op.version]
            blind = [
                o
                for o in later
                if o.node != op.node and (o.seen_version or (0, 0))[0] < op.version[0]
            ]
            may[op.node] += bool(blind)
            seeing = [o for o in later if o not in blind]
            if key not in ended:
                must[op.node] += any(
                    (o.number in numbers if not seeing else _came_before(o, seeing, op.node))
                    and have_met(op, o)
                    for o in blind
                )
    found = []
    for node, counted in state.overwritten.items():
        if counted < must[node]:
            text = f"{node} counted {counted} overwritten writes, and {must[node]} of its were"
            found.append(Violation("conflict not counted", text, (node,), state.time))
        if counted > may[node]:
            text = f"{node} counted {counted} overwritten writes, and at most {may[node]} were"
            found.append(Violation("conflict invented", text, (node,), state.time))
    return found
