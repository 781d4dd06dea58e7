"""From what a request did to a session to a new record and a delta (DESIGN §5.4).

A request's changes are encoded once.  `build_delta` applies them to whatever record is in the table
at that moment, so it can be called again when another request, or a peer's delta, was faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tribes.errors import AttributeNotEncodableError, AttributeUnreadableError

from .merge import write
from .record import Entry, Kind, Life, Namespace, Reading, Record, pack_delta, parse, to_wire
from .three_way import ABSENT, merge_values

if TYPE_CHECKING:
    from .values import ValueCodec

__all__ = ["Built", "Change", "build_delta"]

_LIVE: Final = int(Life.LIVE)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_KNOWN_KINDS: Final = (_LAST_WRITER, _TOMBSTONE)
_CONTAINER: Final = int(Namespace.CONTAINER)


class Change(NamedTuple):
    """One entry that a request wants to be different.

    Attributes:
        namespace: Of the entry.
        name: Of the entry.
        kind: ``LAST_WRITER``, or ``TOMBSTONE`` to remove it.
        value: Encoded.
        seen: The entry as the request saw it, if there was one.
    """

    namespace: int
    name: bytes
    kind: int
    value: bytes
    seen: Entry | None


class Built(NamedTuple):
    """A commit, ready to be swapped in.

    Attributes:
        record: The session's new record.
        delta: What the other members get, in wire form.
        writes: The entries that were written.
        conflicts: Writes of others, unseen by this request, that it overwrites.
    """

    record: Record
    delta: bytes
    writes: list[Entry]
    conflicts: int


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
    """
    if snapshot is not None and (current is None or current is snapshot.record):
        reading: Reading | None = snapshot
        entries = None
    else:
        reading = None if current is None else Reading(current)
        entries = {} if current is None else parse(current).entries
    writes: list[Entry] = []
    conflicts = 0
    for namespace, name, kind, value, seen in changes:
        present = seen if entries is None else entries.get((namespace, name))
        base = 0 if seen is None else seen.hlc
        if present is None or present.kind == _TOMBSTONE:
            if kind == _TOMBSTONE and not value:
                continue
        elif present.kind == kind and present.value == value:
            continue
        if present is not None and present != seen and namespace != _CONTAINER:
            merged = _merge_parallel(seen, kind, value, present, codec)
            if merged is None:
                conflicts += 1
            elif merged == (present.kind, present.value):
                continue
            else:
                (kind, value), base = merged, present.hlc
        writes.append(Entry(namespace, kind, name, value, hlc, actor, base))
    if reading is None:
        record = pack_delta(created, hlc, actor, now_ds, flags, writes)
        return Built(record, to_wire(record, now_ds), writes, 0)
    if not writes and reading.main[1] == _LIVE:
        return None
    record, delta = write(reading, writes, hlc=hlc, actor=actor, now_ds=now_ds)
    if current is None:
        # A session that left this table may be in no other either: then all of it must travel.
        delta = to_wire(record, now_ds)
    return Built(record, delta, writes, conflicts)


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
