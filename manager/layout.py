"""The bytes of a packed session: layout 1 (DESIGN §5.2). `record` gives them their meaning.

All numbers are big-endian; a *varint* is unsigned LEB128; a *version* is a hybrid clock reading
(``hlc``, u64, milliseconds << 8) and the actor (u32) that wrote.  Everything variable is in its
shortest form::

    header   u8 layout (1) | u8 life | u8 flags | u8 actors | u16 entries
             u64 created | u64 access | u32 last_seen                                 26 bytes
    actors   u32 each, ascending, only those in use
    entry    namespace:4, kind:4 | u8 actor index | length of ahead:4, length of back:4
             ahead = hlc - created | back = hlc - base, empty for no base
             name length, varint | value length, varint | name | value
    tail     on the wire only: the values longer than 8 KiB, in the order of their entries

Entries ascend strictly by (namespace, name).

**More than 254 actors**: ``actors`` is then 255 (``WIDE``), there is no actor table, and each
entry has its actor as a u32 in the place of the index.  Nothing is folded or forgotten, so the
order of versions, and with it the merge, stays exact for any number of writers.

The lengths of ``ahead`` and ``back`` stand in front of them, where §5.2 sketched two more varints,
because finding the entries is what every request pays for: jumping over a version takes one
addition instead of a loop over some ten bytes, and the entry is a byte shorter.

Everything here and in `splice` reads bytes that this process packed or checked, and is written for
speed; `untrusted` is for bytes from a peer, and believes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, TypeAlias

__all__ = [
    "ACCESS_AT",
    "ACTORS_AT",
    "COUNT",
    "CREATED_AT",
    "ENTRIES_MAX",
    "HAS_CONTAINER",
    "HEADER",
    "LARGE_VALUE_BYTES",
    "LAYOUT",
    "NAME_MAX_BYTES",
    "SEEN",
    "SEEN_AT",
    "SEEN_BIAS",
    "SMALL",
    "U32",
    "WHOLE",
    "WIDE",
    "Kind",
    "Life",
    "Namespace",
    "Span",
    "entry_bytes",
    "find_head",
    "has_kind",
    "index_attributes",
    "read_varint",
    "read_version",
    "varint",
    "walk",
]

Span: TypeAlias = tuple[int, int, int, int, int]
"""Where an entry lies: offsets of start, name, value, end; index among the large values or -1."""

LAYOUT: Final = 1
WIDE: Final = 255
ENTRIES_MAX: Final = 0xFFFF
LARGE_VALUE_BYTES: Final = 8 * 1024
NAME_MAX_BYTES: Final = 1024

SEEN_BIAS: Final = 1 << 30
"""Added to ``last_seen`` in the header: a session may have been last used before the local
monotonic clock began. Ages up to 3.4 years, and 10 years of uptime, fit in the u32."""

HAS_CONTAINER: Final = 0x01
"""Flag: at least one entry of the container namespace."""
WHOLE: Final = 0x02
"""Flag: holds, or was merged with, the session's creation or a whole copy; clear in deltas.

A member that got a delta before the session itself must not serve that fragment as the session.
"""


class Life(IntEnum):
    """Where a session stands. What ``access`` means depends on it: last use, expiry, or the end.

    A use after the expiry revives a session; the end absorbs everything (DESIGN §5.3).
    """

    LIVE = 0
    EXPIRED = 1
    DESTROYED = 2


class Namespace(IntEnum):
    """Whom an entry belongs to. Greater numbers are of newer versions, and carried opaque."""

    ATTRIBUTE = 0
    CONTAINER = 1
    NOTE = 2
    LISTENER = 3
    MARK = 4


class Kind(IntEnum):
    """How an entry merges: 1 to 7 by their elements (`dots`), all others by their versions.

    4 to 14 are of later releases; nobody reads them here, and they merge and travel all the same.
    """

    LAST_WRITER = 0
    SET = 1
    COUNTER = 2
    APPEND = 3
    TOMBSTONE = 15


_OF_KIND: Final = tuple(tuple(head & 15 == kind for head in range(256)) for kind in range(16))

HEADER: Final = Struct(">BBBBHQQI")
SEEN: Final = Struct(">QI")
U32: Final = Struct(">I")
COUNT: Final = Struct(">H")
CREATED_AT: Final = 6
ACCESS_AT: Final = 14
SEEN_AT: Final = 22
ACTORS_AT: Final = HEADER.size

ATTRIBUTE_HEAD_MAX: Final = 15
SMALL: Final = tuple(bytes((i,)) for i in range(256))
"""Every byte as a string of one."""
VERSION_BYTES: Final = tuple(1 + (lengths >> 4) + (lengths & 15) for lengths in range(256))
"""By the byte with both lengths: how long ``ahead`` and ``back`` are together with it."""


def varint(number: int) -> bytes:
    """Encode an unsigned number, least significant seven bits first."""
    if number < 128:
        return SMALL[number]
    out = []
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """Decode a number at ``pos``; return it and the offset after it."""
    byte = data[pos]
    number = byte & 127
    shift = 7
    while byte > 127:
        pos += 1
        byte = data[pos]
        number |= (byte & 127) << shift
        shift += 7
    return number, pos + 1


def read_version(main: bytes, pos: int) -> tuple[int, int]:
    """Decode ``ahead`` and ``back`` of an entry, whose lengths are at ``pos``."""
    lengths = main[pos]
    middle = pos + 1 + (lengths >> 4)
    ahead = int.from_bytes(main[pos + 1 : middle], "big")
    return ahead, int.from_bytes(main[middle : middle + (lengths & 15)], "big")


def entry_bytes(head: int, actor: bytes, ahead: int, back: int, name: bytes, value: bytes) -> bytes:
    """Encode an entry; a large value gives its length only.

    Args:
        head: Namespace and kind.
        actor: The actor's index as one byte, or the actor itself where the record is wide.
        ahead: hlc minus ``created``.
        back: hlc minus base, 0 for no base.
        name: 1 to 1,024 bytes.
        value: Any.
    """
    first, second = (ahead.bit_length() + 7) >> 3, (back.bit_length() + 7) >> 3
    size = len(value)
    return b"".join(
        (
            SMALL[head],
            actor,
            SMALL[first << 4 | second],
            ahead.to_bytes(first, "big"),
            back.to_bytes(second, "big"),
            varint(len(name)),
            varint(size),
            name,
            value if size <= LARGE_VALUE_BYTES else b"",
        )
    )


def walk(main: bytes) -> list[Span]:
    """Find the entries, in order, without reading their versions."""
    spans = []
    actors = main[3]
    skip, pos = (5, ACTORS_AT) if actors == WIDE else (2, ACTORS_AT + 4 * actors)
    large = 0
    for _ in range(main[4] << 8 | main[5]):
        start = pos
        pos += skip + VERSION_BYTES[main[pos + skip]]
        length, size = main[pos], main[pos + 1]
        if length < 128 and size < 128:
            pos += 2
        else:
            length, pos = read_varint(main, pos)
            size, pos = read_varint(main, pos)
        value_at = pos + length
        if size <= LARGE_VALUE_BYTES:
            end = value_at + size
            spans.append((start, pos, value_at, end, -1))
            pos = end
        else:
            spans.append((start, pos, value_at, value_at, large))
            large += 1
            pos = value_at
    return spans


def has_kind(main: bytes, kind: int) -> bool:
    """Tell whether any entry is of a merge kind."""
    return find_head(main, _OF_KIND[kind]) >= 0


def find_head(main: bytes, wanted: Sequence[bool]) -> int:
    """Return the first namespace and kind that are wanted, as their one byte, or -1.

    It is what `walk` does, for who asks of every record.
    """
    actors = main[3]
    skip, pos = (5, ACTORS_AT) if actors == WIDE else (2, ACTORS_AT + 4 * actors)
    for _ in range(main[4] << 8 | main[5]):
        if wanted[main[pos]]:
            return main[pos]
        pos += skip + VERSION_BYTES[main[pos + skip]]
        length, size = main[pos], main[pos + 1]
        if length < 128 and size < 128:
            pos += 2
        else:
            length, pos = read_varint(main, pos)
            size, pos = read_varint(main, pos)
        pos += length
        if size <= LARGE_VALUE_BYTES:
            pos += size
    return -1


def index_attributes(main: bytes) -> tuple[dict[bytes, Span], int]:
    """Find the attributes, the first of all namespaces, by name; and the offset where they end.

    What `walk` does, for the entries that most requests want; it is worth the repetition.
    """
    found: dict[bytes, Span] = {}
    actors = main[3]
    skip, pos = (5, ACTORS_AT) if actors == WIDE else (2, ACTORS_AT + 4 * actors)
    large = 0
    for _ in range(main[4] << 8 | main[5]):
        if main[pos] > ATTRIBUTE_HEAD_MAX:
            break
        start = pos
        pos += skip + VERSION_BYTES[main[pos + skip]]
        length, size = main[pos], main[pos + 1]
        if length < 128 and size < 128:
            pos += 2
        else:
            length, pos = read_varint(main, pos)
            size, pos = read_varint(main, pos)
        value_at = pos + length
        if size <= LARGE_VALUE_BYTES:
            end = value_at + size
            found[main[pos:value_at]] = (start, pos, value_at, end, -1)
            pos = end
        else:
            found[main[pos:value_at]] = (start, pos, value_at, value_at, large)
            large += 1
            pos = value_at
    return found, pos
