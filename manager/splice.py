"""Changing a few entries of a record by copying byte ranges: the fast paths of DESIGN §5.3 and 5.4.

Most changes replace one entry of a record whose writers are all known: then everything else stays
as it is, byte for byte, and need not be decoded.  `splice` does that for a peer's delta, `rewrite`
for a commit here, whose delta it makes along the way.  Whatever is not that simple is left to
`merge`; both give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from .dots import has_dots
from .layout import (
    ACCESS_AT,
    ACTORS_AT,
    COUNT,
    CREATED_AT,
    ENTRIES_MAX,
    HEADER,
    LARGE_VALUE_BYTES,
    LAYOUT,
    SEEN_AT,
    SMALL,
    WIDE,
    Kind,
    Span,
    read_version,
    varint,
    walk,
)

if TYPE_CHECKING:
    from .changes import Change
    from .reading import Reading

__all__ = ["Patch", "actor_index", "patches_of", "rewrite", "splice"]

Patch: TypeAlias = tuple[tuple[int, bytes], int, int, int, bytes]
"""An entry to be spliced in: (namespace, name), head, actor index, hlc - created, and everything
after the actor index as it is written."""

_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_FIRST: Final = SMALL[0]


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
        ahead, _ = read_version(delta, start + 2)
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
    for (namespace, name), head, index, ahead, content in patches:
        found = False
        start = end = len(main)
        large = -1
        while at < count:
            start, name_at, value_at, end, large = spans[at]
            there = main[start] >> 4
            if there >= namespace:
                old = main[name_at:value_at]
                if there > namespace or old >= name:
                    found = there == namespace and old == name
                    break
            at += 1
            start = end = len(main)
        if not found:
            end = start
            added += 1
        else:
            at += 1
            if has_dots(head & 15) or has_dots(main[start] & 15):
                return None  # joined by element
            old_index, old_ahead = main[start + 1], read_version(main, start + 2)[0]
            if (ahead, index) < (old_ahead, old_index):
                continue
            if ahead == old_ahead and index == old_index:
                if main[start] == head and main[start + 2 : end] == content:
                    continue
                return None  # one version, two contents: `merge` has the rule for it
            if large >= 0:
                return None
            if old_index != index:
                replaced.append(start)
        pieces += (main[copied:start], SMALL[head], SMALL[index], content)
        copied = end
    if (replaced and not _still_used(main, spans, replaced)) or count + added > ENTRIES_MAX:
        return None
    before = main[:CREATED_AT]
    if added or main[2] | flags != main[2]:
        before = main[:2] + bytes((main[2] | flags, main[3])) + COUNT.pack(count + added)
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


def rewrite(
    reading: Reading, changes: list[Change], hlc: int, actor: bytes, slot: int
) -> tuple[bytes, bytes] | None:
    """Apply a request's changes of attributes to the very record that it read.

    Args:
        reading: The record.
        changes: Of attributes, in the order of their names.
        hlc: Of the writes, greater than the record's access version.
        actor: Who writes, 4 bytes.
        slot: When, as ``last_seen`` is written (`record.slot_of`).

    Returns:
        The new main part and the delta in wire form (the record's own main part, and nothing, if
        all is as it was); or None if only the long way gives the canonical bytes.
    """
    main = reading.main
    _, life, flags, actors, count, created, _, seen = HEADER.unpack_from(main)
    if life or actors == WIDE:
        return None
    index = 0 if main[ACTORS_AT : ACTORS_AT + 4] == actor else actor_index(main, actor)
    if index < 0:
        return None
    attributes = reading.attributes
    ahead = hlc - created
    version = ahead.to_bytes((ahead.bit_length() + 7) >> 3, "big")
    first = len(version) << 4
    pieces, body = [b""], [b"", actor]
    copied = ACTORS_AT
    for change in changes:
        name, kind, value = change.name, change.kind, change.value
        if has_dots(kind):
            return None
        size, length = len(value), len(name)
        span = attributes.get(name)
        if span is None:
            if kind == _TOMBSTONE:
                continue
            start = end = _place_for(name, reading)
            base = b""
            count += 1
        else:
            start, _, value_at, end, large = span
            if large >= 0:
                return None  # the value stands beside: nothing here to compare with
            if main[start] == kind and (main[value_at:end] == value or kind == _TOMBSTONE):
                continue
            if main[start + 1] != index:
                return None
            middle = start + 3 + (main[start + 2] >> 4)
            back = ahead - int.from_bytes(main[start + 3 : middle], "big")
            base = back.to_bytes((back.bit_length() + 7) >> 3, "big")
        if size > LARGE_VALUE_BYTES:
            return None
        content = b"".join(
            (
                SMALL[first | len(base)],
                version,
                base,
                SMALL[length] if length < 128 else varint(length),
                SMALL[size] if size < 128 else varint(size),
                name,
                value,
            )
        )
        pieces += (main[copied:start], SMALL[kind], SMALL[index], content)
        body += (SMALL[kind], _FIRST, content)
        copied = end
    written = len(pieces) >> 2
    if not written:
        return main, b""
    if count > ENTRIES_MAX:
        return None
    seen = slot if slot > seen else seen
    pieces[0] = HEADER.pack(LAYOUT, 0, flags, actors, count, created, hlc, seen)
    pieces.append(main[copied:])
    body[0] = HEADER.pack(LAYOUT, 0, 0, 1, written, created, hlc, 0)
    return b"".join(pieces), b"".join(body)


def _place_for(name: bytes, reading: Reading) -> int:
    """Return where an attribute that is not there yet belongs."""
    for other, span in reading.attributes.items():
        if other > name:
            return span[0]
    return reading.attributes_end
