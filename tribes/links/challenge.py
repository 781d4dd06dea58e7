"""Ask a member to prove that it is there now, and holds the key (DESIGN §4.2, 4.3).

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

In a group with TLS and no key the connection itself is the proof, so nothing else is proved on it.
Heartbeats say nothing there, and the member describes itself instead; behind its life comes::

    u32 length | its member record
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import RemoteProtocolError
from tribes.links.own_opening import Opened, Opening
from tribes.wire.outputs import Close, Connect, NetworkOutput, Write

if TYPE_CHECKING:
    from tribes.links.link_keys import LinkKeyring
    from tribes.links.own_wire import OwnSide
    from tribes.timers import Timer, Timers
    from tribes.wire.member import Member

__all__ = ["Challenges", "Life", "decode_life", "encode_life"]

_LIFE: Final = struct.Struct(">QQ")
_LENGTH: Final = struct.Struct(">I")

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


Answer = Callable[[Life | Exception, float], None]


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


class _Challenge:
    """One question, from its connection to its answer."""

    def __init__(self, member: Member, reply_timeout: float, answer: Answer) -> None:
        self.member = member
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
        keys: The key to prove; None: the connections themselves prove who is there.
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
        self, member: Member, *, connect_timeout: float, reply_timeout: float, answer: Answer
    ) -> None:
        """Ask a member; ``answer`` gets its life, or why there is no proof.

        Whoever else is there is a ``ConnectionError``, and silence a ``TimeoutError``.
        """
        attempt = self._new_attempt()
        self._by_attempt[attempt] = _Challenge(member, reply_timeout, answer)
        self.asked += 1
        self._emit(Connect(attempt, member.address, connect_timeout))

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
            challenge.member.unique_id,
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
            life = decode_life(opened.tail)
        except RemoteProtocolError as why:
            # Whoever answers there is not the member; whether it is gone for good, or in between
            # two keys, the next question may tell.
            self._end(challenge, ConnectionAbortedError(f"no proof: {why}"), now)
            return True
        self.proved += 1
        self._end(challenge, life, now)
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
        self, challenge: _Challenge, result: Life | Exception, now: float, *, close: bool = True
    ) -> None:
        assert challenge.link is not None
        del self._by_link[challenge.link]
        if challenge.timer is not None:
            challenge.timer.cancel()
        if close:
            self._emit(Close(challenge.link))
        challenge.answer(result, now)
