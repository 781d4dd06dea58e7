"""Frames: what separates messages on a TCP stream or in a datagram (tribes-wire §3.1, §3.3).

::

    "FLT2002"   i32 n   n bytes of body   "TLF2003"

The length counts the body only, so markers may occur inside it.

Tomcat searches its buffer for a start marker and never recovers once one is out of place. We hold a
peer to the format instead: the first byte that cannot belong to a well-formed sequence of frames
costs it the connection, and what came before that byte still counts.
"""

from __future__ import annotations

import struct
from typing import Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.wire.limits import FRAME_BODY_MAX_BYTES

__all__ = [
    "ACK_BODY",
    "ACK_FRAME",
    "FAIL_ACK_BODY",
    "FAIL_ACK_FRAME",
    "FRAME_END",
    "FRAME_OVERHEAD",
    "FRAME_START",
    "FrameDecoder",
    "encode_frame",
]

FRAME_START: Final = b"FLT2002"
FRAME_END: Final = b"TLF2003"
FRAME_OVERHEAD: Final = 18
"""Bytes of a frame that are not its body."""

_HEAD = struct.Struct(">7si")
_HEAD_BYTES: Final = _HEAD.size
_END_BYTES: Final = len(FRAME_END)


def encode_frame(body: bytes) -> bytes:
    """Return the frame that carries ``body``.

    Raises:
        LocalProtocolError: ``body`` is longer than the length field can say.
    """
    try:
        head = _HEAD.pack(FRAME_START, len(body))
    except struct.error as why:
        raise LocalProtocolError(f"a frame cannot carry {len(body)} bytes") from why
    return b"".join((head, body, FRAME_END))


ACK_BODY: Final = bytes.fromhex("060203")
FAIL_ACK_BODY: Final = bytes.fromhex("0b0005")
ACK_FRAME: Final = encode_frame(ACK_BODY)
FAIL_ACK_FRAME: Final = encode_frame(FAIL_ACK_BODY)


@final
class FrameDecoder:
    """Turns the bytes of one connection into frame bodies.

    The result does not depend on how the stream is cut. After each `feed` the caller handles the
    bodies that it returned and then looks at `broken`; if that is set the connection is to be
    closed. A caller that forgets gets the error from its next `feed`.

    Memory: at most one unfinished frame is held, and it grows with the bytes that arrive, never
    with the length that a peer claims. Time: linear in the bytes fed, however they are cut.

    Args:
        body_max_bytes: Longest body to take.
    """

    __slots__ = ("_body_max_bytes", "_broken", "_frame_bytes", "_unfinished")

    def __init__(self, *, body_max_bytes: int = FRAME_BODY_MAX_BYTES) -> None:
        self._body_max_bytes = body_max_bytes
        self._unfinished = bytearray()  # the start of one frame, never a whole one
        self._frame_bytes = 0  # size of that frame, known once its head is there
        self._broken: RemoteProtocolError | None = None

    def __repr__(self) -> str:
        return f"<FrameDecoder buffered_bytes={self.buffered_bytes} broken={self._broken!r}>"

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._unfinished)

    @property
    def broken(self) -> RemoteProtocolError | None:
        """Why nothing more can be read from this connection, or None while all is well."""
        return self._broken

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they were received; return the bodies of the frames they complete.

        What is wrong in ``data`` is not raised: frames that precede it in the same bytes are
        returned first, and `broken` says what happened.

        Raises:
            RemoteProtocolError: The stream broke in an earlier call.
        """
        if self._broken is not None:
            raise RemoteProtocolError(f"the stream is unusable: {self._broken}") from self._broken
        bodies: list[bytes] = []
        try:
            at = self._finish_frame(data, bodies) if self._unfinished else 0
            self._take_frames(data, at, bodies)
        except RemoteProtocolError as why:
            # Its traceback would keep this object and the bytes just read alive in a cycle.
            self._broken = why.with_traceback(None)
            self._unfinished.clear()
        return bodies

    def _take_frames(self, data: bytes, at: int, bodies: list[bytes]) -> None:
        """Take the whole frames from ``at`` on straight out of ``data``; keep what is left."""
        size = len(data)
        while size - at >= _HEAD_BYTES:
            start, body_bytes = _HEAD.unpack_from(data, at)
            if start != FRAME_START:
                raise _bad_start(start)
            if not 0 <= body_bytes <= self._body_max_bytes:
                raise self._bad_length(body_bytes)
            body_end = at + _HEAD_BYTES + body_bytes
            if body_end + _END_BYTES > size:
                self._frame_bytes = body_bytes + FRAME_OVERHEAD
                break
            if not data.startswith(FRAME_END, body_end):
                raise _bad_end(data[body_end : body_end + _END_BYTES])
            bodies.append(data[at + _HEAD_BYTES : body_end])
            at = body_end + _END_BYTES
        if at < size:
            self._unfinished += memoryview(data)[at:]
            self._check_start()

    def _finish_frame(self, data: bytes, bodies: list[bytes]) -> int:
        """Add to the unfinished frame what it lacks; return how many bytes of ``data`` that took.

        Only this one frame is copied together: those that follow it are read in place.
        """
        frame = self._unfinished
        taken = 0
        if len(frame) < _HEAD_BYTES:
            taken = _HEAD_BYTES - len(frame)
            frame += data[:taken]
            self._check_start()
            if len(frame) < _HEAD_BYTES:
                return len(data)
            _, body_bytes = _HEAD.unpack_from(frame)
            if not 0 <= body_bytes <= self._body_max_bytes:
                raise self._bad_length(body_bytes)
            self._frame_bytes = body_bytes + FRAME_OVERHEAD
        until = taken + self._frame_bytes - len(frame)
        frame += memoryview(data)[taken:until]
        if len(frame) < self._frame_bytes:
            return len(data)
        if not frame.endswith(FRAME_END):
            raise _bad_end(bytes(frame[-_END_BYTES:]))
        # Trimming a bytearray at both ends moves nothing, so the body is copied once.
        del frame[-_END_BYTES:]
        del frame[:_HEAD_BYTES]
        bodies.append(bytes(frame))
        frame.clear()
        return until

    def _check_start(self) -> None:
        """Refuse a wrong start marker from its first wrong byte on."""
        start = bytes(self._unfinished[: len(FRAME_START)])
        if not FRAME_START.startswith(start):
            raise _bad_start(start)

    def _bad_length(self, body_bytes: int) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"frame claims a body of {body_bytes} bytes, at most {self._body_max_bytes} are taken"
        )


def _bad_start(start: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(f"frame starts with {start.hex()}, not with {FRAME_START.hex()}")


def _bad_end(end: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(f"frame ends with {end.hex()}, not with {FRAME_END.hex()}")
