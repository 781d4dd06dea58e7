"""What an expired session carries about its destroyed event: who tells the listeners, and who has.

Two entries of the namespace MARK, with the time as of which the session has expired.  ``firing`` is
written with the expiry, its value the unique id of the member that did it; ``fired`` when that
member's listeners were called.  A session that was used again and expires again carries marks of an
earlier time, which count no more.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from .record import Entry, Kind, Life, Namespace, Parsed, Record, header, pack, parse

__all__ = ["destroyed_event_id", "expired_by", "fired_mark", "is_fired", "to_be_fired_by"]

FIRING: Final = b"firing"
FIRED: Final = b"fired"
_MARK: Final = int(Namespace.MARK)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)


def destroyed_event_id(context: str, key: str) -> str:
    """Return the id of a session's destroyed event: equal on all nodes, however often it fires."""
    text = f"{context}\0{key}".encode()
    return blake2b(text, digest_size=16, person=b"tribes.event").hexdigest()


def _bare(record: Record) -> Parsed:
    fixed = header(record)
    return Parsed(Life.EXPIRED, 0, fixed.created, fixed.access, fixed.last_seen, {})


def expired_by(record: Record, member_id: bytes, actor: int) -> Record:
    """Return the delta that expires a record, as of its last use.

    Args:
        record: A live one.
        member_id: Unique id of the member that expires it, and tells of it.
        actor: Of that member's clock.
    """
    parsed = _bare(record)
    parsed.put(Entry(_MARK, _LAST_WRITER, FIRING, member_id, parsed.access, actor))
    return pack(parsed)


def fired_mark(record: Record, actor: int) -> Record:
    """Return the delta that says that the listeners were told of an expired session."""
    parsed = _bare(record)
    parsed.put(Entry(_MARK, _LAST_WRITER, FIRED, b"", parsed.access, actor))
    return pack(parsed)


def is_fired(record: Record) -> bool:
    """Whether the listeners were told of this expiry."""
    parsed = parse(record)
    mark = parsed.entries.get((_MARK, FIRED))
    return mark is not None and mark.hlc >= parsed.access


def to_be_fired_by(record: Record) -> bytes:
    """Return the unique id of the member that expired a record; empty: it does not say."""
    parsed = parse(record)
    mark = parsed.entries.get((_MARK, FIRING))
    return b"" if mark is None or mark.hlc < parsed.access else mark.value
