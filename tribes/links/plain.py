"""The sending end of a plain Tribes link: everything on its way to one member (tribes-wire §4).

Rules of this file:

1. Acknowledgements carry no id, so at most one acknowledged frame is under way on a connection.
   Everything enqueued later waits behind it: order towards a member holds across all send options.
2. Frames without acknowledgement are written together, as many as wait; each is complete when the
   kernel has taken its last byte.
3. A broken connection costs every frame it had begun one attempt. A fail-ack is an answer and not a
   broken connection: by default it is not retried, since the listener would run twice.
4. A frame that is not complete at its deadline has failed. If it was the one under way the
   connection is closed, because a late acknowledgement could be taken for the next frame's.
5. Only the connection that failed is closed, and it is reset: what the kernel still holds of it
   would arrive behind frames that went by the next connection.
6. ``keep_alive_count`` and ``keep_alive_time`` wear a connection out: between two frames it is
   closed in good order, and the next one goes by a new one.
7. The first frame of a connection names the member it is meant for in its trailer, and carries our
   mark (:mod:`tribes.links.introduction`). Plain Tribes does not read that; our receivers refuse
   what was meant for the process before them on a port.
8. Callbacks run when the state is consistent: they may call any method.

It is longer than most files: what the end of a frame, a deadline and a broken connection do to each
other is one machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.errors import (
    ChannelError,
    MemberUnreachableError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.links.base import Load, excuse
from tribes.links.introduction import introduce
from tribes.links.round_trip import RoundTrip
from tribes.wire.frame import ACK_BODY, FAIL_ACK_BODY, FrameDecoder
from tribes.wire.outputs import Close, Connect, NetworkOutput, Write

if TYPE_CHECKING:
    from tribes.config.model import SenderConfig
    from tribes.links.base import OutFrame
    from tribes.security.mark import Marker
    from tribes.timers import Timer, Timers
    from tribes.wire.member import Member

__all__ = ["PlainSender"]

_WRITE_WINDOW_BYTES = 256 * 1024
"""What may stand in the driver's buffer of one link. More stays in the queue here, where it counts
against the queue's bound and can still be failed or moved to another connection."""

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 2.0

_ACK_BODY_MAX_BYTES = 1024
"""Longest frame that is read on a sending connection: a member has only 3-byte answers to give."""


class PlainSender:
    """The frames on their way to one member, over one connection at a time.

    Args:
        member: The destination.
        config: Timeout, attempts, bounds.
        timers: Where it asks to be woken.
        emit: Takes outputs for the driver.
        connect: Allocates an attempt for an output ``Connect`` and remembers whose it is.
        lost: Told when a connection broke or could not be made: a hint for the failure detector.
        marker: Says who we are in the first frame of each connection; None: nobody does.
    """

    def __init__(
        self,
        member: Member,
        config: SenderConfig,
        *,
        timers: Timers,
        emit: Callable[[NetworkOutput], None],
        connect: Callable[[Member], int],
        lost: Callable[[Member, Exception, float], None],
        marker: Marker | None = None,
    ) -> None:
        self._member = member
        self._marker = marker
        self._config = config
        self._timeout = config.timeout / 1000
        self._timers = timers
        self._emit = emit
        self._new_attempt = connect
        self._lost = lost
        self._asked = 0.0
        self._queue: deque[OutFrame] = deque()
        self._unflushed: deque[OutFrame] = deque()
        self._awaited: OutFrame | None = None
        self._bytes = [0, 0]  # by `is_live`
        self._bounds = config.queue_max_bytes, config.live_queue_max_bytes
        self._link: int | None = None
        self._attempt: int | None = None
        self._decoder = FrameDecoder(body_max_bytes=_ACK_BODY_MAX_BYTES)
        self._written = 0
        self._flushed = 0
        self._deadline: Timer | None = None
        self._reconnect: Timer | None = None
        self._backoff = 0.0
        self._opened = 0.0
        self._begun = 0
        self._keep_connected = False
        self._closed = False
        self.round_trip = RoundTrip()

    # What the channel does.

    def has_room(self, size: int, *, is_live: bool) -> bool:
        """Whether a frame of ``size`` bytes may be enqueued; see :class:`PeerSender`."""
        queued = self._bytes[is_live]
        return not queued or queued + size <= self._bounds[is_live]

    def enqueue(self, frame: OutFrame, now: float) -> None:
        """Send ``frame`` after everything enqueued before it; see :class:`PeerSender`."""
        if self._closed:
            frame.settle(MemberUnreachableError(f"{self._member.name} is no longer a member"), now)
            return
        frame.deadline = now + self._timeout
        self._bytes[frame.is_live] += len(frame.data)
        self._queue.append(frame)
        if self._deadline is None or not self._deadline.is_armed:
            self._deadline = self._timers.at(frame.deadline, self._expire)
        if self._link is not None:
            self._pump(now)
        else:
            self._connect()

    def connect(self, now: float) -> None:
        """Open a connection and keep one open until :meth:`close`."""
        del now
        self._keep_connected = True
        if self._link is None:
            self._connect()

    def excuse(self, why: Exception, now: float) -> None:
        """Let go of every caller that waits; see :class:`PeerSender`."""
        awaited = [] if self._awaited is None else [self._awaited]
        excuse([*self._unflushed, *awaited, *self._queue], why, now)

    def close(self, why: Exception, now: float, *, abort: bool) -> None:
        """Fail whatever is still here with ``why`` and give the connection back.

        Unless it is aborted, what was written to it is still handed over: a farewell may be last.
        """
        self._closed = True
        for timer in (self._deadline, self._reconnect):
            if timer is not None:
                timer.cancel()
        self._drop_link(abort=abort, flush=not abort)
        for frame in self._take_all():
            self._settle(frame, why, now)

    def take_queue(self) -> list[OutFrame]:
        """Take the frames that were not begun, in order, for another kind of link."""
        frames = list(self._queue)
        self._queue.clear()
        for frame in frames:
            self._bytes[frame.is_live] -= len(frame.data)
        return frames

    @property
    def has_written(self) -> bool:
        """Whether something went by the open connection that may still be on its way."""
        return self._link is not None and self._written > 0

    @property
    def member(self) -> Member:
        """The destination."""
        return self._member

    @property
    def unanswered_since(self) -> float | None:
        """When the frame was written that awaits its acknowledgement, or the first one queued that
        awaits a connection; None: there is neither.
        """
        if self._awaited is not None:
            return self._asked
        if self._link is None and self._queue:
            return self._queue[0].deadline - self._timeout
        return None

    @property
    def round_trip_s(self) -> float | None:
        """Seconds that the link takes there and back, smoothed; None: not measured yet."""
        return self.round_trip.seconds

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""
        return not any(self._bytes)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are not yet acknowledged."""
        return sum(self._bytes)

    @property
    def load(self) -> Load:
        """The same, by kind."""
        raw, live = self._bytes
        return Load(raw, live, 0)

    @property
    def link(self) -> int | None:
        """The open connection, if there is one."""
        return self._link

    # What the driver reports.

    def link_opened(self, link: int, now: float) -> None:
        """The connection asked for is there: write what waits."""
        self._attempt = None
        if self._closed:
            self._emit(Close(link))
            return
        self._link = link
        self.round_trip.lost()
        self._decoder = FrameDecoder(body_max_bytes=_ACK_BODY_MAX_BYTES)
        self._written = self._flushed = self._begun = 0
        self._opened = now
        self._pump(now)

    def connect_failed(self, why: Exception, now: float) -> None:
        """No connection: everything that waited has used up one attempt."""
        self._attempt = None
        if not self._closed:
            self._broken(why, now, everything=True)

    def link_closed(self, why: Exception | None, now: float) -> None:
        """The connection broke: what it had begun is tried again on another one."""
        self._link = None
        if not self._closed:
            end = why or ConnectionResetError("the member closed the connection")
            self._broken(end, now, everything=False)

    def received(self, data: bytes, now: float) -> None:
        """Acknowledgements. Frames with other bodies are ignored, as the reference does."""
        for body in self._decoder.feed(data):
            frame = self._awaited
            if frame is None:
                continue
            if body == ACK_BODY:
                self._answered(now)
                self._settle(frame, None, now)
            elif body == FAIL_ACK_BODY:
                self._answered(now)
                self._fail_ack(frame, now)
                if self._link is None:
                    return
        if self._decoder.broken is not None:
            self._drop_link()
            self._broken(self._decoder.broken, now, everything=False)
            return
        self._pump(now)

    def writable(self, total: int, now: float) -> None:
        """The kernel has taken ``total`` bytes: frames without acknowledgement end there."""
        self._flushed = total
        self._backoff = 0.0
        unflushed = self._unflushed
        while unflushed and unflushed[0].end <= total:
            self._settle(unflushed.popleft(), None, now)
        self._pump(now)

    # Inside.

    def _connect(self) -> None:
        if self._attempt is not None or self._link is not None:
            return
        if self._reconnect is not None:
            self._reconnect.cancel()
        self._attempt = self._new_attempt(self._member)
        self._emit(Connect(self._attempt, self._member.address, self._timeout))

    def _pump(self, now: float) -> None:
        queue = self._queue
        if self._link is None or self._awaited is not None or not queue:
            return
        if self._is_worn(now):
            if not self._unflushed:
                self._drop_link(abort=False)
                self._connect()
            return
        chunks: list[bytes] = []
        written = self._written
        limit = self._flushed + _WRITE_WINDOW_BYTES
        while queue and written < limit:
            frame = queue.popleft()
            self._begun += 1
            data = frame.data
            if not written:
                data = introduce(data, self._member.unique_id, self._marker)
            chunks.append(data)
            written += len(data)
            frame.end = written
            if frame.needs_ack:
                self._awaited, self._asked = frame, now
                self.round_trip.asked(self._begun, now)
                break
            self._unflushed.append(frame)
            if self._is_worn(now):
                break
        if chunks:
            self._written = written
            self._emit(Write(self._link, chunks))

    def _is_worn(self, now: float) -> bool:
        config = self._config
        # A value of N lets N + 1 messages pass, as the reference's does (tribes-wire §8.6).
        if 0 <= config.keep_alive_count < self._begun:
            return True
        limit = config.keep_alive_time
        return 0 <= limit <= (now - self._opened) * 1000 and (limit > 0 or self._begun > 0)

    def _settle(self, frame: OutFrame, error: Exception | None, now: float) -> None:
        self._bytes[frame.is_live] -= len(frame.data)
        frame.settle(error, now)

    def _answered(self, now: float) -> None:
        self._awaited = None
        self.round_trip.acknowledged(self._begun, now)
        # What went before the answered frame on this connection has arrived too.
        while self._unflushed:
            self._settle(self._unflushed.popleft(), None, now)

    def _fail_ack(self, frame: OutFrame, now: float) -> None:
        if not self._config.throw_on_failed_ack:
            self._settle(frame, None, now)
            return
        error = RemoteProcessError(f"the listener at {self._member.name} failed")
        if self._config.retry_failed_ack and frame.attempts < self._config.max_retry_attempts:
            # The reference's way: the same bytes again, on a fresh connection.
            self._queue.appendleft(frame)
            frame.attempts += 1
            self._drop_link()
            self._connect()
            return
        self._settle(frame, error, now)

    def _drop_link(self, *, abort: bool = True, flush: bool = False) -> None:
        if self._link is not None:
            self._emit(Close(self._link, flush=flush, abort=abort))
            self._link = None

    def _take_begun(self) -> list[OutFrame]:
        begun = list(self._unflushed)
        self._unflushed.clear()
        if self._awaited is not None:
            begun.append(self._awaited)
            self._awaited = None
        return begun

    def _take_all(self) -> list[OutFrame]:
        everything = [*self._take_begun(), *self._queue]
        self._queue.clear()
        return everything

    def _broken(self, why: Exception, now: float, *, everything: bool) -> None:
        tried = self._take_all() if everything else self._take_begun()
        again: list[OutFrame] = []
        failed: list[OutFrame] = []
        for frame in tried:
            if frame.attempts < self._config.max_retry_attempts:
                frame.attempts += 1
                again.append(frame)
            else:
                failed.append(frame)
        self._queue.extendleft(reversed(again))
        for frame in failed:
            self._settle(frame, _unreachable(self._member, why), now)
        self._lost(self._member, why, now)
        if self._closed:
            return
        self._backoff = min(max(2 * self._backoff, _BACKOFF_FIRST_S), _BACKOFF_MAX_S)
        if self._queue:
            self._connect()
        elif self._keep_connected:
            self._reconnect = self._timers.at(now + self._backoff, self._try_again)

    def _try_again(self, now: float) -> None:
        del now
        if not self._closed:
            self._connect()

    def _expire(self, now: float) -> None:
        queue = self._queue
        while queue and queue[0].deadline <= now:
            self._settle(queue.popleft(), self._late("was never begun"), now)
        awaited = self._awaited
        if awaited is not None and awaited.deadline <= now:
            self._awaited = None
            self._stalled(awaited, "did not acknowledge", now)
        elif self._unflushed and self._unflushed[0].deadline <= now:
            self._stalled(self._unflushed.popleft(), "did not read", now)
        if not self._closed:
            self._arm()

    def _stalled(self, frame: OutFrame, what: str, now: float) -> None:
        self._drop_link()
        begun = self._take_begun()
        self._queue.extendleft(reversed([each for each in begun if each.deadline > now]))
        for late in [frame, *(each for each in begun if each.deadline <= now)]:
            self._settle(late, self._late(what), now)
        if not self._closed and (self._queue or self._keep_connected):
            self._connect()

    def _late(self, what: str) -> SendTimeoutError:
        return SendTimeoutError(
            f"{self._member.name} {what} within {self._config.timeout} ms"
            if what != "was never begun"
            else f"the connection to {self._member.name} was busy for {self._config.timeout} ms"
        )

    def _arm(self) -> None:
        deadlines = [f.deadline for f in (self._awaited,) if f is not None]
        deadlines += [frames[0].deadline for frames in (self._unflushed, self._queue) if frames]
        if deadlines:
            if self._deadline is not None:
                self._deadline.cancel()  # a callback has sent something
            self._deadline = self._timers.at(min(deadlines), self._expire)


def _unreachable(member: Member, why: Exception) -> ChannelError:
    error = MemberUnreachableError(f"no connection to {member.name}: {why}")
    error.__cause__ = why
    return error
