"""Whom a member of a group with a key believes, by what is heard of it (DESIGN §4.2).

Every datagram passes four questions before the membership table hears of it, the cheapest first::

    signed with a key of ours?   no: refused, unless plain_peers lists where it comes from
    well-formed?                 no: refused
    new?                         late, repeated, of the dead: refused (see `security.replay`)
    of somebody who proved that  no: it is connected to and asked, and counts if it proves it; what
    it is there?                 was heard of it before counts for nothing

Members of ``plain_peers`` prove nothing: their heartbeats are taken at their word, and the failure
detector asks them as Tomcat's does. They can't take the name or the address of one that signs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, final

from tribes.security.mark import IN_FIRST_FRAME, Verdict, verify
from tribes.security.replay import Heard, ReplayGuard

if TYPE_CHECKING:
    from tribes.security.keys import KeyRing
    from tribes.security.mark import Mark
    from tribes.security.plain_peers import PlainPeers
    from tribes.wire.member import Member

__all__ = ["QUESTIONS_MAX", "Admission", "AdmissionStatistics", "Asked"]

TOLD_EVERY_S: Final = 60.0
"""Whose heartbeats are refused, and why, is told so often for each reason: whoever can send
datagrams must not fill a log."""

QUESTIONS_MAX: Final = 64
"""Strangers that are asked at once; each takes a connection. The heartbeats of others are dropped:
their next one comes soon."""

Asked = Callable[[int | None, int, float], None]
"""Gets the incarnation that was proved, None if none was, the counter stated with it, the time."""


class AdmissionStatistics:
    """Counters of what was refused, plain ints; `ReplayGuard.statistics` has the rest."""

    __slots__ = ("foreign", "forged", "not_asked", "unknown_key", "unproved", "unsigned")

    def __init__(self) -> None:
        self.forged = 0
        self.unknown_key = 0
        self.unsigned = 0
        self.foreign = 0
        """Unsigned, from a listed address, in the name of one that is not listed."""
        self.not_asked = 0
        self.unproved = 0


@final
class Admission:
    """Judges heartbeats and farewells.

    Args:
        local: The own record.
        keys: The group's; may be replaced at any time.
        plain_peers: Who may go without.
        ask: Asks a member on a connection for its life.
        admit: Takes the record of a member that proved itself.
        replace: Takes one that was a plain member until it proved itself, before ``admit``.
        refused: Told of heartbeats that count for nothing, some of them: host, why, and how many
            more there were since the last time.
    """

    def __init__(
        self,
        local: Member,
        keys: KeyRing,
        plain_peers: PlainPeers,
        *,
        ask: Callable[[Member, Asked], None],
        admit: Callable[[Member, float], None],
        replace: Callable[[Member, float], None],
        refused: Callable[[str, str, int], None] = lambda host, why, more: None,
    ) -> None:
        self.keys = keys
        self.guard = ReplayGuard(local)
        self.statistics = AdmissionStatistics()
        self._plain_peers = plain_peers
        self._ask = ask
        self._admit = admit
        self._replace = replace
        self._refused = refused
        self._told_at: dict[Verdict, float] = {}
        self._untold: dict[Verdict, int] = {}
        self._under_question: set[tuple[Member, int | None]] = set()

    def verified(self, record: bytes, mark: Mark | None, host: str, now: float) -> bool | None:
        """Whether a record is signed; None: it is to be dropped, unread.

        Args:
            record: Its bytes.
            mark: What follows them.
            host: Where the datagram comes from.
            now: Monotonic seconds.
        """
        verdict = verify(record, mark, self.keys)
        if verdict is Verdict.VALID:
            return True
        if verdict is Verdict.UNSIGNED:
            if self._plain_peers.admits_address(host):
                return False
            self.statistics.unsigned += 1
            why = "has no key"
        elif verdict is Verdict.FORGED:
            self.statistics.forged += 1
            why = "does not have the key whose number it names"
        else:
            self.statistics.unknown_key += 1
            why = f"signs with key {mark.key_id if mark else 0}, which is not here"
        self._tell(verdict, host, why, now)
        return None

    def _tell(self, verdict: Verdict, host: str, why: str, now: float) -> None:
        told_at = self._told_at.get(verdict)
        if told_at is not None and now - told_at < TOLD_EVERY_S:
            self._untold[verdict] = self._untold.get(verdict, 0) + 1
            return
        self._told_at[verdict] = now
        self._refused(host, why, self._untold.pop(verdict, 0))

    def introduced(self, record: Member, covered: bytes, mark: Mark, now: float) -> bool:
        """Somebody says in the first frame of a plain connection that it has a key.

        Args:
            record: Who it says it is.
            covered: What its mark covers.
            mark: The mark.
            now: Monotonic seconds.

        Returns:
            Whether the mark is of the group.
        """
        verdict = verify(covered, mark, self.keys, place=IN_FIRST_FRAME)
        if verdict is Verdict.VALID:
            self.hears(record, mark, is_signed=True, now=now)
            return True
        if verdict is Verdict.FORGED:
            self.statistics.forged += 1
        elif verdict is Verdict.UNKNOWN_KEY:
            self.statistics.unknown_key += 1
        return False

    def hears(self, record: Member, mark: Mark | None, *, is_signed: bool, now: float) -> bool:
        """Whether a record may change anything now.

        Args:
            record: What it says.
            mark: Its mark.
            is_signed: What `verified` said.
            now: Monotonic seconds.
        """
        if not is_signed:
            if not self._plain_peers.admits(record.host):
                self.statistics.foreign += 1
                return False
            # An unsigned mark proves nothing: it is one more plain member.
            heard = self.guard.heard(record, None, signed=False, now=now)
            return heard is Heard.FRESH or heard is Heard.UNKNOWN
        heard = self.guard.heard(record, mark, signed=True, now=now)
        if heard is Heard.UNKNOWN:
            assert mark is not None
            self._question(record, mark.incarnation)
        return heard is Heard.FRESH

    def opened(self, record: Member) -> None:
        """A member has opened an own link, and with it proved a key. One that was taken for a plain
        member until now is asked which life it is of, and is none from then on.
        """
        if self.guard.is_plain(record):
            self._question(record, None)

    def _question(self, record: Member, incarnation: int | None) -> None:
        question = (record, incarnation)
        if question in self._under_question:
            return
        if len(self._under_question) >= QUESTIONS_MAX:
            self.statistics.not_asked += 1
            return
        self._under_question.add(question)

        def answered(proved: int | None, counter: int, now: float) -> None:
            self._under_question.discard(question)
            if proved is None or incarnation not in (None, proved):
                self.statistics.unproved += 1
                return
            was_plain = self.guard.is_plain(record)
            life = partial(
                self.guard.confirmed,
                record,
                incarnation=proved,
                signed=True,
                now=now,
                counter=counter,
            )
            if life():
                if was_plain:
                    self._replace(record, now)
                    # Whoever leaves the view is forgotten.
                    life()
                self._admit(record, now)

        self._ask(record, answered)

    def met(self, record: Member, incarnation: int, counter: int, now: float) -> bool:
        """Whether a member that introduced itself, under its proof, is to be taken in."""
        was_plain = self.guard.is_plain(record)
        if not self.guard.confirmed(
            record, incarnation=incarnation, signed=True, now=now, counter=counter
        ):
            self.statistics.unproved += 1
            return False
        if was_plain:
            self._replace(record, now)
        return True

    # What the channel says and asks.

    def joined(self, member: Member, now: float) -> None:
        """A member is in the view. One that has not proved itself until now is a plain one, if it
        may be; otherwise nobody talks to it until it does.
        """
        if self.may_test_plainly(member):
            self.guard.confirmed(member, incarnation=0, signed=False, now=now)

    def forget(self, member: Member) -> None:
        """A member is not there any more."""
        self.guard.forget(member)

    def is_plain(self, member: Member) -> bool:
        """Whether a member is one that proves nothing. Everybody else must."""
        return self.guard.is_plain(member)

    def may_test_plainly(self, member: Member) -> bool:
        """Whether a member, or one that wants to be, may be asked without a proof."""
        return self._plain_peers.admits(member.host) and not self.guard.is_signed(member)

    def may_come_plainly(self, host: str) -> bool:
        """Whether a connection from this address may be a plain one."""
        return self._plain_peers.admits_address(host)

    def may_speak_plainly(self, source: Member) -> bool:
        """Whether a frame of a plain connection may be in this name."""
        return self._plain_peers.admits(source.host) and not self.guard.is_taken(source)
