"""Managers whose sessions are in this process alone: nothing is sent, nobody is waited for.

They have the table, the records and the commits of every other manager; what the core does for
those, expiring and forgetting, a thread of the runtime does here by `LocalManager.process_expires`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.errors import RemoteProtocolError
from tribes.ids import SessionKey

from .base import CommitOutcome, SessionManager
from .inbox import CommitResult
from .merge import expired
from .record import Life, Record, header
from .session import Session

if TYPE_CHECKING:
    from .inbox import Waiter

__all__ = ["LocalManager"]


class LocalManager(SessionManager):
    """What `StandardManager` and `PersistentManager` have in common."""

    is_local = True

    def start(self) -> None:
        """Begin, in this process."""

    def stop(self) -> None:
        """End, and save what the manager's settings say."""

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """See `SessionManager.commit`. A waiter is told at once that nobody else has it."""
        outcome = super().commit(session)
        if waiter is not None and outcome.version is not None:
            wake = waiter.resolve(CommitResult(outcome.version, (), {}))
            if wake is not None:
                wake()
        return outcome

    def process_expires(self) -> int:
        """Expire what has been idle for too long, and forget the long dead; return how many.

        For a worker thread: listeners are called, and stores may block.
        """
        now_ds, count = self.now_ds(), 0
        for key in list(self.expired_candidates(now_ds)):
            record = self.table.get(key)
            if record is not None and self.is_idle(record, now_ds, key):
                count += self._expire(key, record)
        self.sweep(self.clock.wall_ms(), now_ds)
        self.news.tell()
        return count

    def _expire(self, key: str, record: Record) -> bool:
        if not self.table.swap(key, record, expired(record)):
            return False  # A request came just in time.
        self.notify_destroyed(key, "expired")
        return True

    def _live_records(self) -> list[tuple[str, Record]]:
        found = []
        for key in self.table.keys():  # noqa: SIM118 - a method of the table, which is no dict
            record = self.table.get(key)
            if record is not None and header(record).life == Life.LIVE:
                found.append((key, record))
        return found

    def _admit(self, key: str, record: Record, *, activate: bool) -> Record:
        """Merge what a store has into the table; return what the table has then.

        Raises:
            RemoteProtocolError: Its clock was more than a day ahead, or together there would be
                too many entries.
        """
        self.clock.observe(header(record).access)
        before, after, _ = self.table.merge_in(key, record)
        if activate and before is None and header(after).life == Life.LIVE:
            self._listeners.activated(Session(self, SessionKey(key), after))
        return after

    def _admit_or_none(self, key: str, record: Record, *, activate: bool) -> Record | None:
        try:
            return self._admit(key, record, activate=activate)
        except RemoteProtocolError:
            return None
