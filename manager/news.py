"""What other members did, for listeners here (``notify…OnReplication``, tomcat-sessions §4.1).

The core merges and leaves what it had and has; a thread of the runtime compares the two and calls
the listeners.  Without the settings, and without values that are kept here, nothing is left.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import AttributeUnreadableError
from tribes.ids import SessionKey

from .container import active_ids
from .cursor import KeyCursor
from .reading import Reading
from .record import WHOLE, Kind, Life, Namespace, Record, header, main_of, read_entry
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from .endings import Endings
    from .session import SessionHome
    from .table import SessionTable
    from .watched import Watch

__all__ = ["NEWS_MAX", "News"]

NEWS_MAX: Final = 10_000
"""Changes that wait for slow listeners; beyond, the oldest are dropped and counted."""

_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_LIVE: Final = int(Life.LIVE)
_DESTROYED: Final = int(Life.DESTROYED)


@final
class News:
    """The changes of one manager's sessions by other members.

    Args:
        context: Of the manager.
        home: The manager.
        watch: Its listeners, and what is kept here.
        endings: Tells the ends.

    Attributes:
        dropped: Changes that nobody was told of, because listeners were too slow.
        on_news: Called in the core's thread when there is something to `tell`; must not block.
    """

    __slots__ = (
        "_changes",
        "_context",
        "_cursor",
        "_endings",
        "_home",
        "_is_wanted",
        "_lost",
        "_watch",
        "dropped",
        "on_news",
    )

    def __init__(self, context: str, home: SessionHome, watch: Watch, endings: Endings) -> None:
        self._context = context
        self._home = home
        self._watch = watch
        self._endings = endings
        self._changes: deque[tuple[str, Record | None, Record | None]] = deque()
        rules = watch.rules
        self._is_wanted = rules.tells_attributes or rules.tells_sessions or rules.tells_container
        self._cursor = KeyCursor(watch.kept.keys)
        self._lost: set[str] = set()
        self.dropped = 0
        self.on_news: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._changes)

    def note(self, key: str, before: Record | None, after: Record) -> None:
        """In the core's thread: a peer's delta or copy has changed a record."""
        if not (self._is_wanted and len(self._watch.listeners)) and (
            key not in self._watch.kept or main_of(after)[1] == _LIVE
        ):
            return
        self._add(key, before, after)

    def look(self, table: SessionTable, limit: int) -> None:
        """Find what is kept here of sessions that are no more, whoever ended them; now and then.

        In the core's thread. What is found twice is let go, so that who ends a session comes first.
        """
        for key in self._cursor.round(limit):
            record = table.get(key)
            if record is not None and main_of(record)[1] != _DESTROYED:
                self._lost.discard(key)
            elif key in self._lost:
                self._lost.discard(key)
                self._add(key, None, None)
            else:
                self._lost.add(key)

    def _add(self, key: str, before: Record | None, after: Record | None) -> None:
        self._changes.append((key, before, after))
        if len(self._changes) > NEWS_MAX:
            self._changes.popleft()
            self.dropped += 1
        if self.on_news is not None:
            self.on_news()

    def tell(self) -> int:
        """In a worker thread, one at a time: tell everything; return how many changes."""
        told = 0
        while self._changes:
            self._tell(*self._changes.popleft())
            told += 1
        return told

    def _tell(self, key: str, before: Record | None, after: Record | None) -> None:
        if after is None:
            self._endings.forget(Session(self._home, SessionKey(key), None))
            return
        was = before is not None and _is_served(before)
        if not _is_served(after):
            if was and before is not None and main_of(after)[1] != _LIVE:
                session = self._session(key, before)
                self._endings.replicated(session)
                self._endings.forget(session)
            return
        rules, listeners = self._watch.rules, self._watch.listeners
        session = self._session(key, after)
        old_id = active_ids(key, before)[0] if was and before is not None else ""
        if rules.tells_sessions:
            if not was:
                listeners.created(session)
            elif old_id and old_id != session.id:
                listeners.id_changed(session, old_id)
        if rules.tells_container:
            if not was:
                listeners.container(self._context, "session_created", session.id)
            elif old_id and old_id != session.id:
                listeners.container(self._context, "session_id_changed", (old_id, session.id))
        if rules.tells_attributes and listeners.wants_attributes:
            self._tell_attributes(session, before if was else None, after)

    def _tell_attributes(self, session: Session, before: Record | None, after: Record) -> None:
        listeners = self._watch.listeners
        old = {} if before is None else _stored(before)
        new = _stored(after)
        for name, (raw, version) in new.items():
            if name not in old:
                listeners.attribute_added(session, name, self._read(raw))
            elif old[name][1] != version:
                listeners.attribute_replaced(session, name, self._read(old[name][0]))
        for name, (raw, _) in old.items():
            if name not in new:
                listeners.attribute_removed(session, name, self._read(raw))

    def _read(self, raw: bytes) -> Any:
        try:
            return self._home.codec.decode(raw)
        except AttributeUnreadableError:
            return None

    def _session(self, key: str, record: Record) -> Session:
        return Session(self._home, SessionKey(key), record)


def _is_served(record: Record) -> bool:
    known = header(record)
    return known.life == _LIVE and bool(known.flags & WHOLE)


def _stored(record: Record) -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Attributes of a record: encoded value, and the version of the write."""
    reading, found = Reading(record), {}
    for raw, span in reading.index(_ATTRIBUTE).items():
        if reading.main[span[0]] & 15 != _TOMBSTONE:
            entry = read_entry(record, span)
            found[raw.decode()] = entry.value, (entry.hlc, entry.actor)
    return found
