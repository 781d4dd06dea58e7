"""Suspicion: the cheap and reversible answer to a member that does not answer (DESIGN §4.3).

A suspected member stays a member. Nobody waits for it, that is all: what it should have had is sent
when it answers again. So a stopped process costs the others one pause of ``suspect_after``, however
long it takes until it is removed, and a wrong suspicion costs next to nothing.

What counts as a sign of life depends on whether something is unanswered. On a quiet connection a
heartbeat is enough. Once something was asked, only an answer on a connection is: where TCP is cut
and multicast is not, heartbeats say nothing.

A frame that a member sends by itself is a sign of life as good as an answer for as long as nobody
thinks of removing it. It says nothing about the way *to* the member, though: where that alone is
cut, only answers to what was asked keep it in the view.

Suspicion is not handed on: it says that *this* member gets no answer, which is what its waiting
depends on, and the direct question refutes it sooner than any third member could. What goes over
the link is one frame per suspicion to the suspected member itself, which takes it for a hint that
the trouble may be its own (DESIGN §4.3, local health).

A look costs nothing for members that are quiet and well. Members are either *quiet*, in the order
of their last sign of life, so that a look ends at the first that is recent; or *open*: they owe
something, were asked, or are suspected.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.timers import Timer, Timers
    from tribes.wire.member import Member

__all__ = ["HealthMonitor", "HealthStatistics"]

_LOOKS = 4
"""Looks per ``suspect_after``."""

LOCAL_HEALTH_MAX = 4
_FORGET_S = 5.0
"""A question that was lost so long ago, with none after it, tells nothing about now."""
_RECOVERY_S = 10.0
"""After these seconds without trouble of its own a node trusts itself one step more."""


class HealthStatistics:
    """Counters of suspicion, plain ints."""

    __slots__ = ("checks", "doubted", "late_looks", "pings", "refuted", "suspected")

    def __init__(self) -> None:
        self.checks = 0
        """Members that a look had to look at."""
        self.doubted = 0
        """How often another member said that it suspects this one."""
        self.pings = 0
        self.suspected = 0
        self.refuted = 0
        self.late_looks = 0


class _State:
    __slots__ = (
        "answered",
        "heard",
        "hung",
        "is_suspected",
        "pinged",
        "proved",
        "questioned",
        "replied",
        "waiting",
    )

    def __init__(self, now: float) -> None:
        self.answered = now
        """When bytes came on a connection."""
        self.replied = now
        """When bytes came that answer something."""
        self.proved = now
        """The same, and never excused."""
        self.questioned = now
        self.heard = now
        self.hung = now
        self.pinged: float | None = None
        self.waiting: float | None = None
        """When the oldest question since the last reply was asked."""
        self.is_suspected = False


class HealthMonitor:
    """Watches who answers.

    Args:
        suspect_after: Seconds without a sign of life until a member is suspected; at least half of
            them after it was asked.
        timers: Where it asks to be woken.
        unanswered: When the oldest thing was sent to a member that it has not answered; None when
            it owes nothing. Monotonic seconds.
        ping: Ask a member for an answer.
        changed: Told when a member becomes suspected (with the silent seconds) and when it is no
            longer (None).
        remove_after: Seconds without a sign of life after which somebody is to find out whether a
            suspected member is there at all.
        hopeless: Told of such a member, again and again while it stays one.
        hung: Told of a member that gives signs of life and has left what it was asked unanswered
            for ``remove_after``: the connection hangs, not the member. Once per such time.
    """

    def __init__(
        self,
        suspect_after: float,
        *,
        timers: Timers,
        unanswered: Callable[[Member], float | None],
        ping: Callable[[Member, float], None],
        changed: Callable[[Member, float | None, float], None],
        remove_after: float,
        hopeless: Callable[[Member, float], None],
        hung: Callable[[Member, float], None],
    ) -> None:
        self.statistics = HealthStatistics()
        self._suspect_after = suspect_after
        self._interval = suspect_after / _LOOKS
        self._timers = timers
        self._unanswered = unanswered
        self._ping = ping
        self._changed = changed
        self._remove_after = remove_after
        self._hopeless = hopeless
        self._hung = hung
        self._states: dict[Member, _State] = {}
        # Each heartbeat of a member takes it to the end: states are found faster than members.
        self._quiet: dict[_State, Member] = {}
        self._open: dict[Member, _State] = {}
        self._timer: Timer | None = None
        self._penalty = 0
        self._troubled = 0.0
        self._doubted = -suspect_after

    @property
    def local_health(self) -> int:
        """1 for a node that can trust its own clockwork, up to 4 for one that is late itself or has
        lately suspected members that were well: how much longer it waits before it removes one on
        its own word alone (Lifeguard: Dadgar, Phillips, Currey, DSN 2018). Another member that
        confirms the silence is worth more than patience.
        """
        return 1 + self._penalty

    @property
    def suspects(self) -> tuple[Member, ...]:
        """The members that are suspected now."""
        return tuple(member for member, state in self._states.items() if state.is_suspected)

    def is_suspected(self, member: Member) -> bool:
        """Whether a member is suspected now."""
        state = self._states.get(member)
        return state is not None and state.is_suspected

    def owes(self, member: Member) -> bool:
        """Whether a member was asked something since its last answer."""
        state = self._states.get(member)
        return state is not None and state.waiting is not None

    def answered_at(self, member: Member) -> float:
        """When a member last answered; minus infinity for one that is not watched."""
        state = self._states.get(member)
        return -inf if state is None else state.proved

    def is_given_up(self, member: Member, now: float, *, alone: bool = False) -> bool:
        """Whether a member has been silent for so long that it may be removed for it: for
        ``remove_after``, or where nobody else can confirm it (``alone``) for that times the local
        health.
        """
        state = self._states.get(member)
        if state is None:
            return True
        if self._timer is not None and now - self._timer.when > self._interval:
            # A look is overdue: this process did not run, and what came meanwhile is still unread.
            return False
        last = state.heard
        if state.waiting is not None:
            # Heartbeats after an unanswered question say nothing.
            last = min(last, state.waiting)
        silent = now - max(state.replied, last)
        return silent >= self._remove_after * (self.local_health if alone else 1)

    def last_answer(self, member: Member) -> float | None:
        """When a member last gave an answer on a connection; None for one that is not watched."""
        state = self._states.get(member)
        return None if state is None else state.answered

    def added(self, member: Member, now: float) -> None:
        """Watch a member; that it was added is its first sign of life."""
        self._forget(member)
        self._states[member] = self._open[member] = _State(now)
        if self._timer is None or not self._timer.is_armed:
            self._timer = self._timers.at(now + self._interval, self._look)

    def removed(self, member: Member) -> None:
        """Watch a member no longer."""
        self._forget(member)

    def _forget(self, member: Member) -> None:
        state = self._states.pop(member, None)
        if state is not None:
            self._quiet.pop(state, None)
            self._open.pop(member, None)

    def stop(self) -> None:
        """Watch nobody."""
        self._states.clear()
        self._quiet.clear()
        self._open.clear()

    def sent(self, member: Member) -> None:
        """Something was sent to a member that it may have to answer."""
        state = self._states.get(member)
        if state is not None and self._quiet.pop(state, None) is not None:
            self._open[member] = state

    def asked(self, member: Member, now: float) -> None:
        """A member was asked for an answer on a connection of its own."""
        state = self._states.get(member)
        if state is not None:
            self._asked(state, now)

    def doubted(self, now: float) -> None:
        """Another member suspects this one, which runs: its own answers may be late."""
        self.statistics.doubted += 1
        if now - self._doubted >= self._suspect_after:
            # Many may say so at once, of one and the same trouble.
            self._doubted = now
            self._trouble(now)

    def heard(self, member: Member, now: float) -> None:
        """A heartbeat of a member."""
        state = self._states.get(member)
        if state is not None:
            state.heard = now
            quiet = self._quiet
            if quiet.pop(state, None) is not None:
                quiet[state] = member
            elif state.pinged is None and self._unanswered(member) is None:
                if state.is_suspected:
                    self._refute(member, state, now)
                self._rest(member, state)

    def answered(self, member: Member, now: float) -> None:
        """An answer of a member: bytes on a connection that was made here."""
        state = self._states.get(member)
        if state is not None:
            state.replied = state.proved = now
            state.waiting = None
            self.came(member, now)

    def came(self, member: Member, now: float) -> None:
        """Bytes of a member on a connection, whoever made it."""
        state = self._states.get(member)
        if state is not None:
            state.answered = now
            state.pinged = None
            if state.is_suspected:
                self._refute(member, state, now)
            if self._quiet.pop(state, None) is not None:
                self._quiet[state] = member

    def _rest(self, member: Member, state: _State) -> None:
        # Its last sign of life is this moment: the quiet ones stay in order.
        if self._open.pop(member, None) is not None:
            self._quiet[state] = member

    def _refute(self, member: Member, state: _State, now: float) -> None:
        state.is_suspected = False
        self.statistics.refuted += 1
        self._trouble(now)
        self._changed(member, None, now)

    def _look(self, now: float) -> None:
        timer = self._timer
        if timer is None or not self._states:
            return
        self._timer = self._timers.at(now + self._interval, self._look)
        late = now - timer.when
        if late > self._interval:
            # While this process did not run nobody could answer it.
            self.statistics.late_looks += 1
            self._trouble(now)
            self._excuse(late, now)
        elif self._penalty and now >= self._troubled + _RECOVERY_S:
            self._penalty -= 1
            self._troubled = now
        self._wake_quiet(now)
        self.statistics.checks += len(self._open)
        for member, state in list(self._open.items()):
            self._check(member, state, now)

    def _wake_quiet(self, now: float) -> None:
        silent = []
        for state in self._quiet:
            if now - max(state.answered, state.heard) < self._suspect_after / 2:
                break
            silent.append(state)
        for state in silent:
            self._open[self._quiet.pop(state)] = state

    def _excuse(self, late: float, now: float) -> None:
        for state in self._states.values():
            state.answered = min(state.answered + late, now)
            state.heard = min(state.heard + late, now)
            state.replied = min(state.replied + late, now)
            if state.pinged is not None:
                state.pinged = min(state.pinged + late, now)
            if state.waiting is not None:
                state.waiting = min(state.waiting + late, now)

    def _check(self, member: Member, state: _State, now: float) -> None:
        asked = self._unanswered(member)
        if asked is None:
            last = max(state.answered, state.heard)
        else:
            # What is sent later does not make an earlier question younger.
            last = max(state.answered, asked if state.pinged is None else min(asked, state.pinged))
            if state.waiting is None and asked >= state.replied:
                state.waiting = asked
            if state.answered > asked and now - max(asked, state.hung) >= self._remove_after:
                state.hung = now
                self._hung(member, now)
        silent = now - last
        if state.pinged is None:
            if silent >= self._suspect_after / 2 or self._is_evasive(state, now):
                self._question(member, state, now)
        elif silent < self._suspect_after / 2 and now - state.pinged >= self._suspect_after:
            # The question got lost, and heartbeats have come since.
            state.pinged = state.waiting = None
        elif state.is_suspected:
            if now - state.pinged >= self._suspect_after / 2:
                # For as long as it is a member; an answer ends the suspicion.
                self._question(member, state, now)
                if silent >= self._remove_after:
                    self._hopeless(member, now)
        elif silent >= self._suspect_after and now - state.pinged >= self._suspect_after / 2:
            state.is_suspected = True
            self.statistics.suspected += 1
            self._changed(member, silent, now)

    def _asked(self, state: _State, now: float) -> None:
        if state.waiting is None or now - state.questioned > _FORGET_S:
            state.waiting = now
        state.questioned = now

    def _is_evasive(self, state: _State, now: float) -> bool:
        """Whether a member says this and that, and has not answered for a while."""
        return (
            state.waiting is not None
            and now - max(state.waiting, state.questioned) >= self._suspect_after
        )

    def _question(self, member: Member, state: _State, now: float) -> None:
        state.pinged = now
        self._asked(state, now)
        self.statistics.pings += 1
        self._ping(member, now)

    def _trouble(self, now: float) -> None:
        if self._suspect_after == inf:
            return  # Nobody looks, so nothing would ever end it.
        self._penalty = min(self._penalty + 1, LOCAL_HEALTH_MAX - 1)
        self._troubled = now
