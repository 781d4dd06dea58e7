"""Received messages on their way to the listeners: order, bounds, acknowledgement.

Rules of this file:

1. A message that asks for an acknowledgement after processing gets it when every delivery that its
   frame caused has ended: positive when all ended well. A frame that causes none (an interceptor
   holds or drops it) is acknowledged at once, as Tribes does (tribes-wire §4.2); but for one that
   `Inbound.pending` counts as held, which ends when it was handed on.
2. The messages of one source are delivered one after the other, in the order received; no more than
   ``max_threads`` sources have one under way.
3. What waits per source is bounded. Beyond the bound its connections are not read until half of it
   is worked off.
4. A frame that was received before (same source, id and message bytes) is not delivered again; it
   is answered with the outcome of the first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from tribes.channel.outputs import Deliver
from tribes.errors import LocalProtocolError
from tribes.links.plain_receiver import PlainReceiver

if TYPE_CHECKING:
    from tribes.config.model import ReceiverConfig
    from tribes.links.own_inbox import OwnInbox
    from tribes.links.own_receiver import OwnReceiver
    from tribes.links.plain_receiver import AckSlot
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["Answerable", "DeliveryQueue", "Inbound", "Outcomes"]

_OUTCOMES_PER_SOURCE = 1024
_SOURCES_MAX = 1024
"""Outcomes are kept beyond a member's removal: it may have been taken for gone while a frame of its
was under way, and send that frame again."""


_FAILED = "its listener failed"


class Answerable(Protocol):
    """Where an acknowledgement goes that is not one of an own link."""

    def answer(self, slot: AckSlot, *, ok: bool) -> None:
        """Give it."""


class Inbound:
    """One received frame, and its outcome once it is known.

    Thousands are remembered, so a finished one holds nothing but its outcome.
    """

    __slots__ = ("_answers", "_inbox", "_position", "has_failed", "is_done", "pending")

    def __init__(self) -> None:
        self._answers: tuple[tuple[Answerable, AckSlot], ...] = ()
        self._inbox: OwnInbox | None = None
        self._position = 0
        self.pending = 0
        self.has_failed = False
        self.is_done = False

    def answer_to(self, link: Answerable, slot: AckSlot) -> None:
        """Acknowledge there, now if the outcome is known."""
        if self.is_done:
            link.answer(slot, ok=not self.has_failed)
        else:
            self._answers = (*self._answers, (link, slot))

    def answer_by(self, inbox: OwnInbox, position: int) -> None:
        """Acknowledge a position of an own link, now if the outcome is known."""
        if self.is_done:
            inbox.done(position, _FAILED if self.has_failed else None)
        else:
            self._inbox, self._position = inbox, position

    def finish(self) -> list[PlainReceiver | OwnReceiver]:
        """The outcome is known: fill the acknowledgements that wait for it.

        Returns:
            The links that have one to write now.
        """
        self.is_done = True
        links: list[PlainReceiver | OwnReceiver] = []
        if self._answers:
            answers, self._answers = self._answers, ()
            for link, slot in answers:
                link.answer(slot, ok=not self.has_failed)
            links += [link for link, _ in answers if isinstance(link, PlainReceiver)]
        inbox = self._inbox
        if inbox is not None:
            self._inbox = None
            inbox.done(self._position, _FAILED if self.has_failed else None)
            if inbox.receiver is not None:
                links.append(inbox.receiver)
        return links


class Outcomes:
    """Remembers the outcomes of recent frames, so that a repeated one is not processed twice."""

    def __init__(self) -> None:
        self._sources: OrderedDict[Member, OrderedDict[tuple[bytes, int, int], Inbound]] = (
            OrderedDict()
        )
        self.duplicates = 0

    def find_or_add(self, data: ChannelData) -> tuple[Inbound, bool]:
        """The frame's outcome and whether the frame is new."""
        # The pieces of a fragmented message share one id: the message bytes belong to the key.
        key = (data.unique_id, len(data.message), crc32(data.message))
        recent = self._sources.get(data.source)
        if recent is None:
            recent = self._sources[data.source] = OrderedDict()
            if len(self._sources) > _SOURCES_MAX:
                self._sources.popitem(last=False)
        known = recent.get(key)
        if known is not None:
            self.duplicates += 1
            return known, False
        inbound = recent[key] = Inbound()
        if len(recent) > _OUTCOMES_PER_SOURCE:
            recent.popitem(last=False)
        return inbound, True


class _Source:
    __slots__ = ("bytes", "is_busy", "member", "paused", "waiting")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.waiting: deque[tuple[ChannelData, Inbound]] = deque()
        self.bytes = 0
        self.is_busy = False
        self.paused: dict[PlainReceiver | OwnReceiver, None] = {}


class DeliveryQueue:
    """Hands messages to the listeners, source by source.

    Args:
        config: ``max_threads`` and the bounds per source.
        emit: Takes ``Deliver``.
        finished: Told when the last delivery of a frame ended.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        *,
        emit: Callable[[Deliver], None],
        finished: Callable[[Inbound], None],
    ) -> None:
        self._config = config
        self._emit = emit
        self._finished = finished
        self._sources: dict[Member, _Source] = {}
        self._ready: deque[_Source] = deque()
        self._under_way: dict[int, tuple[_Source, Inbound]] = {}
        self._token = 0
        self.delivered = 0
        self.failed = 0
        self.pauses = 0

    def put(
        self, data: ChannelData, inbound: Inbound, link: PlainReceiver | OwnReceiver | None
    ) -> None:
        """Queue one message; pause ``link`` when its source has too many waiting."""
        inbound.pending += 1
        source = self._sources.get(data.source)
        if source is None:
            source = self._sources[data.source] = _Source(data.source)
        source.waiting.append((data, inbound))
        source.bytes += len(data.message)
        if not source.is_busy:
            self._begin(source)
        config = self._config
        if (
            link is not None
            and link not in source.paused
            and (
                len(source.waiting) > config.pending_max or source.bytes > config.pending_max_bytes
            )
        ):
            source.paused[link] = None
            self.pauses += 1
            link.hold()

    def has_room(self, member: Member) -> bool:
        """Whether a message of this source may wait without a bound being passed."""
        source = self._sources.get(member)
        return source is None or (
            len(source.waiting) <= self._config.pending_max
            and source.bytes <= self._config.pending_max_bytes
        )

    def delivered_one(self, token: int, error: Exception | None) -> None:
        """The listeners are done with a delivery.

        Raises:
            LocalProtocolError: No delivery of that token is under way.
        """
        under_way = self._under_way.pop(token, None)
        if under_way is None:
            raise LocalProtocolError(f"no delivery {token} is under way")
        source, inbound = under_way
        self.delivered += 1
        if error is not None:
            self.failed += 1
            inbound.has_failed = True
        inbound.pending -= 1
        if not inbound.pending:
            self._finished(inbound)
        if source.paused:
            self._relieve(source)
        if source.waiting:
            # Behind the sources that wait for their turn.
            self._ready.append(source)
        else:
            del self._sources[source.member]
        while self._ready and len(self._under_way) < self._config.max_threads:
            self._deliver(self._ready.popleft())

    def link_closed(self, link: PlainReceiver | OwnReceiver) -> None:
        """A connection is gone: nothing to resume."""
        for source in self._sources.values():
            source.paused.pop(link, None)

    @property
    def waiting(self) -> int:
        """Messages that wait or are with the listeners."""
        return len(self._under_way) + sum(len(s.waiting) for s in self._sources.values())

    def _begin(self, source: _Source) -> None:
        source.is_busy = True
        if len(self._under_way) < self._config.max_threads:
            self._deliver(source)
        else:
            self._ready.append(source)

    def _deliver(self, source: _Source) -> None:
        data, inbound = source.waiting.popleft()
        source.bytes -= len(data.message)
        self._token += 1
        self._under_way[self._token] = (source, inbound)
        self._emit(Deliver(self._token, source.member, data))

    def _relieve(self, source: _Source) -> None:
        config = self._config
        if (
            len(source.waiting) <= config.pending_max // 2
            and source.bytes <= config.pending_max_bytes // 2
        ):
            for link in source.paused:
                link.release()
            source.paused.clear()
