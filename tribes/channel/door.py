"""The door: accepted connections until it is known what they speak, and how many may wait there.

Who connects has said nothing yet, so nothing is done for it, and all of it is bounded:

1. A connection that has begun to say something says within a second what kind of link it is.
2. One that says nothing may wait: plain Tribes opens connections before it needs them. `SILENT_MAX`
   of them may; beyond it the oldest is closed. With a key only plain peers may wait: a member says
   HELLO at once.
3. An address may open so many connections per second. Beyond it they are closed at once.
4. With TLS nobody has said anything before the handshake is over. All of that time counts as
   silence, so it is bounded by both 1 and 2: handshakes under way are at most `SILENT_MAX`.

How many connections there may be in all is the receiver's ``max_connections``; how long the first
frame of an own link may be, `HELLO_BODY_MAX_BYTES`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.links.fresh import FreshLink
from tribes.links.own_wire import HELLO_TIMEOUT_S

if TYPE_CHECKING:
    from tribes.timers import Timers

__all__ = ["CONNECTIONS_AT_ONCE", "CONNECTIONS_PER_S", "SILENT_MAX", "Door", "PeerRates"]

SILENT_MAX: Final = 256
"""Connections that may stay open without having said anything."""

CONNECTIONS_PER_S: Final = 200.0
"""What one address may open again and again. Members of one machine share an address; each opens
one link to every other and, while it is in doubt, one question per second."""

CONNECTIONS_AT_ONCE: Final = 1000.0
"""What one address may open in one moment: a whole group that starts, as `max_connections`."""

ADDRESSES_MAX: Final = 1024
"""Addresses whose rate is remembered; the one that was quiet for longest is forgotten."""


@final
class PeerRates:
    """How many connections each address has opened lately: a token bucket per address."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, host: str, now: float) -> bool:
        """Count one connection; False: it is too many."""
        left, when = self._left.pop(host, (CONNECTIONS_AT_ONCE, now))
        left = min(CONNECTIONS_AT_ONCE, left + max(0.0, now - when) * CONNECTIONS_PER_S)
        has_room = left >= 1.0
        self._left[host] = (left - 1.0 if has_room else left, now)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)
        return has_room


@final
class Door:
    """The connections of which it is not known yet what they speak.

    Args:
        timers: Where it asks to be woken.
        may_wait: Whether a peer may leave its connection without a word.
        close: Closes a connection that is no longer here; ``why`` is empty for one that only had to
            make room.
        handshake_s: Seconds that connections have which begin with a TLS handshake, for that and
            their first words; None: they begin with nothing.
    """

    def __init__(
        self,
        *,
        timers: Timers,
        may_wait: Callable[[str], bool],
        close: Callable[[FreshLink, str], None],
        handshake_s: float | None = None,
    ) -> None:
        self.too_many = 0
        """Connections that were closed because their address opened too many."""
        self.too_late = 0
        """Connections that did not say in time what they speak."""
        self.made_room = 0
        """Silent connections that were closed because there were too many of them."""
        self._timers = timers
        self._may_wait = may_wait
        self._close = close
        self._has_handshakes = handshake_s is not None
        self._limit_s = HELLO_TIMEOUT_S if handshake_s is None else handshake_s
        self._rates = PeerRates()
        self._links: dict[int, FreshLink] = {}
        self._silent: OrderedDict[int, FreshLink] = OrderedDict()

    def __len__(self) -> int:
        return len(self._links)

    def holds(self, link: int) -> bool:
        """Whether a connection is here."""
        return link in self._links

    def admits(self, peer: tuple[str, int], now: float) -> bool:
        """Whether its address may open one more connection now."""
        if self._rates.take(peer[0], now):
            return True
        self.too_many += 1
        return False

    def opened(self, link: int, peer: tuple[str, int], now: float) -> None:
        """A connection was accepted."""
        fresh = self._links[link] = FreshLink(link, peer)
        if not self._may_wait(peer[0]):
            self._limit(fresh, now)
            if not self._has_handshakes:
                return
        self._silent[link] = fresh
        if len(self._silent) > SILENT_MAX:
            oldest = next(iter(self._silent.values()))
            self.made_room += 1
            self._take(oldest.link)
            self._close(oldest, "")

    def feed(self, link: int, data: bytes, now: float) -> tuple[FreshLink, bool, bytes] | None:
        """Take bytes of a connection.

        Returns:
            Once it is known: the connection, which is no longer here, whether it is an own link,
            and all its bytes. None while it is not, and for connections that are not here.
        """
        fresh = self._links.get(link)
        if fresh is None:
            return None
        known = fresh.feed(data)
        if known is None:
            self._silent.pop(link, None)
            if fresh.timer is None:
                self._limit(fresh, now)
            return None
        self._take(link)
        return fresh, *known

    def closed(self, link: int) -> bool:
        """A connection ended; tells whether it was here."""
        return self._take(link) is not None

    def clear(self) -> list[int]:
        """Forget all connections, and return them."""
        links = list(self._links)
        for link in links:
            self._take(link)
        return links

    def _limit(self, fresh: FreshLink, now: float) -> None:
        def late(then: float) -> None:
            del then
            self.too_late += 1
            self._take(fresh.link)
            self._close(fresh, "did not say in time what it speaks")

        fresh.timer = self._timers.at(now + self._limit_s, late)

    def _take(self, link: int) -> FreshLink | None:
        fresh = self._links.pop(link, None)
        self._silent.pop(link, None)
        if fresh is not None and fresh.timer is not None:
            fresh.timer.cancel()
        return fresh
