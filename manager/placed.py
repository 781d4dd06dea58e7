"""Taking and giving parts, so that each lies where it should and nothing is lost (DESIGN §5.5).

**Taking.** A member that should hold a part says so (PULL), from then on gets every change of it,
then asks the other holders for what there is, and holds it (HOLD) when it has all. Few are taken at
a time from others, so that copying leaves room for the requests.

**Giving.** Who should not hold it any more keeps it (KEEP) until every member that should does, and
a whole comparison has brought them what is here. Then it tells all members that it is none of the
holders, waits until each has heard it and so sends it nothing more, compares once again, and only
then forgets. So at every moment of a change there are as many copies as before.

**Owning.** No member is asked for permission: the owner is whom placement says. It announces an
epoch, so that others can tell what was done before it came.

It is longer than other files because taking, giving and owning read and write the same few maps of
parts within one look: cut apart, each would have to be handed the others' maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tribes.channel.outputs import Notice
from tribes.errors import RemoteProtocolError
from tribes.wire.options import SendOptions

from .messages import Deltas, Records
from .place_teller import PlaceTeller
from .placed_messages import EPOCH_MAX, HOLDERS_MAX, HOLDS, KEYS_MAX, Places, PlaceState, Stale
from .placement import PARTS
from .places import PlaceBook
from .record import deciseconds, to_wire

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .group import SessionGroup
    from .messages import ManagerMessage
    from .part import PartReplicator

__all__ = ["PULLS_MAX", "PlacedCore", "PlacedHost", "PlacedStatistics", "Placing"]

PULLS_MAX: Final = 4
"""Parts that one member takes from others at a time."""

_TICK_S: Final = 0.5
_DRAIN_TICK_S: Final = 0.1
_CLOSING_S: Final = 15.0
"""A member that does not acknowledge for so long is not waited for: what it sends late is refused
and redirected."""

_HEARD_S: Final = 1.0
"""So long a part is not taken because somebody has not heard of it yet."""

_LOST_S: Final = 2.0
"""Who holds a part after all has said so by then."""

_USE_ACK = int(SendOptions.USE_ACK)


@dataclass(slots=True)
class PlacedStatistics:
    """Counters of one context's places.

    Attributes:
        taken: Parts that were taken.
        released: Parts that were given to others, with receipts of all.
        sessions_lost: Sessions whose holders have all died, as this member as the new owner found.
        stale_received: Messages of changes by members that had missed an epoch; merged.
        refused: Messages about parts that were not here any more; their senders were told where.
        stale_told: How often this member was told that it had missed an epoch, or sent to nobody.
        redirected: Sessions that were sent again to holders that this member had not known.
    """

    taken: int = 0
    released: int = 0
    sessions_lost: int = 0
    stale_received: int = 0
    refused: int = 0
    stale_told: int = 0
    redirected: int = 0


class _Round(NamedTuple):
    """A comparison of a part that is to be given: with whom, and what had failed before."""

    failed: int
    asked: frozenset[Member]


class PlacedHost(Protocol):
    """Whose parts are placed."""

    def make_part(self, number: int) -> PartReplicator:
        """Make the replicator of a part."""

    def place_changed(self, number: int, state: PlaceState) -> None:
        """A part is something else on this member now."""

    def part_released(self, number: int, now: float) -> None:
        """A part lies on others: what is here of it may be forgotten."""

    def entries_of(self, number: int) -> int:
        """Return how many live entries a part has here."""


@dataclass(frozen=True, slots=True)
class Placing:
    """How parts are placed.

    Attributes:
        copies: Of each part, beside its owner's.
        weight: How much this member takes, compared with others; 0: nothing.
        zone: What fails with it together.
        silence_s: Who says nothing for so long is given nothing.
        pulls_max: Parts that are taken at a time.
    """

    copies: int = 1
    weight: int = 1
    zone: str = ""
    silence_s: float = 5.0
    pulls_max: int = PULLS_MAX


class PlacedCore:
    """The parts of one context on one member.

    Args:
        context: Of what.
        host: Whose.
        channel: Where messages go.
        group: Where replicators are run.
        placing: How.

    Attributes:
        parts: The parts that lie here, and those that this member visits.
        is_draining: This member is about to go.
    """

    def __init__(
        self,
        context: str,
        host: PlacedHost,
        *,
        channel: ChannelCore,
        group: SessionGroup,
        placing: Placing,
    ) -> None:
        self.statistics = PlacedStatistics()
        self.book = PlaceBook(
            channel.local,
            copies=placing.copies,
            weight=placing.weight,
            zone=placing.zone,
            silence_s=placing.silence_s,
        )
        self.parts: dict[int, PartReplicator] = {}
        self._context = context
        self._host = host
        self._channel = channel
        self._group = group
        self._teller = PlaceTeller(context, self.book, host.entries_of, channel)
        self._pulls_max = placing.pulls_max
        self._closing: dict[int, tuple[int, float]] = {}
        """Parts that the others were told to be gone: by which number, and until when to wait."""
        self._rounds: dict[int, _Round] = {}
        self._announced: dict[int, tuple[int, float]] = {}
        """Parts that are to be taken: by which number the others were told, and until when to wait
        for them."""
        self._teller.on_heard = self._hold_announced
        self._with_donors: set[int] = set()
        self._missing: dict[int, int] = {}
        """Parts of which nobody had anything, with what there was before, until that is counted."""
        self._inherited: set[int] = set()
        """Those of them that an owner has now which knows them from here only, so as empty."""
        self._is_open = False
        self.is_draining = False
        self._is_due = False

    # Life.

    def begin(self, now: float) -> None:
        """The members are known: take what should lie here."""
        self._is_open = True
        self._channel.timers.at(now + _TICK_S, self._tick)
        self._review(now)

    def stop(self) -> None:
        """Do nothing more."""
        self._is_open = False
        for part in self.parts.values():
            part.stop()

    def close(self) -> None:
        """Take no part any more. What no other member holds is lost: `drain` first."""
        self.stop()
        for number in self.held:
            self._group.remove_part(self.parts[number].manager.context)
            self._set(number, PlaceState.NONE)
        self.parts.clear()

    def drain(self, now: float) -> None:
        """Give everything to the others, before this member goes; `is_drained` tells when."""
        if not self.is_draining:
            self.is_draining = True
            self.book.set_weight(0)
            self._rounds.clear()
            self._teller.tell_all_soon(now)
            self._review_soon(now)

    @property
    def held(self) -> list[int]:
        """The parts that lie here."""
        return [number for number, part in self.parts.items() if part.is_held]

    @property
    def is_drained(self) -> bool:
        """True when nothing is here that another member should have instead."""
        peers = self.book.peers
        # Who has not said yet what it wants may take it all.
        has_heirs = any(m not in peers or peers[m].places.weight for m in self._teller.members)
        return not (has_heirs and self.held)

    @property
    def knows_all(self) -> bool:
        """True when every member with the context has said what it holds."""
        return all(member in self.book.peers for member in self._teller.members)

    @property
    def is_settled(self) -> bool:
        """True when this member holds, whole, what it should, and nothing else."""
        local, states = self.book.local, self.book.states
        wanted = [p for p in range(PARTS) if local in self.book.placed(p)]
        is_whole = all(states[p] == PlaceState.HOLD for p in wanted)
        return self._is_open and sorted(self.held) == wanted and is_whole

    # Who is there.

    def member_up(self, member: Member, now: float) -> None:
        """A member has the context."""
        if member not in self._teller:
            self._teller.add(member, now)

    def member_forgot(self, member: Member, now: float) -> None:
        """A member had taken this one for gone, and has forgotten what it said."""
        if member in self._teller:
            self._teller.add(member, now)
            for part in list(self.parts.values()):
                if part.is_held:
                    part.peer_forgot(member, now)

    def member_down(self, member: Member, now: float) -> None:
        """A member is gone, or has the context no more."""
        if self._teller.remove(member):
            self.book.forget(member)
            for part in list(self.parts.values()):
                part.peer_down(member, now)
            self._review_soon(now)

    def on_places(self, source: Member, message: Places, now: float) -> None:
        """A member says what it holds."""
        if source not in self._teller:
            # It is no member yet, or not any more. It is asked when it becomes one.
            return
        if message.asks:
            self._teller.tell(source, now)
        pulling = self.book.pulled_by(source)
        if self.book.learn(source, message, now):
            for part in list(self.parts.values()):
                self._aim(part, now)
                if part.part in pulling and self.book.state_of(source, part.part) in HOLDS:
                    part.peer_has_pulled(source, now)
            self._review_soon(now)

    def _aim(self, part: PartReplicator, now: float) -> None:
        """Send the changes of a part to those who hold it, and to no others."""
        holders = self.book.holders(part.part)
        for member in part.targets:
            if member not in holders:
                part.peer_down(member, now)
        for member in holders:
            part.peer_up(member, now)

    def part(self, number: int, now: float) -> PartReplicator:
        """Return the replicator of a part, held or visited."""
        part = self.parts.get(number)
        if part is None:
            part = self.parts[number] = self._host.make_part(number)
            self._aim(part, now)
        return part

    # Taking.

    def _review_soon(self, now: float) -> None:
        """Look what should be otherwise, once for all of this moment."""
        if not self._is_due and self._is_open:
            self._is_due = True
            self._channel.timers.at(now, self._review)

    def _review(self, now: float) -> None:
        self._is_due = False
        if not self._is_open:
            return
        taken = [] if self.is_draining else self._to_take()
        for number in taken:
            self.part(number, now).is_held = True
            self._set(number, PlaceState.PULL)
        for number, part in self.parts.items():
            if part.is_held and number not in taken:
                self._set(number, self._state_of(number, part))
        self._claim()
        if taken:
            # In this order: who is asked for what it has must have us as a target of what follows.
            told, until = self._teller.tell_all(now), now + _HEARD_S
            self.statistics.taken += len(taken)
            for number in taken:
                self._group.add_part(self.parts[number])
                self._announced[number] = told, until
            self._channel.timers.at(until, self._hold_announced)
            self._hold_announced(now)

    def _hold_announced(self, now: float) -> None:
        """Take the parts of which everybody knows now that they are taken.

        Not before: who has not heard of it still sends a change to the other holders only, perhaps
        after they were asked for what they have.
        """
        for number, (told, until) in list(self._announced.items()):
            if now >= until or self._teller.has_heard(told):
                del self._announced[number]
                part = self.parts.get(number)
                if self._is_open and part is not None and part.is_held:
                    part.hold(now)

    def _to_take(self) -> list[int]:
        book, taken = self.book, []
        pulls = sum(book.states[p] == PlaceState.PULL for p in self._with_donors)
        for number in range(PARTS):
            part = self.parts.get(number)
            if book.local not in book.placed(number):
                continue
            if part is not None and part.is_held:
                # It was on its way to others, and is to stay.
                self._reopen(number, part)
                continue
            if book.donors(number):
                if pulls >= self._pulls_max:
                    continue
                pulls += 1
                self._with_donors.add(number)
            else:
                self._with_donors.discard(number)
            taken.append(number)
        return taken

    def _state_of(self, number: int, part: PartReplicator) -> PlaceState:
        if number in self._closing:
            return PlaceState.NONE
        if not part.transfer.is_joined:
            return PlaceState.PULL
        is_placed = self.book.local in self.book.placed(number)
        return PlaceState.HOLD if is_placed else PlaceState.KEEP

    def _set(self, number: int, state: PlaceState) -> None:
        if self.book.states[number] != state:
            self.book.states[number] = state
            self._host.place_changed(number, state)
            self._teller.tell_all_soon(self._channel.now)

    def became_whole(self, number: int, now: float) -> None:
        """A part that was taken is all here."""
        expected = self.book.entries[number]
        if expected > self._host.entries_of(number) and not self.book.donors(number):
            self._missing[number] = expected
            self._channel.timers.at(now + _LOST_S, lambda _: self._count_lost(number))
        self._with_donors.discard(number)
        self._review_soon(now)

    def _count_lost(self, number: int) -> None:
        """Nobody had the part to the end: what its last owner counted is lost.

        Several may have found that at one moment: then its owner counts it.
        """
        lost = self._missing.pop(number, 0) - self._host.entries_of(number)
        is_ours = self.book.is_owner(number) or number in self._inherited
        self._inherited.discard(number)
        if lost > 0 and is_ours:
            self.statistics.sessions_lost += lost
            fields: dict[str, object] = {"context": self._context, "sessions": lost}
            self._channel.event(Notice("sessions lost", {**fields, "part": number}))

    # Owning.

    def _claim(self) -> None:
        book = self.book
        for number in range(PARTS):
            is_mine = book.owner(number) == book.local
            if is_mine and not book.claims[number]:
                if book.is_claimed(number):
                    # Who owns it until now counts what was lost.
                    self._missing.pop(number, None)
                self._announce_epoch(number)
            elif not is_mine and book.claims[number]:
                if number in self._missing and book.has_followed(number):
                    self._inherited.add(number)
                book.claims[number] = 0
                self._teller.tell_all_soon(self._channel.now)
        book.short = [p for p in range(PARTS) if book.claims[p] and book.lacking(p)]

    def _announce_epoch(self, number: int) -> None:
        book = self.book
        book.epochs[number] = min(book.epochs[number] + 1, EPOCH_MAX)
        book.claims[number] = book.epochs[number]
        self._host.place_changed(number, book.states[number])
        self._teller.tell_all_soon(self._channel.now)

    def epoch_of(self, part: int) -> int:
        """Return the latest epoch of a part that is known here."""
        return self.book.epochs[part]

    def strangers(self, part: int) -> list[Member]:
        """Return the members that do not hold a part."""
        return [m for m in self._teller.members if not self.book.state_of(m, part)]

    def is_pulling(self, member: Member, part: int) -> bool:
        """Tell whether a member that is to have a part does not have all of it yet."""
        return self.book.state_of(member, part) == PlaceState.PULL

    # Giving.

    def _tick(self, now: float) -> None:
        if not self._is_open or self._channel.is_shut_down():
            return
        period = _DRAIN_TICK_S if self.is_draining else _TICK_S
        self._channel.timers.at(now + period, self._tick)
        self._teller.refresh(now)
        self.book.look_for_silence(now)
        for number, part in list(self.parts.items()):
            if part.is_held:
                self._give(number, part, now)
            elif part.is_idle and not part.has_visits:
                part.stop()
                del self.parts[number]
        for number in range(PARTS):
            # Not at once: two that see different members would answer each other without end.
            # While a loss is to be counted, the epochs say who knew of whom.
            if number in self._missing or not self.book.claims[number]:
                continue
            if self.book.contested(number):
                self._announce_epoch(number)
        self._review(now)

    def _give(self, number: int, part: PartReplicator, now: float) -> None:
        """Take one step towards giving a part away, if it is not to lie here."""
        placed = self.book.placed(number)
        if self.book.local in placed or number in self._announced:
            self._rounds.pop(number, None)
            return
        closing = self._closing.get(number)
        if closing is not None:
            if any(self.book.state_of(m, number) != PlaceState.HOLD for m in placed):
                # Somebody else is to have it now: he may get it from here.
                self._reopen(number, part)
                return
            told, until = closing
            if now < until and not self._teller.has_heard(told):
                self._rounds.pop(number, None)
                return
        if not self._is_given(number, part, placed, now):
            return
        self._rounds.pop(number, None)
        if closing is not None:
            self._release(number, part, now)
            return
        self._set(number, PlaceState.NONE)
        self._claim()
        self._closing[number] = self._teller.tell_all(now), now + _CLOSING_S

    def _reopen(self, number: int, part: PartReplicator) -> None:
        """Hold a part that the others were told to be gone: what changed since is not here."""
        if self._closing.pop(number, None) is None:
            return
        now = self._channel.now
        part.forget_transfer()
        self._rounds.pop(number, None)
        self._set(number, PlaceState.PULL)
        self._claim()
        self._announced[number] = self._teller.tell_all(now), now + _HEARD_S
        self._channel.timers.at(now + _HEARD_S, self._hold_announced)

    def _is_given(
        self, number: int, part: PartReplicator, placed: list[Member], now: float
    ) -> bool:
        """Whether all who should have a part have it, by a comparison that was completed.

        It need not find everything equal: while others write on, two copies may never be equal at
        one moment. But what was here when it began is there when it ends; so a drain ends, too.
        """
        suspected, book = self._channel.view.suspected, self.book
        for member in placed:
            is_whole = book.state_of(member, number) == PlaceState.HOLD
            if not is_whole or member in suspected or member not in part.targets:
                self._rounds.pop(number, None)
                return False
        if not part.is_quiet:
            return False
        if part.transfer.is_comparing:
            return False
        failed = part.transfer.statistics.pulls_failed
        begun = self._rounds.get(number)
        if begun is not None and begun.failed == failed and begun.asked.issuperset(placed):
            return True
        self._rounds[number] = _Round(failed, frozenset(part.targets))
        part.compare_all(now)
        return False

    def _release(self, number: int, part: PartReplicator, now: float) -> None:
        del self._closing[number]
        part.release()
        self._group.remove_part(part.manager.context)
        self.statistics.released += 1
        self._host.part_released(number, now)

    # Those who have missed something.

    def check_epoch(self, part: int, source: Member, message: Deltas, now: float) -> None:
        """Count a change of somebody who has missed an epoch, and tell him."""
        self.statistics.stale_received += 1
        self._redirect(part, source, [key for key, _ in message.pairs], now)

    def not_here(self, number: int, source: Member, message: ManagerMessage, now: float) -> None:
        """A message about a part that does not lie here: say where it does.

        Raises:
            RemoteProtocolError: Always: so its sender knows that it was not taken.
        """
        self.statistics.refused += 1
        if isinstance(message, Deltas | Records):
            self._redirect(number, source, [key for key, _ in message.pairs], now)
        raise RemoteProtocolError(f"part {number} of {self._context!r} does not lie here")

    def _redirect(self, number: int, source: Member, keys: list[str], now: float) -> None:
        book = self.book
        holders = [bytes(m.unique_id) for m in book.holders(number) if m != source]
        if book.states[number]:
            holders.append(bytes(book.local.unique_id))
        stale = Stale(
            self._context,
            number,
            book.epochs[number],
            holders[:HOLDERS_MAX],
            keys[:KEYS_MAX],
        )
        self._channel.post((source,), stale.encode(), _USE_ACK, now)

    def on_stale(self, source: Member, message: Stale, now: float) -> None:
        """This member had missed an epoch, or where a part lies: send what it sent to all."""
        del source
        self.statistics.stale_told += 1
        book, number = self.book, message.part
        book.epochs[number] = max(book.epochs[number], message.epoch)
        part = self.parts.get(number)
        if part is None:
            return
        unknown = [
            member
            for member in self._channel.view.members
            if bytes(member.unique_id) in message.holders and member not in part.targets
        ]
        pairs = []
        for key in message.keys:
            record = part.manager.table.get(key)
            if record is not None:
                pairs.append((key, to_wire(record, deciseconds(now))))
        if unknown and pairs:
            self.statistics.redirected += len(pairs)
            payload = Records(part.manager.context, 0, pairs, True).encode()
            self._channel.post(unknown, payload, _USE_ACK, now)
