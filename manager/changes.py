"""From what a request did to a session to a new record and a delta (DESIGN §5.4).

A request's changes are encoded once.  `build_delta` applies them to whatever record is in the table
at that moment, so it can be called again when another request, or a peer's delta, was faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.errors import AttributeNotEncodableError, AttributeUnreadableError

from .dots import has_dots
from .merge import merge
from .merged import write_merged
from .reading import Reading
from .record import (
    Entry,
    Kind,
    Life,
    Namespace,
    Record,
    header,
    main_of,
    pack_delta,
    parse,
    slot_of,
    to_wire,
)
from .splice import rewrite
from .three_way import ABSENT, merge_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .values import ValueCodec

__all__ = ["Built", "Change", "attributes_of", "build_delta"]

_LIVE: Final = int(Life.LIVE)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_KNOWN_KINDS: Final = (_LAST_WRITER, _TOMBSTONE)
_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)
_CONTAINER: Final = int(Namespace.CONTAINER)


class Change(msgspec.Struct, frozen=True, gc=False):
    """One entry that a request wants to be different.

    Attributes:
        namespace: Of the entry.
        name: Of the entry.
        kind: ``LAST_WRITER``, ``TOMBSTONE`` to remove it, or a kind that merges by element.
        value: Encoded; of the latter the content (`merged`).
        seen_in: The record in which the request saw the entry, or that it was not there.
    """

    namespace: int
    name: bytes
    kind: int
    value: bytes
    seen_in: Reading | None


class Built(msgspec.Struct, frozen=True, gc=False):
    """A commit, ready to be swapped in.

    Attributes:
        record: The session's new record.
        delta: What the other members get, in wire form.
        joined: (namespace, name) of the changes that were joined with another's.
        conflicts: Writes of others, unseen by this request, that it overwrites, and what it wrote.
        dropped: Elements that fell out of sets and lists.
    """

    record: Record
    delta: bytes
    joined: frozenset[tuple[int, bytes]] = frozenset()
    conflicts: tuple[tuple[Entry, Entry], ...] = ()
    dropped: int = 0


def attributes_of(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return the names of the attributes among what a request wants to change."""
    return tuple(each.name.decode() for each in changes if each.namespace == _ATTRIBUTE)


def build_delta(
    changes: list[Change],
    snapshot: Reading | None,
    current: Record | None,
    *,
    created: int,
    hlc: int,
    actor: int,
    now_ds: int,
    flags: int,
    codec: ValueCodec,
) -> Built | None:
    """Apply a request's changes to the present record.

    Args:
        changes: What the request did.
        snapshot: The record that it read; None if the session is new.
        current: The record in the table, None if there is none; not destroyed.
        created: hlc of the session's creation.
        hlc: Of this commit; greater than the access version of ``current``.
        actor: Of this process.
        now_ds: The local monotonic clock in deciseconds.
        flags: ``WHOLE`` if the session is new, else 0.
        codec: Decodes values that two requests changed at once.

    Returns:
        None if the record is live and already is as the request wants it.

    Raises:
        SessionLimitError: There would be more than 65,535 entries.
    """
    if snapshot is not None and current is snapshot.record:
        built = _build_fast(changes, snapshot, hlc, actor, now_ds)
        if built is not None:
            return None if built.record is current else built
    before = current
    if before is None and snapshot is not None:
        before = snapshot.record
    entries = {} if before is None else parse(before).entries
    writes: list[Entry] = []
    joined = set()
    conflicts = []
    dropped = 0
    for change in changes:
        namespace, name, kind, value = change.namespace, change.name, change.kind, change.value
        seen = None if change.seen_in is None else change.seen_in.entry(namespace, name)
        present = entries.get((namespace, name))
        base = 0 if seen is None else seen.hlc
        if has_dots(kind):
            merged_value, fell_out = write_merged(
                kind, value, seen=seen, present=present, hlc=hlc, actor=actor, codec=codec
            )
            dropped += fell_out
            if present != seen or fell_out:
                joined.add((namespace, name))
            if merged_value is not None:
                written = Entry(namespace, kind, name, merged_value, hlc, actor, base)
                writes.append(written)
                if present is not None and present != seen and not has_dots(present.kind):
                    conflicts.append((present, written))
            continue
        if present is None or present.kind == _TOMBSTONE:
            if kind == _TOMBSTONE and not value:
                continue
        elif present.kind == kind and present.value == value:
            continue
        lost = None
        if present is not None and present != seen and namespace != _CONTAINER:
            merged = _merge_parallel(seen, kind, value, present, codec)
            if merged is None:
                lost = present
            else:
                joined.add((namespace, name))
                if merged == (present.kind, present.value):
                    continue
                (kind, value), base = merged, present.hlc
        written = Entry(namespace, kind, name, value, hlc, actor, base)
        writes.append(written)
        if lost is not None:
            conflicts.append((lost, written))
    if before is None:
        record = pack_delta(created, hlc, actor, now_ds, flags, writes)
        return Built(record, to_wire(record, now_ds), frozenset(joined), dropped=dropped)
    if not writes and main_of(before)[1] == _LIVE:
        return None
    delta = pack_delta(header(before).created, hlc, actor, now_ds, 0, writes)
    record = merge(before, delta)
    # A session that left this table may be in no other either: then all of it must travel.
    wire = to_wire(delta if before is current else record, now_ds)
    return Built(record, wire, frozenset(joined), tuple(conflicts), dropped)


def _build_fast(
    changes: list[Change], snapshot: Reading, hlc: int, actor: int, now_ds: int
) -> Built | None:
    """Build a commit of attributes that nothing came between; None if it is not that simple."""
    for change in changes:
        if change.namespace or change.seen_in is not snapshot:
            return None
    if len(changes) > 1:
        changes = sorted(changes, key=_name_of)
    built = rewrite(snapshot, changes, hlc, actor.to_bytes(4, "big"), slot_of(now_ds))
    if built is None:
        return None
    main, delta = built
    record = snapshot.record
    if isinstance(record, bytes):
        return Built(main, delta)
    return Built(record if main is snapshot.main else (main, record[1]), delta)


def _name_of(change: Change) -> bytes:
    return change.name


def _merge_parallel(
    seen: Entry | None, kind: int, value: bytes, present: Entry, codec: ValueCodec
) -> tuple[int, bytes] | None:
    """Return kind and value with this request's and the other's change, or None if they clash."""
    if present.kind not in _KNOWN_KINDS or (seen is not None and seen.kind not in _KNOWN_KINDS):
        return None
    try:
        merged, is_clean = merge_values(
            ABSENT if seen is None else _decode(seen.kind, seen.value, codec),
            _decode(kind, value, codec),
            _decode(present.kind, present.value, codec),
        )
        if not is_clean:
            return None
        return (_TOMBSTONE, b"") if merged is ABSENT else (_LAST_WRITER, codec.encode(merged))
    except (AttributeUnreadableError, AttributeNotEncodableError):
        return None


def _decode(kind: int, value: bytes, codec: ValueCodec) -> Any:
    return ABSENT if kind == _TOMBSTONE else codec.decode(value)
