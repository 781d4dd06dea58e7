"""The Persistent manager: sessions in memory, with copies in a store (tomcat-sessions §6.2, §6.6).

========================  ==========================================================================
background, idle for      what happens
========================  ==========================================================================
``max_idle_backup_s``     a copy is written, once per use; the session stays in memory
``max_idle_swap_s``       it is written and leaves the memory, never before ``min_idle_swap_s``
``min_idle_swap_s``       the least recently used leave the memory while there are more than 90 % of
                          ``max_active_sessions``; with ``on_full = "evict"`` also without it
the session's limit       it expires, in memory and in the store
========================  ==========================================================================

``find`` brings back what is in the store only; it may block, see `PersistentManager.is_away`.
Commits never block: they change the memory, and `PersistentManager.store` writes where the request
must wait for it: per request (Tomcat's PersistentValve), and when a stored session was ended.

A request may hold a session while it leaves the memory.  Its commit brings the whole record back,
because a session object has all of what it was made from.

Sharing a store needs no lock: who saves second merges.  With copies in memory a node does not see
what others saved since, so a balancer must be sticky, unless the manager works per request.

It is longer than other files because requests and the background pass move the same sessions, and
what both note of versions in the store is to be seen together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tribes.errors import StoreConflictError, StoreError
from tribes.ids import SessionKey

from .cursor import KeyCursor
from .local import LocalManager
from .merge import digest, expired
from .record import Life, Record, equal_state, header
from .session import Session
from .session_ids import is_possible_id

if TYPE_CHECKING:
    from .base import CommitOutcome
    from .clock import Clock
    from .request_line import RequestLine
    from .shelf import Shelf, Shelved
    from .table import SessionTable

__all__ = ["PersistentManager"]

PASS_KEYS: Final = 10_000
"""Sessions that one background pass looks at."""
EXPIRED_PER_PASS: Final = 1000
ENDED_MAX: Final = 10_000
"""Ended sessions of which the store does not know yet; of more the copies live until they expire.
"""
ACTIVE_SHARE: Final = 0.9
PER_REQUEST_IDLE_S: Final = 60
"""What a request without a commit leaves in memory stays so long."""


class _Saved(NamedTuple):
    version: int
    access: int
    """hlc of the last use that the store knows."""
    last_seen: int
    content: int
    """Digest of the content, which uses do not change."""


class PersistentManager(LocalManager):
    """See the module.

    Args:
        context: As every manager's, like what follows.
        table: See `SessionManager`.
        clock: See `SessionManager`.
        shelf: The store.
        save_on_restart: Save every session at stop; else they end (``saveOnRestart``).
        max_idle_backup_s: Seconds; -1: never (``maxIdleBackup``).
        min_idle_swap_s: Seconds; -1: never swap out to reduce the count (``minIdleSwap``).
        max_idle_swap_s: Seconds; -1: never (``maxIdleSwap``).
        check_interval_s: Seconds between two looks for what expired in the store.
        per_request: Load before, and save after, every request (Tomcat: ``PersistentValve``).
        settings: See `SessionManager`.
    """

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        shelf: Shelf,
        save_on_restart: bool = True,
        max_idle_backup_s: int = -1,
        min_idle_swap_s: int = -1,
        max_idle_swap_s: int = -1,
        check_interval_s: int = 60,
        per_request: bool = False,
        **settings: Any,
    ) -> None:
        self.shelf = shelf
        self.save_on_restart = save_on_restart
        self.max_idle_backup_s = max_idle_backup_s
        self.min_idle_swap_s = min_idle_swap_s
        self.max_idle_swap_s = max_idle_swap_s
        self.check_interval_s = check_interval_s
        self.per_request = per_request
        super().__init__(context, table, clock, **settings)

    def start_over(self, table: SessionTable, *args: Any) -> None:
        """See `SessionManager.start_over`."""
        super().start_over(table, *args)
        self._saved: dict[str, _Saved] = {}
        self._ended: dict[str, None] = {}
        self._pass_cursor = KeyCursor(table.keys)
        self._checked_ds = self.now_ds()

    # Requests.

    def is_away(self, session_id: str, request: RequestLine | None = None) -> bool:
        """Tell whether `find` would ask the store for this id."""
        if not is_possible_id(session_id):
            return False
        key = self.table.resolve(session_id, self.now_ds())
        record = None if key is None else self.table.get(key)
        if record is None:
            return True
        return self.per_request and header(record).life == Life.LIVE

    def find(
        self, session_id: str, *, partial: bool = False, request: RequestLine | None = None
    ) -> Session | None:
        """See `SessionManager.find`; also brings the session back from the store.

        Raises:
            StoreError: The store does not answer, so nobody knows whether there is a session.
        """
        if self.is_away(session_id):
            try:
                shelved = self.shelf.load(session_id)
            except StoreError as error:
                self.shelf.failed("load", error)
                raise
            if shelved is not None:
                self._swap_in(shelved)
        return super().find(session_id, partial=partial)

    def must_store(self, session: Session, outcome: CommitOutcome) -> bool:
        """Tell whether the request must wait for `store` after this commit. Does not block."""
        key = session.key
        if not session.is_valid:
            return outcome.version is not None and (self.per_request or key in self._saved)
        return self.per_request and key in self.table

    def store(self, session: Session) -> None:
        """Write what a request has done, as `must_store` says.

        Raises:
            StoreError: The store does not do it. What was changed is in memory, and written by a
                later pass.
        """
        key = session.key
        record = self.table.get(key)
        if record is None:
            return
        try:
            if header(record).life == Life.DESTROYED:
                self._store_end(key, record)
            elif not self._is_unchanged(key, record):
                record = self._save(key, record) or record
        except StoreError as error:
            if header(record).life == Life.DESTROYED:
                self._note_end(key)
            self.shelf.failed("save", error)
            raise
        if self.per_request and header(record).life == Life.LIVE:
            self._drop(key, record)

    def _end(self, session: Session, *args: Any, **settings: Any) -> CommitOutcome:
        outcome = super()._end(session, *args, **settings)
        if outcome.version is not None:
            # Also one of which nothing is known to be stored: it may have left the memory while a
            # request used it, or be on its way to the store just now.
            self._note_end(session.key)
        return outcome

    def _note_end(self, key: str) -> None:
        if len(self._ended) < ENDED_MAX:
            self._ended[key] = None

    def _make_room(self) -> bool:
        # Nothing ends here for others: the next pass swaps out what was used least recently.
        return self.eviction.has_slack

    def _touch(self, session: Session, now_ds: int) -> bool:
        if session.key not in self.table and session.reading is not None and not self.per_request:
            # It left the memory while the request used it.
            self.table.swap(session.key, None, session.reading.record)
        return super()._touch(session, now_ds)

    def _is_unchanged(self, key: str, record: Record) -> bool:
        """Whether the store has all but uses that it need not know yet, as with other managers."""
        saved = self._saved.get(key)
        if saved is None or digest(key, record) != saved.content:
            return False
        limit = self.table.limit_of(key)
        interval_ds = 600 if limit <= 0 else min(max(limit * 10 // 8, 10), 600)
        return header(record).last_seen - saved.last_seen < interval_ds

    # Between memory and store.

    def _swap_in(self, shelved: Shelved) -> None:
        key, record, version = shelved
        if header(record).life == Life.LIVE and self.is_idle(record, self.now_ds()):
            if self.table.get(key) is None:
                self._expire_stored(shelved)
            return
        if header(record).life != Life.LIVE and self.table.get(key) is None:
            return
        after = self._admit_or_none(key, record, activate=not self.per_request)
        if after is not None:
            self._note(key, record, version)

    def _save(self, key: str, record: Record) -> Record | None:
        """Write a live record; return what table and store have in common now, if they do."""
        saved = self._saved.get(key)
        merged, version = self.shelf.save(
            key,
            record,
            0 if saved is None else saved.version,
            default_limit_s=self.table.max_inactive_s,
        )
        if merged is not record:
            after = self._admit_or_none(key, merged, activate=False)
            if after is None:
                return None
            record = after
        if header(record).life == Life.LIVE:
            self._note(key, merged, version)
        else:
            self._saved.pop(key, None)
        return record if equal_state(record, merged) else None

    def _note(self, key: str, record: Record, version: int) -> None:
        known = header(record)
        self._saved[key] = _Saved(version, known.access, known.last_seen, digest(key, record))

    def _store_end(self, key: str, record: Record) -> None:
        saved = self._saved.get(key)
        version = 0 if saved is None else saved.version
        self.shelf.save(key, record, version, default_limit_s=self.table.max_inactive_s)
        self._saved.pop(key, None)
        self._ended.pop(key, None)

    def _drop(self, key: str, record: Record) -> bool:
        """Take a session out of the memory, unless it has changed."""
        if not self.table.drop(key, record):
            return False
        self._saved.pop(key, None)
        self.shelf.forget(key, record)
        return True

    def _swap_out(self, key: str, record: Record) -> bool:
        self._listeners.passivating(Session(self, SessionKey(key), record))
        saved = self._saved.get(key)
        if saved is None or saved.access != header(record).access:
            written = self._save(key, record)
            if written is None:
                return False
            record = written
        return self._drop(key, record)

    # Background, in a worker thread.

    def process_expires(self) -> int:
        """See `LocalManager.process_expires`; then swap out, back up, and look into the store.

        What the store does not do is told, and tried again by the next pass.
        """
        count = super().process_expires()
        try:
            self._finish_ends()
            self._swap_out_idle()
            self._swap_out_many()
            now_ds = self.now_ds()
            if now_ds - self._checked_ds >= 10 * self.check_interval_s:
                self._checked_ds = now_ds
                count += self._expire_in_store()
        except StoreError as error:
            # One line per pass: a store that is down fails every session.
            self.shelf.failed("save", error)
        return count

    def stop(self) -> None:
        """Save every session, or end them all; then close the store."""
        try:
            self._finish_ends()
        except StoreError as error:
            self.shelf.failed("save", error)
        for key, record in self._live_records():
            try:
                if self.save_on_restart:
                    self._swap_out(key, record)
                else:
                    self._expire(key, record)
            except StoreError as error:
                self.shelf.failed("save", error)
        self.shelf.close()

    def _expire(self, key: str, record: Record) -> bool:
        saved = self._saved.get(key)
        if saved is not None:
            try:
                is_ours = self.shelf.delete(key, record, saved.version)
            except StoreConflictError:
                is_ours = False
            except StoreError as error:
                self.shelf.failed("delete", error)
                return False  # The next pass tries again.
            if not is_ours:
                # Another node has used it since, or has expired it and told of that.
                self._drop(key, record)
                return False
            self._saved.pop(key, None)
        return super()._expire(key, record)

    def _finish_ends(self) -> None:
        """Write the ends that no request has written."""
        for key in list(self._ended):
            record = self.table.get(key)
            has_ended = record is not None and header(record).life == Life.DESTROYED
            if record is not None and has_ended and (key in self._saved or self.shelf.has(key)):
                self._store_end(key, record)
            else:
                self._ended.pop(key, None)

    def _swap_out_idle(self) -> None:
        """The rules of ``max_idle_swap_s`` and ``max_idle_backup_s``."""
        swap_s = self.max_idle_swap_s
        if self.per_request and swap_s < 0:
            swap_s = PER_REQUEST_IDLE_S
        if swap_s < 0 and self.max_idle_backup_s < 0:
            return
        now_ds, busy = self.now_ds(), self.in_use()
        for key in self._pass_cursor.round(PASS_KEYS):
            record = self.table.get(key)
            if record is None or header(record).life != Life.LIVE or key in busy:
                continue
            idle_ds = now_ds - header(record).last_seen
            if swap_s >= 0 and idle_ds >= 10 * max(swap_s, self.min_idle_swap_s):
                self._swap_out(key, record)
            elif 0 <= 10 * self.max_idle_backup_s <= idle_ds:
                self._back_up(key, record)

    def _back_up(self, key: str, record: Record) -> None:
        saved = self._saved.get(key)
        if saved is None or saved.access != header(record).access:
            self._save(key, record)

    def _swap_out_many(self) -> None:
        """The rule of ``min_idle_swap_s``: the least recently used go, down to 90 %."""
        most = int(self.max_active_sessions * ACTIVE_SHARE)
        if self.max_active_sessions < 0 or self.table.live <= most:
            return
        if self.min_idle_swap_s < 0 and not self.rules.evicts:
            return
        newest = self.now_ds() - 10 * max(self.min_idle_swap_s, 0)
        busy = self.in_use()
        idle = [
            (header(record).last_seen, key)
            for key, record in self._live_records()
            if header(record).last_seen <= newest and key not in busy
        ]
        for _, key in sorted(idle)[: max(self.table.live - most, 0)]:
            record = self.table.get(key)
            if record is not None and header(record).last_seen <= newest:
                self._swap_out(key, record)

    def _expire_in_store(self) -> int:
        count = 0
        for shelved in self.shelf.expired(EXPIRED_PER_PASS):
            record = self.table.get(shelved.key)
            if record is not None and header(record).life == Life.LIVE:
                # The copy is stale: the session was used here since.
                if not self.is_idle(record, self.now_ds()):
                    self._save(shelved.key, record)
                continue
            count += self._expire_stored(shelved)
        return count

    def _expire_stored(self, shelved: Shelved) -> bool:
        """Expire a session that is in the store only; whoever deletes it tells the listeners."""
        key, record, version = shelved
        try:
            if not self.shelf.delete(key, record, version):
                return False
        except StoreConflictError:
            return False  # Used elsewhere in this moment.
        if self.table.get(key) is not None:
            return False  # Its end was told already.
        if self._admit_or_none(key, expired(record), activate=False) is not None:
            self.notify_destroyed(key, "expired")
        return True
