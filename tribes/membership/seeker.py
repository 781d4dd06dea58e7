"""The search for members at addresses, where multicast does not reach (DESIGN §4.3).

There are two kinds of addresses, both only to be tried: whoever is a member says so itself, to us,
at that address.

- **Named** ones come from a service: the configuration, DNS, Kubernetes. They are tried for as long
  as the service names them, with back-off, and once in a while even while nobody is missing: so two
  groups that were apart find each other.
- **Hints** come from other members, from who connects to us, and are the addresses of members that
  were lost. They are tried for a while and then forgotten.

A host is named with a range of ports, since the members of one host take the next free one. One
member found there is enough: it knows the others (:mod:`tribes.channel.exchange`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from tribes.timers import Timer, Timers
    from tribes.wire.member import Member

__all__ = [
    "HINTS_MAX",
    "HINT_S",
    "LOST_S",
    "MEETINGS_MAX",
    "NAMED_MAX",
    "NamedHost",
    "Seeker",
    "SeekerStatistics",
]

Address = tuple[str, int]

MEETINGS_MAX: Final = 16
"""Addresses that are tried at once; each takes a connection."""

NAMED_MAX: Final = 4096
"""Named addresses, every port of a range counted. More are not tried, and counted."""

HINTS_MAX: Final = 1024
"""Hints; more are not tried, and counted."""

HINT_S: Final = 30.0
"""How long an address that somebody told is tried."""

LOST_S: Final = 600.0
"""How long the address of a member that was lost is tried."""

_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
_ROUND_S: Final = 60.0
"""Between two tries of a named address while nobody is missing there."""

_SETTLE_S: Final = 3.0
"""Until an address is tried again where a member was met that is none yet."""


@final
@dataclass(frozen=True, slots=True)
class NamedHost:
    """Where a service says that members are.

    Attributes:
        host: IP literal.
        port: First port.
        ports: How many ports to try from there.
        member: The record of a member that introduces itself to nobody (Tomcat's); it is at
            ``port`` then. None: ask who is there.
    """

    host: str
    port: int
    ports: int = 1
    member: Member | None = None

    def addresses(self) -> list[Address]:
        """Every address of the range."""
        end = min(self.port + self.ports, 65536)
        return [(self.host, port) for port in range(self.port, end)]


class SeekerStatistics:
    """Counters, plain ints."""

    __slots__ = ("dropped", "met", "refused", "tried", "unanswered")

    def __init__(self) -> None:
        self.tried = 0
        self.met = 0
        self.unanswered = 0
        """Tries that found nobody, or nobody who is a member of this group."""
        self.refused = 0
        """Introductions that were not believed."""
        self.dropped = 0
        """Addresses for which there was no room."""


class _Place:
    """One address."""

    __slots__ = ("address", "expires", "is_asked", "member", "ranges", "timer", "tries")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.ranges: set[NamedHost] = set()
        """The named hosts that it belongs to; none: it is a hint."""
        self.member: Member | None = None
        self.expires = inf
        self.tries = 0
        self.is_asked = False
        self.timer: Timer | None = None


@final
class Seeker:
    """Tries addresses.

    Args:
        own: The own address, which is never tried.
        own_id: The own unique id: a name may lead back here.
        timers: Where it asks to be woken.
        meet: Asks who is at an address; its second argument gets the member's record, or None for
            nobody, and the time.
        announce: Takes the record of a member that introduces itself to nobody; somebody above
            tests whether it is there.
    """

    def __init__(
        self,
        own: Address,
        own_id: bytes,
        *,
        timers: Timers,
        meet: Callable[[Address, Callable[[Member | None, float], None]], None],
        announce: Callable[[Member, float], None],
    ) -> None:
        self.statistics = SeekerStatistics()
        self._own = own
        self._own_id = own_id
        self._timers = timers
        self._meet = meet
        self._announce = announce
        self._services: dict[str, frozenset[NamedHost]] = {}
        self._places: dict[Address, _Place] = {}
        self._hints = 0
        self._waiting: OrderedDict[Address, None] = OrderedDict()
        self._asking = 0
        self._members: dict[Address, int] = {}
        self._is_stopped = False

    @property
    def has_names(self) -> bool:
        """Whether any service names an address."""
        return any(self._services.values())

    @property
    def addresses(self) -> list[Address]:
        """What is tried now and then."""
        return list(self._places)

    # What services and members say.

    def named(self, service: str, hosts: Iterable[NamedHost], now: float) -> None:
        """Take all that a service names from now on. What it does not name any more is not tried
        any more; a member that is there stays one for as long as it answers.
        """
        new = frozenset(hosts)
        old = self._services.get(service, frozenset())
        self._services[service] = new
        others = [each for name, each in self._services.items() if name != service]
        for host in old - new:
            if not any(host in each for each in others):
                self._unname(host)
        for host in sorted(new - old, key=lambda each: (each.host, each.port, each.ports)):
            self._name(host, now)

    def _name(self, host: NamedHost, now: float) -> None:
        for address in host.addresses():
            place = self._places.get(address)
            if address == self._own or (place is not None and host in place.ranges):
                continue
            if place is None:
                if len(self._places) - self._hints >= NAMED_MAX:
                    self.statistics.dropped += 1
                    continue
                place = self._places[address] = _Place(address)
            elif not place.ranges:
                self._hints -= 1
            place.ranges.add(host)
            place.expires = inf
            place.member = place.member or host.member
            self._at(place, now)

    def _unname(self, host: NamedHost) -> None:
        for address in host.addresses():
            place = self._places.get(address)
            if place is not None and host in place.ranges:
                place.ranges.discard(host)
                if not place.ranges:
                    self._forget(place)

    def hint(
        self, address: Address, now: float, *, delay: float = 0.0, keep: float = HINT_S
    ) -> None:
        """Take an address to try for a while.

        Args:
            address: IP literal and port.
            now: Monotonic seconds.
            delay: Seconds until the first try.
            keep: Seconds for which it is tried.
        """
        if self._is_stopped or address == self._own or address in self._members:
            return
        place = self._places.get(address)
        if place is not None:
            if not place.ranges:
                place.expires = max(place.expires, now + keep)
            return
        if self._hints >= HINTS_MAX:
            self.statistics.dropped += 1
            return
        self._hints += 1
        place = self._places[address] = _Place(address)
        place.expires = now + keep
        self._at(place, now + delay)

    # What happens to the view.

    def joined(self, address: Address) -> None:
        """A member with this address is in the view."""
        self._members[address] = self._members.get(address, 0) + 1
        place = self._places.get(address)
        if place is None:
            return
        place.tries = 0
        if not place.ranges and not place.is_asked:
            self._forget(place)

    def lost(self, address: Address, now: float, *, has_left: bool) -> None:
        """A member with this address is not in the view any more.

        Args:
            address: IP literal and port.
            now: Monotonic seconds.
            has_left: Whether it said so, or somebody else is there: then it is not looked for.
        """
        count = self._members.get(address, 0) - 1
        if count > 0:
            self._members[address] = count
            return
        self._members.pop(address, None)
        place = self._places.get(address)
        if place is not None and place.ranges:
            for host in place.ranges:
                for other in host.addresses():
                    missed = self._places.get(other)
                    if missed is not None and not missed.is_asked:
                        missed.tries = 0
                        self._at(missed, now + _BACKOFF_FIRST_S)
        elif not has_left:
            self.hint(address, now, delay=_BACKOFF_FIRST_S, keep=LOST_S)

    def stop(self) -> None:
        """Try nothing any more."""
        self._is_stopped = True
        for place in list(self._places.values()):
            self._forget(place)

    # Tries.

    def _at(self, place: _Place, when: float) -> None:
        if place.timer is not None:
            place.timer.cancel()
        place.timer = self._timers.at(when, lambda now: self._due(place, now))

    def _due(self, place: _Place, now: float) -> None:
        if self._is_stopped or place.is_asked:
            return
        if place.address in self._members:
            self._after(place, now)
        elif self._asking >= MEETINGS_MAX:
            self._waiting[place.address] = None
        else:
            self._try(place, now)

    def _try(self, place: _Place, now: float) -> None:
        self.statistics.tried += 1
        if place.member is not None:
            place.tries += 1
            self._at(place, now + self._pause(place))
            self._announce(place.member, now)
            return
        self._asking += 1
        place.is_asked = True

        def answered(record: Member | None, then: float) -> None:
            self._asking -= 1
            place.is_asked = False
            if not self._is_stopped:
                self._answered(place, record, then)
                self._try_waiting(then)

        self._meet(place.address, answered)

    def _try_waiting(self, now: float) -> None:
        while self._waiting and self._asking < MEETINGS_MAX:
            address, _ = self._waiting.popitem(last=False)
            place = self._places.get(address)
            if place is None or place.is_asked:
                continue
            if address in self._members or self._is_served(place):
                self._after(place, now)
            else:
                self._try(place, now)

    def _answered(self, place: _Place, record: Member | None, now: float) -> None:
        if self._places.get(place.address) is not place:
            return  # nobody names it any more
        if record is None:
            self.statistics.unanswered += 1
            place.tries += 1
            if now >= place.expires:
                self._forget(place)
                return
            self._after(place, now)
        elif record.unique_id == self._own_id:
            self._after(place, now, pause=_ROUND_S)
        elif record.address != place.address:
            # It says that it is somewhere else: so it is asked there.
            self._after(place, now, pause=_ROUND_S)
            self.hint(record.address, now)
        else:
            self.statistics.met += 1
            place.tries += 1
            self._after(place, now, pause=_SETTLE_S)

    def _after(self, place: _Place, now: float, *, pause: float | None = None) -> None:
        """Look at an address again later, or never."""
        if not place.ranges and (place.address in self._members or now >= place.expires):
            self._forget(place)
            return
        self._at(place, now + (self._pause(place) if pause is None else pause))

    def _pause(self, place: _Place) -> float:
        if self._is_served(place):
            return _ROUND_S
        return min(_BACKOFF_FIRST_S * 2.0 ** max(0, min(place.tries - 1, 16)), _BACKOFF_MAX_S)

    def _is_served(self, place: _Place) -> bool:
        """Whether every named host that an address belongs to has a member."""
        if not place.ranges:
            return False
        members = self._members
        return place.address in members or all(
            any(address in members for address in host.addresses()) for host in place.ranges
        )

    def _forget(self, place: _Place) -> None:
        if place.timer is not None:
            place.timer.cancel()
        if self._places.pop(place.address, None) is not None and place.expires != inf:
            self._hints -= 1
