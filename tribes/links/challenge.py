"""Ask who is there, and for the proof that it is there now and holds the key (DESIGN §4.2, 4.3).

A heartbeat proves who made it, not when; an acknowledgement of a test frame proves that somebody
listens. So in a group with a key the test of a member is the first half of an own link::

    connect ── HELLO (its unique id, our nonce) ──▶
            ◀── WELCOME (its nonce, its life, proof over all of it) ──
    close

WELCOME's proof covers our nonce, so it was made now; it covers the unique id that we asked for; and
behind its known fields it covers the *life* of the member::

    u64 incarnation of its marks | u64 counter of its last mark

by which heartbeats that were sent before count for nothing any more. There is no START: the member
remembers nothing of us.

Who knows an address and not who is there asks with `ANYBODY` for unique id, with a key or without
one, and the member introduces itself behind the known fields, under the proof if there is one::

    u64 u64 its life, zero without a key | u32 length and its member record
    u64 its wall clock, milliseconds since 1970 | u8 length and its version, in ASCII

The second line is for people who look for a fault (`tribes doctor`), and may be missing.

In a group with TLS and no key the connection itself is the proof, so nothing else is proved on it.
Heartbeats say nothing there, and the member introduces itself to whoever asks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from tribes.errors import RemoteProtocolError
from tribes.links.own_opening import Opened, Opening
from tribes.links.own_wire import ANYBODY
from tribes.wire.member import Member, decode_member
from tribes.wire.outputs import Close, Connect, NetworkOutput, Write

if TYPE_CHECKING:
    from tribes.links.link_keys import LinkKeyring
    from tribes.links.own_wire import OwnSide
    from tribes.timers import Timer, Timers

__all__ = [
    "About",
    "Challenges",
    "Introduction",
    "Life",
    "decode_introduction",
    "decode_life",
    "encode_about",
    "encode_introduction",
    "encode_life",
]

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 1.5
REPLY_TIMEOUT_S: Final = 1.0
"""For a question to who is not a member yet; as the failure detector's."""

_LIFE: Final = struct.Struct(">QQ")
_LENGTH: Final = struct.Struct(">I")
_ABOUT: Final = struct.Struct(">QB")
_VERSION_MAX_CHARS: Final = 64

_NO_NUMBERING: Final = 0
"""Incarnation in a challenge's HELLO. All of them share one: a receiver remembers the incarnations
that were offered to it for a while, and these will never send anything."""


class Life(NamedTuple):
    """What a member states of itself under the proof.

    Attributes:
        incarnation: The one in its marks.
        counter: Of its last mark; earlier ones are worthless.
        record: Its encoded member record; empty where its marks are signed.
    """

    incarnation: int
    counter: int
    record: bytes = b""


class About(NamedTuple):
    """What a member tells of the machine and the program that it runs on.

    Attributes:
        wall_ms: Its wall clock, milliseconds since 1970.
        version: Of the product.
    """

    wall_ms: int
    version: str


class Introduction(NamedTuple):
    """What a member says when it is asked who it is.

    Attributes:
        life: Its life; all zero without a key.
        record: Its member record.
        about: None: it does not tell.
    """

    life: Life
    record: Member
    about: About | None = None


Answer = Callable[[Life | Exception, float], None]
Introduced = Callable[[Introduction | Exception, float], None]


def encode_life(life: Life) -> bytes:
    """Return what WELCOME says behind its known fields."""
    fields = _LIFE.pack(life.incarnation, life.counter)
    return fields + _LENGTH.pack(len(life.record)) + life.record if life.record else fields


def decode_life(tail: bytes) -> Life:
    """Return what WELCOME says behind its known fields; more may follow.

    Raises:
        RemoteProtocolError: It says nothing.
    """
    if len(tail) < _LIFE.size:
        raise RemoteProtocolError("WELCOME does not say which life it is of")
    incarnation, counter = _LIFE.unpack_from(tail)
    begin = _LIFE.size + _LENGTH.size
    if len(tail) < begin:
        return Life(incarnation, counter)
    (size,) = _LENGTH.unpack_from(tail, _LIFE.size)
    if begin + size > len(tail):
        raise RemoteProtocolError(f"WELCOME claims a record of {size} bytes")
    return Life(incarnation, counter, tail[begin : begin + size])


def encode_about(about: About) -> bytes:
    """Return what an introduction ends with."""
    version = about.version.encode("ascii", "replace")[:_VERSION_MAX_CHARS]
    return _ABOUT.pack(about.wall_ms, len(version)) + version


def encode_introduction(life: bytes, record: bytes, about: bytes = b"") -> bytes:
    """Return what WELCOME says behind its known fields to who asked who is there.

    Args:
        life: The encoded life; empty without a key.
        record: The own member record.
        about: The encoded rest.
    """
    if len(life) > _LIFE.size:
        return life + about  # with TLS it ends with the record
    return (life or encode_life(Life(0, 0))) + _LENGTH.pack(len(record)) + record + about


def decode_introduction(tail: bytes) -> Introduction:
    """Return what WELCOME says behind its known fields; more may follow.

    Raises:
        RemoteProtocolError: It is no introduction.
    """
    life = decode_life(tail)
    if not life.record:
        raise RemoteProtocolError("WELCOME does not say who is there")
    about = _decode_about(tail[_LIFE.size + _LENGTH.size + len(life.record) :])
    return Introduction(life, decode_member(life.record), about)


def _decode_about(tail: bytes) -> About | None:
    if len(tail) < _ABOUT.size:
        return None
    wall_ms, size = _ABOUT.unpack_from(tail)
    version = tail[_ABOUT.size : _ABOUT.size + size]
    if size > _VERSION_MAX_CHARS or len(version) < size or not version.isascii():
        raise RemoteProtocolError(f"an introduction ends with a version of {size} bytes")
    return About(wall_ms, version.decode("ascii"))


class _Challenge:
    """One question, from its connection to its answer."""

    def __init__(
        self,
        target: bytes,
        reply_timeout: float,
        answer: Callable[[Opened | Exception, float], None],
    ) -> None:
        self.target = target
        self.reply_timeout = reply_timeout
        self.answer = answer
        self.link: int | None = None
        self.opening: Opening | None = None
        self.timer: Timer | None = None


@final
class Challenges:
    """The questions under way. Each is answered once, or never if the channel stops before.

    Args:
        side: What this process says of itself.
        keys: The key to prove; None: none is. With TLS the connections themselves prove it.
        timers: Where it asks to be woken.
        entropy: Gives n random bytes.
        emit: Takes the outputs.
        new_attempt: Numbers connection attempts.
    """

    def __init__(
        self,
        *,
        side: OwnSide,
        keys: LinkKeyring | None,
        timers: Timers,
        entropy: Callable[[int], bytes],
        emit: Callable[[NetworkOutput], None],
        new_attempt: Callable[[], int],
    ) -> None:
        self.asked = 0
        self.proved = 0
        self._side = side
        self._keys = keys
        self._timers = timers
        self._entropy = entropy
        self._emit = emit
        self._new_attempt = new_attempt
        self._by_attempt: dict[int, _Challenge] = {}
        self._by_link: dict[int, _Challenge] = {}
        self._is_stopped = False

    def ask(
        self,
        member: Member,
        answer: Answer,
        *,
        connect_timeout: float = CONNECT_TIMEOUT_S,
        reply_timeout: float = REPLY_TIMEOUT_S,
    ) -> None:
        """Ask a member; ``answer`` gets its life, or why there is no proof.

        Whoever else is there is a ``ConnectionError``, and silence a ``TimeoutError``.
        """

        def answered(result: Opened | Exception, now: float) -> None:
            answer(_read(result, decode_life), now)

        self._ask(member.address, member.unique_id, connect_timeout, reply_timeout, answered)

    def meet(self, address: tuple[str, int], answer: Introduced) -> None:
        """Ask who is at an address; ``answer`` gets the introduction, or why there is none.

        Errors are those of :meth:`ask`.
        """

        def answered(result: Opened | Exception, now: float) -> None:
            answer(_read(result, decode_introduction), now)

        self._ask(address, ANYBODY, CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, answered)

    def _ask(
        self,
        address: tuple[str, int],
        target: bytes,
        connect_timeout: float,
        reply_timeout: float,
        answer: Callable[[Opened | Exception, float], None],
    ) -> None:
        attempt = self._new_attempt()
        self._by_attempt[attempt] = _Challenge(target, reply_timeout, answer)
        self.asked += 1
        self._emit(Connect(attempt, address, connect_timeout))

    def stop(self) -> None:
        """Give all questions up, without an answer."""
        self._is_stopped = True
        for challenge in self._by_link.values():
            if challenge.timer is not None:
                challenge.timer.cancel()
            assert challenge.link is not None
            self._emit(Close(challenge.link))
        self._by_link.clear()

    # What the driver reports; each tells whether it was about a question.

    def link_opened(self, attempt: int, link: int, now: float) -> bool:
        """A connection asked for is there."""
        challenge = self._by_attempt.pop(attempt, None)
        if challenge is None:
            return False
        if self._is_stopped:
            self._emit(Close(link))
            return True
        self._by_link[link] = challenge
        challenge.link = link
        challenge.opening = Opening(
            self._side,
            challenge.target,
            key=None if self._keys is None else self._keys.current,
            incarnation=_NO_NUMBERING,
            attempt=0,
            entropy=self._entropy,
        )

        def late(then: float) -> None:
            self._end(challenge, TimeoutError("no answer to HELLO"), then)

        challenge.timer = self._timers.at(now + challenge.reply_timeout, late)
        self._emit(Write(link, [challenge.opening.hello]))
        return True

    def connect_failed(self, attempt: int, why: Exception, now: float) -> bool:
        """A connection asked for could not be made."""
        challenge = self._by_attempt.pop(attempt, None)
        if challenge is None:
            return False
        if not self._is_stopped:
            challenge.answer(why, now)
        return True

    def link_bytes(self, link: int, data: bytes, now: float) -> bool:
        """Bytes arrived on a connection."""
        challenge = self._by_link.get(link)
        if challenge is None:
            return False
        assert challenge.opening is not None
        try:
            opened = challenge.opening.feed(data)
            if opened is None:
                return True
            if not isinstance(opened, Opened):
                raise RemoteProtocolError(f"refused: {opened.text}")
        except RemoteProtocolError as why:
            # Whoever answers there is not the member; whether it is gone for good, or in between
            # two keys, the next question may tell.
            self._end(challenge, _no_proof(why), now)
            return True
        self.proved += 1
        self._end(challenge, opened, now)
        return True

    def link_closed(self, link: int, why: Exception | None, now: float) -> bool:
        """A connection ended by itself."""
        challenge = self._by_link.get(link)
        if challenge is None:
            return False
        end = ConnectionResetError("it closed the connection instead of answering")
        self._end(challenge, why or end, now, close=False)
        return True

    def _end(
        self, challenge: _Challenge, result: Opened | Exception, now: float, *, close: bool = True
    ) -> None:
        assert challenge.link is not None
        del self._by_link[challenge.link]
        if challenge.timer is not None:
            challenge.timer.cancel()
        if close:
            self._emit(Close(challenge.link))
        challenge.answer(result, now)


def _read(result: Opened | Exception, decode: Callable[[bytes], T]) -> T | Exception:
    if isinstance(result, Exception):
        return result
    try:
        return decode(result.tail)
    except RemoteProtocolError as why:
        return _no_proof(why)


def _no_proof(why: RemoteProtocolError) -> ConnectionAbortedError:
    return ConnectionAbortedError(f"no proof: {why}")
