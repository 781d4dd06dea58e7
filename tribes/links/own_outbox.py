"""The frames on their way over an own link: which position each has, and what it still waits for.

A frame is in up to three places::

    waiting ──written first──▶ sent ──received by the member──▶ gone
                                 └──▶ open: its ticket, until it ended

What is *sent* is kept to be written again; what is *open* has somebody waiting. A frame without
acknowledgement leaves *open* when the kernel has it and stays in *sent*; one that is to be
processed leaves *sent* when it was received and stays in *open*, without its bytes.

All frames have the same time, so every order by position is an order by deadline too.

What is *sent* has a bound of its own: beyond it nothing new is written, and what waits is bounded
where frames come in (:mod:`tribes.links.pool`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import RemoteProtocolError
from tribes.links.base import Load, Need
from tribes.links.own_acks import escape_data, traced_data
from tribes.links.own_wire import CONTROL_MARK
from tribes.wire.frame import FRAME_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tribes.links.base import OutFrame, QueueBounds
    from tribes.links.own_acks import Ack

__all__ = ["Item", "Outbox", "Progress", "Resumed"]

_AWAITING_MAX_BYTES: Final = 256
"""What a frame counts that was received and not yet processed: its ticket stays, its bytes are
gone."""

_BODY_AT: Final = 11


@final
class Item:
    """One frame in the outbox.

    Attributes:
        frame: The frame.
        need: What ends its ticket.
        size: Bytes of the frame.
        position: Its number, 0 until it is written first.
        end: Position on the present link right after its last byte.
    """

    __slots__ = ("end", "frame", "need", "position", "size")

    def __init__(self, frame: OutFrame, need: Need) -> None:
        self.frame = frame
        self.need = need
        self.size = len(frame.data)
        self.position = 0
        self.end = 0


class Progress(NamedTuple):
    """What an acknowledgement changed."""

    done: list[Item]
    failed: list[tuple[Item, str]]
    is_progress: bool


class Resumed(NamedTuple):
    """What a WELCOME changed.

    Attributes:
        received: Completed, since the member has them.
        unknown: Whether the member got or processed them will never be known.
    """

    received: list[Item]
    unknown: list[Item]


@final
class Outbox:
    """The frames for one member, in order.

    Args:
        bounds: What may be in it.

    Attributes:
        unacked_bytes: Of what was written and may have to be written again.
        waiting_bytes: Of what waits to be written: the users', and the session managers'.
    """

    __slots__ = (
        "_again",
        "_body_max_bytes",
        "_floor",
        "_incarnation",
        "_is_all_late",
        "_open",
        "_position",
        "_received",
        "_sent",
        "_unflushed",
        "_waiting",
        "bounds",
        "lost",
        "takes_traces",
        "unacked_bytes",
        "waiting_bytes",
    )

    def __init__(self, bounds: QueueBounds) -> None:
        self.bounds = bounds
        self.unacked_bytes = 0
        self.waiting_bytes = [0, 0]  # by `is_live`
        self.lost = 0
        self.takes_traces = False
        """Whether the present link has the feature ``FEATURE_TRACE``."""
        self._waiting: deque[Item] = deque()
        self._sent: deque[Item] = deque()
        self._open: dict[int, Item] = {}
        self._again: deque[tuple[Item, bytes]] = deque()  # of `_sent`, not yet on this link
        # Hardly ever needed, and there is an outbox for every two members of a large world.
        self._unflushed: deque[Item] | None = None
        self._incarnation: int | None = None
        self._body_max_bytes = 0
        self._position = 0
        self._received = 0
        self._floor = 0
        self._is_all_late = False  # every frame in `_sent` is past its deadline

    def __repr__(self) -> str:
        return (
            f"<Outbox bytes={self.total_bytes} waiting={len(self._waiting)} sent={len(self._sent)} "
            f"open={len(self._open)} position={self._position}>"
        )

    @property
    def is_idle(self) -> bool:
        """True when nobody waits and nothing is on its way that could still be in time."""
        return not self._waiting and not self._open and (not self._sent or self._is_all_late)

    @property
    def has_to_write(self) -> bool:
        """True when something is to be written on the present link, and may be."""
        if not self._waiting:
            return bool(self._again)
        return bool(self._again) or self._has_window(self._waiting[0].size)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many wait, are kept to be written again, and were written with an open ticket."""
        return len(self._waiting), len(self._sent), len(self._open)

    @property
    def position(self) -> int:
        """Of the last frame that was written; 0: none."""
        return self._position

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`expired` has something to do; None for never."""
        deadlines = []
        if self._waiting:
            deadlines.append(self._waiting[0].frame.deadline)
        if self._open:
            deadlines.append(next(iter(self._open.values())).frame.deadline)
        if self._sent and not self._is_all_late:
            deadlines.append(self._sent[-1].frame.deadline)
        return min(deadlines, default=None)

    def has_room(self, size: int, *, is_live: bool = False) -> bool:
        """Whether a frame of ``size`` bytes may be put."""
        waiting = self.waiting_bytes[is_live]
        return not waiting or waiting + size <= self.bounds[is_live]

    @property
    def total_bytes(self) -> int:
        """Bytes of all that is in it."""
        return self.unacked_bytes + sum(self.waiting_bytes)

    @property
    def load(self) -> Load:
        """What is in it by kind."""
        raw, live = self.waiting_bytes
        return Load(raw, live, self.unacked_bytes)

    def put(self, frame: OutFrame) -> None:
        """Add a frame at the end; its deadline is set."""
        item = Item(frame, frame.need)
        self.waiting_bytes[frame.is_live] += item.size
        self._waiting.append(item)

    def next_to_write(
        self, chunks: list[bytes], written: int, limit: int
    ) -> tuple[list[Item], list[Item]]:
        """Add the frames to write next to ``chunks``.

        Args:
            chunks: Taken as they are, in order.
            written: Bytes on this link before the first one.
            limit: No frame begins at or beyond this many bytes of the link.

        Returns:
            The items added, with ``end`` set; and those the member would not read, taken out.
        """
        items: list[Item] = []
        refused: list[Item] = []
        while written < limit:
            if self._again:
                item, data = self._again.popleft()
            elif self._waiting:
                item = self._waiting[0]
                is_too_long = item.size - FRAME_OVERHEAD > self._body_max_bytes
                if not is_too_long and not self._has_window(item.size):
                    break
                self._waiting.popleft()
                self.waiting_bytes[item.frame.is_live] -= item.size
                if is_too_long:
                    refused.append(item)
                    continue
                self.unacked_bytes += item.size
                data = item.frame.data
                self._position += 1
                item.position = self._position
                self._sent.append(item)
                self._open[item.position] = item
                self._is_all_late = False
            else:
                break
            if self.takes_traces and item.frame.trace:
                data = traced_data(data, item.frame.trace)
            elif data.startswith(CONTROL_MARK, _BODY_AT):
                data = escape_data(data)
            chunks.append(data)
            written += len(data)
            item.end = written
            items.append(item)
            if item.need is Need.NOTHING and item.position in self._open:
                if self._unflushed is None:
                    self._unflushed = deque()
                self._unflushed.append(item)
        return items, refused

    def _has_window(self, size: int) -> bool:
        unacked = self.unacked_bytes
        return not unacked or unacked + size <= self.bounds.unacked

    def flushed(self, total: int) -> list[Item]:
        """The kernel has ``total`` bytes of the present link; return what that completes."""
        unflushed = self._unflushed
        if not unflushed:
            return []
        done: list[Item] = []
        while unflushed and unflushed[0].end <= total:
            item = unflushed.popleft()
            if self._open.pop(item.position, None) is not None:
                done.append(item)
        return done

    @property
    def oldest_unreceived(self) -> OutFrame | None:
        """The frame that has waited longest for the member to receive it."""
        for items in (self._sent, self._waiting):
            if items:
                return items[0].frame
        return None

    def with_tickets(self) -> Iterator[OutFrame]:
        """All frames that somebody waits for."""
        for item in (*self._open.values(), *self._waiting):
            yield item.frame

    def acked(self, ack: Ack) -> Progress:
        """Take an acknowledgement.

        Raises:
            RemoteProtocolError: It acknowledges what was never written, or takes something back.
        """
        if not self._received <= ack.received <= self._position:
            raise RemoteProtocolError(
                f"acknowledges {ack.received} of {self._position} positions, after {self._received}"
            )
        is_progress = ack.received > self._received or ack.floor > self._floor
        done = self._receive(ack.received)
        failed: list[tuple[Item, str]] = []
        for position, reason in ack.failures:
            item = self._end(position)
            if item is not None:
                failed.append((item, reason))
        for position in range(self._floor + 1, ack.floor + 1):
            item = self._end(position)
            if item is not None:
                done.append(item)
        self._floor = max(self._floor, ack.floor)
        for first, last in ack.early:
            # After a long while behind one open position a run may be far longer than what is open.
            positions: range | list[int] = range(first, last + 1)
            if len(positions) > len(self._open):
                positions = [p for p in self._open if first <= p <= last]
            for position in positions:
                item = self._end(position)
                if item is not None:
                    done.append(item)
        return Progress(done, failed, is_progress or bool(done or failed))

    def resume(self, incarnation: int, received: int, *, body_max_bytes: int) -> Resumed:
        """A new link begins, after ``received`` positions of this numbering.

        Raises:
            RemoteProtocolError: That contradicts what the member said before.
        """
        is_forgotten = self._incarnation not in (None, incarnation)
        low, high = (0, 0) if is_forgotten else (self._received, self._position)
        if not low <= received <= high:
            raise RemoteProtocolError(f"has {received} positions, not from {low} to {high}")
        self._incarnation = incarnation
        self._body_max_bytes = body_max_bytes
        self._unflushed = None
        self._again.clear()
        unknown: list[Item] = []
        if is_forgotten:
            unknown = list(self._open.values())
            self.lost += len(self._sent)
            self.unacked_bytes = 0
            self._sent.clear()
            self._open.clear()
            self._position = self._received = self._floor = 0
        done = self._receive(received)
        self._again.extend((item, item.frame.data) for item in self._sent)
        return Resumed(done, unknown)

    def expired(self, now: float) -> list[Item]:
        """Return what is past its deadline; its ticket is over."""
        late: list[Item] = []
        for item in self._open.values():
            if item.frame.deadline > now:
                break
            late.append(item)
        for item in late:
            self._end(item.position)
        while self._waiting and self._waiting[0].frame.deadline <= now:
            item = self._waiting.popleft()
            self.waiting_bytes[item.frame.is_live] -= item.size
            late.append(item)
        if self._sent and self._sent[-1].frame.deadline <= now:
            self._is_all_late = True
        return late

    def clear(self) -> list[Item]:
        """Take everything out; return what has an open ticket, in order."""
        items = [*self._open.values(), *self._waiting]
        self._open.clear()
        self.unacked_bytes = 0
        self.waiting_bytes = [0, 0]
        self._waiting.clear()
        self._sent.clear()
        self._again.clear()
        self._unflushed = None
        return items

    def _receive(self, received: int) -> list[Item]:
        done: list[Item] = []
        while self._received < received:
            item = self._sent.popleft()
            self._received += 1
            self.unacked_bytes -= item.size
            if item.position not in self._open:
                continue
            if item.need is Need.PROCESSED:
                self.unacked_bytes += min(item.size, _AWAITING_MAX_BYTES)
                item.frame.data = b""
            else:
                del self._open[item.position]
                done.append(item)
        return done

    def _end(self, position: int) -> Item | None:
        """End the ticket of a position that was written, if it is open."""
        item = self._open.pop(position, None)
        if item is not None and position <= self._received:
            self.unacked_bytes -= min(item.size, _AWAITING_MAX_BYTES)
        return item
