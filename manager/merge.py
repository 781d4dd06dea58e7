"""How two copies of a session become one: a join in a semilattice (DESIGN §5.3).

`merge` is commutative, associative and idempotent on everything but ``last_seen`` (which is local
and takes the later), so duplicates, re-ordering, concurrent writers and healed splits end in the
same bytes whatever happened on the way.  It joins four parts, each on its own:

- **entries**: per (namespace, name) the greater version (hlc, actor), except that sets, counters
  and lists with merge kinds of their own are joined by element (`dots`).  A tombstone is an entry
  like any other.  One version with two contents can only come from a broken writer; the greater
  content wins, so that even then all replicas agree.
- **life** with ``access``: DESTROYED absorbs; otherwise the greater (access, life).  EXPIRED at t
  therefore loses to a use after t and wins against the others, and DESTROYED keeps its own time.
- ``created``: the least.  ``flags``: the union.

An expired record *keeps its entries*.  If it dropped them, the result would depend on whether a
reviving use met the full copy or the expired one first; besides, the destroyed listeners read them.
A destroyed record is a bare header with ``created == access``: key and life only.

A delta is a record with some of the entries, and applying it is merging it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from struct import Struct
from typing import Final

from .dots import has_dots, join_entries
from .layout import (
    ACCESS_AT,
    ACTORS_AT,
    CREATED_AT,
    HEADER,
    LARGE_VALUE_BYTES,
    LAYOUT,
    SEEN_AT,
    SEEN_BIAS,
    SMALL,
    VERSION_BYTES,
    WIDE,
    has_kind,
    read_varint,
    walk,
)
from .record import (
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    header,
    large_of,
    main_of,
    pack,
    parse,
    write_of,
)
from .splice import actor_index, patches_of, splice

__all__ = [
    "TOMBSTONES_MAX",
    "TOMBSTONE_AGE_MS",
    "destroyed",
    "digest",
    "expired",
    "is_whole",
    "lost_between",
    "lost_updates",
    "merge",
    "prune",
]

TOMBSTONE_AGE_MS: Final = 2 * 60 * 60 * 1000
"""How long a removed attribute is remembered: a write older than that, arriving later, is kept. An
hour is promised; the second one is for clocks, which may be an hour apart or be set by as much."""
TOMBSTONES_MAX: Final = 64
"""Removed attributes that one session remembers."""

SPLICE_MAX: Final = 8
"""Entries of a delta up to which copying byte ranges beats taking both records apart."""

_VERSION = Struct(">Q4sBH")
_LIVE: Final = int(Life.LIVE)
_EXPIRED: Final = int(Life.EXPIRED)
_DESTROYED: Final = int(Life.DESTROYED)
_MARK: Final = int(Namespace.MARK)
_APPLICATION: Final = (int(Namespace.ATTRIBUTE), int(Namespace.NOTE))
_TOMBSTONE: Final = int(Kind.TOMBSTONE)


def merge(a: Record | None, *others: Record) -> Record:
    """Join copies and deltas of one session.

    Returns:
        The joined record; the very object ``a`` if the others add nothing to it, so that a caller
        can tell by identity that there is nothing to store.

    Raises:
        SessionLimitError: The union has more than 65,535 entries.
    """
    merged = a
    for other in others:
        merged = other if merged is None else _merge_two(merged, other)
    assert merged is not None, "nothing to merge"
    return merged


def _merge_two(a: Record, b: Record) -> Record:
    if a is b:
        return a
    main, delta = main_of(a), main_of(b)
    if main[1] == _LIVE == delta[1]:
        if (
            delta[4] << 8 | delta[5] <= SPLICE_MAX
            and main[3] != WIDE != delta[3]
            and main[CREATED_AT:ACCESS_AT] == delta[CREATED_AT:ACCESS_AT]
            and delta is b
            and (patches := patches_of(main, delta)) is not None
        ):
            access, seen = delta[ACCESS_AT:SEEN_AT], delta[SEEN_AT:ACTORS_AT]
            joined = splice(main, walk(main), patches, delta[2], access, seen)
            if joined is not None:
                return _with_main(a, joined)
    elif main[1] == _DESTROYED != delta[1]:
        return a
    elif delta[1] == _DESTROYED != main[1]:
        return b
    return _merge_parsed(a, b)


def _with_main(record: Record, main: bytes) -> Record:
    """Return the record with another main part and the same large values."""
    if isinstance(record, bytes):
        return main
    return record if main is record[0] else (main, record[1])


def _merge_parsed(a: Record, b: Record) -> Record:
    ours, theirs = parse(a), parse(b)
    access, life = max((ours.access, ours.life), (theirs.access, theirs.life))
    if life == _DESTROYED:
        flags = ours.flags | theirs.flags
        if flags == ours.flags and access == ours.access:
            return a
        return pack(Parsed(life, flags, access, access, max(ours.last_seen, theirs.last_seen)))
    created = min(ours.created, theirs.created)
    flags = ours.flags | theirs.flags
    last_seen = max(ours.last_seen, theirs.last_seen)
    entries = ours.entries
    is_new = created != ours.created
    for key, entry in theirs.entries.items():
        known = entries.get(key)
        if known is None:
            entries[key] = entry
            is_new = True
        elif has_dots(entry.kind) or has_dots(known.kind):
            joined = join_entries(known, entry)
            entries[key] = joined
            is_new = is_new or joined is not known
        elif _is_newer(entry, known):
            entries[key] = entry
            is_new = True
    if is_new:
        return pack(Parsed(life, flags, created, access, last_seen, entries))
    fixed = (life, flags, access, last_seen)
    if fixed == (ours.life, ours.flags, ours.access, ours.last_seen):
        return a
    main = main_of(a)
    slot = last_seen + SEEN_BIAS
    head = HEADER.pack(LAYOUT, life, flags, main[3], len(entries), created, access, slot)
    return _with_main(a, head + main[ACTORS_AT:])


def _is_newer(entry: Entry, known: Entry) -> bool:
    if entry.hlc != known.hlc:
        return entry.hlc > known.hlc
    return (entry.actor, entry.kind, entry.value, entry.base) > (
        known.actor,
        known.kind,
        known.value,
        known.base,
    )


def expired(record: Record, t: int = 0) -> Record:
    """Return the record as expired at ``t``, with its entries; a use after ``t`` revives it.

    Args:
        record: A live record.
        t: hlc of the expiry; not before the last use that the record knows.
    """
    parsed = parse(record)
    parsed.life = Life.EXPIRED
    parsed.access = max(parsed.access, t)
    return pack(parsed)


def destroyed(t: int, last_seen: int) -> Record:
    """Return what remains of a session that was invalidated at ``t`` (hlc)."""
    return pack(Parsed(Life.DESTROYED, 0, t, t, last_seen))


def is_whole(record: Record | None) -> bool:
    """Tell whether a record is a session, or the end of one, and not only later changes of it."""
    if record is None:
        return False
    main = main_of(record)
    return main[1] != _LIVE or bool(main[2] & WHOLE)


def digest(key: str, record: Record) -> int:
    """Return a u64 that two replicas of a session share if, and only if, they hold the same.

    It covers the key, the life, whether the copy is whole, the versions of all entries, and as of
    when a session has expired: a use that another expiry had seen would revive it; of an expired
    one also who was to tell of it, and whether that was done.  Not covered are
    what may differ between equal replicas, the uses of live sessions and tombstones (each node
    forgets those at its own moment), nor what follows from the rest, the values; but those that
    merge by element do not follow from their version, and are.
    """
    main = record if isinstance(record, bytes) else record[0]
    life = main[1]
    pieces = [key.encode(), SMALL[life]]
    if life == _EXPIRED:
        pieces.append(header(main).access.to_bytes(8, "big"))
        for start, name_at, value_at, _, _ in walk(main):
            if main[start] >> 4 == _MARK and main[start] & 15 != _TOMBSTONE:
                pieces.append(_VERSION.pack(*write_of(main, start), _MARK, value_at - name_at))
                pieces.append(main[name_at:value_at])
    elif life == _LIVE:
        pieces.append(SMALL[main[2] & WHOLE])
        # What `walk`, `write_of` and `read_version` do, in one loop: every session that changes
        # anywhere is hashed, and all of them by a node that joins.
        created, from_bytes = int.from_bytes(main[CREATED_AT:ACCESS_AT], "big"), int.from_bytes
        actors = main[3]
        skip, pos = (5, ACTORS_AT) if actors == WIDE else (2, ACTORS_AT + 4 * actors)
        beside = 0
        for _ in range(main[4] << 8 | main[5]):
            head, at, version_at = main[pos], pos + 1, pos + skip
            if actors != WIDE:
                at = ACTORS_AT + 4 * main[at]
            lengths = main[version_at]
            ahead = from_bytes(main[version_at + 1 : version_at + 1 + (lengths >> 4)], "big")
            pos = version_at + VERSION_BYTES[lengths]
            length, pos = (main[pos], pos + 1) if main[pos] < 128 else read_varint(main, pos)
            size, pos = (main[pos], pos + 1) if main[pos] < 128 else read_varint(main, pos)
            name_at, pos = pos, pos + length
            kind = head & 15
            if kind != _TOMBSTONE:
                pieces.append(_VERSION.pack(created + ahead, main[at : at + 4], head >> 4, length))
                pieces.append(main[name_at:pos])
                if has_dots(kind):
                    is_beside = size > LARGE_VALUE_BYTES
                    pieces.append(large_of(record, beside) if is_beside else main[pos : pos + size])
            if size > LARGE_VALUE_BYTES:
                beside += 1
            else:
                pos += size
    hashed = blake2b(b"\0".join(pieces), digest_size=8, person=b"tribes.session")
    return int.from_bytes(hashed.digest(), "big")


def prune(record: Record, now_ms: int) -> Record:
    """Forget tombstones older than `TOMBSTONE_AGE_MS`, and all but the `TOMBSTONES_MAX` newest.

    Args:
        record: Any record.
        now_ms: Wall clock, milliseconds since 1970.

    Returns:
        The record without them; the very same object if there were none. Its digest is the same.
    """
    main = record if isinstance(record, bytes) else record[0]
    if not has_kind(main, _TOMBSTONE):
        return record
    parsed = parse(record)
    oldest_kept = (now_ms - TOMBSTONE_AGE_MS) << 8
    tombstones = sorted(
        (entry.hlc, entry.actor, key)
        for key, entry in parsed.entries.items()
        if entry.kind == _TOMBSTONE
    )
    gone = [key for hlc, _, key in tombstones if hlc < oldest_kept]
    gone.extend(key for _, _, key in tombstones[len(gone) : -TOMBSTONES_MAX])
    if not gone:
        return record
    for key in gone:
        del parsed.entries[key]
    return pack(parsed)


def lost_between(before: Record, incoming: Record) -> Iterator[tuple[Entry, Entry]]:
    """Find whose attributes get lost when two records are merged, either way (DESIGN §5.3).

    Args:
        before: What was here.
        incoming: What came.

    Yields:
        An entry of one, and the entry of the other that takes its place unseen.
    """
    ours, theirs = main_of(before), main_of(incoming)
    one = slice(ACTORS_AT, ACTORS_AT + 4)
    if ours[3] == theirs[3] == 1 and ours[one] == theirs[one]:
        # All by one writer, who knows what it does.
        return
    known = parse(before).entries
    for key, entry in parse(incoming).entries.items():
        other = known.get(key)
        if other is None or key[0] not in _APPLICATION or other.actor == entry.actor:
            continue
        lost, won = (other, entry) if _is_newer(entry, other) else (entry, other)
        if won.base < lost.hlc and not (has_dots(won.kind) and has_dots(lost.kind)):
            yield lost, won


def lost_updates(before: Record, incoming: Record, actor: int) -> Iterator[tuple[Entry, Entry]]:
    """Find the own attributes that a delta overwrites without having seen them (DESIGN §5.3).

    Args:
        before: The record as it was before the merge.
        incoming: The delta or copy of another writer, or the record after the merge.
        actor: Whose writes are "own".

    Yields:
        The entry that is lost, and the one that takes its place.
    """
    main = main_of(before)
    if main[3] != WIDE and actor_index(main, actor.to_bytes(4, "big")) < 0:
        return
    ours = parse(before).entries
    for key, won in parse(incoming).entries.items():
        lost = ours.get(key)
        if (
            lost is not None
            and key[0] in _APPLICATION
            and lost.actor == actor != won.actor
            and won.base < lost.hlc
            and not (has_dots(won.kind) and has_dots(lost.kind))
            and _is_newer(won, lost)
        ):
            yield lost, won
