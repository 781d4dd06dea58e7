"""Who holds which part, as far as this member knows, and who should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .placed_messages import HOLDS, Places, PlaceState
from .placement import PARTS, Candidate, order_of, place_all

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["PeerPlaces", "PlaceBook"]


class PeerPlaces:
    """What another member has said last.

    Attributes:
        places: That.
        heard: When, in monotonic seconds.
    """

    __slots__ = ("heard", "places")

    def __init__(self, places: Places, heard: float) -> None:
        self.places = places
        self.heard = heard


class PlaceBook:
    """The places of one context.

    Args:
        local: The own member.
        copies: How many each part has beside its owner's.
        weight: How much this member wants.
        zone: Where it is.
        silence_s: Who says nothing for so long is given nothing.

    Attributes:
        states: By part, what it is here, as the others are told.
        claims: By part, the epoch in which this member owns it; 0: it does not.
        epochs: By part, the latest that anybody has announced.
        entries: By part, how many sessions its owner has counted last.
        peers: What others have said.
        short: The owned parts that lack a copy.
    """

    def __init__(
        self, local: Member, *, copies: int, weight: int, zone: str, silence_s: float
    ) -> None:
        self.local = local
        self.copies = copies
        self.weight = weight
        self.zone = zone
        self.states = [PlaceState.NONE] * PARTS
        self.claims = [0] * PARTS
        self.epochs = [0] * PARTS
        self.entries = [0] * PARTS
        self.peers: dict[Member, PeerPlaces] = {}
        self.short: list[int] = []
        self._silence_s = silence_s
        self._placed: list[list[Member]] = []
        self._silent: frozenset[Member] = frozenset()

    def learn(self, member: Member, places: Places, now: float) -> bool:
        """Take what a member says; False if it has said something newer before."""
        known = self.peers.get(member)
        if known is not None and places.number <= known.places.number:
            return False
        self.peers[member] = PeerPlaces(places, now)
        for part, epoch in enumerate(places.epochs):
            if epoch:
                self.epochs[part] = max(self.epochs[part], epoch)
                if epoch >= self._claimed(part, member):
                    self.entries[part] = places.entries[part]
        old = None if known is None else (known.places.weight, known.places.zone)
        if old != (places.weight, places.zone):
            self._placed = []
        self.look_for_silence(now)
        return True

    def _claimed(self, part: int, but: Member) -> int:
        """The latest epoch in which anybody else claims a part now.

        Not the latest that was ever heard of: its owner may never have heard of that one.
        """
        others = (p.places.epochs[part] for m, p in self.peers.items() if m != but)
        return max(self.claims[part], *others, 0)

    def forget(self, member: Member) -> None:
        """A member is gone."""
        if self.peers.pop(member, None) is not None:
            self._placed = []

    def set_weight(self, weight: int) -> None:
        """Want more, less, or nothing (0)."""
        self.weight = weight
        self._placed = []

    def look_for_silence(self, now: float) -> None:
        """Find out whose manager says nothing although its channel does."""
        silent = frozenset(m for m, p in self.peers.items() if now - p.heard > self._silence_s)
        if silent != self._silent:
            self._silent = silent
            self._placed = []

    def candidates(self) -> list[Candidate]:
        """Return who can hold parts."""
        peers = [
            Candidate(member, peer.places.weight, peer.places.zone)
            for member, peer in self.peers.items()
            if member not in self._silent
        ]
        return [Candidate(self.local, self.weight, self.zone), *peers]

    def placed(self, part: int) -> list[Member]:
        """Return who should hold a part, its owner first."""
        if not self._placed:
            self._placed = place_all(self.candidates(), self.copies)
        return self._placed[part]

    def order(self, part: int) -> list[Member]:
        """Return everybody, those first that should hold a part."""
        placed = self.placed(part)
        rest = [each.member for each in order_of(part, self.candidates())]
        return placed + [member for member in rest if member not in placed]

    def state_of(self, member: Member, part: int) -> PlaceState:
        """Return what a part is on a member."""
        if member == self.local:
            return self.states[part]
        peer = self.peers.get(member)
        return PlaceState.NONE if peer is None else peer.places.states[part]

    def holders(self, part: int) -> list[Member]:
        """Return the others that get every change of a part."""
        return [member for member, peer in self.peers.items() if peer.places.states[part]]

    def held_by(self, member: Member) -> frozenset[int]:
        """Return the parts that another member holds, as it said last."""
        peer = self.peers.get(member)
        states = () if peer is None else peer.places.states
        return frozenset(part for part, state in enumerate(states) if state)

    def pulled_by(self, member: Member) -> frozenset[int]:
        """Return the parts that another member was about to get, as it said last."""
        peer = self.peers.get(member)
        states = () if peer is None else peer.places.states
        return frozenset(part for part, state in enumerate(states) if state == PlaceState.PULL)

    def donors(self, part: int) -> list[Member]:
        """Return the others that have all of a part, the owner first."""
        order = self.order(part)
        found = [m for m, p in self.peers.items() if p.places.states[part] in HOLDS]
        return sorted(found, key=lambda m: order.index(m) if m in order else len(order))

    def owner(self, part: int) -> Member | None:
        """Return who owns a part: the first that should have it and does.

        While none of them does yet, the first of those that keep it for them.
        """
        for member in self.placed(part):
            if self.state_of(member, part) == PlaceState.HOLD:
                return member
        for member in self.order(part):
            if self.state_of(member, part) in HOLDS:
                return member
        return None

    def is_owner(self, part: int) -> bool:
        """Tell whether this member owns a part, and has told the others so."""
        return bool(self.claims[part]) and self.owner(part) == self.local

    def lacking(self, part: int) -> int:
        """Return how many copies of a part are still to be made."""
        placed = self.placed(part)
        return sum(self.state_of(member, part) != PlaceState.HOLD for member in placed)

    def is_claimed(self, part: int) -> bool:
        """Tell whether another member says that it owns a part."""
        return any(peer.places.epochs[part] for peer in self.peers.values())

    def has_followed(self, part: int) -> bool:
        """Tell whether the owner of a part took it over knowing that it was ours."""
        owner = self.owner(part)
        peer = None if owner is None else self.peers.get(owner)
        return peer is not None and peer.places.epochs[part] > self.claims[part] > 0

    def contested(self, part: int) -> bool:
        """Tell whether another member says that it owns what is ours, in as late an epoch, or has
        said so in a later one.
        """
        mine = self.claims[part]
        return self.epochs[part] > mine or any(
            peer.places.epochs[part] >= mine for peer in self.peers.values()
        )
