"""How two Python members open an own link, and what they agree on (DESIGN §4.2).

Everything is Tribes frames; the body of a control frame begins with ``"TPY"`` and one byte::

    01 HELLO    i64 -1 | i32 16 | 16 B nonce | i32 0 | i32 0 | u8 version min | u8 version max
                | u32 features | u64 incarnation | u64 attempt | 16 B destination | u8 key id
                | u16 length and the sender's member record
    02 WELCOME  u8 version | u32 features | u64 incarnation | 16 B unique id | 16 B nonce
                | u8 key id | u64 received | u32 longest body | 16 B proof
    03 REFUSE   u8 code | u8 length and UTF-8 text
    04 START    u64 first position | 16 B proof

Integers are big endian. What follows START is in :mod:`tribes.links.own_acks`; with a key, all
that follows WELCOME one way and START the other is sealed.

A HELLO cannot be channel data, because the source record has no length there. That is also what
makes Tomcat close a connection (tribes-wire §3.2), so a HELLO that reaches a plain peer by mistake
does it no harm; a negative length would (tribes-wire §12.3) and is never sent.

HELLO and WELCOME may grow at their ends: bytes after the known fields are ignored, and are covered
by the proofs.

A HELLO whose destination is `ANYBODY` asks who is there: WELCOME says it behind its known fields
(:mod:`tribes.links.challenge`), and nothing follows. With the feature `FEATURE_NEWS` the side that
opened a link may tell, between its frames, what :mod:`tribes.links.news` describes.

The file is long by its list of records, which a reader of a capture wants to have in one place.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from tribes.errors import RemoteProtocolError
from tribes.wire.limits import MEMBER_RECORD_MAX_BYTES
from tribes.wire.member import Member, decode_member

__all__ = [
    "ANYBODY",
    "CONTROL_MARK",
    "FEATURE_NEWS",
    "FEATURE_TRACE",
    "HELLO_BODY_MAX_BYTES",
    "HELLO_TIMEOUT_S",
    "NONCE_BYTES",
    "NO_PROOF",
    "PROOF_BYTES",
    "REASON_MAX_BYTES",
    "VERSION_MAX",
    "VERSION_MIN",
    "WELCOME_BODY_MAX_BYTES",
    "WITNESSES",
    "Control",
    "Hello",
    "Opinion",
    "OwnSide",
    "Refusal",
    "RefuseCode",
    "Start",
    "Welcome",
    "choose_version",
    "clip_reason",
    "decode_hello",
    "decode_refusal",
    "decode_start",
    "decode_welcome",
    "encode_hello",
    "encode_refusal",
    "encode_start",
    "encode_welcome",
    "is_hello",
    "is_hello_body",
    "proven",
    "take_text",
]

WITNESSES: Final = 1
"""Feature bit: ASK, TOLD and DOUBT are understood, see :mod:`tribes.links.own_acks`."""

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1

CONTROL_MARK: Final = b"TPY"
ANYBODY: Final = b"\xff" * 16
"""Destination of a HELLO that asks who listens. No member has this id: it is no UUID, and not the
zeros that members of Tomcat have which nobody gave one."""

FEATURE_NEWS: Final = 16
"""Feature bit: takes news, see :mod:`tribes.links.news`."""

FEATURE_TRACE: Final = 32
"""Feature bit: takes TRACED, see :mod:`tribes.links.own_acks`. Only who makes spans offers it."""

NONCE_BYTES: Final = 16
PROOF_BYTES: Final = 16
NO_PROOF: Final = bytes(PROOF_BYTES)
"""Stands where a proof would be while no key is used."""

HELLO_TIMEOUT_S: Final = 1.0
"""Seconds until HELLO must be answered, and for the whole opening at the receiver."""

HELLO_BODY_MAX_BYTES: Final = 256 * 1024
"""Longest frame that is read from a peer that has not said who it is. A record has up to 64 KiB."""

WELCOME_BODY_MAX_BYTES: Final = 128 * 1024
"""Longest answer to HELLO. It has some 80 bytes; with TLS and no key it ends with a record, which
has up to 64 KiB."""

REASON_MAX_BYTES: Final = 200


class Control(enum.IntEnum):
    """The byte after ``TPY``."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    START = 4
    ACK = 5
    SEEN = 6
    PING = 7
    PONG = 8
    DATA = 9
    ASK = 10
    TOLD = 11
    DOUBT = 12
    TRACED = 13
    PEERS = 16
    LEAVE = 17
    RECORD = 18


class Opinion(enum.IntEnum):
    """What a member says of another one. Numbers that are not known are read as UNKNOWN."""

    SILENT = 0
    """It refuses, or does not answer here either."""
    ANSWERS = 1
    """It has answered since the question."""
    UNKNOWN = 2
    """It is no member here, or cannot be asked now."""


class RefuseCode(enum.IntEnum):
    """Why a receiver does not take a connection. Codes that are not known are read as BUSY."""

    NOT_ME = 1
    """Another member listens here: the one that was asked for is gone."""
    VERSION = 2
    """No version in common."""
    KEY = 3
    """The key id is not known here, or a key is needed."""
    BUSY = 4
    """Not now; try again."""


@final
@dataclass(slots=True)
class OwnSide:
    """What this process says of itself on every own link.

    Attributes:
        record: Its encoded member record; replaced when its payload or domain changes.
        unique_id: The one in that record.
        versions: Lowest and highest version of the protocol it speaks.
        features: Bits of optional features; those both sides have are used.
        about: Gives what an introduction ends with, see :mod:`tribes.links.challenge`.
    """

    record: bytes
    unique_id: bytes
    versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)
    features: int = 0
    about: Callable[[], bytes] = bytes


def choose_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """Return the highest version that both ranges hold, if there is one."""
    best = min(ours[1], theirs[1])
    return best if best >= max(ours[0], theirs[0]) else None


# ---- opening -----------------------------------------------------------------------------------

_HELLO_HEAD: Final = struct.Struct(">4sqi16sii")
_HELLO: Final = struct.Struct(">BBIQQ16sBH")
_HELLO_MARK: Final = CONTROL_MARK + b"\x01" + b"\xff" * 8 + b"\0\0\0\x10"
_HELLO_MARK_END: Final = bytes(8)
_NONCE_END: Final = len(_HELLO_MARK) + NONCE_BYTES
_FRAME_HEAD_BYTES: Final = 11
_WELCOME: Final = struct.Struct(">4sBIQ16s16sBQI16s")
_REFUSE: Final = struct.Struct(">4sBB")
_START: Final = struct.Struct(">4sQ16s")


@final
@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of a connection, from the side that opened it.

    Attributes:
        versions: Lowest and highest version its sender speaks.
        features: Bits it offers.
        incarnation: Names the numbering of its frames; random per sender object.
        attempt: Grows with every HELLO of an incarnation, so that the newest connection is known.
        target: Unique id of the member it wants.
        nonce: 16 random bytes.
        key_id: Which key it will prove; 0 = none.
        source: The sender's member record, decoded.
        record: The same, encoded.
    """

    versions: tuple[int, int]
    features: int
    incarnation: int
    attempt: int
    target: bytes
    nonce: bytes
    key_id: int
    source: Member
    record: bytes


def encode_hello(
    side: OwnSide, *, incarnation: int, attempt: int, target: bytes, nonce: bytes, key_id: int
) -> bytes:
    """Return the body of a HELLO; fields as in :class:`Hello`."""
    head = _HELLO_HEAD.pack(CONTROL_MARK + b"\x01", -1, NONCE_BYTES, nonce, 0, 0)
    fields = _HELLO.pack(
        *side.versions, side.features, incarnation, attempt, target, key_id, len(side.record)
    )
    return head + fields + side.record


def decode_hello(body: bytes) -> Hello:
    """Return what a HELLO says.

    Raises:
        RemoteProtocolError: It is none.
    """
    at = _HELLO_HEAD.size
    end = at + _HELLO.size
    if len(body) < end or is_hello_body(body) is not True:
        raise RemoteProtocolError("not the opening of an own link")
    low, high, features, incarnation, attempt, target, key_id, size = _HELLO.unpack_from(body, at)
    if size > MEMBER_RECORD_MAX_BYTES or end + size > len(body):
        raise RemoteProtocolError(f"HELLO claims a member record of {size} bytes")
    if low > high:
        raise RemoteProtocolError(f"HELLO claims versions {low} to {high}")
    record = body[end : end + size]
    nonce = body[len(_HELLO_MARK) : _NONCE_END]
    source = decode_member(record)
    return Hello((low, high), features, incarnation, attempt, target, nonce, key_id, source, record)


def is_hello(start: bytes) -> bool | None:
    """Whether a connection whose first bytes are ``start`` opens an own link.

    None: more bytes are needed to say; 51 are always enough.
    """
    return is_hello_body(start[_FRAME_HEAD_BYTES:])


def is_hello_body(body: bytes) -> bool | None:
    """Whether a frame body, or the start of one, is a HELLO; None: too short to say."""
    mark = body[: len(_HELLO_MARK)]
    if not _HELLO_MARK.startswith(mark):
        return False
    end = body[_NONCE_END : _NONCE_END + len(_HELLO_MARK_END)]
    if not _HELLO_MARK_END.startswith(end):
        return False
    return True if len(end) == len(_HELLO_MARK_END) else None


@final
@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to HELLO.

    Attributes:
        version: The one to speak.
        features: Bits that both sides have.
        incarnation: Names what the receiver remembers of this sender. Another one than before:
            it has forgotten, and counting begins anew.
        unique_id: The receiver's.
        nonce: 16 random bytes.
        key_id: As in the HELLO.
        received: Last position it has.
        body_max_bytes: Longest channel data that it reads.
        proof: See :func:`proven`.
    """

    version: int
    features: int
    incarnation: int
    unique_id: bytes
    nonce: bytes
    key_id: int
    received: int
    body_max_bytes: int
    proof: bytes = NO_PROOF


def encode_welcome(welcome: Welcome) -> bytes:
    """Return the body of a WELCOME."""
    return _WELCOME.pack(
        CONTROL_MARK + b"\x02",
        welcome.version,
        welcome.features,
        welcome.incarnation,
        welcome.unique_id,
        welcome.nonce,
        welcome.key_id,
        welcome.received,
        welcome.body_max_bytes,
        welcome.proof,
    )


def decode_welcome(body: bytes) -> Welcome:
    """Return what a WELCOME says.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(body) < _WELCOME.size or not body.startswith(CONTROL_MARK + b"\x02"):
        raise RemoteProtocolError("not an answer to the opening of an own link")
    return Welcome(*_WELCOME.unpack_from(body)[1:])


def proven(what: bytes, hello: bytes, welcome: bytes, start: bytes = b"") -> bytes:
    """Return the transcript that a proof covers: all said so far, the proofs' places empty.

    Args:
        what: Who proves: ``b"server"`` in WELCOME, ``b"client"`` in START.
        hello: Body of the HELLO.
        welcome: Body of the WELCOME; its proof counts as empty when the server proves.
        start: Body of the START with its proof empty, when the client proves.
    """
    parts = (what, hello, welcome, start)
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is not taken."""

    code: RefuseCode
    text: str


def encode_refusal(refusal: Refusal) -> bytes:
    """Return the body of a REFUSE."""
    text = clip_reason(refusal.text)
    return _REFUSE.pack(CONTROL_MARK + b"\x03", refusal.code, len(text)) + text


def decode_refusal(body: bytes) -> Refusal:
    """Return what a REFUSE says.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(body) < _REFUSE.size or not body.startswith(CONTROL_MARK + b"\x03"):
        raise RemoteProtocolError("not a refusal")
    _, code, size = _REFUSE.unpack_from(body)
    text = take_text(body, _REFUSE.size, size)
    try:
        known = RefuseCode(code)
    except ValueError:
        known = RefuseCode.BUSY
    return Refusal(known, text)


@final
@dataclass(frozen=True, slots=True)
class Start:
    """The sender goes ahead: position of the first frame that follows, and its proof."""

    first: int
    proof: bytes = NO_PROOF


def encode_start(start: Start) -> bytes:
    """Return the body of a START."""
    return _START.pack(CONTROL_MARK + b"\x04", start.first, start.proof)


def decode_start(body: bytes) -> Start:
    """Return what a START says.

    Raises:
        RemoteProtocolError: It is none, or the first position is 0.
    """
    if len(body) != _START.size or not body.startswith(CONTROL_MARK + b"\x04"):
        raise RemoteProtocolError("not the start of an own link")
    _, first, proof = _START.unpack(body)
    if not first:
        raise RemoteProtocolError("positions begin at 1")
    return Start(first, proof)


def clip_reason(text: str) -> bytes:
    """Return a text as UTF-8 of at most ``REASON_MAX_BYTES``, cut between characters."""
    data = text.encode("utf-8", "replace")
    if len(data) > REASON_MAX_BYTES:
        data = data[:REASON_MAX_BYTES].decode("utf-8", "ignore").encode()
    return data


def take_text(body: bytes, at: int, size: int) -> str:
    """Return the text of ``size`` bytes at ``at``.

    Raises:
        RemoteProtocolError: It is too long, cut short, or not UTF-8.
    """
    if size > REASON_MAX_BYTES or at + size > len(body):
        raise RemoteProtocolError(f"a text of {size} bytes where {len(body) - at} are left")
    try:
        return body[at : at + size].decode()
    except UnicodeDecodeError as why:
        raise RemoteProtocolError("a text that is not UTF-8") from why
