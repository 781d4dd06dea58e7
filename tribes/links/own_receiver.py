"""The receiving end of an own link: one accepted connection (DESIGN §4.2).

::

    HELLO ──HELLO──▶ START ──START──▶ OPEN
      └─────────────────┴── refused, late, wrong, displaced ──▶ CLOSED

Rules of this file:

1. Nothing that is remembered changes before START. With a key, START proves that its sender holds
   it, so a stranger can neither displace a connection nor have anything remembered.
2. Of two connections of one sender the newer one wins, by the sender's own count.
3. A HELLO for `ANYBODY` is answered and no more: START does not follow.
4. Positions are counted, not written. Frames that a displaced connection brought after WELCOME was
   written come again on the new one; START says where that begins, and they are skipped.

It is longer than most files: the opening and the frames after it share the seal, the inbox and the
gate, and half of them would be handed from one part to the other.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

from tribes.errors import RemoteProtocolError
from tribes.links.challenge import encode_introduction
from tribes.links.news import NEWS, NEWS_PER_READ_MAX
from tribes.links.own_acks import (
    PONG_FRAME,
    decode_ask,
    decode_seen,
    encode_ack,
    encode_told,
)
from tribes.links.own_inbox import OPEN_MAX, OwnInbox
from tribes.links.own_opening import OneFrame
from tribes.links.own_wire import (
    ANYBODY,
    CONTROL_MARK,
    FEATURE_NEWS,
    FEATURE_TRACE,
    HELLO_BODY_MAX_BYTES,
    HELLO_TIMEOUT_S,
    NONCE_BYTES,
    WELCOME_BODY_MAX_BYTES,
    WITNESSES,
    Control,
    Opinion,
    Refusal,
    RefuseCode,
    Start,
    Welcome,
    choose_version,
    decode_hello,
    decode_start,
    encode_refusal,
    encode_start,
    encode_welcome,
    proven,
)
from tribes.links.read_gate import ReadGate
from tribes.wire.frame import FrameDecoder, encode_frame
from tribes.wire.outputs import Close, NetworkOutput, Write

if TYPE_CHECKING:
    from tribes.links.link_keys import Opener, SealerFactory
    from tribes.links.own_inbox import OwnInboxes
    from tribes.links.own_wire import Hello, OwnSide
    from tribes.timers import Timers
    from tribes.wire.member import Member

__all__ = ["OwnReceiver", "ReceiverState"]

OPINIONS_WAITING_MAX: Final = 256
"""Answers about other members that wait for the next write; later ones are left out."""

_ESCAPE_BYTES: Final = 4
_TRACED_BYTES: Final = 29


class ReceiverState(enum.Enum):
    """What is expected next."""

    HELLO = "hello"
    START = "start"
    OPEN = "open"
    CLOSED = "closed"


@final
class OwnReceiver:
    """An accepted connection whose first bytes are a HELLO, see ``is_hello``.

    Whoever owns it calls :meth:`closed` once the connection is gone, whoever ended it, and gives
    the outcome of every frame that :meth:`feed` returned to ``inbox.done``.

    Args:
        link: The driver's name of the connection.
        peer: Where it comes from.
        now: Monotonic seconds.
        side: What this process says of itself.
        inboxes: What is remembered of the senders, shared by all receivers.
        keys: The keys accepted, by id; none: links are neither proved nor sealed.
        body_max_bytes: Longest channel data that is read.
        timers: Where it asks to be woken.
        entropy: Gives n random bytes.
        emit: Takes the outputs.
        started: Told when the sender is known and frames may follow.
        ended: Told when this object closed the connection itself (refused, late, displaced). The
            output ``Close`` is emitted already; :meth:`closed` is still to be called.
        tail: Gives what WELCOME says behind its known fields.
        record: Gives the own record, for who asks who is here.
        asked: Gets the number and the unique id of a question about another member; the answer goes
            to :meth:`tell`.
        doubted: Told when the sender says that it suspects this member.

    Attributes:
        broken: Why nothing can be read from this connection any more, if so.
        features: Bits that both sides have.
        source: Who has opened it, from START on; the only one in ``sources``.
        writable: See :meth:`ReadGate.writable`; so are ``hold`` and ``release``.
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_body_max_bytes",
        "_decoder",
        "_doubted",
        "_emit",
        "_ended",
        "_entropy",
        "_first",
        "_gate",
        "_hello",
        "_inbox",
        "_inboxes",
        "_is_full",
        "_key",
        "_keys",
        "_nonce",
        "_opener",
        "_pongs",
        "_record",
        "_seal",
        "_side",
        "_skip",
        "_started",
        "_tail",
        "_timer",
        "_told",
        "_trace",
        "_welcome",
        "broken",
        "features",
        "hold",
        "link",
        "news",
        "peer",
        "release",
        "source",
        "sources",
        "state",
        "traces",
        "writable",
    )

    def __init__(
        self,
        link: int,
        peer: tuple[str, int],
        now: float,
        *,
        side: OwnSide,
        inboxes: OwnInboxes,
        keys: Mapping[int, SealerFactory],
        body_max_bytes: int,
        timers: Timers,
        entropy: Callable[[int], bytes],
        emit: Callable[[NetworkOutput], None],
        started: Callable[[OwnReceiver, float], None],
        ended: Callable[[OwnReceiver, Exception, float], None],
        tail: Callable[[], bytes] = lambda: b"",
        record: Callable[[], bytes] | None = None,
        asked: Callable[[OwnReceiver, int, bytes, float], None] = lambda link, number, about, now: (
            None
        ),
        doubted: Callable[[Member, float], None] = lambda member, now: None,
    ) -> None:
        self.link = link
        self.peer = peer
        self.state = ReceiverState.HELLO
        self.broken: RemoteProtocolError | None = None
        self.source: Member | None = None
        self.sources: dict[Member, None] = {}
        self.features = 0
        self.news: list[tuple[int, bytes]] = []
        """What its sender told, kind and body, for the owner to take after each :meth:`feed`."""
        self._side = side
        self._inboxes = inboxes
        self._inbox: OwnInbox | None = None
        self._keys = keys
        self._key: SealerFactory | None = None
        self._entropy = entropy
        self._emit = emit
        self._started = started
        self._ended = ended
        self._tail = tail
        self._record = record
        self._asked = asked
        self._doubted = doubted
        self._told: list[bytes] = []
        self.traces: dict[int, bytes] = {}
        """The spans of frames that :meth:`feed` returned, by position, for the owner to take."""
        self._trace = b""
        self._body_max_bytes = body_max_bytes
        self._first = OneFrame(HELLO_BODY_MAX_BYTES)
        self._decoder = FrameDecoder(body_max_bytes=body_max_bytes + _TRACED_BYTES)
        self._hello: tuple[Hello, bytes] | None = None
        self._welcome = b""
        self._nonce = b""
        self._seal: Callable[[bytes], bytes] | None = None
        self._opener: Opener | None = None
        self._skip = 0
        self._pongs = False
        self._gate = gate = ReadGate(link, emit)
        self.writable, self.hold, self.release = gate.writable, gate.hold, gate.release
        self._is_full = False
        self._timer = timers.at(now + HELLO_TIMEOUT_S, self._late)

    def __repr__(self) -> str:
        return f"<OwnReceiver link={self.link} {self.state.value} inbox={self._inbox!r}>"

    @property
    def key(self) -> SealerFactory | None:
        """The key that its peer named; None before HELLO, and without a key."""
        return self._key

    @property
    def inbox(self) -> OwnInbox:
        """What is remembered of this sender. It outlives the connection: outcomes go there."""
        assert self._inbox is not None, "there is an inbox from `started` on"
        return self._inbox

    # What the channel does.

    def feed(self, data: bytes, now: float) -> list[tuple[int, bytes]]:
        """Take bytes; return the new frames, each with its position and channel data.

        As with a frame decoder, look at ``broken`` after handling what was returned.
        """
        taken: list[tuple[int, bytes]] = []
        if self.broken is not None:
            return taken
        try:
            if self.state is not ReceiverState.OPEN:
                data = self._open_up(data, now)
            if self.state is ReceiverState.OPEN and data:
                self._take(data, taken, now)
        except RemoteProtocolError as why:
            self.broken = why.with_traceback(None)
        if taken and not self._is_full and self.inbox.open_count > OPEN_MAX:
            self._is_full = True
            self.hold()
        return taken

    def flush(self) -> None:
        """Write the acknowledgements that are due, all in one; nothing when nothing changed."""
        inbox = self._inbox
        if self.state is not ReceiverState.OPEN or inbox is None:
            return
        chunks = [encode_frame(encode_ack(ack)) for ack in inbox.acks()]
        if self._pongs:
            self._pongs = False
            chunks.append(PONG_FRAME)
        if self._told:
            chunks += self._told
            self._told.clear()
        if chunks:
            self._write(chunks)
            self._gate.check()

    def tell(self, number: int, opinion: Opinion) -> None:
        """Answer a question about another member with the next :meth:`flush`."""
        if len(self._told) < OPINIONS_WAITING_MAX:
            self._told.append(encode_frame(encode_told(number, opinion)))

    def eased(self) -> None:
        """An outcome became known: read again if that was what it waited for."""
        if self._is_full and self.inbox.open_count <= OPEN_MAX // 2:
            self._is_full = False
            self.release()

    def closed(self) -> None:
        """The connection is gone. May be called more than once."""
        self.state = ReceiverState.CLOSED
        self._gate.close()
        self._timer.cancel()
        if self._inbox is not None:
            self._inboxes.rest(self._inbox, self)

    # Opening.

    def _open_up(self, data: bytes, now: float) -> bytes:
        while self.state in (ReceiverState.HELLO, ReceiverState.START):
            whole = self._first.feed(data)
            if whole is None:
                return b""
            body, data = whole
            self._first = OneFrame(WELCOME_BODY_MAX_BYTES)
            if self.state is ReceiverState.HELLO:
                self._on_hello(body, now)
            else:
                self._on_start(body, now)
        return data

    def _on_hello(self, body: bytes, now: float) -> None:
        hello = decode_hello(body)
        version = choose_version(self._side.versions, hello.versions)
        refusal = self._refusal(hello, version)
        if refusal is not None:
            self._emit(Write(self.link, [encode_frame(encode_refusal(refusal))]))
            why = RemoteProtocolError(f"refused: {refusal.text}")
            self._end(why, now, flush=True)
            return
        assert version is not None
        self._hello = (hello, body)
        self._key = self._keys.get(hello.key_id)
        self._inbox = self._inboxes.find(hello.source.unique_id, hello.incarnation)
        self._nonce = self._entropy(NONCE_BYTES)
        self.features = self._side.features & hello.features
        welcome = Welcome(
            version,
            self.features,
            self._inbox.incarnation,
            self._side.unique_id,
            self._nonce,
            hello.key_id,
            self._inbox.received,
            self._body_max_bytes,
        )
        tail = self._tail()
        if hello.target == ANYBODY:
            record = self._side.record if self._record is None else self._record()
            tail = encode_introduction(tail, record, self._side.about())
        self._welcome = encode_welcome(welcome) + tail
        if self._key is not None:
            self._seal, self._opener = self._key.sealers(hello.nonce, self._nonce, is_client=False)
            proof = self._key.hello_tag(proven(b"server", body, self._welcome))
            self._welcome = encode_welcome(replace(welcome, proof=proof)) + tail
        frame = encode_frame(self._welcome)
        self._gate.write([frame])
        self.state = ReceiverState.START

    def _refusal(self, hello: Hello, version: int | None) -> Refusal | None:
        if hello.target not in (self._side.unique_id, ANYBODY):
            return Refusal(RefuseCode.NOT_ME, "another member listens here")
        if hello.source.unique_id == self._side.unique_id and hello.target != ANYBODY:
            raise RemoteProtocolError("a HELLO in this member's own name")
        if version is None:
            low, high = self._side.versions
            return Refusal(RefuseCode.VERSION, f"versions {low} to {high} are spoken here")
        if hello.key_id not in (self._keys or (0,)):
            return Refusal(RefuseCode.KEY, f"key {hello.key_id} is not known here")
        return None

    def _on_start(self, body: bytes, now: float) -> None:
        start = decode_start(body)
        assert self._hello is not None
        hello, hello_body = self._hello
        if hello.target == ANYBODY:
            raise RemoteProtocolError("START on a connection that asked who is here")
        if self._key is not None:
            unproved = encode_start(Start(start.first))
            if not self._key.check(
                proven(b"client", hello_body, self._welcome, unproved), start.proof
            ):
                raise RemoteProtocolError("START does not prove the key")
        inbox = self.inbox
        if start.first > inbox.received + 1:
            raise RemoteProtocolError(
                f"starts at position {start.first}, received were {inbox.received}"
            )
        displaced = self._inboxes.adopt(inbox, self, hello.attempt)
        self._skip = inbox.received + 1 - start.first
        self._hello, self._welcome = None, b""
        self._timer.cancel()
        self.state = ReceiverState.OPEN
        self.source = hello.source
        self.sources[hello.source] = None
        if displaced is not None:
            displaced._end(RemoteProtocolError("displaced by a newer connection"), now)
        self._started(self, now)

    def _late(self, now: float) -> None:
        self._end(RemoteProtocolError("the opening took too long"), now)

    def _end(self, why: Exception, now: float, *, flush: bool = False) -> None:
        if self.state is not ReceiverState.CLOSED:
            self.state = ReceiverState.CLOSED
            self._gate.close()
            self._timer.cancel()
            self._emit(Close(self.link, flush=flush))
            self._ended(self, why, now)

    # Open.

    def _take(self, data: bytes, taken: list[tuple[int, bytes]], now: float) -> None:
        inbox = self.inbox
        pieces = [data] if self._opener is None else self._opener.feed(data)
        for piece in pieces:
            for body in self._decoder.feed(piece):
                if body.startswith(CONTROL_MARK):
                    content = self._control(body, now)
                    if content is None:
                        continue
                else:
                    content = body
                if len(content) > self._body_max_bytes:
                    # The decoder lets a trace pass beside it.
                    raise RemoteProtocolError(f"a frame of {len(content)} bytes is too long")
                if self._skip:
                    self._skip -= 1
                else:
                    taken.append((inbox.take(content), content))
                    if self._trace:
                        self.traces[taken[-1][0]] = self._trace
                self._trace = b""
            if self._decoder.broken is not None:
                raise self._decoder.broken
        inbox.check_confirmed()

    def _control(self, body: bytes, now: float) -> bytes | None:
        """Handle a control frame; return the channel data that a DATA holds."""
        kind = body[3] if len(body) > 3 else 0
        if kind == Control.DATA:
            return body[_ESCAPE_BYTES:]
        if kind == Control.TRACED and self.features & FEATURE_TRACE:
            if len(body) < _TRACED_BYTES:
                raise RemoteProtocolError("a frame ends within its trace")
            self._trace = body[_ESCAPE_BYTES:_TRACED_BYTES]
            return body[_TRACED_BYTES:]
        if kind == Control.PING and len(body) == 4:
            self._pongs = True
        elif kind == Control.SEEN:
            self.inbox.confirm(decode_seen(body))
        elif kind == Control.ASK and self.features & WITNESSES:
            self._asked(self, *decode_ask(body), now)
        elif kind == Control.DOUBT and len(body) == 4 and self.features & WITNESSES:
            assert self.source is not None
            self._pongs = True
            self._doubted(self.source, now)
        elif kind in NEWS and self.features & FEATURE_NEWS:
            if len(self.news) >= NEWS_PER_READ_MAX:
                raise RemoteProtocolError("too many news at once")
            self.news.append((kind, body))
        else:
            raise RemoteProtocolError(f"a control frame of type {kind} has no place here")
        return None

    def _write(self, chunks: list[bytes]) -> None:
        if self._seal is not None:
            chunks = [self._seal(b"".join(chunks))]
        self._gate.write(chunks)
