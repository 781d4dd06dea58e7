"""Remember what was heard, so that hearing it again changes nothing.

A signature proves who made a heartbeat, not when. Whoever listens on the network can send it again:
to keep a dead member alive, to bring an old incarnation back, to make a living member leave. The
guard stands between `tribes.security.mark` and the membership service, and needs no clocks that
agree:

- **Counters.** Per incarnation only a counter above the highest one heard counts. What arrives late
  is refused too, since a heartbeat that was overtaken has no value; a window of 64, as of IPsec and
  DTLS (RFC 4303 §3.4.3, RFC 9147 §4.5.1), only tells late ones from repeated ones in the counters.
  Farewells are counted like heartbeats.
- **Deaths.** An incarnation that said farewell is dead for good: a member that starts again takes a
  new incarnation. One whose address another one took over is a stranger again. It is not dead: the
  proof of a process that has a successor may be long under way, and come after the successor's.
- **Strangers.** An incarnation that isn't a member is `Heard.UNKNOWN`: reason to connect to it and
  let it prove, over fresh nonces, that it is the one it claims to be; then `confirmed` is called.
  Nothing heard counts before, and nothing that is refuted there may.

Why bounded memory is enough. The guard forgets the oldest when it is full, and one that has just
started knows nothing. What it has forgotten it calls unknown, never fresh; so a replay can at most
make this member connect to the address in the record. There the old incarnation can't answer the
challenge, and nothing changes. Strangers and members are kept apart, so a flood of strangers,
however well signed they once were, pushes no member out; and as long as a stranger is remembered
each of its heartbeats causes one connection at most.

What is left: who *holds back* heartbeats of a member, so that they are not heard when they are
sent, can let them be heard one by one after its death, until they are used up. `confirmed` takes
the counter that the member stated over its link, which makes all earlier ones worthless; and only
answers, not heartbeats, keep a member from being suspected (DESIGN §4.3).

Without a key, marks are taken at their word. That serves order (late and repeated datagrams, one of
an incarnation that was just replaced), not security: so no unsigned word kills for longer than
`UNSIGNED_DEATH_S`, and none is believed about a member that signs.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from tribes.security.mark import Mark
    from tribes.wire.member import Member

__all__ = ["REMEMBERED_MAX", "UNSIGNED_DEATH_S", "WINDOW", "Heard", "ReplayGuard"]

WINDOW: Final = 64
"""Counters below the highest one of which it is known whether they were heard."""

REMEMBERED_MAX: Final = 4096
"""Members, strangers and dead incarnations that are remembered, of each so many; 2 MiB per kind."""

UNSIGNED_DEATH_S: Final = 120.0
"""How long an incarnation without a signature counts as dead once it was replaced: the longest that
a datagram is thought to wander through a network (the MSL of RFC 9293, two minutes)."""

_WINDOW_MASK: Final = (1 << WINDOW) - 1
_NO_INCARNATION: Final = 0


class Heard(enum.Enum):
    """What a record is to the one who hears it. Only ``FRESH`` may change anything at once."""

    FRESH = "fresh"
    """From a member, and newer than all before."""

    UNKNOWN = "unknown"
    """From an incarnation that has not proved itself: connect to it, then call `confirmed`."""

    LATE = "late"
    """Not heard before, but overtaken by a newer one."""

    REPLAYED = "replayed"
    """Heard before, or too old to know."""

    DEAD = "dead"
    """From an incarnation that has ended, or a farewell of one that never was a member."""

    STRIPPED = "stripped"
    """Without a valid signature, in the name of one that signs."""

    TAKEN = "taken"
    """Without a valid signature, from the address of a member that signs."""

    OWN = "own"
    """Our own, or from our own address: whoever else had it before us is gone."""


class _Address(NamedTuple):
    host: bytes
    port: int


class _Identity(NamedTuple):
    """What makes two records the same member (tribes-wire §2.3), without their payload."""

    address: _Address
    unique_id: bytes


class _Life(NamedTuple):
    identity: _Identity
    incarnation: int


class _Counted:
    """The counters heard of one incarnation."""

    __slots__ = ("highest", "incarnation", "seen", "signed")

    def __init__(self, incarnation: int, *, signed: bool) -> None:
        self.incarnation = incarnation
        self.signed = signed
        self.highest = 0
        self.seen = 1
        # Bit n: the counter ``highest - n`` was heard. Counters begin at 1, so 0 never is.

    def take(self, counter: int) -> Heard:
        ahead = counter - self.highest
        if ahead > 0:
            # The comparison keeps a far jump from making a number of as many bits.
            self.seen = (self.seen << ahead | 1) & _WINDOW_MASK if ahead < WINDOW else 1
            self.highest = counter
            return Heard.FRESH
        if ahead <= -WINDOW or self.seen >> -ahead & 1:
            return Heard.REPLAYED
        self.seen |= 1 << -ahead
        return Heard.LATE


@final
class ReplayGuard:
    """Tells fresh heartbeats from repeated, late, old and foreign ones.

    Args:
        local: The own record.
        remembered_max: How many members, strangers and dead incarnations, each, are remembered.
    """

    def __init__(self, local: Member, *, remembered_max: int = REMEMBERED_MAX) -> None:
        self.statistics: Final = dict.fromkeys(Heard, 0)
        """How many records were what."""
        self.forgotten = 0
        """Members, strangers and dead incarnations that were forgotten for want of room."""
        self._local_address: Final = _Address(local.host, local.port)
        self._max: Final = remembered_max
        self._members: Final[OrderedDict[_Identity, _Counted]] = OrderedDict()
        self._owners: Final[dict[_Address, _Identity]] = {}
        self._strangers: Final[OrderedDict[_Life, _Counted]] = OrderedDict()
        self._dead: Final[OrderedDict[_Life, float]] = OrderedDict()  # until when

    def heard(self, record: Member, mark: Mark | None, *, signed: bool, now: float) -> Heard:
        """Judge one record, heartbeat or farewell.

        Args:
            record: What it says.
            mark: Its mark, if it has one.
            signed: Whether `mark.verify` said ``VALID``. Records with a forged mark or one of an
                unknown key must not come here.
            now: The time, in seconds, of any monotonic clock.
        """
        heard = self._judge(record, mark, signed, now)
        self.statistics[heard] += 1
        return heard

    def _judge(self, record: Member, mark: Mark | None, signed: bool, now: float) -> Heard:
        identity = _identity_of(record)
        if identity.address == self._local_address:
            return Heard.OWN
        life = _Life(identity, _NO_INCARNATION if mark is None else mark.incarnation)
        member = self._members.get(identity)
        if member is not None and member.signed and not signed:
            return Heard.STRIPPED
        if self._is_taken(identity, signed):
            return Heard.TAKEN
        if self._is_dead(life, signed, now):
            return Heard.DEAD
        if member is None or member.incarnation != life.incarnation or member.signed != signed:
            return self._stranger(life, record, mark, signed)

        heard = Heard.FRESH if mark is None else member.take(mark.counter)
        if heard is Heard.FRESH:
            self._members.move_to_end(identity)
            if record.is_shutdown:
                self._remove(identity, now if signed else None)
        return heard

    def _stranger(self, life: _Life, record: Member, mark: Mark | None, signed: bool) -> Heard:
        stranger = self._strangers.get(life)
        if stranger is not None and stranger.signed and not signed:
            return Heard.STRIPPED
        if record.is_shutdown:
            if signed:
                # Old or new: nobody but itself could have said that this incarnation ends.
                self._strangers.pop(life, None)
                self._bury(life, math.inf)
            return Heard.DEAD
        if stranger is None or stranger.signed != signed:
            # A signature wipes out what was counted without one.
            stranger = _Counted(life.incarnation, signed=signed)
            self._strangers[life] = stranger
        self._strangers.move_to_end(life)
        self._shorten(self._strangers)
        heard = Heard.FRESH if mark is None else stranger.take(mark.counter)
        return Heard.UNKNOWN if heard is Heard.FRESH else heard

    def confirmed(
        self, record: Member, *, incarnation: int, signed: bool, now: float, counter: int = 0
    ) -> bool:
        """Make an incarnation a member, because it answered at its address.

        Args:
            record: Which one.
            incarnation: What it stated over the link; 0 for plain Tribes, which has none.
            signed: Whether it proved to hold the key, with this unique id and incarnation under the
                proof. A plain answer proves only that somebody is there.
            now: The time.
            counter: What it stated over the link to be its last one; earlier ones are worthless.

        Returns:
            Whether it is a member now. If not, what is known about this address is stronger.
        """
        identity = _identity_of(record)
        life = _Life(identity, incarnation)
        member = self._members.get(identity)
        if (
            identity.address == self._local_address
            or (member is not None and member.signed and not signed)
            or self._is_taken(identity, signed)
            or self._is_dead(life, signed, now)
        ):
            return False
        counted = self._strangers.get(life)
        if counted is None or counted.signed != signed:
            counted = _Counted(incarnation, signed=signed)
        else:
            del self._strangers[life]
        if member is not None and member.incarnation == incarnation and member.signed == signed:
            counted = member
        owner = self._owners.get(identity.address)
        if owner is not None and counted is not member:
            # One port has one owner: whoever answered there before is gone.
            if owner == identity and self._members[owner].incarnation == incarnation:
                del self._members[owner]  # the same life, now with a signature
            else:
                self._remove(owner, None if self._members[owner].signed else now)
        if counter > counted.highest:
            counted.take(counter)
        self._members[identity] = counted
        self._members.move_to_end(identity)
        self._owners[identity.address] = identity
        if len(self._members) > self._max:
            self.forgotten += 1
            self._remove(next(iter(self._members)), None)
        return True

    def forget(self, record: Member) -> None:
        """Take a member off that doesn't answer any more. If it comes back it is a stranger, whose
        counters go on.
        """
        self._remove(_identity_of(record), None)

    def is_signed(self, record: Member) -> bool:
        """Whether this is a member that proved itself."""
        member = self._members.get(_identity_of(record))
        return member is not None and member.signed

    def is_plain(self, record: Member) -> bool:
        """Whether this is a member that proved nothing, and was taken all the same."""
        member = self._members.get(_identity_of(record))
        return member is not None and not member.signed

    def is_taken(self, record: Member) -> bool:
        """Whether what comes unproved in this name would be in the name, or from the address, of a
        member that signs.
        """
        return self.is_signed(record) or self._is_taken(_identity_of(record), False)

    def _remove(self, identity: _Identity, died: float | None) -> None:
        """Take a member off: dead since ``died``, or a stranger again if None."""
        member = self._members.pop(identity, None)
        if member is None:
            return
        del self._owners[identity.address]
        life = _Life(identity, member.incarnation)
        if died is not None:
            self._bury(life, math.inf if member.signed else died + UNSIGNED_DEATH_S)
        else:
            self._strangers[life] = member
            self._strangers.move_to_end(life)
            self._shorten(self._strangers)

    def _bury(self, life: _Life, until: float) -> None:
        self._dead[life] = until
        self._dead.move_to_end(life)
        self._shorten(self._dead)

    def _is_dead(self, life: _Life, signed: bool, now: float) -> bool:
        until = self._dead.get(life)
        if until is None:
            return False
        # Of who signs, only a signed death is believed.
        if now >= until or (signed and until != math.inf):
            del self._dead[life]
            return False
        self._dead.move_to_end(life)
        return True

    def _is_taken(self, identity: _Identity, signed: bool) -> bool:
        """Whether an unsigned newcomer claims the address of a member that signs."""
        if signed:
            return False
        owner = self._owners.get(identity.address)
        return owner is not None and owner != identity and self._members[owner].signed

    def _shorten(
        self, remembered: OrderedDict[_Life, _Counted] | OrderedDict[_Life, float]
    ) -> None:
        if len(remembered) > self._max:
            remembered.popitem(last=False)
            self.forgotten += 1

    def __repr__(self) -> str:
        return (
            f"<ReplayGuard members={len(self._members)} strangers={len(self._strangers)} "
            f"dead={len(self._dead)}>"
        )


def _identity_of(record: Member) -> _Identity:
    return _Identity(_Address(record.host, record.port), record.unique_id)
