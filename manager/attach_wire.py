"""What a worker process and the node of its host say to each other on a unix socket.

::

    frame     u32 length | msgpack array [kind, number, field …]

    HELLO    0  worker   [oldest version, newest version, [context …]]
    WELCOME  1  node     [version, actor, hlc, name]
    REFUSED  2  node     [why]                     and the connection ends
    BYE      3  worker   []                        nothing of mine is under way
    FIND    10  worker   [context, id, hlc, actor]
    FOUND   11  node     [flags, key, record]      an empty record: there is no such session
    LOST    12  node     [why]                     nobody knows whether there is one
    COMMIT  20  worker   [context, key, seen, delta, mode, waits]
    DONE    21  node     [flags, [member …], {member: why}, [lost record]]
    STALE   22  node     [record]                  it has changed since it was seen
    GONE    23  node     []                        it was ended
    UNDONE  24  node     [reason, why]             nothing was changed
    TOUCH   30  worker   [context, key]
    LOCK    40  worker   [context, key, mode, milliseconds]
    LOCKED  41  node     []
    BUSY    42  node     [is too many, why]
    UNLOCK  43  worker   []                        of the LOCK with this number
    ALIVE   50  worker   [context, [key …]]
    DEAD    51  node     [[key …]]

``number`` is the worker's; an answer has that of its question. HELLO and REFUSED keep their form
for ever, so that any two releases can tell each other that they do not understand each other.

A commit is a *delta* with the worker's own version, hlc and actor, which the node lends it: merging
it twice is merging it once, so that a commit whose answer was lost can be sent again, also to a
node that was started anew (DESIGN §5.3). Mode ``SWAP`` is the table's swap over the wire: it holds
only for the record that the worker has seen. ``MERGE`` is for what was sent before, and for ends.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, NamedTuple, final

from tribes.errors import RemoteProtocolError
from tribes.wire.codec import pack, unpack
from tribes.wire.limits import FRAME_BODY_MAX_BYTES

__all__ = [
    "ALIVE",
    "ALIVE_MAX",
    "BUSY",
    "BYE",
    "COMMIT",
    "DEAD",
    "DONE",
    "FIND",
    "FOUND",
    "FRAME_MAX_BYTES",
    "GONE",
    "HAS_DRAINING",
    "HELLO",
    "HELLO_MAX_BYTES",
    "IS_PRIMARY",
    "LOCK",
    "LOCKED",
    "LOST",
    "MERGE",
    "REFUSED",
    "STALE",
    "SWAP",
    "TOUCH",
    "UNDONE",
    "UNLOCK",
    "VERSION",
    "WELCOME",
    "FrameReader",
    "Message",
    "decode",
    "encode",
]

VERSION: Final = 1

FRAME_MAX_BYTES: Final = FRAME_BODY_MAX_BYTES
"""As large as what nodes send each other: a session that fits there fits here."""
HELLO_MAX_BYTES: Final = 64 * 1024
"""Of the first frame of a connection, before anybody has said who he is."""
ALIVE_MAX: Final = 1000
"""Keys that one question may name."""

HELLO, WELCOME, REFUSED, BYE = 0, 1, 2, 3
FIND, FOUND, LOST = 10, 11, 12
COMMIT, DONE, STALE, GONE, UNDONE = 20, 21, 22, 23, 24
TOUCH = 30
LOCK, LOCKED, BUSY, UNLOCK = 40, 41, 42, 43
ALIVE, DEAD = 50, 51

SWAP, MERGE = 0, 1
"""Modes of a commit."""
IS_PRIMARY: Final = 1
HAS_DRAINING: Final = 2
"""Flags."""

_LENGTH: Final = Struct(">I")
_U64_MAX: Final = 2**64 - 1
_LIST_MAX: Final = 10_000

_FIELDS: Final[dict[int, tuple[type | tuple[type, ...], ...]]] = {
    HELLO: (int, int, list),
    WELCOME: (int, int, int, str),
    REFUSED: (str,),
    BYE: (),
    FIND: (str, str, int, int),
    FOUND: (int, str, bytes),
    LOST: (str,),
    COMMIT: (str, str, (int, type(None)), bytes, int, bool),
    DONE: (int, list, dict, list),
    STALE: (bytes,),
    GONE: (),
    UNDONE: (str, str),
    TOUCH: (str, str),
    LOCK: (str, str, str, int),
    LOCKED: (),
    BUSY: (bool, str),
    UNLOCK: (),
    ALIVE: (str, list),
    DEAD: (list,),
}


class Message(NamedTuple):
    """One message: its kind, its number, and its fields, of the types that its kind has."""

    kind: int
    number: int
    fields: tuple[Any, ...]


def encode(kind: int, number: int, *fields: object) -> bytes:
    """Return one frame.

    Raises:
        LocalProtocolError: A field cannot be sent.
        RemoteProtocolError: It would be longer than `FRAME_MAX_BYTES`.
    """
    body = pack([kind, number, *fields])
    if len(body) > FRAME_MAX_BYTES:
        raise RemoteProtocolError(f"a message of {len(body)} bytes; the most is {FRAME_MAX_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """Return the message of one frame's body, with every field checked.

    Fields beyond those that are known are a later release's, and not looked at.

    Raises:
        RemoteProtocolError: It is none.
    """
    found = unpack(body)
    if not isinstance(found, list) or len(found) < 2:
        raise RemoteProtocolError("an attached process sent something that is no message")
    kind, number, *fields = found
    types = _FIELDS.get(kind) if type(kind) is int else None
    if types is None or type(number) is not int or not 0 <= number <= _U64_MAX:
        raise RemoteProtocolError(f"an attached process sent a message of kind {kind!r:.20}")
    if len(fields) < len(types):
        raise RemoteProtocolError(f"a message of kind {kind} has {len(fields)} fields")
    for value, expected in zip(fields, types, strict=False):
        allowed = expected if isinstance(expected, tuple) else (expected,)
        # Not isinstance: True is no number here.
        if type(value) not in allowed:
            raise RemoteProtocolError(f"a message of kind {kind} has a {type(value).__name__}")
        if type(value) is int and not 0 <= value <= _U64_MAX:
            raise RemoteProtocolError(f"a message of kind {kind} has a number out of range")
        if type(value) in (list, dict):
            _check_texts(kind, value)
    return Message(kind, number, tuple(fields[: len(types)]))


def _check_texts(kind: int, value: list[Any] | dict[Any, Any]) -> None:
    texts = value if isinstance(value, list) else [*value.keys(), *value.values()]
    expected = bytes if kind == DONE and isinstance(value, list) and _is_bytes(texts) else str
    if len(texts) > _LIST_MAX or any(type(each) is not expected for each in texts):
        raise RemoteProtocolError(f"a message of kind {kind} has a list of something else")


def _is_bytes(values: list[Any]) -> bool:
    return bool(values) and type(values[0]) is bytes


@final
class FrameReader:
    """Cuts a stream into frames' bodies, however its bytes arrive.

    Args:
        max_bytes: Of one body. May be changed between two frames.
    """

    __slots__ = ("_buffer", "max_bytes")

    def __init__(self, max_bytes: int = FRAME_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next whole body, or None until more arrives.

        Raises:
            RemoteProtocolError: A frame claims to be longer than allowed, or empty.
        """
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if not 0 < length <= self.max_bytes:
            raise RemoteProtocolError(f"a frame of {length} bytes; the most is {self.max_bytes}")
        end = _LENGTH.size + length
        if len(buffer) < end:
            return None
        body = bytes(buffer[_LENGTH.size : end])
        del buffer[:end]
        return body
