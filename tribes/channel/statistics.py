"""What a channel counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tribes.channel.accepted import AcceptedLinks

__all__ = ["ChannelStatistics"]


@final
class ChannelStatistics:
    """Counters of a channel, plain ints."""

    __slots__ = (
        "_accepted",
        "bytes_received",
        "frames_received",
        "frames_sent",
        "messages_sent",
    )

    def __init__(self, accepted: AcceptedLinks) -> None:
        self.frames_received = 0
        self.frames_sent = 0
        self.bytes_received = 0
        self.messages_sent = 0
        self._accepted = accepted

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
