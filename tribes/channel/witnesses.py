"""Second observers: no member is removed on the word of one (DESIGN §4.3).

A member that gives no answer *here* may be well: a link, a firewall, this process itself may be
what is broken. So before it is removed two other members are asked, by a control frame of their own
links (:mod:`tribes.links.own_acks`), whether they have an answer from it. A witness does not say
what it believes but looks: it asks the member on a connection of its own and on the open link, and
says what came of it within `OBSERVE_S`. What it suspects already is silent for it at once.

A removal waits for nobody for ever:

- both are asked at once, and `OPINION_S` later it goes on with what was said;
- one answer for the member stops it; silence, no opinion and no word do not;
- silence that nobody confirms must have lasted longer where this process is not well itself, up to
  four times as long (the local health of `HealthMonitor`);
- who is suspected itself, has no open own link, or is a plain Tribes member is no witness. Where
  there is none, as in a group of two, nobody is asked.

Which two is a hash's choice over the asking, the silent and the other member: whatever happens to a
group of n, each of them gets about two questions per member that is lost.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from hashlib import blake2b
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, final

from tribes.channel.chain import Verdict
from tribes.links.own_wire import Opinion

if TYPE_CHECKING:
    from tribes.links.own_receiver import OwnReceiver
    from tribes.membership.health import HealthMonitor
    from tribes.timers import Timer, Timers
    from tribes.wire.member import Member

__all__ = ["OBSERVE_S", "OPINION_S", "WITNESSES_MAX", "WitnessStatistics", "Witnesses"]

WITNESSES_MAX: Final = 2
OPINION_S: Final = 0.3
"""How long a removal waits for opinions: a crash is to be noticed within half a second."""
OBSERVE_S: Final = 0.25
"""How long a witness gives the member to answer; shorter than its asker waits for it."""
_LATE_S: Final = 0.1
"""Whose clockwork is later than this gets the time once more."""
OBSERVED_MAX: Final = 64
"""Members that are looked after at once; each takes a connection. Others get no opinion."""
ASKERS_MAX: Final = 256
"""Questions about one of them that wait for the outcome; later ones get no opinion."""

_NUMBERS: Final = 1 << 32
_OWN_SHORTAGES: Final = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
)

Probe = Callable[["Member", float, Callable[[Exception | None, float], None], float], None]
"""Asks a member within so many seconds for an answer."""


class WitnessStatistics:
    """Counters, plain ints."""

    __slots__ = ("asked", "confirmed", "contradicted", "observed", "unheard")

    def __init__(self) -> None:
        self.asked = 0
        """Questions to other members."""
        self.confirmed = 0
        """Removals that a witness had confirmed."""
        self.contradicted = 0
        """Removals that a witness stopped."""
        self.unheard = 0
        """Removals without an opinion: there was no witness, or none had one in time."""
        self.observed = 0
        """Questions of other members."""


class _Case:
    """One member that may be removed."""

    __slots__ = (
        "answer",
        "begin",
        "has_opinion",
        "is_extended",
        "is_refused",
        "member",
        "numbers",
        "timer",
    )

    def __init__(
        self,
        member: Member,
        begin: float,
        answer: Callable[[Verdict, float], None],
        *,
        is_refused: bool,
    ) -> None:
        self.member = member
        self.is_refused = is_refused
        self.begin = begin
        self.answer = answer
        self.numbers: dict[int, Member] = {}
        self.has_opinion = False
        self.is_extended = False
        self.timer: Timer | None = None


@final
class Witnesses:
    """The questions that were put to others, and those that others put to this member.

    Args:
        local: The own unique id.
        timers: Where it asks to be woken.
        health: Knows who has answered here, and since when somebody has not.
        others: The members that can be asked now.
        ask: Puts a question with a number about a unique id to a member; False when it cannot.
        find: The member with a unique id.
        probe: Asks a member for an answer.
        respond: Writes the opinions that :meth:`OwnReceiver.tell` was given.
    """

    def __init__(
        self,
        local: bytes,
        *,
        timers: Timers,
        health: HealthMonitor,
        others: Callable[[], Iterable[Member]],
        ask: Callable[[Member, int, bytes, float], bool],
        find: Callable[[bytes], Member | None],
        probe: Probe,
        respond: Callable[[OwnReceiver], None],
    ) -> None:
        self.statistics = WitnessStatistics()
        self._local = local
        self._timers = timers
        self._health = health
        self._others = others
        self._ask = ask
        self._find = find
        self._probe = probe
        self._respond = respond
        self._number = 0
        self._cases: dict[int, _Case] = {}
        self._observed: dict[Member, list[tuple[OwnReceiver, int]]] = {}
        self._is_stopped = False

    @property
    def open_questions(self) -> int:
        """Questions that nobody has answered yet."""
        return len(self._cases)

    def stop(self) -> None:
        """Ask and answer nothing any more; no case is decided."""
        self._is_stopped = True
        self._cases.clear()
        self._observed.clear()

    # Asking.

    def confirm(
        self,
        member: Member,
        *,
        is_refused: bool,
        answer: Callable[[Verdict, float], None],
        now: float,
    ) -> None:
        """Find out whether a member may be removed; see ``ChainContext.confirm``."""
        if not is_refused and not self._health.is_given_up(member, now):
            answer(Verdict.EARLY, now)
            return
        case = _Case(member, now, answer, is_refused=is_refused)
        for witness in self._chosen(member):
            self._number = (self._number + 1) % _NUMBERS
            if self._ask(witness, self._number, member.unique_id, now):
                self.statistics.asked += 1
                case.numbers[self._number] = witness
                self._cases[self._number] = case
        if not case.numbers:
            self._decide(case, now)
            return
        self._wait(case, now)

    def _wait(self, case: _Case, now: float) -> None:
        due = now + OPINION_S

        def over(then: float) -> None:
            if then - due > _LATE_S and not case.is_extended:
                # This process did not run: what it was told is still unread.
                case.is_extended = True
                self._wait(case, then)
            else:
                self._decide(case, then)

        case.timer = self._timers.at(due, over)

    def told(self, number: int, opinion: Opinion, now: float) -> None:
        """A witness has answered."""
        case = self._cases.pop(number, None)
        if case is None:
            return
        del case.numbers[number]
        if opinion is Opinion.ANSWERS:
            self.statistics.contradicted += 1
            self._close(case)
            case.answer(Verdict.CONTRADICTED, now)
            return
        case.has_opinion = case.has_opinion or opinion is Opinion.SILENT
        if not case.numbers:
            self._decide(case, now)

    def lost(self, witness: Member, now: float) -> None:
        """The link to a member broke, and with it the questions that it had not answered."""
        for number, case in list(self._cases.items()):
            if case.numbers.get(number) == witness and number in self._cases:
                self.told(number, Opinion.UNKNOWN, now)

    def _chosen(self, member: Member) -> list[Member]:
        prefix = self._local + member.unique_id

        def order(other: Member) -> bytes:
            return blake2b(prefix + other.unique_id, digest_size=8).digest()

        others = (other for other in self._others() if other != member)
        return nsmallest(WITNESSES_MAX, others, key=order)

    def _decide(self, case: _Case, now: float) -> None:
        self._close(case)
        if self._is_stopped:
            return
        if self._health.answered_at(case.member) > case.begin:
            case.answer(Verdict.ANSWERED, now)
            return
        if case.has_opinion:
            self.statistics.confirmed += 1
        elif not case.is_refused and not self._health.is_given_up(case.member, now, alone=True):
            case.answer(Verdict.EARLY, now)
            return
        else:
            self.statistics.unheard += 1
        case.answer(Verdict.GONE, now)

    def _close(self, case: _Case) -> None:
        for number in case.numbers:
            self._cases.pop(number, None)
        case.numbers.clear()
        if case.timer is not None:
            case.timer.cancel()

    # Being asked.

    def asked(self, receiver: OwnReceiver, number: int, about: bytes, now: float) -> None:
        """Another member wants to know whether a third one answers here."""
        self.statistics.observed += 1
        member = self._find(about)
        if member is None:
            receiver.tell(number, Opinion.UNKNOWN)
        elif self._health.is_suspected(member):
            receiver.tell(number, Opinion.SILENT)
        elif member in self._observed:
            askers = self._observed[member]
            if len(askers) < ASKERS_MAX:
                askers.append((receiver, number))
            else:
                receiver.tell(number, Opinion.UNKNOWN)
        elif len(self._observed) >= OBSERVED_MAX:
            receiver.tell(number, Opinion.UNKNOWN)
        else:
            self._observe(member, (receiver, number), now)

    def _observe(self, member: Member, asker: tuple[OwnReceiver, int], begin: float) -> None:
        askers = self._observed[member] = [asker]

        def done(opinion: Opinion) -> None:
            timer.cancel()
            if self._observed.get(member) is not askers:
                return
            del self._observed[member]
            for receiver, number in askers:
                receiver.tell(number, opinion)
                self._respond(receiver)

        def late(now: float) -> None:
            del now
            # It may have answered on the link rather than on a new connection.
            has_answered = self._health.answered_at(member) > begin
            done(Opinion.ANSWERS if has_answered else Opinion.SILENT)

        def answered(error: Exception | None, now: float) -> None:
            if error is None:
                done(Opinion.ANSWERS)
            elif isinstance(error, TimeoutError):
                late(now)
            elif isinstance(error, OSError) and error.errno in _OWN_SHORTAGES:
                done(Opinion.UNKNOWN)
            else:
                done(Opinion.SILENT)

        timer = self._timers.at(begin + OBSERVE_S, late)
        self._probe(member, OBSERVE_S, answered, begin)
