"""How an own link is opened, as far as both ends share it and on the sender's side (DESIGN §4.2).

The side that connects says HELLO, is told WELCOME or REFUSE, and goes ahead with START. No rule
about what to do when it fails is here: that is :mod:`tribes.links.own_sender`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import RemoteProtocolError
from tribes.links.own_wire import (
    ANYBODY,
    CONTROL_MARK,
    NO_PROOF,
    NONCE_BYTES,
    WELCOME_BODY_MAX_BYTES,
    Control,
    Refusal,
    RefuseCode,
    Start,
    Welcome,
    decode_refusal,
    decode_welcome,
    encode_hello,
    encode_start,
    encode_welcome,
    proven,
)
from tribes.wire.frame import FRAME_END, FRAME_OVERHEAD, FRAME_START, encode_frame
from tribes.wire.limits import MEMBER_RECORD_MAX_BYTES

if TYPE_CHECKING:
    from tribes.links.link_keys import Opener, SealerFactory
    from tribes.links.own_wire import OwnSide

__all__ = ["OneFrame", "Opened", "Opening"]

_BODY_AT: Final = 11
"""Where a frame's body begins."""


@final
class OneFrame:
    """Reads exactly one frame; what follows it on the connection may be of another kind.

    Args:
        body_max_bytes: Longest body to take.
    """

    __slots__ = ("_body_max_bytes", "_data")

    def __init__(self, body_max_bytes: int) -> None:
        self._body_max_bytes = body_max_bytes
        self._data = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the frame's body and the bytes after it, or None while it is not complete.

        Raises:
            RemoteProtocolError: This is no frame, or too long a one.
        """
        frame = self._data
        frame += data
        if not FRAME_START.startswith(bytes(frame[: len(FRAME_START)])):
            raise RemoteProtocolError(f"no frame: it starts with {bytes(frame[:7]).hex()}")
        if len(frame) < _BODY_AT:
            return None
        size = int.from_bytes(frame[len(FRAME_START) : _BODY_AT], "big", signed=True)
        if not 0 <= size <= self._body_max_bytes:
            raise RemoteProtocolError(
                f"a first frame of {size} bytes, at most {self._body_max_bytes} are taken"
            )
        end = size + FRAME_OVERHEAD
        if len(frame) < end:
            return None
        if not frame.startswith(FRAME_END, end - len(FRAME_END)):
            raise RemoteProtocolError("a frame does not end where its length says")
        return bytes(frame[_BODY_AT : end - len(FRAME_END)]), bytes(frame[end:])


class Opened(NamedTuple):
    """A connection that the member took.

    Attributes:
        welcome: What it said.
        start: The frame to go ahead with, at the position after the last one it has.
        rest: Bytes that came behind WELCOME.
        seal: Seals what is written after START; None without a key.
        opener: Opens what is read from ``rest`` on; None without a key.
        tail: What WELCOME has behind its known fields; proved like them.
    """

    welcome: Welcome
    start: bytes
    rest: bytes
    seal: Callable[[bytes], bytes] | None
    opener: Opener | None
    tail: bytes = b""


@final
class Opening:
    """The opening of one connection, from the side that made it.

    Args:
        side: What this process says of itself.
        target: Unique id of the member that is wanted, or `ANYBODY`.
        key: Id and key to prove; None: none.
        incarnation: The sender's.
        attempt: How many connections of this incarnation there were, with this one.
        entropy: Gives n random bytes.
    """

    __slots__ = (
        "_answer",
        "_hello",
        "_key",
        "_key_id",
        "_nonce",
        "_side",
        "_target",
    )

    def __init__(
        self,
        side: OwnSide,
        target: bytes,
        *,
        key: tuple[int, SealerFactory] | None,
        incarnation: int,
        attempt: int,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._side = side
        self._target = target
        self._key_id = 0 if key is None else key[0]
        self._key = None if key is None else key[1]
        self._nonce = entropy(NONCE_BYTES)
        self._hello = encode_hello(
            side,
            incarnation=incarnation,
            attempt=attempt,
            target=target,
            nonce=self._nonce,
            key_id=self._key_id,
        )
        longest = WELCOME_BODY_MAX_BYTES
        if target == ANYBODY:
            longest += MEMBER_RECORD_MAX_BYTES
        self._answer = OneFrame(longest)

    @property
    def key(self) -> SealerFactory | None:
        """The key that is proved; None: none is."""
        return self._key

    @property
    def hello(self) -> bytes:
        """The frame to write first."""
        return encode_frame(self._hello)

    def feed(self, data: bytes) -> Opened | Refusal | None:
        """Take bytes of the answer; None while it is not complete.

        Raises:
            RemoteProtocolError: The member does not speak the own link, or not properly.
        """
        whole = self._answer.feed(data)
        if whole is None:
            return None
        body, rest = whole
        if body[3:4] == bytes((Control.REFUSE,)) and body.startswith(CONTROL_MARK):
            return decode_refusal(body)
        welcome = decode_welcome(body)
        if self._target not in (welcome.unique_id, ANYBODY):
            raise RemoteProtocolError("WELCOME of another member")
        if not self._side.versions[0] <= welcome.version <= self._side.versions[1]:
            raise RemoteProtocolError(f"WELCOME chooses version {welcome.version}")
        if welcome.key_id != self._key_id:
            raise RemoteProtocolError(f"WELCOME with key {welcome.key_id}")
        start = Start(welcome.received + 1)
        tail = body[len(encode_welcome(welcome)) :]
        if self._key is None:
            return Opened(welcome, encode_frame(encode_start(start)), rest, None, None, tail)
        # The proof also covers what a later version may have put behind the known fields.
        unproved = encode_welcome(replace(welcome, proof=NO_PROOF)) + tail
        if not self._key.check(proven(b"server", self._hello, unproved), welcome.proof):
            return Refusal(RefuseCode.KEY, "the member does not prove the key")
        transcript = proven(b"client", self._hello, body, encode_start(start))
        start = Start(start.first, self._key.hello_tag(transcript))
        seal, opener = self._key.sealers(self._nonce, welcome.nonce, is_client=True)
        return Opened(welcome, encode_frame(encode_start(start)), rest, seal, opener, tail)
