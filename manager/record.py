"""A session as one immutable record: what it holds and how it is taken apart (DESIGN §5.2).

A replica holds each session as one packed object that it never decodes; `layout` has its bytes.

**In memory** a record is ``bytes``; if it has values longer than 8 KiB it is
``(bytes, (value, value, ...))``, with these values standing beside the rest, so that rewriting a
record never copies a large value.

**Canonical.** Entries ascend by (namespace, name), actors ascend and are all in use, the flag
``HAS_CONTAINER`` tells the truth, a destroyed record is a bare header.  Equal state is therefore
equal bytes, except for ``last_seen``.  What arrives in another form is refused, not mended: all of
us write the canonical form, so another form means a broken sender.

**Invariant**: ``created <= hlc of every entry <= access``, unless destroyed.  A writer whose clock
has passed ``access`` has therefore passed every entry.

``last_seen`` counts deciseconds on the local monotonic clock (`local_ds`); it is no part of the
state.  On the wire its place holds the *age*, how long the session has been idle, so idle time is
never computed from two machines' clocks.
"""

from __future__ import annotations

from struct import pack as struct_pack
from struct import unpack_from
from typing import Final, TypeAlias

import msgspec

from tribes.errors import LocalProtocolError, RemoteProtocolError, SessionLimitError

from .layout import (
    ACCESS_AT,
    ACTORS_AT,
    CREATED_AT,
    ENTRIES_MAX,
    HAS_CONTAINER,
    HEADER,
    LARGE_VALUE_BYTES,
    LAYOUT,
    NAME_MAX_BYTES,
    SEEN,
    SEEN_AT,
    SEEN_BIAS,
    U32,
    WHOLE,
    WIDE,
    Kind,
    Life,
    Namespace,
    Span,
    entry_bytes,
    read_version,
    walk,
)
from .untrusted import check

__all__ = [
    "ENTRIES_MAX",
    "HAS_CONTAINER",
    "LARGE_VALUE_BYTES",
    "NAME_MAX_BYTES",
    "WHOLE",
    "Entry",
    "Header",
    "Kind",
    "Life",
    "Namespace",
    "Parsed",
    "Record",
    "aged",
    "bare",
    "deciseconds",
    "equal_state",
    "from_wire",
    "header",
    "large_of",
    "life_and_access",
    "main_of",
    "pack",
    "pack_delta",
    "parse",
    "place_of",
    "read_entry",
    "size",
    "slot_of",
    "to_wire",
    "with_access",
    "write_of",
]

Record: TypeAlias = bytes | tuple[bytes, tuple[bytes, ...]]
"""One session as it lies in the table: treat as opaque, compare by identity or `equal_state`."""

U32_MAX: Final = 2**32 - 1

_CONTAINER: Final = int(Namespace.CONTAINER)
_FIRST: Final = b"\0"


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fixed part of a record: ``created`` and ``access`` are hlc values, the rest as named."""

    life: int
    flags: int
    entries: int
    created: int
    access: int
    last_seen: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One named value of one namespace, with the version of the write that made it.

    ``base`` is the hlc of the version that the writer had seen, 0 if it had seen none.
    """

    namespace: int
    kind: int
    name: bytes
    value: bytes
    hlc: int
    actor: int
    base: int = 0


class Parsed(msgspec.Struct):
    """A record taken apart; the only mutable form, private to whoever parsed it."""

    life: int
    flags: int
    created: int
    access: int
    last_seen: int
    entries: dict[tuple[int, bytes], Entry] = {}

    def put(self, entry: Entry) -> None:
        """Store an entry in the place that its namespace and name give it."""
        self.entries[entry.namespace, entry.name] = entry


def deciseconds(monotonic_s: float) -> int:
    """Convert a reading of the local monotonic clock to the unit of ``last_seen``."""
    return int(monotonic_s * 10)


def main_of(record: Record) -> bytes:
    """Return the part of a record that has everything but the large values."""
    return record if isinstance(record, bytes) else record[0]


def large_of(record: Record, index: int) -> bytes:
    """Return one of the large values that stand beside the rest."""
    return b"" if isinstance(record, bytes) else record[1][index]


def header(record: Record) -> Header:
    """Read the fixed part of a record without looking at its entries."""
    main = record if isinstance(record, bytes) else record[0]
    _, life, flags, _, entries, created, access, last_seen = HEADER.unpack_from(main)
    return Header(life, flags, entries, created, access, last_seen - SEEN_BIAS)


def life_and_access(record: Record) -> tuple[int, int]:
    """Read just these, for the commit loop."""
    main = record if isinstance(record, bytes) else record[0]
    return main[1], int.from_bytes(main[ACCESS_AT:SEEN_AT], "big")


def with_access(record: Record, access: int, last_seen: int) -> Record:
    """Return the record with another access version and ``last_seen``; entries are not read."""
    fields = SEEN.pack(access, slot_of(last_seen))
    if isinstance(record, bytes):
        return record[:ACCESS_AT] + fields + record[ACTORS_AT:]
    main, large = record
    return main[:ACCESS_AT] + fields + main[ACTORS_AT:], large


def bare(record: Record) -> Record:
    """Return the header alone, as a delta: it tells life and access, and has no entries."""
    _, life, _, _, _, created, access, slot = HEADER.unpack_from(main_of(record))
    return HEADER.pack(LAYOUT, life, 0, 0, 0, created, access, slot)


def size(record: Record) -> int:
    """Return the number of bytes of a record's content, large values included."""
    return len(record) if isinstance(record, bytes) else len(record[0]) + sum(map(len, record[1]))


def equal_state(a: Record, b: Record) -> bool:
    """Tell whether two records are equal in everything but ``last_seen``."""
    if a is b:
        return True
    left, left_large = (a, ()) if isinstance(a, bytes) else a
    right, right_large = (b, ()) if isinstance(b, bytes) else b
    return (
        left[:SEEN_AT] == right[:SEEN_AT]
        and left[ACTORS_AT:] == right[ACTORS_AT:]
        and left_large == right_large
    )


def read_entry(record: Record, span: Span) -> Entry:
    """Decode one entry that `walk` found in this record."""
    main = record if isinstance(record, bytes) else record[0]
    start, name_at, value_at, end, beside = span
    actor_at, pos = _version_places(main, start)
    ahead, back = read_version(main, pos)
    hlc = int.from_bytes(main[CREATED_AT:ACCESS_AT], "big") + ahead
    return Entry(
        main[start] >> 4,
        main[start] & 15,
        main[name_at:value_at],
        main[value_at:end] if beside < 0 else record[1][beside],  # type: ignore[index]
        hlc,
        int.from_bytes(main[actor_at : actor_at + 4], "big"),
        hlc - back if back else 0,
    )


def write_of(main: bytes, start: int) -> tuple[int, bytes]:
    """Read only who wrote the entry that begins at ``start``, and when: hlc, actor (4 bytes)."""
    actor_at, pos = _version_places(main, start)
    ahead, _ = read_version(main, pos)
    return int.from_bytes(main[CREATED_AT:ACCESS_AT], "big") + ahead, main[actor_at : actor_at + 4]


def _version_places(main: bytes, start: int) -> tuple[int, int]:
    """Return the offsets of an entry's actor and of its lengths of ahead and back."""
    if main[3] == WIDE:
        return start + 1, start + 5
    return ACTORS_AT + 4 * main[start + 1], start + 2


def parse(record: Record) -> Parsed:
    """Take a record apart. For records of this process only; what a peer sent, see `from_wire`."""
    main, large = (record, ()) if isinstance(record, bytes) else record
    _, life, flags, actors, _, created, access, last_seen = HEADER.unpack_from(main)
    wide = actors == WIDE
    table = () if wide else unpack_from(f">{actors}I", main, ACTORS_AT)
    entries = {}
    for start, name_at, value_at, end, beside in walk(main):
        head = main[start]
        if wide:
            (actor,) = U32.unpack_from(main, start + 1)
            pos = start + 5
        else:
            actor = table[main[start + 1]]
            pos = start + 2
        lengths = main[pos]
        middle = pos + 1 + (lengths >> 4)
        hlc = created + int.from_bytes(main[pos + 1 : middle], "big")
        back = int.from_bytes(main[middle : middle + (lengths & 15)], "big")
        name = main[name_at:value_at]
        value = main[value_at:end] if beside < 0 else large[beside]
        entries[head >> 4, name] = Entry(
            head >> 4, head & 15, name, value, hlc, actor, hlc - back if back else 0
        )
    return Parsed(life, flags, created, access, last_seen - SEEN_BIAS, entries)


def pack(parsed: Parsed) -> Record:
    """Put a record together, canonically.

    Raises:
        SessionLimitError: More than 65,535 entries.
        LocalProtocolError: The content breaks an invariant of this layout (module docstring).
    """
    created, access, entries = parsed.created, parsed.access, parsed.entries
    flags = parsed.flags & ~HAS_CONTAINER
    if parsed.life == Life.DESTROYED:
        if entries or created != access:
            raise LocalProtocolError("a destroyed session keeps nothing but the time it ended")
        flags &= ~WHOLE
    if len(entries) > ENTRIES_MAX:
        raise SessionLimitError(f"a session holds at most {ENTRIES_MAX} entries")
    actors = sorted({entry.actor for entry in entries.values()})
    wide = len(actors) >= WIDE
    fields = {a: U32.pack(a) if wide else bytes((i,)) for i, a in enumerate(actors)}
    pieces = [b"", b"" if wide else struct_pack(f">{len(actors)}I", *actors)]
    large = []
    for key in sorted(entries):
        entry = entries[key]
        if key[0] == _CONTAINER:
            flags |= HAS_CONTAINER
        hlc, base, name, value = entry.hlc, entry.base, entry.name, entry.value
        if not created <= hlc <= access or (base and base >= hlc):
            raise LocalProtocolError(f"{entry!r} has a version out of {created}..{access}")
        if not 0 < len(name) <= NAME_MAX_BYTES:
            raise LocalProtocolError(f"a name has 1 to {NAME_MAX_BYTES} bytes: {name!r}")
        back = hlc - base if base else 0
        pieces.append(
            entry_bytes(
                key[0] << 4 | entry.kind, fields[entry.actor], hlc - created, back, name, value
            )
        )
        if len(value) > LARGE_VALUE_BYTES:
            large.append(value)
    count = WIDE if wide else len(actors)
    slot = slot_of(parsed.last_seen)
    pieces[0] = HEADER.pack(LAYOUT, parsed.life, flags, count, len(entries), created, access, slot)
    main = b"".join(pieces)
    return (main, tuple(large)) if large else main


def pack_delta(
    created: int, hlc: int, actor: int, last_seen: int, flags: int, writes: list[Entry]
) -> Record:
    """Put together what one writer wrote at one moment: the short way through `pack`.

    Args:
        created: Of the session.
        hlc: Of the writes, and of this use of the session.
        actor: Who wrote.
        last_seen: When, by the local clock.
        flags: ``WHOLE`` for a session's creation.
        writes: Entries with this hlc and actor, of different names; they get sorted in place.

    Raises:
        SessionLimitError: More than 65,535 entries.
    """
    if len(writes) > ENTRIES_MAX:
        raise SessionLimitError(f"a session holds at most {ENTRIES_MAX} entries")
    writes.sort(key=place_of)
    ahead = hlc - created
    large = []
    pieces = [b"", U32.pack(actor)] if writes else [b""]
    for entry in writes:
        if entry.namespace == _CONTAINER:
            flags |= HAS_CONTAINER
        value, base = entry.value, entry.base
        head = entry.namespace << 4 | entry.kind
        back = hlc - base if base else 0
        pieces.append(entry_bytes(head, _FIRST, ahead, back, entry.name, value))
        if len(value) > LARGE_VALUE_BYTES:
            large.append(value)
    actors, slot = len(pieces) > 1, slot_of(last_seen)
    pieces[0] = HEADER.pack(LAYOUT, 0, flags, actors, len(writes), created, hlc, slot)
    main = b"".join(pieces)
    return (main, tuple(large)) if large else main


def place_of(entry: Entry) -> tuple[int, bytes]:
    """Return what entries are sorted by."""
    return entry.namespace, entry.name


def to_wire(record: Record, now_ds: int) -> bytes:
    """Return the bytes that a peer gets: the age in place of ``last_seen``, large values last."""
    main, large = (record, ()) if isinstance(record, bytes) else record
    (slot,) = U32.unpack_from(main, SEEN_AT)
    age = min(max(now_ds + SEEN_BIAS - slot, 0), U32_MAX)
    return b"".join((main[:SEEN_AT], U32.pack(age), main[ACTORS_AT:], *large))


def aged(wire: bytes, ds: int) -> bytes:
    """Return what `to_wire` made, for a use that was so many deciseconds earlier."""
    (age,) = U32.unpack_from(wire, SEEN_AT)
    return wire[:SEEN_AT] + U32.pack(min(age + max(ds, 0), U32_MAX)) + wire[ACTORS_AT:]


def from_wire(data: bytes, now_ds: int) -> Record:
    """Verify what a peer sent and return it as a record, seen its age ago by the local clock.

    The work is linear in ``len(data)``, and nothing that the bytes claim is allocated before it is
    there. Unknown namespaces, merge kinds and flags pass.

    Raises:
        RemoteProtocolError: The bytes are no canonical record.
    """
    end, sizes = check(data)
    if len(data) != end + sum(sizes):
        raise RemoteProtocolError(f"session record of {end + sum(sizes)} bytes in {len(data)}")
    (age,) = U32.unpack_from(data, SEEN_AT)
    main = data[:SEEN_AT] + U32.pack(slot_of(now_ds - age)) + data[ACTORS_AT:end]
    if not sizes:
        return main
    large = []
    for length in sizes:
        large.append(data[end : end + length])
        end += length
    return main, tuple(large)


def slot_of(last_seen: int) -> int:
    """Return ``last_seen`` as it is written."""
    return min(max(last_seen + SEEN_BIAS, 0), U32_MAX)
