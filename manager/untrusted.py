"""Verifying a session record that a peer sent, before anything else reads it.

Structure, bounds and canonical form: what passes here is what `record.pack` would have written, so
no reader behind it needs another check, and equal state is equal bytes.  The work is linear in the
length, and nothing that the bytes claim is allocated.
"""

from __future__ import annotations

from itertools import pairwise
from struct import error, unpack_from
from typing import Final

from tribes.errors import RemoteProtocolError

from .layout import (
    ACTORS_AT,
    HAS_CONTAINER,
    HEADER,
    LARGE_VALUE_BYTES,
    LAYOUT,
    NAME_MAX_BYTES,
    U32,
    WHOLE,
    WIDE,
    Life,
    Namespace,
    read_varint,
)

__all__ = ["check"]

VARINT_MAX_BYTES: Final = 10
U64_MAX: Final = 2**64 - 1
NUMBER_MAX_BYTES: Final = 8

_CONTAINER: Final = int(Namespace.CONTAINER)


def check(main: bytes) -> tuple[int, list[int]]:
    """Verify bytes from a peer: structure, bounds and canonical form.

    Returns:
        The length of the main part, and the lengths of the large values that must follow it.

    Raises:
        RemoteProtocolError: Anything is wrong; says what and where.
    """
    try:
        return _check(main)
    except (IndexError, error):
        raise RemoteProtocolError(f"session record ends early, after {len(main)} bytes") from None


def _check(main: bytes) -> tuple[int, list[int]]:
    layout, life, flags, actors, count, created, access, _ = HEADER.unpack_from(main)
    if layout != LAYOUT:
        raise RemoteProtocolError(f"session record of layout {layout}, known is {LAYOUT}")
    if life > Life.DESTROYED or created > access:
        raise RemoteProtocolError(f"session record with life {life}, {created=}, {access=}")
    if life == Life.DESTROYED and (count or created != access or flags & (HAS_CONTAINER | WHOLE)):
        raise RemoteProtocolError("destroyed session record with content")
    wide = actors == WIDE
    pos = ACTORS_AT
    if not wide:
        pos += 4 * actors
        if actors > 1:
            names = unpack_from(f">{actors}I", main, ACTORS_AT)
            if any(left >= right for left, right in pairwise(names)):
                raise RemoteProtocolError("session record with an unsorted actor table")
    from_bytes = int.from_bytes
    used: set[int] = set()
    large = []
    last = (-1, b"")
    has_container = 0
    end = len(main)
    for _ in range(count):
        start = pos
        namespace = main[pos] >> 4
        if wide:
            (actor,) = U32.unpack_from(main, pos + 1)
            pos += 5
        else:
            actor = main[pos + 1]
            pos += 2
        used.add(actor)
        lengths = main[pos]
        first, second = lengths >> 4, lengths & 15
        middle = pos + 1 + first
        # As `read_version` does, in place: this is the loop of a joining node.
        ahead = from_bytes(main[pos + 1 : middle], "big")
        back = from_bytes(main[middle : middle + second], "big")
        if (
            (first and not main[pos + 1])
            or (second and not main[middle])
            or first > NUMBER_MAX_BYTES
            or second > NUMBER_MAX_BYTES
        ):
            raise RemoteProtocolError(f"session entry at {start} has a version in a long form")
        pos = middle + second
        length = main[pos]
        if length > 127:
            length, pos = _check_varint(main, pos)
        else:
            pos += 1
        size = main[pos]
        if size > 127:
            size, pos = _check_varint(main, pos)
        else:
            pos += 1
        if created + ahead > access or (back and back >= created + ahead):
            raise RemoteProtocolError(f"session entry at {start} has a version out of range")
        name = main[pos : pos + length]
        pos += length
        if not 0 < length <= NAME_MAX_BYTES or (namespace, name) <= last:
            raise RemoteProtocolError(f"session entry at {start} has a bad or unsorted name")
        last = namespace, name
        if not name.isascii():
            _check_text(name, start)
        if namespace == _CONTAINER:
            has_container = HAS_CONTAINER
        if size > LARGE_VALUE_BYTES:
            large.append(size)
        else:
            pos += size
        if pos > end:
            raise RemoteProtocolError(f"session entry at {start} overruns the record")
    if flags & HAS_CONTAINER != has_container:
        raise RemoteProtocolError("session record whose flags contradict its entries")
    if len(used) < WIDE if wide else used != set(range(actors)):
        raise RemoteProtocolError("session record whose actor table does not fit its entries")
    return pos, large


def _check_varint(data: bytes, pos: int) -> tuple[int, int]:
    end = pos
    while data[end] > 127:
        end += 1
        if end - pos == VARINT_MAX_BYTES:
            raise RemoteProtocolError(f"varint at {pos} is too long")
    number, after = read_varint(data, pos)
    if data[end] == 0 or number > U64_MAX:
        raise RemoteProtocolError(f"varint at {pos} is too great or not in its shortest form")
    return number, after


def _check_text(name: bytes, start: int) -> None:
    try:
        name.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"session entry at {start} has a name that is no text") from None
