"""Whom a member of a group with TLS and no key believes, by what is heard of it (DESIGN §4.2).

Multicast is not covered by TLS, so whoever is on the network can send any heartbeat or farewell.
Here they only *introduce*: a heartbeat names an address where a member may be, a farewell a reason
to look whether one still is. What counts is said on a TLS connection that this member made::

    heartbeat of an unknown life   it is connected to and asked; who answers, in its own words, is
                                   the member. Nothing of the heartbeat is kept
    heartbeat of a member          it is not silent. No field of it is taken over, and it is no
                                   answer: who owes one is suspected all the same
    farewell of a member           it is asked; it has left if the connection is refused
    anything else                  nothing

So a forgery costs one connection at most. `INTERVAL_S` and `QUESTIONS_PER_S` bound what a flood of
them makes this member do, to itself and to the addresses in them; while it lasts, newcomers wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import RemoteProtocolError
from tribes.membership.change import RemovalReason
from tribes.wire.member import SHUTDOWN_COMMAND, decode_member

if TYPE_CHECKING:
    from tribes.membership.change import MemberChange
    from tribes.security.mark import Mark
    from tribes.timers import Timers
    from tribes.wire.member import Member

__all__ = [
    "INTERVAL_S",
    "QUESTIONS_MAX",
    "QUESTIONS_PER_S",
    "REMEMBERED_MAX",
    "Introduced",
    "IntroductionStatistics",
    "Introductions",
]

QUESTIONS_MAX: Final = 64
"""Strangers that are asked at once; each takes a connection."""

QUESTIONS_PER_S: Final = 128.0
"""Questions that heartbeats and farewells may cause again and again; each is a TLS handshake, about
1 ms of a processor."""

INTERVAL_S: Final = 1.0
"""Seconds between two questions about one life."""

REMEMBERED_MAX: Final = 4096
"""Members, and lives that were asked about lately, of each so many."""

_RETRIES: Final = 3
_RETRY_PAUSE_S: Final = 0.05
"""A member that leaves may still accept for a moment and reset; it is asked again after 50, 100 and
200 ms, as by the failure detector."""


class Introduced(NamedTuple):
    """What a member says of itself on a connection.

    Attributes:
        incarnation: The one in its marks.
        record: Its encoded member record.
    """

    incarnation: int
    record: bytes


Asked = Callable[[Introduced | Exception, float], None]


class IntroductionStatistics:
    """Counters, plain ints."""

    __slots__ = ("asked", "not_asked", "own", "unmarked", "unproved")

    def __init__(self) -> None:
        self.unmarked = 0
        """Without our mark, or signed with a key: not of this group."""
        self.own = 0
        self.asked = 0
        self.not_asked = 0
        """Questions that were one too many."""
        self.unproved = 0


class _Address(NamedTuple):
    host: bytes
    port: int


class _Known(NamedTuple):
    """A member, as it described itself."""

    record: Member
    incarnation: int
    since: float


@final
class Introductions:
    """Judges heartbeats and farewells that nobody has signed.

    Args:
        local: The own record.
        timers: Where it asks to be woken.
        ask: Asks who is at a member's address, on a connection of its own.
        admit: Takes the record of a member that answered.
        replace: Takes one whose address another life has now, before ``admit``.
        touch: Takes the record of a member that was heard again.
        left: Takes the farewell of a member that is gone.
    """

    def __init__(
        self,
        local: Member,
        *,
        timers: Timers,
        ask: Callable[[Member, Asked], None],
        admit: Callable[[Member, float], None],
        replace: Callable[[Member, float], None],
        touch: Callable[[Member, float], None],
        left: Callable[[Member, float], None],
    ) -> None:
        self.statistics = IntroductionStatistics()
        self._local = _Address(local.host, local.port)
        self._timers = timers
        self._ask = ask
        self._admit = admit
        self._replace = replace
        self._touch = touch
        self._left = left
        self._members: dict[_Address, _Known] = {}
        self._under_question: set[tuple[_Address, bytes]] = set()
        self._asked: OrderedDict[tuple[_Address, bytes, int], float] = OrderedDict()
        self._leaving: set[Member] = set()
        self._farewells: OrderedDict[Member, float] = OrderedDict()
        self._budget = QUESTIONS_PER_S
        self._counted_at = 0.0

    # What the membership service asks.

    def verified(self, record: bytes, mark: Mark | None, host: str, now: float) -> bool | None:
        """Whether a record is signed; None: it is to be dropped, unread."""
        del record, host, now
        if mark is not None and not mark.key_id:
            return False
        self.statistics.unmarked += 1
        return None

    def hears(self, record: Member, mark: Mark | None, *, is_signed: bool, now: float) -> bool:
        """Take note of a record; it never changes anything by itself."""
        del is_signed
        assert mark is not None
        address = _Address(record.host, record.port)
        if address == self._local:
            self.statistics.own += 1
            return False
        known = self._members.get(address)
        is_known = (
            known is not None
            and known.incarnation == mark.incarnation
            and known.record.unique_id == record.unique_id
        )
        if known is not None and is_known:
            if record.is_shutdown:
                self._is_leaving(known, now)
            else:
                alive = known.record.alive + round((now - known.since) * 1000)
                self._touch(known.record.replace(alive=alive), now)
        elif not record.is_shutdown:
            self._question(record, mark.incarnation, now)
        return False

    def met(self, record: Member, incarnation: int, counter: int, now: float) -> bool:
        """Whether a member that introduced itself, on a connection of ours, is to be taken in."""
        del counter
        address = _Address(record.host, record.port)
        if not incarnation or address == self._local or not self._has_room(address):
            self.statistics.unproved += 1
            return False
        self._settle(record, incarnation, now)
        return True

    def forget(self, member: Member) -> None:
        """A member is not there any more."""
        address = _Address(member.host, member.port)
        known = self._members.get(address)
        if known is not None and known.record == member:
            del self._members[address]

    # Questions.

    def _question(self, record: Member, incarnation: int, now: float) -> None:
        address = _Address(record.host, record.port)
        life = (address, record.unique_id)
        if life in self._under_question:
            return
        if len(self._under_question) >= QUESTIONS_MAX or not self._may_ask(
            (*life, incarnation), now
        ):
            self.statistics.not_asked += 1
            return
        self._under_question.add(life)

        def answered(result: Introduced | Exception, then: float) -> None:
            self._under_question.discard(life)
            self._answered(record, result, then)

        self._ask(record, answered)

    def _may_ask(self, life: tuple[_Address, bytes, int], now: float) -> bool:
        """Count a question; False: it is one too many."""
        passed = max(0.0, now - self._counted_at)
        self._budget = min(QUESTIONS_PER_S, self._budget + passed * QUESTIONS_PER_S)
        self._counted_at = now
        last = self._asked.get(life)
        if self._budget < 1.0 or (last is not None and now - last < INTERVAL_S):
            return False
        self._budget -= 1.0
        self._asked[life] = now
        self._asked.move_to_end(life)
        if len(self._asked) > REMEMBERED_MAX:
            self._asked.popitem(last=False)
        self.statistics.asked += 1
        return True

    def _answered(self, asked: Member, result: Introduced | Exception, now: float) -> None:
        record = None if isinstance(result, Exception) else _own_words(asked, result.record)
        address = _Address(asked.host, asked.port)
        if record is None or isinstance(result, Exception) or not self._has_room(address):
            self.statistics.unproved += 1
            return
        known = self._members.get(address)
        if known is None or (known.record, known.incarnation) != (record, result.incarnation):
            self._settle(record, result.incarnation, now)
            self._admit(record, now)

    def _has_room(self, address: _Address) -> bool:
        return address in self._members or len(self._members) < REMEMBERED_MAX

    def _settle(self, record: Member, incarnation: int, now: float) -> None:
        """Remember a member. One port has one owner: whoever answered there before is gone."""
        address = _Address(record.host, record.port)
        known = self._members.get(address)
        if known is not None and (known.record, known.incarnation) != (record, incarnation):
            del self._members[address]
            self._replace(known.record, now)
        self._members[address] = _Known(record, incarnation, now)

    # Farewells.

    def _is_leaving(self, known: _Known, now: float) -> None:
        member = known.record
        address = _Address(member.host, member.port)
        self._farewells[member] = now
        if len(self._farewells) > REMEMBERED_MAX:
            self._farewells.popitem(last=False)
        if member in self._leaving:
            return
        # Of one that it does not ask about now, broken connections tell the rest.
        if not self._may_ask((address, member.unique_id, -1), now):
            self.statistics.not_asked += 1
            return
        self._leaving.add(member)
        self._is_there(member, 0)

    def _is_there(self, member: Member, tries: int) -> None:
        def answered(result: Introduced | Exception, now: float) -> None:
            if (
                isinstance(result, ConnectionError)
                and not isinstance(result, ConnectionRefusedError)
                and tries < _RETRIES
            ):
                pause = _RETRY_PAUSE_S * 2**tries
                self._timers.at(now + pause, lambda _: self._is_there(member, tries + 1))
                return
            self._leaving.discard(member)
            if isinstance(result, ConnectionError):
                self._left(member.replace(command=SHUTDOWN_COMMAND), now)

        self._ask(member, answered)

    def explained(self, change: MemberChange, now: float) -> MemberChange:
        """Tell a crash that was found out just after a farewell as what it is. Only the reason can
        be forged so, never the removal.
        """
        heard = self._farewells.pop(change.member, -inf)
        is_recent = now - heard <= INTERVAL_S
        if change.reason is RemovalReason.CRASHED and is_recent:
            return replace(change, reason=RemovalReason.LEFT)
        return change

    # What the channel asks: nobody is a plain member here.

    def joined(self, member: Member, now: float) -> None:
        """A member is in the view."""

    def is_plain(self, member: Member) -> bool:
        """Whether a member is one that proves nothing."""
        del member
        return False

    def may_test_plainly(self, member: Member) -> bool:
        """Whether a member may be asked without a proof."""
        del member
        return False

    def may_come_plainly(self, host: str) -> bool:
        """Whether a connection from this address may be a plain one."""
        del host
        return False

    def may_speak_plainly(self, source: Member) -> bool:
        """Whether a frame of a plain connection may be in this name."""
        del source
        return False


def _own_words(asked: Member, data: bytes) -> Member | None:
    """Return the record that a member gave of itself, None if it is not the one that was asked."""
    try:
        record = decode_member(data)
    except RemoteProtocolError:
        return None
    is_same = (record.host, record.port, record.unique_id) == (
        asked.host,
        asked.port,
        asked.unique_id,
    )
    return record if is_same and not record.is_shutdown else None
