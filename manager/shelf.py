"""The sessions of one manager in their store: saved with a merge, found by any of their ids.

**Conflicts.** A save says which version it replaces.  If somebody else was faster, his record is
loaded, both are merged (`merge` is commutative, so it does not matter who was first) and saved
again, a bounded number of times.

**Ids.** A session lies under its key, its first id.  Under each later id that is valid lies a
*link* to the key; it lives for a week and is renewed daily, so that links whose session is gone
vanish in the end.

**Ends.** An invalidated session leaves its bare header for an hour: a node that served a request
of it meanwhile is told that it ended, instead of bringing it back.

**Bad bytes** are set aside in the store and counted; for the request there is no such session.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import StoreConflictError, StoreDataError, StoreError
from tribes.ids import SessionKey

from .container import active_ids, facts_of
from .merge import merge
from .recent import remember
from .record import Life, Record, header
from .session_ids import is_possible_id
from .stored import Link, StoredForm

if TYPE_CHECKING:
    from tribes.stores.protocol import Store

__all__ = ["Shelf", "Shelved", "StoreStatistics"]

TRIES: Final = 10
"""Of a save that meets conflicts: ten others in a row were faster."""
ENDED_KEPT_S: Final = 3600
LINK_KEPT_S: Final = 7 * 24 * 3600
LINK_RENEWED_MS: Final = 24 * 3600 * 1000
LINKS_MAX: Final = 100_000
"""Links of which it is remembered when they were written."""


class Shelved(NamedTuple):
    """A session as it was loaded."""

    key: SessionKey
    record: Record
    version: int


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What was done with a store so far.

    Attributes:
        loads: Sessions that were looked up.
        found: Of these, those that were there.
        saves: Sessions written.
        conflicts: Saves that had to merge with another's.
        refused: Values set aside because their bytes could not be used.
        failures: Operations that the store did not do.
    """

    loads: int
    found: int
    saves: int
    conflicts: int
    refused: int
    failures: int


@final
class Shelf:
    """Saves and loads records; for any thread.

    Args:
        store: Where.
        form: How they are written.
        wall_ms: Reads the wall clock, milliseconds since 1970.
        now_ds: Reads the monotonic clock in deciseconds.
        on_error: Told what a store did not do, or refused.
    """

    def __init__(
        self,
        store: Store,
        form: StoredForm,
        *,
        wall_ms: Callable[[], int],
        now_ds: Callable[[], int],
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self.store = store
        self._form = form
        self._wall_ms = wall_ms
        self._now_ds = now_ds
        self._on_error = on_error or (lambda verb, error: None)
        self._links: OrderedDict[str, int] = OrderedDict()
        """When links were written last, in ms since 1970; others are written again."""
        self._loads = self._found = self._saves = 0
        self._conflicts = self._refused = self._failures = 0

    def statistics(self) -> StoreStatistics:
        """Return the numbers as they are now."""
        return StoreStatistics(
            loads=self._loads,
            found=self._found,
            saves=self._saves,
            conflicts=self._conflicts,
            refused=self._refused,
            failures=self._failures,
        )

    def failed(self, verb: str, error: Exception) -> None:
        """Count and tell what a caller could not have done."""
        self._failures += 1
        self._on_error(verb, error)

    def load(self, session_id: str) -> Shelved | None:
        """Return the session that lies under its key or is linked from one of its later ids.

        Raises:
            StoreError: The store does not answer.
        """
        self._loads += 1
        found = self._open(session_id)
        key = session_id
        if found is not None and isinstance(found[0], Link):
            link = found[0]
            key = link.key
            remember(self._links, session_id, link.saved_ms, LINKS_MAX)
            found = self._open(key)
            if found is None:
                self.store.delete(session_id)
        if found is None or isinstance(found[0], Link):
            return None
        self._found += 1
        return Shelved(SessionKey(key), found[0], found[1])

    def has(self, key: str) -> bool:
        """Tell whether there is something under a key that can be used.

        Raises:
            StoreError: The store does not answer.
        """
        return self._open(key) is not None

    def save(
        self, key: str, record: Record, version: int, *, default_limit_s: int
    ) -> tuple[Record, int]:
        """Store a live or destroyed record, merged with whatever lies there unseen.

        Args:
            key: The session's key.
            record: What this process has of it.
            version: What this process last saw in the store; 0: nothing.
            default_limit_s: Seconds of idleness of sessions that do not say their own.

        Returns:
            What lies there now, and its version.

        Raises:
            StoreError: It could not be saved; what was there stays.
        """
        for _ in range(TRIES):
            try:
                written = self._write(key, record, version, default_limit_s)
            except StoreDataError:
                self._refuse(key, StoreDataError("it is damaged"))
                version = 0
                continue
            except StoreConflictError:
                self._conflicts += 1
                found = self._open(key)
                version = 0
                if found is not None and not isinstance(found[0], Link):
                    record, version = merge(found[0], record), found[1]
                continue
            self._saves += 1
            self._write_links(key, record)
            return record, written
        raise StoreConflictError(f"{self.store.name}: {TRIES} others in a row were faster")

    def delete(self, key: str, record: Record, version: int) -> bool:
        """Remove a session and its links; False if somebody else had.

        Raises:
            StoreConflictError: There is a newer one; it stays.
            StoreError: The store does not answer.
        """
        if not self.store.delete(key, expected=version):
            return False
        self._delete_links(key, record)
        return True

    def expired(self, limit: int) -> list[Shelved]:
        """Return up to ``limit`` stored sessions that are idle for too long.

        Links, what is left of ended sessions, and unreadable values are seen to here.
        """
        found = []
        for key, version in self.store.expired(self._wall_ms(), limit):
            opened = self._open(key)
            if opened is None or opened[1] != version:
                continue
            record = opened[0]
            if isinstance(record, Link) or header(record).life != Life.LIVE:
                self._delete_quietly(key, version)
            else:
                found.append(Shelved(SessionKey(key), record, version))
        return found

    def _open(self, key: str) -> tuple[Record | Link, int] | None:
        if not is_possible_id(key):
            return None
        try:
            stored = self.store.load(key)
            if stored is None:
                return None
            return self._form.unpack(key, stored.data), stored.version
        except StoreDataError as error:
            self._refuse(key, error)
            return None

    def _refuse(self, key: str, error: StoreDataError) -> None:
        self._refused += 1
        self._on_error("use", error)
        self.store.refuse(key)

    def _write(self, key: str, record: Record, version: int, default_limit_s: int) -> int:
        known = header(record)
        if known.life == Life.DESTROYED:
            limit, idle_ds = ENDED_KEPT_S, 0
        else:
            own = facts_of(record).max_inactive_s
            limit = default_limit_s if own is None else own
            idle_ds = max(self._now_ds() - known.last_seen, 0)
        return self.store.save(
            key,
            self._form.pack(key, record),
            expected=version,
            last_access_ms=self._wall_ms() - 100 * idle_ds,
            max_inactive_s=limit,
        )

    def _write_links(self, key: str, record: Record) -> None:
        if header(record).life == Life.DESTROYED:
            return
        now_ms = self._wall_ms()
        for session_id in active_ids(key, record):
            if session_id == key or now_ms - self._links.get(session_id, 0) < LINK_RENEWED_MS:
                continue
            stored = self.store.load(session_id)
            self.store.save(
                session_id,
                self._form.pack_link(session_id, key),
                expected=0 if stored is None else stored.version,
                last_access_ms=now_ms,
                max_inactive_s=LINK_KEPT_S,
            )
            remember(self._links, session_id, now_ms, LINKS_MAX)

    def _delete_links(self, key: str, record: Record) -> None:
        for session_id in active_ids(key, record):
            if session_id != key:
                self._links.pop(session_id, None)
                self.store.delete(session_id)

    def forget(self, key: str, record: Record) -> None:
        """A session left the memory: so does what was noted of its links."""
        for session_id in active_ids(key, record):
            self._links.pop(session_id, None)

    def _delete_quietly(self, key: str, version: int) -> None:
        try:
            self.store.delete(key, expected=version)
        except StoreConflictError:
            return

    def close(self) -> None:
        """Close the store."""
        try:
            self.store.close()
        except StoreError as error:
            self.failed("close", error)
