"""Sessions that roam: the nodes are the authority, two of them where there are two.

A request loads its session, and saves what it changed on condition that nobody was faster; else it
merges, by attribute, and tries again.  Memory is empty between requests (msm-sessions §8, §19).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from tribes.errors import StoreConflictError
from tribes.ids import SessionKey

from .base import CommitOutcome
from .changes import Built, Change, build_delta
from .inbox import CommitResult
from .memcached import MemcachedManager, held_of
from .merge import destroyed
from .node_ids import split_node, suffix_of
from .reading import Reading
from .record import WHOLE, Life, Namespace, Record, header, with_access
from .session import Session
from .stored import Link

if TYPE_CHECKING:
    from .clock import Clock
    from .held import Held
    from .inbox import Waiter
    from .request_line import RequestLine
    from .table import SessionTable

__all__ = ["RoamingManager"]

_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)


class RoamingManager(MemcachedManager):
    """See the module.

    Args:
        context: As every manager's, like what follows.
        table: See `SessionManager`.
        clock: See `SessionManager`.
        on_conflict: ``"error"``: of two requests that write one attribute at the same time, the
            later one is refused.  ``"serve"``: its value wins.  A function gets the session and
            the names, and what it raises is raised.
        settings: See `MemcachedManager`.
    """

    sticky = False

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        on_conflict: str | Callable[[Session, list[str]], None] = "serve",
        **settings: Any,
    ) -> None:
        self._on_conflict = on_conflict
        super().__init__(context, table, clock, **settings)

    def is_away(self, session_id: str, request: RequestLine | None = None) -> bool:
        """Tell whether `find` asks a node for this id."""
        return bool(split_node(session_id)[0])

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """See `SessionManager.commit`; `store` does the rest."""
        held = held_of(session)
        if not session.is_valid:
            ends = session.reading is not None and held.record is not None
            return CommitOutcome(self.clock.next() if ends else None, {})
        failed: dict[str, Exception] = {}
        changes = session.changes(failed)
        self.counts.attribute_failures += len(failed)
        if self._has_limits:
            self._limit(session, held, changes, failed)
        if not changes and session.reading is not None:
            held.changes = []
            return CommitOutcome(None, failed)
        held.changes = changes
        return CommitOutcome(self.clock.next(), failed)

    def _limit(
        self, session: Session, held: Held, changes: list[Change], failed: dict[str, Exception]
    ) -> None:
        """Take out what is too large, or makes the session so, as it was when it was loaded."""
        self.sizes.check(changes, failed)
        while (built := self._built(session, changes, held.record)) is not None:
            if not self.sizes.check_session(built.record, session.reading, changes, failed):
                return

    def _must_store(self, session: Session, outcome: CommitOutcome) -> bool:
        held = held_of(session)
        if held.lock is not None or outcome.version is not None:
            return True
        if not session.is_valid or session.reading is None:
            return False
        must = self._must_write(held, session.reading.record)
        if not must:
            self._learn(held)
        return must

    def _find(self, token: str, name: str, request: RequestLine | None) -> Session | None:
        home = self.ring.get(name)
        question = "" if request is None else f"{request.method} {request.path}"
        must_lock = self.locks.wants(request, question)
        key = self._links.get(token, token)
        for _ in range(2):
            lock = self.locks.acquire(key, home) if must_lock else None
            held = None
            try:
                held = self._load(key, home)
                if isinstance(held, Link):
                    self._note_link(token, held.key)
                    key, held = held.key, None
                    continue
                if held is None or not self._is_known(key, held.record, token):
                    held = None
                    return None
                held.lock, held.question = lock, question
                if lock is not None:
                    # Whoever forgets the session forgets the lock.
                    lock.holder = ref(held)
            finally:
                if lock is not None and held is None:
                    self.locks.release(lock)
            assert held.record is not None
            session = Session(self, SessionKey(key), held.record, session_id=token)
            session.held = held
            session.suffix = "" if held.home is None else suffix_of(held.home.name)
            return session
        return None

    def _must_write(self, held: Held, record: Record) -> bool:
        """Whether a copy is missing, or the last use must be written so that all copies live on."""
        limit_s = self.copies.limit_of(record)
        if held.must_copy or limit_s <= 0:
            return held.must_copy
        return self.now_ds() - header(record).last_seen >= 10 * self.copies.slack_of(limit_s)

    def _learn(self, held: Held) -> None:
        if held.question and self.locks.kind == "auto":
            self.locks.known.learn(held.question, has_written=not held.is_read_only)

    def store(self, session: Session) -> CommitResult:
        """See `MemcachedManager.store`."""
        held = held_of(session)
        try:
            if not session.is_valid:
                held.is_read_only = False
                return self._end_stored(session, held)
            changes, held.changes = held.changes, []
            return self._save(session, held, changes)
        finally:
            if held.lock is not None:
                self.locks.release(held.lock)
                held.lock = None
            self._learn(held)

    def _save(self, session: Session, held: Held, changes: list[Change]) -> CommitResult:
        built: Built | None = None
        told: list[str] = []

        def build(current: Record | None) -> Record | None:
            nonlocal built
            built = None
            if current is not None and header(current).life == Life.DESTROYED:
                return None
            # For the record that was loaded, it was built to see whether anything changed.
            is_first = first is not None and current is before
            built = first if is_first else self._built(session, changes, current)
            if built is not None:
                names = self._clashing(changes, current) if built.conflicts else []
                if names and names != told:
                    told[:] = names
                    self._clash(session, names)
                return built.record
            assert current is not None
            return with_access(current, self._next_after(current), self.now_ds())

        before, first = held.record, None
        if session.reading is not None and not self._must_write(held, session.reading.record):
            first = self._built(session, changes, before)
            if first is None:
                return CommitResult(0, (), {})  # Assigned, and the same as before.
            held.is_read_only = False
        written = self.copies.save(held, build, home_first=self._on_conflict != "serve")
        if written is None:
            session.close()
            self.counters.ended_elsewhere += 1
            return CommitResult(0, (), {})
        self.counters.saves += 1
        held.is_read_only = held.is_read_only and not changes
        old_id = session.rotated_from
        assert held.record is not None
        if built is not None:
            self.counts.commits += 1
            self.counts.commit_conflicts += len(built.conflicts)
            session.committed(changes, built)
            if session.is_watched:
                session.settled(before, header(held.record).access, ())
        session.suffix = "" if held.home is None else suffix_of(held.home.name)
        self._write_links(held)
        if old_id is not None and built is not None:
            self._id_changed(session, old_id)
        return CommitResult(header(held.record).access, written.nodes, written.missing)

    def _built(
        self, session: Session, changes: list[Change], current: Record | None
    ) -> Built | None:
        """Put a request's changes on top of a record; None if it has them already."""
        if not changes and session.reading is not None:
            return None
        return build_delta(
            changes,
            session.reading,
            current,
            created=session.first_hlc,
            hlc=self._next_after(current),
            actor=self.clock.actor,
            now_ds=self.now_ds(),
            flags=WHOLE if session.reading is None else 0,
            codec=self.codec,
        )

    def _end_stored(self, session: Session, held: Held) -> CommitResult:
        last = held.record
        if last is None:
            return CommitResult(0, (), {})
        end = destroyed(self._next_after(last), self.now_ds())

        def build(current: Record | None) -> Record | None:
            if current is not None and header(current).life == Life.DESTROYED:
                return None
            return end

        written = self.copies.save(held, build)
        if written is None:
            return CommitResult(0, (), {})
        self.counts.destroyed += 1
        session.abandoned()
        self.endings.tell(Session(self, SessionKey(session.key), last), "invalidated")
        return CommitResult(header(end).access, written.nodes, written.missing)

    def _next_after(self, current: Record | None) -> int:
        if current is not None:
            self.clock.observe(header(current).access)
        return self.clock.next()

    def _clashing(self, changes: list[Change], current: Record | None) -> list[str]:
        """Attributes that another request has written too, which this one had not seen."""
        if self._on_conflict == "serve" or current is None:
            return []
        reading = Reading(current)
        return [
            change.name.decode()
            for change in changes
            if change.namespace == _ATTRIBUTE
            and (there := reading.entry(_ATTRIBUTE, change.name)) is not None
            and there.value != change.value
            and (change.seen_in is None or there != change.seen_in.entry(_ATTRIBUTE, change.name))
        ]

    def _clash(self, session: Session, names: list[str]) -> None:
        if callable(self._on_conflict):
            self._on_conflict(session, names)
            return
        raise StoreConflictError("another request wrote the same attributes at the same time")
