"""The seam between the channel and a connection to one member.

The channel knows peers only through :class:`PeerSender`. Today there is one kind, the plain Tribes
link (:mod:`tribes.links.plain`); the own link that two Python members negotiate takes its place
behind the same methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["OutFrame", "PeerSender"]


class OutFrame:
    """One frame on its way to one member.

    Attributes:
        data: The whole frame as it goes on the wire.
        needs_ack: Whether the member answers it; otherwise handing it to the kernel completes it.
        settle: Called once with None, or with why it failed.
        deadline: Monotonic seconds after which it has failed.
        attempts: How often it was started on a connection that then broke.
        end: Position on its link right after its last byte, while it is being written.
    """

    __slots__ = ("attempts", "data", "deadline", "end", "needs_ack", "settle")

    def __init__(
        self, data: bytes, *, needs_ack: bool, settle: Callable[[Exception | None, float], None]
    ) -> None:
        self.data = data
        self.needs_ack = needs_ack
        self.settle = settle
        self.deadline = 0.0
        self.attempts = 0
        self.end = 0


class PeerSender(Protocol):
    """Everything that is on its way to one member, in order."""

    def enqueue(self, frame: OutFrame, now: float) -> None:
        """Send ``frame`` after everything enqueued before it. May settle it at once."""

    def connect(self, now: float) -> None:
        """Open a connection now, and keep one open from here on."""

    def link_opened(self, link: int, now: float) -> None:
        """The connection asked for is there."""

    def connect_failed(self, why: Exception, now: float) -> None:
        """The connection asked for could not be made."""

    def received(self, data: bytes, now: float) -> None:
        """Bytes from the member on this connection: acknowledgements."""

    def writable(self, total: int, now: float) -> None:
        """The kernel has taken ``total`` bytes of this link so far."""

    def link_closed(self, why: Exception | None, now: float) -> None:
        """The connection ended, and not by this side."""

    def close(self, why: Exception, now: float, *, abort: bool) -> None:
        """Fail whatever is still here with ``why`` and give the connection back.

        With ``abort`` what the kernel still has is thrown away: nothing shall arrive any more.
        """

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are not yet acknowledged."""
