"""What the container itself keeps in a session: entries of the container namespace.

::

    "idle"         i32, seconds a session may be idle; 0 or less: for ever
    "id:" + id     "A": the id is valid
                   "R" + u16 grace: retired, valid for so many seconds after a node learned of it
    "principal"    a value, encoded like an attribute
    "auth_type"    a value, encoded like an attribute
    "evict"        "1": as of this use idle for long enough, see `tribes.manager.eviction`

A session's key is its first id and needs no entry; it is valid unless an entry retires it.  That
entry is never forgotten.  A later id is retired by a *tombstone* that carries the grace, and is
forgotten like any tombstone: an id without entry is not valid.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from .layout import walk
from .record import HAS_CONTAINER, Entry, Kind, Namespace, Record, main_of, parse, read_entry

__all__ = [
    "AUTH_TYPE",
    "EVICT",
    "GRACE_MAX_S",
    "ID_ACTIVE",
    "ID_PREFIX",
    "MAX_INACTIVE",
    "PRINCIPAL",
    "Facts",
    "active_ids",
    "decode_idle",
    "encode_idle",
    "facts_of",
    "id_entry_name",
    "retired_value",
]

MAX_INACTIVE: Final = b"idle"
PRINCIPAL: Final = b"principal"
AUTH_TYPE: Final = b"auth_type"
EVICT: Final = b"evict"
ID_PREFIX: Final = b"id:"
ID_ACTIVE: Final = b"A"
GRACE_MAX_S: Final = 3600
"""Not longer than tombstones are kept."""

_IDLE = Struct(">i")
_GRACE = Struct(">H")
_CONTAINER: Final = int(Namespace.CONTAINER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)


class Facts(NamedTuple):
    """What a table must know of a session's container entries.

    Attributes:
        ids: The ids that have an entry; None: valid, a number: retired with that grace in seconds.
        max_inactive_s: Seconds the session may be idle, or None if the session does not say.
        evict_hlc: Of the mark that it shall go unless it was used since; None: there is none.
    """

    ids: dict[str, int | None]
    max_inactive_s: int | None
    evict_hlc: int | None = None


def id_entry_name(session_id: str) -> bytes:
    """Return the name of the entry that tells what an id is worth."""
    return ID_PREFIX + session_id.encode()


def retired_value(grace_s: int) -> bytes:
    """Return the value of the entry of a retired id."""
    return b"R" + _GRACE.pack(min(max(grace_s, 0), GRACE_MAX_S))


def encode_idle(seconds: int) -> bytes:
    """Return the value of `MAX_INACTIVE`."""
    return _IDLE.pack(min(max(seconds, -(2**31)), 2**31 - 1))


def decode_idle(value: bytes) -> int | None:
    """Return the seconds of a `MAX_INACTIVE` entry, or None if a newer version wrote it."""
    return int(_IDLE.unpack(value)[0]) if len(value) == _IDLE.size else None


def facts_of(record: Record) -> Facts:
    """Read the container entries of a record."""
    ids: dict[str, int | None] = {}
    idle = evict = None
    main = main_of(record)
    if main[2] & HAS_CONTAINER:
        for span in walk(main):
            if main[span[0]] >> 4 != _CONTAINER:
                continue
            name = main[span[1] : span[2]]
            if name == MAX_INACTIVE:
                # Almost all have it and nothing else. A large value, which lies elsewhere, is none.
                idle = decode_idle(main[span[2] : span[3]])
            elif name.startswith(ID_PREFIX):
                entry = read_entry(record, span)
                ids[name[len(ID_PREFIX) :].decode()] = _grace_of(entry)
            elif name == EVICT:
                evict = read_entry(record, span).hlc
    return Facts(ids, idle, evict)


def _grace_of(entry: Entry) -> int | None:
    if entry.value == ID_ACTIVE and entry.kind != _TOMBSTONE:
        return None
    if len(entry.value) == 1 + _GRACE.size:
        return int(_GRACE.unpack_from(entry.value, 1)[0])
    return 0


def active_ids(key: str, record: Record) -> list[str]:
    """Return the ids that are valid for ever, the newest first; the key is the oldest of them."""
    if not main_of(record)[2] & HAS_CONTAINER:
        return [key]
    entries = parse(record).entries
    active = [
        (entry.hlc, entry.actor, name[len(ID_PREFIX) :].decode())
        for (namespace, name), entry in entries.items()
        if namespace == _CONTAINER and name.startswith(ID_PREFIX) and _grace_of(entry) is None
    ]
    ids = [session_id for _, _, session_id in sorted(active, reverse=True)]
    if (_CONTAINER, id_entry_name(key)) not in entries:
        ids.append(key)
    return ids
