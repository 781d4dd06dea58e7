"""Channel data: the body of every frame that carries a message (tribes-wire §3.2).

::

    i32 options | i64 timestamp | id | source record | message | trailer

The id, the source's member record and the message are each an i32 length and that many bytes. A
trailer is whatever follows: plain Tribes neither sends nor reads one. Our members put one after the
first message of a connection, ``"TPYD"`` and the 16 bytes unique id of the member it is meant for:
nothing else in a frame tells a member from its successor on the same port.

Tomcat completes a short body with bytes of an earlier message. Here every length is checked against
the body before anything is cut out of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.ids import UNIQUE_ID_BYTES
from tribes.wire.frame import FRAME_END, FRAME_START
from tribes.wire.limits import (
    RECORD_CACHE_ENTRIES_MAX,
    RECORD_CACHE_RECORD_MAX_BYTES,
    UNIQUE_ID_MAX_BYTES,
)
from tribes.wire.member import Member, decode_member

__all__ = [
    "ChannelData",
    "add_trailer",
    "decode_body",
    "destination_of",
    "destination_trailer",
    "encode_body",
    "encode_data_frame",
]

_HEAD = struct.Struct(">iqi")  # options, timestamp, id length
_FRAME_HEAD = struct.Struct(">7siiqi")  # start marker, body length, then the same
_LENGTH = struct.Struct(">i")
_HEAD_BYTES: Final = _HEAD.size
_LENGTH_BYTES: Final = _LENGTH.size
_BODY_MIN_BYTES: Final = _HEAD_BYTES + 2 * _LENGTH_BYTES
_FRAME_LENGTH_END: Final = len(FRAME_START) + _LENGTH_BYTES
_DESTINATION: Final = b"TPYD"

# Parsing a record costs more than all the rest of a frame, and a connection brings the same one
# again and again. Equal bytes give the same immutable member, so this cache cannot be wrong.
_decode_source = lru_cache(maxsize=RECORD_CACHE_ENTRIES_MAX)(decode_member)


@final
@dataclass(slots=True)
class ChannelData:
    """One message between channels. Treat as immutable: it is not frozen for speed only.

    Args:
        options: Send options, a signed 32-bit number; see `tribes.wire.options`.
        timestamp: When the message was created: the sender's wall clock, ms since 1970.
        unique_id: Names the message; 16 bytes in practice.
        source: Who sent it, as it says itself.
        message: What the interceptors made of the application's message.
        trailer: Bytes after the message, which plain Tribes ignores.
    """

    options: int
    timestamp: int
    unique_id: bytes
    source: Member
    message: bytes
    trailer: bytes = b""

    def with_message(self, message: bytes, options: int | None = None) -> ChannelData:
        """Return the same with another message, as an interceptor makes it, and other options
        where they are given.
        """
        return ChannelData(
            self.options if options is None else options,
            self.timestamp,
            self.unique_id,
            self.source,
            message,
        )


def encode_body(
    options: int,
    timestamp: int,
    unique_id: bytes,
    source_record: bytes,
    message: bytes,
    *,
    trailer: bytes = b"",
) -> bytes:
    """Return the body of a frame, without the frame.

    Args:
        options: As in `ChannelData`, like the arguments below.
        timestamp: ms since 1970.
        unique_id: The message's id.
        source_record: The sender's member record, encoded: it is the same for many messages.
        message: The message.
        trailer: Bytes to put after the message.

    Raises:
        LocalProtocolError: A number does not fit its field, the id is too long, or there is no
            source record.
    """
    _check_sendable(unique_id, source_record)
    try:
        parts = (
            _HEAD.pack(options, timestamp, len(unique_id)),
            unique_id,
            _LENGTH.pack(len(source_record)),
            source_record,
            _LENGTH.pack(len(message)),
            message,
            trailer,
        )
    except struct.error as why:
        raise _does_not_fit(options, timestamp, message) from why
    return b"".join(parts)


def encode_data_frame(
    options: int,
    timestamp: int,
    unique_id: bytes,
    source_record: bytes,
    message: bytes,
    *,
    trailer: bytes = b"",
) -> bytes:
    """Return ``encode_frame(encode_body(...))``, made in one piece.

    Arguments and errors are those of `encode_body`.
    """
    _check_sendable(unique_id, source_record)
    body_bytes = _BODY_MIN_BYTES + len(unique_id) + len(source_record) + len(message) + len(trailer)
    try:
        parts = (
            _FRAME_HEAD.pack(FRAME_START, body_bytes, options, timestamp, len(unique_id)),
            unique_id,
            _LENGTH.pack(len(source_record)),
            source_record,
            _LENGTH.pack(len(message)),
            message,
            trailer,
            FRAME_END,
        )
    except struct.error as why:
        raise _does_not_fit(options, timestamp, message) from why
    return b"".join(parts)


def destination_trailer(unique_id: bytes) -> bytes:
    """Return the trailer that names the member a connection is meant for."""
    return _DESTINATION + unique_id


def destination_of(trailer: bytes) -> bytes | None:
    """Return the unique id that a trailer names; None when it is none of ours."""
    size = len(_DESTINATION)
    if len(trailer) < size + UNIQUE_ID_BYTES or not trailer.startswith(_DESTINATION):
        return None
    return trailer[size : size + UNIQUE_ID_BYTES]


def add_trailer(frame: bytes, trailer: bytes) -> bytes:
    """Return a frame of `encode_data_frame` with more bytes at the end of its body."""
    body_end = len(frame) - len(FRAME_END)
    length = _LENGTH.pack(body_end - _FRAME_LENGTH_END + len(trailer))
    return b"".join((FRAME_START, length, frame[_FRAME_LENGTH_END:body_end], trailer, FRAME_END))


def decode_body(body: bytes) -> ChannelData:
    """Return what the body of a frame holds.

    Raises:
        RemoteProtocolError: The body is shorter than its lengths say, its id is longer than
            `UNIQUE_ID_MAX_BYTES`, or its source is missing or malformed.
    """
    size = len(body)
    if size < _BODY_MIN_BYTES:
        raise RemoteProtocolError(f"channel data cut short: {size} bytes")
    options, timestamp, id_bytes = _HEAD.unpack_from(body)
    id_end = _HEAD_BYTES + id_bytes
    if not 0 <= id_bytes <= UNIQUE_ID_MAX_BYTES or id_end + _LENGTH_BYTES > size:
        raise _bad_length("an id", id_bytes, size)

    (source_bytes,) = _LENGTH.unpack_from(body, id_end)
    source_at = id_end + _LENGTH_BYTES
    source_end = source_at + source_bytes
    if source_bytes <= 0 or source_end + _LENGTH_BYTES > size:
        raise _bad_length("a source record", source_bytes, size)

    (message_bytes,) = _LENGTH.unpack_from(body, source_end)
    message_at = source_end + _LENGTH_BYTES
    message_end = message_at + message_bytes
    if message_bytes < 0 or message_end > size:
        raise _bad_length("a message", message_bytes, size)

    if source_bytes <= RECORD_CACHE_RECORD_MAX_BYTES:
        source = _decode_source(body[source_at:source_end])
    else:
        source = decode_member(body, source_at, source_end)
    return ChannelData(
        options,
        timestamp,
        body[_HEAD_BYTES:id_end],
        source,
        body[message_at:message_end],
        body[message_end:],
    )


def _check_sendable(unique_id: bytes, source_record: bytes) -> None:
    """Refuse to send what `decode_body` would refuse to read."""
    if len(unique_id) > UNIQUE_ID_MAX_BYTES:
        raise LocalProtocolError(
            f"a message id has at most {UNIQUE_ID_MAX_BYTES} bytes, got {len(unique_id)}"
        )
    if not source_record:
        raise LocalProtocolError("a message needs the record of the member that sends it")


def _does_not_fit(options: int, timestamp: int, message: bytes) -> LocalProtocolError:
    return LocalProtocolError(
        f"a number does not fit its field: options {options}, timestamp {timestamp}, "
        f"{len(message)} message bytes"
    )


def _bad_length(what: str, claimed: int, size: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"channel data of {size} bytes claims {what} of {claimed} bytes")
