"""The bytes of a packed session: layout 1 (DESIGN §5.2). `record` gives them their meaning.

All numbers are big-endian; a *varint* is unsigned LEB128 in its shortest form; a *version* is a
hybrid clock reading (``hlc``, u64, milliseconds << 8) and the actor (u32) that wrote::

    header   u8 layout (1) | u8 life | u8 flags | u8 actors | u16 entries
             u64 created | u64 access | u32 last_seen                                 26 bytes
    actors   u32 each, ascending, only those in use
    entry    namespace:4, kind:4 | u8 actor index | hlc - created, varint
             hlc - base, varint (0 = no base) | name length, varint
             value length, varint | name | value
    tail     on the wire only: the values longer than 8 KiB, in the order of their entries

Entries ascend strictly by (namespace, name).

**More than 254 actors**: ``actors`` is then 255 (``WIDE``), there is no actor table, and each
entry has its actor as a u32 in the place of the index.  Nothing is folded or forgotten, so the
order of versions, and with it the merge, stays exact for any number of writers.

Two kinds of reader: `check` is for bytes from a peer and believes nothing; everything else is for
bytes that this process packed or checked, and is written for speed.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from struct import Struct, error, unpack_from
from typing import Final, TypeAlias

from tribes.errors import RemoteProtocolError

__all__ = [
    "ACCESS_AT",
    "ACTORS_AT",
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
    "U32",
    "WHOLE",
    "WIDE",
    "Kind",
    "Life",
    "Namespace",
    "Patch",
    "Span",
    "actor_index",
    "check",
    "entry_bytes",
    "patches_of",
    "read_varint",
    "splice",
    "varint",
    "walk",
]

Span: TypeAlias = tuple[int, int, int, int, int]
"""Where an entry lies: offsets of start, name, value, end; index among the large values or -1."""

Patch: TypeAlias = tuple[tuple[int, bytes], int, int, int, bytes]
"""An entry to be spliced in: (namespace, name), head, actor index, hlc - created, and everything
after the actor index as it is written."""

LAYOUT: Final = 1
WIDE: Final = 255
ENTRIES_MAX: Final = 0xFFFF
LARGE_VALUE_BYTES: Final = 8 * 1024
NAME_MAX_BYTES: Final = 1024
VARINT_MAX_BYTES: Final = 10
U64_MAX: Final = 2**64 - 1

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
    """How an entry merges. 1 to 14 (set, counter, append) are reserved, and carried opaque."""

    LAST_WRITER = 0
    TOMBSTONE = 15


HEADER: Final = Struct(">BBBBHQQI")
SEEN: Final = Struct(">QI")
U32: Final = Struct(">I")
_COUNT: Final = Struct(">H")
CREATED_AT: Final = 6
ACCESS_AT: Final = 14
SEEN_AT: Final = 22
ACTORS_AT: Final = HEADER.size

_CONTAINER: Final = int(Namespace.CONTAINER)
_SMALL: Final = tuple(bytes((i,)) for i in range(256))


def varint(number: int) -> bytes:
    """Encode an unsigned number, least significant seven bits first."""
    if number < 1 << 7:
        return _SMALL[number]
    if number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    out = [number & 127 | 128, number >> 7 & 127 | 128]
    number >>= 14
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """Decode a number at ``pos`` of trusted bytes; return it and the offset after it."""
    byte = data[pos]
    number = byte & 127
    shift = 7
    while byte > 127:
        pos += 1
        byte = data[pos]
        number |= (byte & 127) << shift
        shift += 7
    return number, pos + 1


def entry_bytes(head: int, actor: bytes, ahead: int, back: int, name: bytes, value: bytes) -> bytes:
    """Encode an entry; a large value gives its length only.

    Args:
        head: Namespace and kind.
        actor: The actor's index as one byte, or the actor itself where the record is wide.
        ahead: hlc minus ``created``.
        back: hlc minus base, 0 for no base.
    """
    start = _SMALL[head] + actor + varint(ahead) + varint(back) + varint(len(name))
    if len(value) > LARGE_VALUE_BYTES:
        return start + varint(len(value)) + name
    return start + varint(len(value)) + name + value


def walk(main: bytes) -> list[Span]:
    """Find the entries, in order, without reading their versions."""
    spans = []
    actors = main[3]
    skip, pos = (5, ACTORS_AT) if actors == WIDE else (2, ACTORS_AT + 4 * actors)
    large = 0
    for _ in range(main[4] << 8 | main[5]):
        start = pos
        pos += skip
        while main[pos] > 127:
            pos += 1
        pos += 1
        while main[pos] > 127:
            pos += 1
        length = main[pos + 1]
        pos += 2
        if length > 127:
            length = length & 127 | main[pos] << 7  # names have at most 1,024 bytes
            pos += 1
        size = main[pos]
        pos += 1
        if size > 127:
            size, pos = read_varint(main, pos - 1)
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


def actor_index(main: bytes, actor: bytes) -> int:
    """Return the place of an actor (4 bytes) in a record's actor table, or -1."""
    end = ACTORS_AT + 4 * main[3] if main[3] != WIDE else ACTORS_AT
    found = main.find(actor, ACTORS_AT, end)
    while found >= 0 and (found - ACTORS_AT) & 3:
        found = main.find(actor, found + 1, end)
    return (found - ACTORS_AT) >> 2 if found >= 0 else -1


def patches_of(main: bytes, delta: bytes) -> list[Patch] | None:
    """Turn a delta into patches for a record; None if an actor is new to the record."""
    actors_end = ACTORS_AT + 4 * delta[3]
    indexes = [actor_index(main, delta[at : at + 4]) for at in range(ACTORS_AT, actors_end, 4)]
    if -1 in indexes:
        return None
    patches = []
    for start, name_at, value_at, end, _ in walk(delta):
        head = delta[start]
        place = head >> 4, delta[name_at:value_at]
        ahead, _ = read_varint(delta, start + 2)
        patches.append((place, head, indexes[delta[start + 1]], ahead, delta[start + 2 : end]))
    return patches


def splice(
    main: bytes, spans: list[Span], patches: list[Patch], flags: int, access: bytes, seen: bytes
) -> bytes | None:
    """Merge some entries into a live record by copying byte ranges, without decoding the record.

    Args:
        main: The record (its main part), not wide.
        spans: Its `walk`.
        patches: The entries, in order, of the same ``created``, without large values.
        flags: Joined with those of the record.
        access: 8 bytes; the later of these and the record's is kept.
        seen: 4 bytes, likewise.

    Returns:
        The merged main part; ``main`` itself if nothing is new; or None if only a full merge gives
        the canonical bytes: an actor leaves the actor table, a large value is replaced, or there is
        an error for it to report.
    """
    pieces = [b""]
    copied = ACTORS_AT
    at, count, added = 0, len(spans), 0
    replaced: list[int] = []
    for place, head, index, ahead, content in patches:
        found = False
        start = end = len(main)
        large = -1
        while at < count:
            start, name_at, value_at, end, large = spans[at]
            here = main[start] >> 4, main[name_at:value_at]
            if here >= place:
                found = here == place
                break
            at += 1
            start = end = len(main)
        if found:
            at += 1
            mine, other = (read_varint(main, start + 2)[0], main[start + 1]), (ahead, index)
            if other < mine:
                continue
            if other == mine and main[start] == head and main[start + 2 : end] == content:
                continue
            if other == mine or large >= 0:
                return None  # one version, two contents: `merge` has the rule for it
            if main[start + 1] != index:
                replaced.append(start)
        else:
            end = start
            added += 1
        pieces += (main[copied:start], _SMALL[head], _SMALL[index], content)
        copied = end
    if (replaced and not _still_used(main, spans, replaced)) or count + added > ENTRIES_MAX:
        return None
    before = main[:CREATED_AT]
    if added or main[2] | flags != main[2]:
        before = main[:2] + bytes((main[2] | flags, main[3])) + _COUNT.pack(count + added)
    if access < main[ACCESS_AT:SEEN_AT]:
        access = main[ACCESS_AT:SEEN_AT]
    if seen < main[SEEN_AT:ACTORS_AT]:
        seen = main[SEEN_AT:ACTORS_AT]
    fixed = b"".join((before, main[CREATED_AT:ACCESS_AT], access, seen))
    if copied == ACTORS_AT and fixed == main[:ACTORS_AT]:
        return main
    pieces[0] = fixed
    pieces.append(main[copied:])
    return b"".join(pieces)


def _still_used(main: bytes, spans: list[Span], replaced: list[int]) -> bool:
    """Tell whether every actor of the replaced entries also wrote an entry that stays."""
    gone = {main[start + 1] for start in replaced}
    return gone <= {main[span[0] + 1] for span in spans if span[0] not in replaced}


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
        ahead = main[pos]
        if ahead > 127:
            ahead, pos = _check_varint(main, pos)
        else:
            pos += 1
        back = main[pos]
        if back > 127:
            back, pos = _check_varint(main, pos)
        else:
            pos += 1
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
