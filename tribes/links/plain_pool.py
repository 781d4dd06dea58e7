"""Several plain connections to one member: more at once, in any order (tribes-wire §8.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tribes.links.base import Load

if TYPE_CHECKING:
    from tribes.links.base import OutFrame, QueueBounds
    from tribes.links.plain import PlainSender
    from tribes.wire.member import Member

__all__ = ["PlainSenders"]


class PlainSenders:
    """A :class:`PeerSender` that spreads messages over several others.

    Only the first keeps a connection open while there is nothing to send; the others connect when
    all before them are busy.

    Args:
        member: The destination.
        senders: What sends, one connection each; what the driver reports of a connection goes to
            the one that asked for it.
        bounds: What may wait on all of them together.
    """

    def __init__(self, member: Member, senders: Sequence[PlainSender], bounds: QueueBounds) -> None:
        self._member = member
        self._senders = senders
        self._bounds = bounds

    def has_room(self, size: int, *, is_live: bool) -> bool:
        """Whether a frame of ``size`` bytes may be enqueued."""
        load, bounds = self.load, self._bounds
        queued, limit = (load.live, bounds.live) if is_live else (load.raw, bounds.raw)
        return not queued or queued + size <= limit

    def enqueue(self, frame: OutFrame, now: float) -> None:
        """Send ``frame`` by the connection on which least waits."""
        min(self._senders, key=lambda sender: sender.queued_bytes).enqueue(frame, now)

    def connect(self, now: float) -> None:
        """Open one connection now, and keep it open."""
        self._senders[0].connect(now)

    def excuse(self, why: Exception, now: float) -> None:
        """Let go of every caller that waits; what it sent stays on its way."""
        for sender in self._senders:
            sender.excuse(why, now)

    def close(self, why: Exception, now: float, *, abort: bool) -> None:
        """Fail whatever is still here with ``why`` and give the connections back."""
        for sender in self._senders:
            sender.close(why, now, abort=abort)

    @property
    def member(self) -> Member:
        """Whose senders these are."""
        return self._member

    @property
    def unanswered_since(self) -> float | None:
        """When the oldest frame that awaits an answer was written; None: there is none."""
        since = [sender.unanswered_since for sender in self._senders]
        return min((each for each in since if each is not None), default=None)

    @property
    def round_trip_s(self) -> float | None:
        """That of the first connection, which all frames take while little is sent."""
        return self._senders[0].round_trip_s

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""
        return all(sender.is_idle for sender in self._senders)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are not yet acknowledged."""
        return sum(sender.queued_bytes for sender in self._senders)

    @property
    def load(self) -> Load:
        """The same, by kind."""
        loads = [sender.load for sender in self._senders]
        return Load(sum(each.raw for each in loads), sum(each.live for each in loads), 0)
