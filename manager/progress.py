"""How far a joining node is, told once a second at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tribes.channel.outputs import Event

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

__all__ = ["JoinProgress", "Progress"]

TELL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class JoinProgress(Event):
    """A joining node has got some of the sessions.

    Attributes:
        context: Name of the application.
        known: Sessions that one of the donors has, the greatest number among them.
        received: Records that have come; under load, and from several donors, more than known.
        rate: Records per second since the last time.
        donors: The members that have sent some since the last time.
    """

    context: str
    known: int
    received: int
    rate: float
    donors: tuple[str, ...]

    @property
    def name(self) -> str:
        """``joining``."""
        return "joining"

    def fields(self) -> dict[str, object]:
        """All of it."""
        return {
            "context": self.context,
            "known": self.known,
            "received": self.received,
            "rate": round(self.rate),
            "donors": list(self.donors),
        }


class Progress:
    """Counts what a join brings.

    Args:
        context: Name of the application.
        channel: Gets the events.

    Attributes:
        known: See `JoinProgress`.
        received: See `JoinProgress`.
    """

    def __init__(self, context: str, channel: ChannelCore) -> None:
        self.known = 0
        self.received = 0
        self._context = context
        self._channel = channel
        self._is_running = False
        self._told_at = 0.0
        self._told = 0
        self._donors: dict[str, None] = {}

    def start(self, now: float) -> None:
        """Begin."""
        self._is_running = True
        self._told_at = now

    def know(self, sessions: int, now: float) -> None:
        """A donor says how many it has."""
        del now
        self.known = max(self.known, sessions)

    def receive(self, records: int, source: Member, now: float) -> None:
        """Records have come."""
        if not self._is_running or not records:
            return
        self.received += records
        self._donors[source.label] = None
        if now - self._told_at >= TELL_S:
            self._tell(now)

    def end(self, now: float) -> None:
        """The join is over."""
        if self.received > self._told:
            self._tell(now)
        self._is_running = False

    def _tell(self, now: float) -> None:
        rate = (self.received - self._told) / max(now - self._told_at, 1e-3)
        donors = tuple(self._donors)
        self._told_at, self._told = now, self.received
        self._donors = {}
        self._channel.event(JoinProgress(self._context, self.known, self.received, rate, donors))
