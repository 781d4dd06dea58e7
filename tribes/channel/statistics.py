"""What a channel counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tribes.channel.accepted import AcceptedLinks
    from tribes.links.pool import SenderPool

__all__ = ["ChannelStatistics"]


@final
class ChannelStatistics:
    """Counters of a channel, plain ints."""

    __slots__ = (
        "_accepted",
        "_senders",
        "bytes_received",
        "frames_received",
        "frames_sent",
        "messages_sent",
    )

    def __init__(self, accepted: AcceptedLinks, senders: SenderPool) -> None:
        self.frames_received = 0
        self.frames_sent = 0
        self.bytes_received = 0
        self.messages_sent = 0
        self._accepted = accepted
        self._senders = senders

    @property
    def links_rejected(self) -> int:
        """Connections that were closed for what they brought."""
        return self._accepted.rejected

    @property
    def rejections(self) -> int:
        """Everything that was an event ``link rejected``, or would have been: see `Repeats`."""
        return self._accepted.repeats.seen

    @property
    def rejections_not_told(self) -> int:
        """Those among them that were like one told within the last seconds."""
        return self._accepted.repeats.held

    @property
    def connections_refused(self) -> int:
        """Connections for which there was no room."""
        return self._accepted.refused

    @property
    def sends_blocked(self) -> int:
        """Users' messages whose senders had to wait for room in a member's queue."""
        return self._senders.totals.blocked

    @property
    def sends_timed_out(self) -> int:
        """Those among them that found none in time."""
        return self._senders.totals.timed_out

    @property
    def live_refused(self) -> int:
        """Managers' messages to one member that found its live queue full."""
        return self._senders.totals.live_refused
