"""What travels on an own link once it is open, beside the data (DESIGN §4.2).

The bodies of these control frames begin with ``"TPY"`` and one byte::

    05 ACK    u64 received | u64 floor | runs | failures
    06 SEEN   varint serial
    07 PING   08 PONG
    09 DATA   channel data that itself begins with "TPY"
    0A ASK    u32 number | 16 B unique id
    0B TOLD   u32 number | u8 opinion
    0C DOUBT
    0D TRACED 25 B span | channel data

ASK asks the receiver whether it has an answer from a member, and TOLD answers with the number of
the question; DOUBT says that its sender suspects the receiver, and is answered like PING. They are
for peers only that have stated the feature ``WITNESSES``; TRACED, which is DATA with its span in
front, is for those with ``FEATURE_TRACE``.

``runs`` is a varint count and for each run two varints: how many positions lie between it and the
one before it (or the floor), and its length. ``failures`` is a varint count and, unless that is 0,
the varint serial of the last one, then for each a varint position and a u8 length with a UTF-8
reason. Bodies are read to the last byte.

Channel data begins with the send options, and an application may set any of their 32 bits: so it
*can* begin with "TPY", and then travels inside DATA.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.links.own_wire import CONTROL_MARK, REASON_MAX_BYTES, Opinion, clip_reason, take_text
from tribes.wire.frame import FRAME_OVERHEAD, encode_frame

__all__ = [
    "ACK_BODY_MAX_BYTES",
    "DOUBT_FRAME",
    "FAILURES_PER_ACK_MAX",
    "PING_FRAME",
    "PONG_FRAME",
    "RUNS_PER_ACK_MAX",
    "Ack",
    "Failure",
    "decode_ack",
    "decode_ask",
    "decode_seen",
    "decode_told",
    "encode_ack",
    "encode_ask",
    "encode_seen",
    "encode_told",
    "escape_data",
    "traced_data",
]

ACK_BODY_MAX_BYTES: Final = 128 * 1024
"""Longest frame that is read on a sending connection; the next two bounds give at most 75 KiB."""

RUNS_PER_ACK_MAX: Final = 1024
FAILURES_PER_ACK_MAX: Final = 256

_ACK: Final = struct.Struct(">4sQQ")
_BARE_ACK: Final = struct.Struct(">4sQQ2x")
"""One with no runs and no failures: nearly all."""
_BARE_ACK_BYTES: Final = _BARE_ACK.size
_ACK_MARK: Final = CONTROL_MARK + b"\x05"
_ASK: Final = struct.Struct(">4sI16s")
_TOLD: Final = struct.Struct(">4sIB")
_BODY_AT: Final = 11
"""Where a frame's body begins."""
_U64_MAX: Final = 2**64 - 1

PING_FRAME: Final = encode_frame(CONTROL_MARK + b"\x07")
PONG_FRAME: Final = encode_frame(CONTROL_MARK + b"\x08")
DOUBT_FRAME: Final = encode_frame(CONTROL_MARK + b"\x0c")

Failure = tuple[int, str]
"""A position, and why what stands there could not be processed."""


@final
@dataclass(slots=True)
class Ack:
    """What a receiver has done. Treat as immutable: it is not frozen for speed only.

    Attributes:
        received: It has all positions up to here.
        floor: All positions up to here are done: processed, or failed and told. Where more failures
            are to be told than one acknowledgement holds, the first ones say 0 here.
        early: Positions done above the floor, as (first, last), ascending and apart.
        failures: Positions that failed, with the reasons; always told before or with their being
            done.
        serial: Number of the last failure listed here, among all of the incarnation.
    """

    received: int
    floor: int
    early: tuple[tuple[int, int], ...] = ()
    failures: tuple[Failure, ...] = ()
    serial: int = 0


def encode_ack(ack: Ack) -> bytes:
    """Return the body of an ACK. Reasons must have been through :func:`clip_reason`."""
    if not ack.early and not ack.failures:
        return _BARE_ACK.pack(_ACK_MARK, ack.received, ack.floor)
    out = bytearray(_ACK.pack(_ACK_MARK, ack.received, ack.floor))
    _put_varint(out, len(ack.early))
    at = ack.floor
    for first, last in ack.early:
        _put_varint(out, first - at - 1)
        _put_varint(out, last - first + 1)
        at = last
    _put_varint(out, len(ack.failures))
    if ack.failures:
        _put_varint(out, ack.serial)
        for position, reason in ack.failures:
            _put_varint(out, position)
            text = clip_reason(reason)
            out.append(len(text))
            out += text
    return bytes(out)


def decode_ack(body: bytes) -> Ack:
    """Return what an ACK says.

    Raises:
        RemoteProtocolError: It is none, or contradicts itself.
    """
    if len(body) < _ACK.size or not body.startswith(_ACK_MARK):
        raise RemoteProtocolError("not an acknowledgement")
    _, received, floor = _ACK.unpack_from(body)
    if floor > received:
        raise RemoteProtocolError(f"acknowledges {floor} as done and {received} as received")
    if len(body) == _BARE_ACK_BYTES and body.endswith(b"\0\0"):
        return Ack(received, floor)
    count, at = _take_varint(body, _ACK.size)
    if count > RUNS_PER_ACK_MAX:
        raise RemoteProtocolError(f"an acknowledgement of {count} runs")
    early: list[tuple[int, int]] = []
    last = floor
    for _ in range(count):
        gap, at = _take_varint(body, at)
        length, at = _take_varint(body, at)
        # The position after the floor is never done, and two runs that touch are one.
        if not gap or not length:
            raise RemoteProtocolError("an acknowledgement with an empty run or gap")
        first = last + gap + 1
        last = first + length - 1
        early.append((first, last))
    if last > received:
        raise RemoteProtocolError(f"acknowledges {last} as done and {received} as received")
    count, at = _take_varint(body, at)
    if count > FAILURES_PER_ACK_MAX:
        raise RemoteProtocolError(f"an acknowledgement of {count} failures")
    failures: list[Failure] = []
    serial = 0
    if count:
        serial, at = _take_varint(body, at)
        for _ in range(count):
            position, at = _take_varint(body, at)
            if not 1 <= position <= received:
                raise RemoteProtocolError(f"position {position} failed, {received} was received")
            size = body[at] if at < len(body) else REASON_MAX_BYTES + 1
            failures.append((position, take_text(body, at + 1, size)))
            at += 1 + size
    if at != len(body):
        raise RemoteProtocolError(f"an acknowledgement of {len(body)} bytes ends after {at}")
    return Ack(received, floor, tuple(early), tuple(failures), serial)


def encode_seen(serial: int) -> bytes:
    """Return the body of a SEEN: failures up to this serial have been told to who sent them."""
    out = bytearray(CONTROL_MARK + b"\x06")
    _put_varint(out, serial)
    return bytes(out)


def decode_seen(body: bytes) -> int:
    """Return the serial of a SEEN.

    Raises:
        RemoteProtocolError: It is none.
    """
    serial, at = _take_varint(body, 4)
    if at != len(body) or not body.startswith(CONTROL_MARK + b"\x06"):
        raise RemoteProtocolError("not a confirmation")
    return serial


def encode_ask(number: int, unique_id: bytes) -> bytes:
    """Return the body of an ASK: does this member answer you?"""
    return _ASK.pack(CONTROL_MARK + b"\x0a", number, unique_id)


def decode_ask(body: bytes) -> tuple[int, bytes]:
    """Return the number of an ASK and the unique id of the member that it is about.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(body) != _ASK.size or not body.startswith(CONTROL_MARK + b"\x0a"):
        raise RemoteProtocolError("not a question about a member")
    _, number, unique_id = _ASK.unpack(body)
    return number, unique_id


def encode_told(number: int, opinion: Opinion) -> bytes:
    """Return the body of a TOLD, the answer to an ASK."""
    return _TOLD.pack(CONTROL_MARK + b"\x0b", number, opinion)


def decode_told(body: bytes) -> tuple[int, Opinion]:
    """Return the number and the opinion of a TOLD.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(body) != _TOLD.size or not body.startswith(CONTROL_MARK + b"\x0b"):
        raise RemoteProtocolError("not an answer about a member")
    _, number, opinion = _TOLD.unpack(body)
    try:
        return number, Opinion(opinion)
    except ValueError:
        return number, Opinion.UNKNOWN


def escape_data(frame: bytes) -> bytes:
    """Return a data frame as it travels: as it is, unless its body looks like a control frame."""
    if not frame.startswith(CONTROL_MARK, _BODY_AT):
        return frame
    body = frame[_BODY_AT : len(frame) - (FRAME_OVERHEAD - _BODY_AT)]
    return encode_frame(CONTROL_MARK + b"\x09" + body)


def traced_data(frame: bytes, trace: bytes) -> bytes:
    """Return a data frame as it travels with the span that it belongs to in front."""
    body = frame[_BODY_AT : len(frame) - (FRAME_OVERHEAD - _BODY_AT)]
    return encode_frame(CONTROL_MARK + b"\x0d" + trace + body)


def _put_varint(out: bytearray, number: int) -> None:
    """Append an unsigned number of up to 64 bits, seven bits a byte, the lowest first."""
    if not 0 <= number <= _U64_MAX:
        raise LocalProtocolError(f"{number} is not an unsigned 64-bit number")
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take_varint(body: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at`` and the position after it. Each number has one encoding."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > _U64_MAX or (not byte and shift):
                break
            return number, at
    raise RemoteProtocolError("a number that is cut short, too large, or not the shortest form")
