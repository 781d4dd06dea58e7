"""The sending end of an own link: everything on its way to one member (DESIGN §4.2).

::

    IDLE ──▶ CONNECTING ──▶ HELLO ──WELCOME──▶ OPEN        (lost: ──▶ WAITING ──▶ CONNECTING …)
                              ├── not an own link ──▶ NOT_OWN        these three are final
                              └── no common version ──▶ INCOMPATIBLE
    any ── close() ──▶ CLOSED

Rules of this file:

1. A frame gets its position when it is first written, and is kept until the member has received it.
   A broken connection fails nothing: the next WELCOME says where to go on.
2. A frame's *ticket* is what its sender waits for. It ends once: by the acknowledgement it needs,
   by its deadline, or by ``close``. A frame whose ticket ended by its deadline is taken out of the
   queue if it was never written; otherwise it stays, since leaving it out would shift positions.
3. A deadline never costs the connection.
4. If the member has forgotten this sender, it cannot be known which of the written frames arrived.
   They are failed, never sent a second time.
5. Callbacks run when the state is consistent: they may call any method.

It is longer than most files: the frames, a connection and its opening have files of their own, and
what is left is one machine, whose state every method reads.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.errors import (
    LocalProtocolError,
    MemberUnreachableError,
    RemoteProcessError,
    RemoteProtocolError,
    SendTimeoutError,
)
from tribes.links.base import QueueBounds, excuse
from tribes.links.news import LEAVE_BODY
from tribes.links.own_acks import DOUBT_FRAME, decode_ack, decode_told, encode_ask
from tribes.links.own_connection import Connection
from tribes.links.own_opening import Opened, Opening
from tribes.links.own_outbox import Item, Outbox
from tribes.links.own_wire import (
    CONTROL_MARK,
    FEATURE_NEWS,
    FEATURE_TRACE,
    HELLO_TIMEOUT_S,
    WITNESSES,
    Control,
    Refusal,
    RefuseCode,
)
from tribes.links.round_trip import PING, RoundTrip
from tribes.wire.frame import encode_frame
from tribes.wire.outputs import Close, Connect, NetworkOutput

if TYPE_CHECKING:
    from tribes.links.base import Load, OutFrame
    from tribes.links.link_keys import SealerFactory
    from tribes.links.own_wire import Opinion, OwnSide
    from tribes.timers import Timer, Timers
    from tribes.wire.member import Member

__all__ = ["BOUNDS", "OwnSender", "SenderState"]

BOUNDS: Final = QueueBounds(4 * 1024 * 1024, 4 * 1024 * 1024, 4 * 1024 * 1024)
"""What may wait, and what may be unacknowledged, for one member (DESIGN §4.2, 5.4)."""

_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 2.0


class SenderState(enum.Enum):
    """Where the connection to the member stands."""

    IDLE = "idle"
    WAITING = "waiting"
    CONNECTING = "connecting"
    HELLO = "hello"
    OPEN = "open"
    NOT_OWN = "not own"
    INCOMPATIBLE = "incompatible"
    CLOSED = "closed"


_FINAL: Final = (SenderState.NOT_OWN, SenderState.INCOMPATIBLE, SenderState.CLOSED)


@final
class OwnSender:
    """The frames on their way to one member, over one own link at a time. A ``PeerSender``.

    Args:
        member: The destination.
        side: What this process says of itself.
        timeout: Seconds from being queued until a frame's ticket fails; also for connecting.
        bounds: What may wait and be unacknowledged. Who enqueues asks `has_room` before.
        keep_connected: Whether to connect again when nothing waits.
        key: Id and key to prove and seal with; None: neither.
        timers: Where it asks to be woken.
        entropy: Gives n random bytes.
        emit: Takes outputs for the driver.
        connect: Allocates an attempt for an output ``Connect`` and remembers whose it is.
        lost: Told when a connection broke, was refused, or could not be made.
        not_own: Told, once, that the member does not speak the own link. ``take_queue`` then gives
            the frames. With a key, falling back to the plain link gives up its protection: whether
            that is allowed is for the callee to decide.
        never_plain: Never believe that the member does not speak the own link, or no version in
            common: whoever can write on its connections could say so. It is tried again.
        refused: Told each time the member gives a reason for not taking the connection. With code
            VERSION everything has failed and this sender is of no more use; else it goes on trying.
        told: Gets the number of a question asked by :meth:`ask`, and the member's opinion.
        wake: If given, called when there is something to write, once until :meth:`flush`, which
            must follow before the driver gets the outputs. Without it everything is written at
            once, each frame by itself.
        hellos_unanswered_max: After how many connections in a row without any answer the member
            counts as not own, if it never answered. None: never, for a member that is known to
            speak the own link by the mark in its heartbeats; a stopped process does not answer.

    Attributes:
        features: Bits of the present link.
        last_answer: When bytes came from the member last, or its connection was made: monotonic
            seconds; 0 before the first one.
    """

    __slots__ = (
        "__weakref__",
        "_backoff",
        "_connection",
        "_deadline",
        "_emit",
        "_entropy",
        "_hello_timer",
        "_hellos",
        "_incarnation",
        "_is_awake",
        "_keep_connected",
        "_key",
        "_lost",
        "_never_plain",
        "_new_attempt",
        "_not_own",
        "_refused",
        "_retry",
        "_side",
        "_timeout",
        "_timers",
        "_told",
        "_unanswered",
        "_unanswered_max",
        "_wake",
        "_wants_connection",
        "_was_welcome",
        "features",
        "has_room",
        "last_answer",
        "member",
        "outbox",
        "round_trip",
        "state",
    )

    def __init__(
        self,
        member: Member,
        *,
        side: OwnSide,
        timeout: float,
        bounds: QueueBounds = BOUNDS,
        keep_connected: bool = True,
        key: tuple[int, SealerFactory] | None = None,
        timers: Timers,
        entropy: Callable[[int], bytes],
        emit: Callable[[NetworkOutput], None],
        connect: Callable[[Member], int],
        lost: Callable[[Member, Exception, float], None],
        not_own: Callable[[Member, float], None],
        refused: Callable[[Member, Refusal, float], None] = lambda member, why, now: None,
        told: Callable[[int, Opinion, float], None] = lambda number, opinion, now: None,
        wake: Callable[[OwnSender], None] | None = None,
        hellos_unanswered_max: int | None = 1,
        never_plain: bool = False,
    ) -> None:
        self.member = member
        self.state = SenderState.IDLE
        self.last_answer = 0.0
        self.features = 0
        self.outbox = Outbox(bounds)
        self.has_room = self.outbox.has_room
        self.round_trip = RoundTrip()
        self._side = side
        self._timeout = timeout
        self._keep_connected = keep_connected
        self._wants_connection = False
        self._key = key
        self._timers = timers
        self._entropy = entropy
        self._emit = emit
        self._new_attempt = connect
        self._lost = lost
        self._not_own = not_own
        self._refused = refused
        self._told = told
        self._wake = wake
        self._is_awake = False
        self._unanswered_max = None if never_plain else hellos_unanswered_max
        self._never_plain = never_plain
        self._unanswered = 0
        self._was_welcome = False
        self._incarnation = int.from_bytes(entropy(8), "big")
        self._hellos = 0
        self._connection: Connection | None = None
        self._backoff = 0.0
        self._deadline: Timer | None = None
        self._retry: Timer | None = None
        self._hello_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<OwnSender to {self.member.name} {self.state.value} {self.outbox!r}>"

    # What the channel does.

    def enqueue(self, frame: OutFrame, now: float) -> None:
        """Send ``frame`` after everything enqueued before it; what it needs is ``frame.need``."""
        if self.state in _FINAL:
            frame.settle(self._gone(), now)
            return
        frame.deadline = now + self._timeout
        self.outbox.put(frame)
        if self._deadline is None or not self._deadline.is_armed:
            self._deadline = self._timers.at(frame.deadline, self._expire)
        if self.state is SenderState.IDLE:
            self._connect()
        else:
            self._write_soon(now)

    def connect(self, now: float) -> None:
        """Open a connection now, and keep one open until :meth:`close`."""
        del now
        self._wants_connection = self._keep_connected
        if self.state in (SenderState.IDLE, SenderState.WAITING):
            self._connect()

    def close(self, why: Exception, now: float, *, abort: bool) -> None:
        """Fail whatever is still here with ``why`` and give the connection back."""
        self._finish(SenderState.CLOSED, abort=abort)
        self._settle([(item, why) for item in self.outbox.clear()], now)

    def take_queue(self) -> list[OutFrame]:
        """The frames for another kind of link, in order, none of them settled or begun.

        Raises:
            LocalProtocolError: The member was not found to be without the own link.
        """
        if self.state is not SenderState.NOT_OWN:
            raise LocalProtocolError("only frames for a member without the own link can be taken")
        return [item.frame for item in self.outbox.clear()]

    def flush(self, now: float) -> None:
        """Write what waits, as one output. Needed only with ``wake``."""
        self._is_awake = False
        self._pump(now)

    def idle_ping(self, now: float) -> bool:
        """Ask the member for a sign of life; False when there is no open link to ask on."""
        if self.state is not SenderState.OPEN:
            return False
        assert self._connection is not None
        self._connection.ping()
        self.round_trip.asked(PING, now)
        self._write_soon(now)
        return True

    @property
    def can_witness(self) -> bool:
        """Whether :meth:`ask` would ask."""
        return self.state is SenderState.OPEN and bool(self.features & WITNESSES)

    def ask(self, number: int, unique_id: bytes, now: float) -> bool:
        """Ask the member for its opinion of another one; False when it cannot be asked now. A
        connection that breaks takes the question with it.
        """
        return self._say(encode_frame(encode_ask(number, unique_id)), now)

    def doubt(self, now: float) -> bool:
        """Tell the member that it is suspected; False when it cannot be told."""
        return self._say(DOUBT_FRAME, now)

    def _say(self, frame: bytes, now: float) -> bool:
        if not self.can_witness:
            return False
        assert self._connection is not None
        self._connection.say(frame)
        self._write_soon(now)
        return True

    def tell(self, news: bytes, now: float) -> bool:
        """Tell the member news (:mod:`tribes.links.news`); False when there is no open link to tell
        it on, or the member takes none.
        """
        if self.state is not SenderState.OPEN or not self.features & FEATURE_NEWS:
            return False
        assert self._connection is not None
        self._connection.tell(news)
        self._write_soon(now)
        return True

    def leave(self, why: Exception, now: float) -> None:
        """Tell the member that this process leaves in good order, and close."""
        connection = self._connection
        if self.tell(LEAVE_BODY, now):
            self._pump(now)
        self._connection = None
        if connection is not None:
            # What was written must not be thrown away with the connection.
            self._emit(Close(connection.link, flush=True))
        self.close(why, now, abort=False)

    def hangs(self, now: float) -> bool:
        """Whether something was not received in its time on a connection that has been as silent
        for as long. Where the member is alive, :meth:`reset` is due.

        What a slow member still processes brings acknowledgements, so it does not count; nor does
        a connection that was made a moment ago, however old what waits on it is.
        """
        since = self.unanswered_since
        if since is None or self._connection is None:
            return False
        return now - max(since, self.last_answer) >= self._timeout

    def reset(self, why: Exception, now: float) -> None:
        """Give the connection up and make another: the member is alive, and this one is silent.

        A deadline never does this. After a cut of the network a connection may hang for minutes,
        until the kernel sends again; who knows that the member is alive should not wait for it.
        """
        connection = self._drop_link()
        if connection is not None:
            self._broken(connection, why, now)

    def rekey(
        self,
        key: tuple[int, SealerFactory],
        is_accepted: Callable[[SealerFactory], bool],
        now: float,
    ) -> None:
        """Open the next connections with this key, and end the present one if its key is not
        accepted any more; what it has not delivered goes by the next one.
        """
        self._key = key
        connection = self._connection
        if connection is not None and (connection.key is None or not is_accepted(connection.key)):
            self.reset(ConnectionResetError("the key of the connection was taken away"), now)

    def excuse(self, why: Exception, now: float) -> None:
        """Let go of every caller that waits; see :class:`PeerSender`."""
        excuse(self.outbox.with_tickets(), why, now)

    @property
    def unanswered_since(self) -> float | None:
        """When the oldest frame was queued that the member has not received; None: there is none.

        Frames are acknowledged as soon as they are read, so this says nothing of slow listeners but
        of those that are so far behind that their connection is not read any more.
        """
        frame = self.outbox.oldest_unreceived
        return None if frame is None else frame.deadline - self._timeout

    @property
    def round_trip_s(self) -> float | None:
        """Seconds that the link takes there and back, smoothed; None: not measured yet."""
        return self.round_trip.seconds

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way, but for frames that are too late already."""
        return self.outbox.is_idle

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait or are not yet acknowledged."""
        outbox = self.outbox
        raw, live = outbox.waiting_bytes
        return outbox.unacked_bytes + raw + live

    @property
    def load(self) -> Load:
        """The same, by kind."""
        return self.outbox.load

    @property
    def link(self) -> int | None:
        """The connection, if there is one."""
        return None if self._connection is None else self._connection.link

    # What the driver reports.

    def link_opened(self, link: int, now: float) -> None:
        """The connection asked for is there: say who we are, and whom we want."""
        if self.state is not SenderState.CONNECTING:
            self._emit(Close(link))
            return
        self.state = SenderState.HELLO
        self._hellos += 1
        opening = Opening(
            self._side,
            self.member.unique_id,
            key=self._key,
            incarnation=self._incarnation,
            attempt=self._hellos,
            entropy=self._entropy,
        )
        self._connection = Connection(link, opening, now, emit=self._emit)
        self.last_answer = now
        self.round_trip.lost()
        self.round_trip.asked(PING, now)
        self._hello_timer = self._timers.at(now + HELLO_TIMEOUT_S, self._no_welcome)

    def connect_failed(self, why: Exception, now: float) -> None:
        """No connection: tried again later."""
        if self.state is SenderState.CONNECTING:
            self._broken(None, why, now)

    def link_closed(self, why: Exception | None, now: float) -> None:
        """The connection broke: what the member has not received goes by the next one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        end = why or ConnectionResetError("the member closed the connection")
        if connection.is_open:
            self._broken(connection, end, now)
        else:
            self._no_answer(end, now)

    def received(self, data: bytes, now: float) -> None:
        """Bytes from the member."""
        connection = self._connection
        if connection is None:
            return
        self.last_answer = now
        try:
            if self.state is SenderState.HELLO:
                data = self._open_up(connection, data, now)
            if self.state is SenderState.OPEN and data:
                self._take(connection, data, now)
        except RemoteProtocolError as why:
            if self._connection is not connection:
                return  # given up by a callback, before the error was reached
            is_stranger = not (connection.is_open or self._was_welcome or self._never_plain)
            self._drop_link()
            if is_stranger:
                self._is_not_own(now)
            else:
                self._broken(connection, why, now)

    def writable(self, total: int, now: float) -> None:
        """The kernel has taken ``total`` bytes of this link so far."""
        if self._connection is not None:
            self._connection.flushed(total)
        if self.state is SenderState.OPEN:
            if done := self.outbox.flushed(total):
                self._settle([(item, None) for item in done], now)
            self._write_soon(now)

    # Opening.

    def _connect(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self.state = SenderState.CONNECTING
        self._emit(Connect(self._new_attempt(self.member), self.member.address, self._timeout))

    def _open_up(self, connection: Connection, data: bytes, now: float) -> bytes:
        answer = connection.answer(data)
        if isinstance(answer, Refusal):
            self._on_refusal(answer, now)
        elif answer is not None:
            self._on_welcome(connection, answer, now)
            return answer.rest
        return b""

    def _on_welcome(self, connection: Connection, opened: Opened, now: float) -> None:
        welcome = opened.welcome
        self.round_trip.ponged(now)
        resumed = self.outbox.resume(
            welcome.incarnation, welcome.received, body_max_bytes=welcome.body_max_bytes
        )
        self._cancel(self._hello_timer)
        connection.start(opened)
        connection.made_progress = bool(resumed.received)
        self.state = SenderState.OPEN
        self._was_welcome = True
        self.features = welcome.features & self._side.features
        self.outbox.takes_traces = bool(self.features & FEATURE_TRACE)
        forgot = MemberUnreachableError(
            f"{self.member.name} has forgotten this sender: what was on its way may have arrived"
        )
        self._settle(
            [*((item, None) for item in resumed.received), *((i, forgot) for i in resumed.unknown)],
            now,
        )
        self._write_soon(now)

    def _on_refusal(self, refusal: Refusal, now: float) -> None:
        self._drop_link()
        self._unanswered = 0
        why = MemberUnreachableError(f"{self.member.name} refused the connection: {refusal.text}")
        if refusal.code is RefuseCode.VERSION and not self._never_plain:
            self._finish(SenderState.INCOMPATIBLE)
            self._settle([(item, why) for item in self.outbox.clear()], now)
            self._refused(self.member, refusal, now)
            return
        self._broken(None, why, now)
        self._refused(self.member, refusal, now)

    def _no_welcome(self, now: float) -> None:
        self._drop_link()
        self._no_answer(TimeoutError("no answer to HELLO"), now)

    def _no_answer(self, why: Exception, now: float) -> None:
        self._unanswered += 1
        limit = self._unanswered_max
        if not self._was_welcome and limit is not None and self._unanswered >= limit:
            self._is_not_own(now)
        else:
            self._broken(None, why, now)

    def _is_not_own(self, now: float) -> None:
        self._finish(SenderState.NOT_OWN)
        self._not_own(self.member, now)

    # Open.

    def _take(self, connection: Connection, data: bytes, now: float) -> None:
        done: list[tuple[Item, Exception | None]] = []
        opinions: list[tuple[int, Opinion]] = []
        try:
            for body in connection.read(data):
                self._on_control(connection, body, done, opinions, now)
        finally:
            self._settle(done, now)
        for number, opinion in opinions:
            self._told(number, opinion, now)
        self._write_soon(now)

    def _on_control(
        self,
        connection: Connection,
        body: bytes,
        done: list[tuple[Item, Exception | None]],
        opinions: list[tuple[int, Opinion]],
        now: float,
    ) -> None:
        kind = body[3] if len(body) > 3 and body.startswith(CONTROL_MARK) else 0
        if kind == Control.ACK:
            ack = decode_ack(body)
            progress = self.outbox.acked(ack)
            self.round_trip.acknowledged(ack.received, now)
            connection.made_progress = connection.made_progress or progress.is_progress
            for item, reason in progress.failed:
                error = RemoteProcessError(f"the listener at {self.member.name} failed: {reason}")
                done.append((item, error))
            done.extend((item, None) for item in progress.done)
            if ack.failures:
                connection.confirm(ack.serial)
        elif kind == Control.TOLD and self.features & WITNESSES:
            opinions.append(decode_told(body))
        elif kind == Control.PONG and len(body) == 4:
            self.round_trip.ponged(now)
        else:
            raise RemoteProtocolError(f"a frame of type {kind} has no place here")

    def _write_soon(self, now: float) -> None:
        if self.state is not SenderState.OPEN:
            return
        if self._wake is None:
            self._pump(now)
        elif not self._is_awake:
            assert self._connection is not None
            if self._connection.has_to_write(self.outbox):
                self._is_awake = True
                self._wake(self)

    def _pump(self, now: float) -> None:
        if self.state is SenderState.OPEN:
            assert self._connection is not None
            before = self.outbox.position
            refused = self._connection.pump(self.outbox)
            if self.outbox.position > before:
                self.round_trip.asked(before + 1, now)
            if refused:
                self._settle([(item, self._too_long(item)) for item in refused], now)

    # Ends.

    def _settle(self, items: list[tuple[Item, Exception | None]], now: float) -> None:
        # Each was taken out of the outbox before, so nothing that a callback does ends it twice.
        for item, error in items:
            item.frame.settle(error, now)

    def _broken(self, connection: Connection | None, why: Exception, now: float) -> None:
        self._cancel(self._hello_timer)
        if connection is not None and connection.was_good(now):
            self._backoff = 0.0
        pause = self._backoff
        self._backoff = min(max(2 * self._backoff, _BACKOFF_FIRST_S), _BACKOFF_MAX_S)
        if not self._wants_connection and self.outbox.is_idle:
            self.state = SenderState.IDLE
        elif pause:
            self.state = SenderState.WAITING
            self._retry = self._timers.at(now + pause, self._try_again)
        else:
            self._connect()
        self._lost(self.member, why, now)

    def _try_again(self, now: float) -> None:
        del now
        if self.state is not SenderState.WAITING:
            return
        if self._wants_connection or not self.outbox.is_idle:
            self._connect()
        else:
            self.state = SenderState.IDLE

    def _expire(self, now: float) -> None:
        late = self.outbox.expired(now)
        deadline = self.outbox.next_deadline
        if deadline is not None:
            self._deadline = self._timers.at(deadline, self._expire)
        self._settle([(item, self._late(item)) for item in late], now)

    def _drop_link(self, *, abort: bool = True) -> Connection | None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._emit(Close(connection.link, abort=abort))
        return connection

    def _finish(self, state: SenderState, *, abort: bool = True) -> None:
        self.state = state
        for timer in (self._deadline, self._retry, self._hello_timer):
            self._cancel(timer)
        self._drop_link(abort=abort)

    def _cancel(self, timer: Timer | None) -> None:
        if timer is not None:
            timer.cancel()

    def _late(self, item: Item) -> SendTimeoutError:
        what = "did not acknowledge" if item.position else "could not be sent anything"
        return SendTimeoutError(f"{self.member.name} {what} within {self._timeout * 1000:.0f} ms")

    def _too_long(self, item: Item) -> LocalProtocolError:
        return LocalProtocolError(
            f"a frame of {len(item.frame.data)} bytes is longer than {self.member.name} reads"
        )

    def _gone(self) -> MemberUnreachableError:
        if self.state is SenderState.INCOMPATIBLE:
            return MemberUnreachableError(f"{self.member.name} speaks no version that we speak")
        return MemberUnreachableError(f"{self.member.name} is no longer a member")
