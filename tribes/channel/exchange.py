"""Peer exchange: members tell each other where further members are (DESIGN §4.3).

Who hears multicast needs no telling, so this is about members that were met on a connection: they
are told of all, and all are told of them. What is told is addresses only; who gets one asks there.

A member is told when it joins the view, and again in turn with the others, one per `ROUND_S`: that
repairs whatever was missed. In one frame there are `PEERS_MAX` addresses at most, those that follow
the own one in a ring of all. In a larger group nobody tells all, but all together do: whom one
meets has other successors to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final, final

from tribes.links.news import PEERS_MAX, decode_peers, encode_peers
from tribes.wire.member import Member

if TYPE_CHECKING:
    from tribes.timers import Timer, Timers

__all__ = ["ROUND_S", "PeerExchange"]

ROUND_S: Final = 10.0
"""Seconds between two members that are told again."""

TAKEN_EVERY_S: Final = 0.2
"""A member's addresses are taken this often at most; others are counted and dropped."""

_FIRST_S: Final = 0.05
_RETRY_S: Final = 0.5
"""Until the next try when there is no open link yet."""


@final
class PeerExchange:
    """What this member tells the others, and what it takes from them.

    Args:
        local: The own record.
        timers: Where it asks to be woken.
        members: All members of the view.
        is_heard: Whether multicast reaches a member, at a time.
        tell: Tells a member something on its link; False when it has none.
        hint: Takes an address to try.
    """

    def __init__(
        self,
        local: Member,
        *,
        timers: Timers,
        members: Callable[[], tuple[Member, ...]],
        is_heard: Callable[[Member, float], bool],
        tell: Callable[[Member, bytes, float], bool],
        hint: Callable[[tuple[str, int], float], None],
    ) -> None:
        self.told = 0
        """Frames with addresses that were sent."""
        self.taken = 0
        """Frames with addresses that were taken."""
        self.too_often = 0
        """Frames with addresses that were dropped, because their sender had sent some just now."""
        self._local = local
        self._timers = timers
        self._members = members
        self._is_heard = is_heard
        self._tell = tell
        self._hint = hint
        self._due: dict[Member, None] = {}
        self._took: dict[Member, float] = {}
        self._next: Timer | None = None
        self._round: Timer | None = None
        self._turn: Member | None = None
        self._is_stopped = False

    def joined(self, member: Member, now: float) -> None:
        """A member is new in the view."""
        self._due[member] = None
        if self._next is None or not self._next.is_armed:
            self._next = self._timers.at(now + _FIRST_S, self._tell_due)
        if self._round is None or not self._round.is_armed:
            self._round = self._timers.at(now + ROUND_S, self._take_turns)

    def gone(self, member: Member) -> None:
        """A member is not in the view any more."""
        self._due.pop(member, None)
        self._took.pop(member, None)

    def stop(self) -> None:
        """Tell nothing any more."""
        self._is_stopped = True
        self._due.clear()

    def received(self, source: Member, body: bytes, now: float) -> None:
        """A member tells addresses.

        Raises:
            RemoteProtocolError: They are malformed.
        """
        addresses = decode_peers(body)
        last = self._took.get(source)
        if self._is_stopped or (last is not None and now - last < TAKEN_EVERY_S):
            self.too_often += 1
            return
        if source in self._members():
            self._took[source] = now
        self.taken += 1
        for octets, port in addresses:
            self._hint(Member(octets, port, bytes(16)).address, now)

    def _tell_due(self, now: float) -> None:
        if not self._due:
            return
        members = self._members()
        unheard = dict.fromkeys(each for each in members if not self._is_heard(each, now))
        for member in list(self._due):
            addresses = self._addresses_for(member, members, unheard)
            if not addresses or self._tell(member, encode_peers(addresses), now):
                self._due.pop(member, None)
                self.told += bool(addresses)
        if self._due and not self._is_stopped:
            self._next = self._timers.at(now + _RETRY_S, self._tell_due)

    def _take_turns(self, now: float) -> None:
        members = sorted(self._members(), key=lambda member: member.sort_key)
        if self._is_stopped or not members:
            return
        after = [m for m in members if self._turn is None or m.sort_key > self._turn.sort_key]
        self._turn = (after or members)[0]
        self._round = self._timers.at(now + ROUND_S, self._take_turns)
        self._due[self._turn] = None
        self._tell_due(now)

    def _addresses_for(
        self, member: Member, members: Collection[Member], unheard: Collection[Member]
    ) -> list[tuple[str, int]]:
        # Whoever sends heartbeats that arrive hears those of others.
        candidates = members if member in unheard else unheard
        others = [other for other in candidates if other != member]
        if len(others) > PEERS_MAX:
            others.sort(key=lambda other: other.sort_key)
            own = self._local.sort_key
            others = [o for o in others if o.sort_key > own] + [
                o for o in others if o.sort_key < own
            ]
        return [other.address for other in others[:PEERS_MAX]]
