"""A sender and receivers on own links with a fake network between them, and a toy key."""

from __future__ import annotations

import hashlib
import hmac
import random
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tribes.errors import RemoteProtocolError
from tribes.links.base import Need, OutFrame
from tribes.links.own_inbox import OwnInbox, OwnInboxes
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import OwnSender
from tribes.links.own_wire import OwnSide, Refusal, is_hello
from tribes.timers import Timers
from tribes.wire.frame import encode_frame
from tribes.wire.member import Member, encode_member
from tribes.wire.outputs import Close, Connect, NetworkOutput, Pause, Resume, Write

if TYPE_CHECKING:
    from tribes.links.link_keys import Opener, SealerFactory

SENDER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=b"s" * 16)
RECEIVER = Member(host=b"\x7f\x00\x00\x01", port=4002, unique_id=b"r" * 16)

OPTIONS = {Need.NOTHING: 1, Need.RECEIVED: 3, Need.PROCESSED: 7}
_BODY = struct.Struct(">ii")


def side_of(member: Member, **settings: Any) -> OwnSide:
    return OwnSide(encode_member(member), member.unique_id, **settings)


class Frame(OutFrame):
    """A frame with a need and a number, which remembers how it ended."""

    __slots__ = ("need", "number")

    def __init__(
        self,
        number: int,
        need: Need,
        settle: Callable[[Exception | None, float], None],
        *,
        size: int = 0,
        high: int = 0,
    ) -> None:
        body = _BODY.pack(high | OPTIONS[need], number) + b"." * size
        super().__init__(encode_frame(body), needs_ack=need is not Need.NOTHING, settle=settle)
        self.need = need
        self.number = number


def number_of(body: bytes) -> int:
    number: int = _BODY.unpack_from(body)[1]
    return number


class ToyOpener:
    """Checks and opens records ``u32 length | 8 B tag | data``, XORed with one byte."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._data = b""
        self._count = 0

    def feed(self, data: bytes) -> list[bytes]:
        self._data += data
        opened = []
        while len(self._data) >= 12:
            size = int.from_bytes(self._data[:4], "big")
            if size > 1 << 24:
                raise RemoteProtocolError("record too long")
            if len(self._data) < 12 + size:
                break
            sealed = self._data[12 : 12 + size]
            if not hmac.compare_digest(toy_tag(self._key, self._count, sealed), self._data[4:12]):
                raise RemoteProtocolError("record was changed")
            self._count += 1
            self._data = self._data[12 + size :]
            opened.append(toy_xor(self._key, sealed))
        return opened


def toy_tag(key: bytes, count: int, data: bytes) -> bytes:
    return hmac.digest(key, count.to_bytes(8, "big") + data, "sha256")[:8]


def toy_xor(key: bytes, data: bytes) -> bytes:
    return data.translate(bytes(i ^ key[0] for i in range(256)))


class ToyKey:
    """A ``SealerFactory`` that protects nothing but notices every mistake."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def hello_tag(self, transcript: bytes) -> bytes:
        return hmac.digest(self._secret, transcript, "sha256")[:16]

    def check(self, transcript: bytes, tag: bytes) -> bool:
        return hmac.compare_digest(self.hello_tag(transcript), tag)

    def sealers(
        self, client_nonce: bytes, server_nonce: bytes, *, is_client: bool
    ) -> tuple[Callable[[bytes], bytes], Opener]:
        def key(who: bytes) -> bytes:
            return hashlib.sha256(self._secret + who + client_nonce + server_nonce).digest()

        mine, theirs = (b"c", b"s") if is_client else (b"s", b"c")
        count = 0

        def seal(data: bytes) -> bytes:
            nonlocal count
            sealed = toy_xor(key(mine), data)
            record = len(data).to_bytes(4, "big") + toy_tag(key(mine), count, sealed) + sealed
            count += 1
            return record

        return seal, ToyOpener(key(theirs))


class Wire:
    """One connection: what is under way in each direction, and who still knows it."""

    def __init__(self, link: int, sender: OwnSender) -> None:
        self.link = link
        self.sender = sender
        self.up = bytearray()
        self.down = bytearray()
        self.sent = bytearray()  # all that the sender ever wrote
        self.taken = 0  # of that, what the kernel has
        self.down_written = 0
        self.is_known_to_sender = True
        self.is_known_to_receiver = True
        self.receiver: OwnReceiver | None = None
        self.is_paused = False
        self.first = b""


class Pair:
    """A sender, the receivers of its connections, and the network between them.

    Nothing moves by itself: tests move bytes, or call :meth:`settle_down` to move all.
    """

    def __init__(
        self,
        *,
        rng: random.Random | None = None,
        sealed: bool = False,
        sender_key: tuple[int, SealerFactory] | None = None,
        receiver_keys: dict[int, SealerFactory] | None = None,
        use_wake: bool = False,
        sender_side: OwnSide | None = None,
        receiver_side: OwnSide | None = None,
        body_max_bytes: int = 1 << 20,
        **settings: Any,
    ) -> None:
        if sealed:
            sender_key, receiver_keys = (7, ToyKey(b"k")), {7: ToyKey(b"k")}
        self.rng = rng or random.Random(0)
        self.now = 0.0
        self.timers = Timers()
        self.wires: dict[int, Wire] = {}
        self.attempts: list[int] = []
        self.outputs: list[NetworkOutput] = []
        self.receiver_outputs: list[NetworkOutput] = []
        self.lost: list[Exception] = []
        self.refusals: list[Refusal] = []
        self.not_own: list[Member] = []
        self.ended: list[Exception] = []
        self.broken: list[RemoteProtocolError] = []
        self.started: list[OwnReceiver] = []
        self.woken = 0
        self.use_wake = use_wake
        self.settled: list[tuple[Frame, Exception | None]] = []
        self.arrived: list[int] = []
        self.open: list[tuple[OwnInbox, int, int]] = []
        self.auto_done = True
        self._attempt = 0
        self._link = 0
        self._frames = 0
        self.frames: list[Frame] = []
        self.keys = receiver_keys or {}
        self.body_max_bytes = body_max_bytes
        self.asked: Callable[[OwnReceiver, int, bytes, float], None] = lambda *_: None
        self.doubted: Callable[[Member, float], None] = lambda *_: None
        self.receiver_side = receiver_side or side_of(RECEIVER)
        self.inboxes = OwnInboxes(self.rng.randbytes)
        self.settings: dict[str, Any] = {
            "side": sender_side or side_of(SENDER),
            "timeout": 3.0,
            "key": sender_key,
            "timers": self.timers,
            "entropy": self.rng.randbytes,
            "emit": self.outputs.append,
            "lost": lambda member, why, now: self.lost.append(why),
            "not_own": lambda member, now: self.not_own.append(member),
            "refused": lambda member, why, now: self.refusals.append(why),
            "wake": self._wake if use_wake else None,
            **settings,
        }
        self._owners: dict[int, OwnSender] = {}
        self.sender = self.make_sender()

    def make_sender(self) -> OwnSender:
        """Another sender of this process to the same member."""

        def connect(member: Member) -> int:
            self._attempt += 1
            self._owners[self._attempt] = sender
            return self._attempt

        sender = OwnSender(RECEIVER, connect=connect, **self.settings)
        return sender

    def _wake(self, sender: OwnSender) -> None:
        self.woken += 1

    # What a test does.

    def put(
        self,
        need: Need = Need.PROCESSED,
        *,
        size: int = 0,
        high: int = 0,
        perform: bool = True,
    ) -> Frame:
        self._frames += 1
        frame = Frame(
            self._frames,
            need,
            lambda error, now: self.settled.append((frame, error)),
            size=size,
            high=high,
        )
        self.frames.append(frame)
        self.sender.enqueue(frame, self.now)
        if perform:
            self.perform()
        return frame

    def outcomes(self) -> list[tuple[int, str]]:
        return [(f.number, "ok" if e is None else type(e).__name__) for f, e in self.settled]

    @property
    def inbox(self) -> OwnInbox:
        inbox = self.inboxes.get(SENDER.unique_id)
        assert inbox is not None
        return inbox

    @property
    def live(self) -> Wire:
        """The connection that the sender uses."""
        assert self.sender.link is not None
        return self.wires[self.sender.link]

    def perform(self) -> None:
        """Act on all outputs, as a driver does before the next input."""
        if self.woken:
            self.woken = 0
            self.sender.flush(self.now)
        for output in self._take(self.outputs):
            match output:
                case Connect(attempt):
                    self.attempts.append(attempt)
                case Write(link, chunks):
                    assert chunks
                    assert all(chunks)
                    wire = self.wires[link]
                    wire.up += b"".join(chunks)
                    wire.sent += b"".join(chunks)
                case Close(link):
                    self.wires[link].is_known_to_sender = False
                case _:
                    raise AssertionError(output)
        for output in self._take(self.receiver_outputs):
            match output:
                case Write(link, chunks):
                    assert chunks
                    wire = self.wires[link]
                    wire.down += b"".join(chunks)
                    wire.down_written += sum(map(len, chunks))
                case Close(link):
                    self._receiver_gone(self.wires[link])
                case Pause(link):
                    self.wires[link].is_paused = True
                case Resume(link):
                    self.wires[link].is_paused = False
                case _:
                    raise AssertionError(output)

    def _take(self, outputs: list[NetworkOutput]) -> list[NetworkOutput]:
        taken = outputs[:]
        outputs.clear()
        return taken

    def connect(self, *, works: bool = True) -> None:
        """Answer the oldest ``Connect``."""
        sender = self._owners[self.attempts.pop(0)]
        if not works:
            sender.connect_failed(ConnectionRefusedError("refused"), self.now)
        else:
            self._link += 1
            self.wires[self._link] = Wire(self._link, sender)
            sender.link_opened(self._link, self.now)
        self.perform()

    def take(self, wire: Wire, size: int | None = None) -> None:
        """The kernel takes bytes of the sender."""
        left = len(wire.sent) - wire.taken
        wire.taken += left if size is None else min(size, left)
        if wire.is_known_to_sender:
            wire.sender.writable(wire.taken, self.now)
            self.perform()

    def move_up(self, wire: Wire, size: int | None = None) -> None:
        """The receiver reads bytes."""
        if wire.is_paused or not wire.is_known_to_receiver:
            return
        data = bytes(wire.up[:size])
        del wire.up[: len(data)]
        if wire.taken < len(wire.sent) - len(wire.up):
            self.take(wire, len(wire.sent) - len(wire.up) - wire.taken)
        if not data:
            return
        if wire.receiver is None:
            wire.first += data
            is_own = is_hello(wire.first)
            if is_own is None:
                return
            assert is_own, "not a HELLO"
            data = wire.first
            wire.receiver = self._accept(wire.link)
        receiver = wire.receiver
        for position, body in receiver.feed(data, self.now):
            self.arrived.append(number_of(body))
            self.open.append((receiver.inbox, position, number_of(body)))
            if self.auto_done:
                self.done(len(self.open) - 1)
        if receiver.broken is not None:
            self.broken.append(receiver.broken)
            self._receiver_gone(wire)
        self.perform()

    def _accept(self, link: int) -> OwnReceiver:
        return OwnReceiver(
            link,
            ("127.0.0.1", 1),
            self.now,
            side=self.receiver_side,
            inboxes=self.inboxes,
            keys=self.keys,
            body_max_bytes=self.body_max_bytes,
            timers=self.timers,
            entropy=self.rng.randbytes,
            emit=self.receiver_outputs.append,
            started=lambda receiver, now: self.started.append(receiver),
            ended=lambda receiver, why, now: self.ended.append(why),
            asked=lambda receiver, number, about, now: self.asked(receiver, number, about, now),
            doubted=lambda member, now: self.doubted(member, now),
        )

    def done(self, index: int = 0, error: Exception | str | None = None) -> int:
        """A delivery ends; returns the number of its frame."""
        inbox, position, number = self.open.pop(index)
        inbox.done(position, error)
        self.perform()
        return number

    def flush(self, wire: Wire | None = None) -> None:
        """The receiver's wake-up ends."""
        for each in [wire] if wire else list(self.wires.values()):
            if each.receiver is not None:
                each.receiver.flush()
        self.perform()

    def move_down(self, wire: Wire, size: int | None = None) -> None:
        """The sender reads bytes."""
        if not wire.is_known_to_sender:
            return
        data = bytes(wire.down[:size])
        del wire.down[: len(data)]
        if data:
            if wire.receiver is not None:
                wire.receiver.writable(wire.down_written - len(wire.down))
            wire.sender.received(data, self.now)
            self.perform()

    def cut(self, wire: Wire, *, sender: bool = True, receiver: bool = True) -> None:
        """The connection ends, for one side or both, with what is under way to them."""
        if receiver:
            self._receiver_gone(wire)
        if sender and wire.is_known_to_sender:
            wire.is_known_to_sender = False
            wire.sender.link_closed(ConnectionResetError("reset"), self.now)
        self.perform()

    def _receiver_gone(self, wire: Wire) -> None:
        wire.is_known_to_receiver = False
        if wire.receiver is not None:
            wire.receiver.closed()

    def sleep(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while self.timers.next_deadline <= end:
            self.now = max(self.now, self.timers.next_deadline)
            self.timers.run_due(self.now)
            self.perform()
        self.now = end

    def wait_for_attempt(self) -> float:
        """Let time pass until the sender wants a connection; returns the seconds."""
        since = self.now
        while not self.attempts:
            self.sleep(self.timers.next_deadline - self.now)
        return round(self.now - since, 6)

    def settle_down(self) -> None:
        """Move everything until nothing moves any more; no time passes."""
        for _ in range(10_000):
            before = self._moved()
            while self.attempts:
                self.connect()
            for wire in list(self.wires.values()):
                self.take(wire)
                self.move_up(wire)
                self.flush(wire)
                self.move_down(wire)
                if wire.is_known_to_sender and not wire.is_known_to_receiver and not wire.down:
                    self.cut(wire)
                if not wire.is_known_to_sender and wire.is_known_to_receiver and not wire.up:
                    self.cut(wire)
            if self._moved() == before:
                return
        raise AssertionError("it never comes to rest")

    def _moved(self) -> tuple[object, ...]:
        wires = [
            (len(w.sent), len(w.up), w.down_written, len(w.down), w.is_known_to_sender)
            for w in self.wires.values()
        ]
        return (*wires, len(self.settled), len(self.arrived), self.sender.state)

    def up(self) -> Pair:
        """Connect and come to rest; for chaining."""
        self.sender.connect(self.now)
        self.perform()
        self.settle_down()
        return self
