"""The seam between the channel and a connection to one member.

The channel knows peers only through :class:`PeerSender`. There are two kinds: the plain Tribes link
(:mod:`tribes.links.plain`), and the own link of two Python members
(:mod:`tribes.links.own_sender`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["LinkEnd", "Load", "Need", "OutFrame", "PeerSender", "QueueBounds", "excuse"]


class QueueBounds(NamedTuple):
    """What may be kept for one member, in bytes; one frame that is larger passes when alone.

    Attributes:
        raw: Users' messages that wait; whoever sends more is blocked (``queue_max_bytes``).
        live: The session managers' messages that wait; what does not fit is sent later, merged
            (``live_queue_max_bytes``).
        unacked: Written on an own link and not yet received, kept to be written again
            (``unacked_max_bytes``).
    """

    raw: int
    live: int
    unacked: int


class Load(NamedTuple):
    """What is kept for one member at this moment, in bytes; see :class:`QueueBounds`.

    On a plain link nothing is kept to be written again: what it has begun counts as waiting.
    """

    raw: int
    live: int
    unacked: int


class Need(enum.IntEnum):
    """What completes a frame for the one who sent it. Read from ``OutFrame.need``."""

    NOTHING = 0
    """The kernel has taken its last byte (options without USE_ACK)."""
    RECEIVED = 1
    """The member has it (USE_ACK)."""
    PROCESSED = 2
    """The member has processed it (USE_ACK and SYNCHRONIZED_ACK)."""


class OutFrame:
    """One frame on its way to one member.

    Attributes:
        data: The whole frame as it goes on the wire.
        needs_ack: Whether the member answers it; otherwise handing it to the kernel completes it.
        need: What the member answers on an own link, which tells receipt from processing.
        settle: Called once with None, or with why it failed.
        deadline: Monotonic seconds after which it has failed.
        waits: Whether the caller waits for the outcome, and is to be let go when the member stops
            answering.
        is_live: A session manager's, which counts in the live queue and never blocks.
        unblocked: Called once when it need not wait for room any more, queued or failed; None:
            it never had to.
        attempts: How often it was started on a connection that then broke.
        trace: The span that it belongs to; empty: none.
        end: Position on its link right after its last byte, while it is being written.
    """

    __slots__ = (
        "attempts",
        "data",
        "deadline",
        "end",
        "is_live",
        "need",
        "needs_ack",
        "settle",
        "trace",
        "unblocked",
        "waits",
    )

    def __init__(
        self,
        data: bytes,
        *,
        needs_ack: bool,
        settle: Callable[[Exception | None, float], None],
        waits: bool = False,
        needs_outcome: bool = True,
        is_live: bool = False,
    ) -> None:
        self.data = data
        self.needs_ack = needs_ack
        self.need = Need.NOTHING
        if needs_ack:
            self.need = Need.PROCESSED if needs_outcome else Need.RECEIVED
        self.settle = settle
        self.waits = waits
        self.is_live = is_live
        self.unblocked: Callable[[float], None] | None = None
        self.deadline = 0.0
        self.attempts = 0
        self.end = 0
        self.trace = b""


def _nobody(error: Exception | None, now: float) -> None:
    del error, now


def excuse(frames: Iterable[OutFrame], why: Exception, now: float) -> None:
    """Let go of every caller that waits for one of these frames; the frames stay on their way."""
    waited = [frame for frame in frames if frame.waits]
    for frame in waited:
        settle, frame.settle, frame.waits = frame.settle, _nobody, False
        settle(why, now)


class LinkEnd(Protocol):
    """Who a connection belongs to: gets what the driver reports of it."""

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

    @property
    def member(self) -> Member:
        """Who is at its other end."""


class PeerSender(Protocol):
    """Everything that is on its way to one member, in order."""

    def has_room(self, size: int, *, is_live: bool) -> bool:
        """Whether a frame of ``size`` bytes may be enqueued."""

    def enqueue(self, frame: OutFrame, now: float) -> None:
        """Send ``frame`` after everything enqueued before it. May settle it at once."""

    def connect(self, now: float) -> None:
        """Open a connection now, and keep one open from here on."""

    def excuse(self, why: Exception, now: float) -> None:
        """Let go of every caller that waits; what it sent stays on its way."""

    def close(self, why: Exception, now: float, *, abort: bool) -> None:
        """Fail whatever is still here with ``why`` and give the connection back.

        With ``abort`` what the kernel still has is thrown away: nothing shall arrive any more.
        """

    @property
    def member(self) -> Member:
        """Whose sender this is."""

    @property
    def unanswered_since(self) -> float | None:
        """When the oldest frame that awaits an answer was written; None: there is none."""

    @property
    def round_trip_s(self) -> float | None:
        """Seconds that the link takes there and back, smoothed; None: not measured yet."""

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are not yet acknowledged."""

    @property
    def load(self) -> Load:
        """The same, by kind."""
