"""Checks of the membership: who is in a view, and how soon and why one leaves it (DESIGN §4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.membership.change import RemovalReason
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.testing.history import Fault, History, Told

__all__ = ["check_views"]

GONE_S: Final = 1.0
"""Within which the end of a process is noticed when nothing else is wrong: its port refuses."""

_BEFORE_S: Final = 1.0
_ENDS: Final = frozenset(("stop", "crash"))
_AT_ONCE: Final = frozenset(("stop", "crash", "start", "jolt"))


def check_views(history: History) -> list[Violation]:
    """Compare what the nodes told of their views with who was there.

    - ``invented member``: nobody takes a process for a member that never was, whatever heartbeats
      somebody makes up: a member is asked before it counts.
    - ``one owner``: of two processes on one port one at most is in a view: when the second is
      there the first cannot be.
    - ``removed without cause``: nobody removes a process that runs, in a calm time.
    - ``dead member kept``: where nothing else was wrong, everybody has removed a process within
      `GONE_S` of its end.
    - ``farewell``: and it is told as one that left if it said so, or as one that was replaced if
      its successor was there at once: an operator must be able to tell a restart from a crash.
    """
    found = []
    views: dict[tuple[str, str], list[Told]] = {}
    owners = _Owners()
    for told in history.told:
        if told.kind not in ("added", "removed"):
            continue
        views.setdefault((told.node, told.subject), []).append(told)
        facts = told.node, told.subject
        if told.kind == "added":
            found += owners.added(told)
        else:
            owners.removed(told)
        if told.kind == "added" and told.subject.endswith("#?"):
            text = f"{told.node} has a member {told.subject} that never was"
            found.append(Violation("invented member", text, facts, told.time))
        elif told.kind == "removed" and _runs(history, told.subject, told.time):
            slow = history.was_slow(told.node, told.time - _BEFORE_S, told.time)
            if not slow and history.is_calm(told.time, told.time):
                text = f"{told.node} removed {told.subject} ({told.detail}), which runs"
                found.append(Violation("removed without cause", text, facts, told.time))
    nodes = list(dict.fromkeys(n for f in history.faults if f.kind not in _ENDS for n in f.nodes))
    for fault in history.faults:
        if fault.kind in _ENDS and _is_alone(history, fault):
            for node in nodes:
                found += _check_end(history, views, fault, node)
    return found


class _Owners:
    """Whom each node takes for the process on a port."""

    def __init__(self) -> None:
        self._by_port: dict[str, dict[str, str]] = {}
        self._ports: dict[tuple[str, str], set[str]] = {}

    def added(self, told: Told) -> list[Violation]:
        by_port = self._by_port.setdefault(told.node, {})
        other = by_port.get(told.detail)
        by_port[told.detail] = told.subject
        self._ports.setdefault((told.node, told.subject), set()).add(told.detail)
        if other is None or not told.detail:
            return []
        text = f"{told.node} takes {told.subject} for a member beside {other} on the same port"
        return [Violation("one owner", text, (told.node, other, told.subject), told.time)]

    def removed(self, told: Told) -> None:
        by_port = self._by_port.get(told.node, {})
        for port in self._ports.pop((told.node, told.subject), ()):
            # Another one may have taken it over.
            if by_port.get(port) == told.subject:
                del by_port[port]


def _runs(history: History, subject: str, time: float) -> bool:
    is_known = not subject.endswith("#?")
    return (
        is_known
        and not history.is_dead(subject, time)
        and not history.was_slow(subject, time - _BEFORE_S, time)
    )


def _is_alone(history: History, fault: Fault) -> bool:
    """Whether nothing was wrong before the end of a process and nothing else happens for a time."""
    before = fault.time - 1e-9
    if not history.is_calm(before, before, settle=_BEFORE_S):
        return False
    return all(
        other.time == fault.time and other.kind in _AT_ONCE
        for other in history.faults_in(fault.time, fault.time + GONE_S)
    )


def _check_end(
    history: History, views: dict[tuple[str, str], list[Told]], fault: Fault, node: str
) -> list[Violation]:
    (ended,) = fault.nodes
    end = fault.time + GONE_S
    told = views.get((node, ended), [])
    before = [each for each in told if each.time < fault.time]
    if not before or before[-1].kind != "added" or history.is_dead(node, end):
        return []
    removal = next((t for t in told if fault.time <= t.time <= end and t.kind == "removed"), None)
    if removal is None:
        text = f"{node} has {ended} in its view {GONE_S:g} s after its end"
        return [Violation("dead member kept", text, (node, ended), end)]
    fits = {str(RemovalReason.LEFT)}
    name = ended.partition("#")[0]
    for other in history.faults_in(fault.time, fault.time):
        if other.kind == "start" and other.nodes[0].startswith(f"{name}#"):
            fits.add(str(RemovalReason.REPLACED))
    if fault.kind == "stop" and removal.detail not in fits:
        text = f"{node} tells that {ended} is {removal.detail}, which said farewell"
        return [Violation("farewell", text, (node, ended), removal.time)]
    return []
