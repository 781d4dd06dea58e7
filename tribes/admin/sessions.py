"""Sessions as an operator may see them: names, types and sizes, never a value, and never an id.

Who has a session's id is its user. So sessions are named by *handles*, the first 16 hexadecimal
digits of the SHA-256 of their key, which are the same on every member and after a change of the id;
whoever knows the id, from a user's complaint, may name it instead.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from tribes.admin.answers import RefusedError
from tribes.admin.status import managers_of
from tribes.errors import AttributeUnreadableError, SessionError, StoreError
from tribes.ids import SessionKey
from tribes.manager.layout import Kind, Life, Namespace
from tribes.manager.record import header, parse, size
from tribes.manager.session import Session

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.record import Entry, Record
    from tribes.runtime.group_channel import GroupChannel

__all__ = ["LISTED_MAX", "expire", "handle_of", "listing", "show"]

log = structlog.get_logger("tribes")

LISTED_MAX: Final = 1000
"""Sessions of one answer."""
_NAMES_MAX: Final = 1000
"""Attributes of one answer."""
_HANDLE_CHARS: Final = 16

_MERGED: Final = {Kind.SET: "MergedSet", Kind.COUNTER: "MergedCounter", Kind.APPEND: "MergedList"}


def handle_of(key: str) -> str:
    """What stands for a session."""
    return sha256(key.encode()).hexdigest()[:_HANDLE_CHARS]


async def listing(channel: GroupChannel, context: str, limit: int, after: str) -> dict[str, Any]:
    """Sessions of a context that are in this node's memory, in the order of their handles.

    Args:
        channel: The node.
        context: Whose sessions.
        limit: At most so many, from 1 to `LISTED_MAX`.
        after: Handle of the last one of the answer before; empty: from the start.

    Raises:
        RefusedError: There is no such context.
    """
    manager = _manager(channel, context)

    def read() -> list[dict[str, Any]]:
        keys = ((handle_of(key), key) for key in manager.table.keys())  # noqa: SIM118 - a method
        later = _live(manager, (pair for pair in keys if pair[0] > after))
        chosen = heapq.nsmallest(limit, later, key=lambda each: each[0])
        return [_summary(manager, handle, key, record) for handle, key, record in chosen]

    found = await trio.to_thread.run_sync(read)
    more = found[-1]["session"] if len(found) == limit else None
    return {"context": context, "sessions": found, "next": more}


def _live(
    manager: SessionManager, pairs: Iterator[tuple[str, str]]
) -> Iterator[tuple[str, str, Record]]:
    for handle, key in pairs:
        record = manager.table.get(key)
        if record is not None and header(record).life == Life.LIVE:
            yield handle, key, record


def _summary(manager: SessionManager, handle: str, key: str, record: Record) -> dict[str, Any]:
    session = Session(manager, SessionKey(key), record)
    return {
        "session": handle,
        "created_ms": session.created_ms,
        "last_accessed_ms": session.last_accessed_ms,
        "max_inactive_s": session.max_inactive,
        "bytes": size(record),
        "attributes": len(session),
    }


async def show(channel: GroupChannel, context: str, named: str) -> dict[str, Any]:
    """One session: name, type, size and time of each attribute.

    Args:
        channel: The node.
        context: Of the session.
        named: Its handle, or an id that is valid.

    Raises:
        RefusedError: There is no such context, or session.
    """
    manager = _manager(channel, context)

    def read() -> dict[str, Any]:
        key, record = _find(manager, context, named)
        parsed = parse(record)
        entries = [e for e in parsed.entries.values() if e.kind != Kind.TOMBSTONE]
        attributes = [e for e in entries if e.namespace == Namespace.ATTRIBUTE]
        return _summary(manager, handle_of(key), key, record) | {
            "context": context,
            "copies_on": list(manager.copies_on),
            "attributes": [_attribute(manager, each) for each in attributes[:_NAMES_MAX]],
            "other_entries": len(entries) - len(attributes),
        }

    return await trio.to_thread.run_sync(read)


def _attribute(manager: SessionManager, entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name.decode("utf-8", "replace"),
        "type": _type_of(manager, entry),
        "bytes": len(entry.value),
        "written_ms": entry.hlc >> 8,
    }


def _type_of(manager: SessionManager, entry: Entry) -> str:
    if entry.kind != Kind.LAST_WRITER:
        return next((name for kind, name in _MERGED.items() if kind == entry.kind), "unknown")
    try:
        return type(manager.codec.decode(entry.value)).__name__
    except AttributeUnreadableError:
        # A class of the application, which a node without it does not know.
        return "unknown"


async def expire(
    channel: GroupChannel, context: str, named: str, *, peer: str, reason: str
) -> dict[str, Any]:
    """End a session on all members, and say so in the log.

    Args:
        channel: The node.
        context: Of the session.
        named: Its handle, or an id that is valid.
        peer: Who asks.
        reason: Why, as the asker says; for the log.

    Returns:
        Which members have confirmed it, and which lack it and why, where the context's send options
        wait for them.

    Raises:
        RefusedError: There is no such context, or session.
    """
    manager = _manager(channel, context)

    def find() -> Session:
        key, record = _find(manager, context, named)
        return Session(manager, SessionKey(key), record)

    session = await trio.to_thread.run_sync(find)
    handle = handle_of(session.key)
    log.warning(
        "session ended by operator", context=context, session=handle, peer=peer, reason=reason
    )
    session.invalidate()
    missing: dict[str, str] = {}
    acked: list[str] = []
    try:
        result = await channel.sessions.committer(context, "serve").acommit(session)
        acked = list(result.acked)
        missing = dict(result.missing)
    except (SessionError, StoreError) as error:
        missing = {"": str(error)}
    return {"context": context, "session": handle, "acked": acked, "missing": missing}


def _manager(channel: GroupChannel, context: str) -> SessionManager:
    managers = managers_of(channel)
    manager = managers.get(context)
    if manager is None:
        known = ", ".join(list(managers)[:20]) or "none"
        raise RefusedError(404, f"there is no context {context[:256]!r} here; there are: {known}")
    return manager


def _find(manager: SessionManager, context: str, named: str) -> tuple[str, Record]:
    found = _by_id(manager, named) or _by_handle(manager, named)
    if found is None:
        raise RefusedError(404, f"there is no such session of {context!r} in this node's memory")
    return found


def _by_id(manager: SessionManager, named: str) -> tuple[str, Record] | None:
    key = manager.table.resolve(named, manager.now_ds())
    return None if key is None else _if_live(manager, key)


def _by_handle(manager: SessionManager, named: str) -> tuple[str, Record] | None:
    if len(named) != _HANDLE_CHARS:
        return None
    keys: Callable[[], list[str]] = manager.table.keys
    key = next((key for key in keys() if handle_of(key) == named.lower()), None)
    return None if key is None else _if_live(manager, key)


def _if_live(manager: SessionManager, key: str) -> tuple[str, Record] | None:
    record = manager.table.get(key)
    return None if record is None or header(record).life != Life.LIVE else (key, record)
