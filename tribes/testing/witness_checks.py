"""Checks of removals that others could have contradicted (DESIGN §4.3).

Other than the checks of a history this one watches the network itself: whether a third member
reaches two that do not reach each other cannot be told from their events.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Final

from tribes.channel.outputs import MemberRemoved
from tribes.membership.change import RemovalReason
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.testing.sim import SimNode, World

__all__ = ["KEPT_S", "UNDERSTOOD", "VOUCHED_S", "WitnessCheck"]

UNDERSTOOD: Final = frozenset(
    ("cut", "no_tcp", "flap", "bridge", "no_multicast", "pause", "reset", "crash")
)
"""Faults that this check can tell from a look at network and processes."""

VOUCHED_S: Final = 8.0
"""For so long after their trouble began two members are kept apart by nobody, if all others reach
both: three seconds of silence, and nine in which a witness is believed, are more."""

KEPT_S: Final = 27.0
"""After which nobody has a member any more that it can't reach: silence of ``drop_time`` times the
worst local health, the time in which a witness is believed, and tests on both sides of it."""

SILENT_S: Final = 2.6
"""Who was well so lately is not removed for its silence: ``drop_time`` is 3 s, and what goes on is
seen four times a second."""

DEAD_KEPT_S: Final = 16.0
"""After which nobody has a dead process in its view: silence times the worst local health, and
tests on both sides of it."""

_WELL_S: Final = 6.0
"""Who has been well for so long has no suspicion left from before."""
_SAMPLE_S: Final = 0.25
_NODES_MAX: Final = 12
_UNHEARD: Final = (RemovalReason.SILENT, RemovalReason.CRASHED)


class WitnessCheck:
    """Looks at every removal, and at who is still a member.

    - ``removed against a witness``: while all others reach both, nobody removes a member that is
      well, until `VOUCHED_S` after the trouble between the two began.
    - ``removed early``: nobody removes for its silence who was well less than `SILENT_S` ago.
    - ``kept for ever``: nobody has a member in its view that it has not reached for `KEPT_S` and
      that owes it an answer, or that has been dead for `DEAD_KEPT_S`.

    Args:
        world: What to watch, from now on. Only such faults may come that are `UNDERSTOOD`.
        found: Where to put what does not hold.
    """

    def __init__(self, world: World, found: list[Violation]) -> None:
        self._world = world
        self._found = found
        self._begin = world.now
        self._bad: dict[tuple[str, str], tuple[float, float]] = {}
        self._cut: dict[tuple[str, str], float] = {}
        self._dead: dict[tuple[str, bytes], float] = {}
        if len(world.nodes) <= _NODES_MAX:
            world.watch(("event",), self._told)
            world.at(0.0, self._sample)

    def _sample(self) -> None:
        world = self._world
        now = world.now
        for a, b in permutations(world.nodes.values(), 2):
            pair = a.name, b.name
            if not self._is_well(a, b):
                begin, last = self._bad.get(pair, (now, now))
                if now - last > _WELL_S:
                    begin = now
                self._bad[pair] = begin, now
            if self._runs(a) and self._runs(b) and not world.network.reaches_by_tcp(*pair):
                self._check_kept(a, b, self._cut.setdefault(pair, now))
            else:
                self._cut.pop(pair, None)
        self._check_dead()
        world.at(_SAMPLE_S, self._sample)

    def _check_kept(self, a: SimNode, b: SimNode, since: float) -> None:
        now = self._world.now
        health = a.core.channel.health
        if now - since > KEPT_S and health.owes(b.core.local) and b.core.local in a.core.view:
            text = f"{a.name} has {b.name} in its view, which it has not reached for {KEPT_S:g} s"
            self._found.append(Violation("kept for ever", text, (a.name, b.name), now))
            self._cut[a.name, b.name] = now

    def _check_dead(self) -> None:
        now = self._world.now
        nodes = self._world.nodes.values()
        alive = {node.core.local.unique_id for node in nodes if node.is_alive}
        dead: dict[tuple[str, bytes], float] = {}
        for node in nodes:
            if not self._runs(node):
                continue
            for member in node.core.view.members:
                if member.unique_id not in alive:
                    pair = node.name, member.unique_id
                    since = dead[pair] = self._dead.get(pair, now)
                    if now - since > DEAD_KEPT_S:
                        dead[pair] = now
                        text = f"{node.name} has {member.label} in its view, which is dead"
                        facts = node.name, member.label
                        self._found.append(Violation("kept for ever", text, facts, now))
        self._dead = dead

    def _told(self, now: float, name: str, kind: str, event: object) -> None:
        del kind
        if not isinstance(event, MemberRemoved) or event.reason not in _UNHEARD:
            return
        nodes = self._world.nodes
        subject = next((n for n in nodes.values() if n.core.local == event.member), None)
        if subject is None or now < self._begin + _WELL_S:
            return
        a = nodes[name]
        others = [n for n in nodes.values() if n is not a and n is not subject]
        began = min(self._trouble(a, subject), self._trouble(subject, a))
        if not subject.is_alive:
            return
        if event.reason is RemovalReason.SILENT and now - began < SILENT_S:
            text = f"{name} removed {subject.name} for its silence, and it was well"
            self._found.append(Violation("removed early", text, (name, subject.name), now))
        if not others or not (self._runs(a) and self._runs(subject)):
            return
        if now - began < VOUCHED_S and all(self._is_witness(each, a, subject) for each in others):
            text = f"{name} removed {subject.name} ({event.reason}), which all others reach"
            self._found.append(
                Violation("removed against a witness", text, (name, subject.name), now)
            )

    def _trouble(self, a: SimNode, b: SimNode) -> float:
        """When the present trouble from one to another began."""
        begin, last = self._bad.get((a.name, b.name), (self._world.now, 0.0))
        return begin if self._world.now - last <= _WELL_S else self._world.now

    def _is_witness(self, other: SimNode, a: SimNode, subject: SimNode) -> bool:
        pairs = ((a, other), (other, a), (other, subject), (subject, other))
        if any(self._world.now - self._last_bad(*pair) <= _WELL_S for pair in pairs):
            return False
        seen_by_a, seen = a.core.view, other.core.view
        return (
            other.core.local in seen_by_a
            and other.core.local not in seen_by_a.suspected
            and subject.core.local in seen
            and subject.core.local not in seen.suspected
        )

    def _last_bad(self, a: SimNode, b: SimNode) -> float:
        return self._bad.get((a.name, b.name), (0.0, -_WELL_S))[1]

    def _is_well(self, a: SimNode, b: SimNode) -> bool:
        link = self._world.link(a, b)
        return (
            self._runs(a)
            and self._runs(b)
            and not (link.is_cut or link.loss or link.delay or link.jitter)
            and self._world.network.reaches_by_tcp(a.name, b.name)
        )

    @staticmethod
    def _runs(node: SimNode) -> bool:
        return node.is_alive and not node.is_paused
