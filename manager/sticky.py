"""Sticky sessions: the process's memory is the authority, and a node has a spare copy.

What a request changed is written there before its answer, or soon after it.  A request whose id has
this node's route trusts the memory; any other one first asks the node whether it has something
newer (msm-sessions §7, §19).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tribes.errors import RemoteProtocolError, StoreError
from tribes.ids import SessionKey

from .held import Held
from .inbox import CommitResult
from .local import LocalManager
from .memcached import MemcachedManager
from .merge import digest, merge
from .node_ids import split_node, suffix_of
from .record import Life, Record, header, with_access
from .session import Session
from .stored import Link

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .base import CommitOutcome
    from .clock import Clock
    from .inbox import Waiter
    from .request_line import RequestLine
    from .table import SessionTable

__all__ = ["StickyManager"]

STRIPES: Final = 64


class StickyManager(MemcachedManager):
    """See the module.

    Args:
        context: As every manager's, like what follows.
        table: See `SessionManager`.
        clock: See `SessionManager`.
        new_lock: Makes a lock.
        later: See `MemcachedManager.later`.
        settings: See `MemcachedManager`.
    """

    sticky = True

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        new_lock: Callable[[], AbstractContextManager[Any]],
        later: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        self._new_lock = new_lock
        super().__init__(context, table, clock, **settings)
        self.later = later

    def start_over(self, table: SessionTable, clock: Clock, *args: Any) -> None:
        """See `SessionManager.start_over`."""
        super().start_over(table, clock, *args)
        self._spares: dict[str, Held] = {}
        self._stripes = [self._new_lock() for _ in range(STRIPES)]

    def is_away(self, session_id: str, request: RequestLine | None = None) -> bool:
        """Tell whether `find` asks a node for this id."""
        token, _ = split_node(session_id)
        if not token or not self._enabled:
            return False
        key = self.table.resolve(token, self.now_ds())
        record = None if key is None else self.table.get(key)
        if record is None or header(record).life == Life.EXPIRED:
            return True
        return request is None or not request.is_at_home

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """See `SessionManager.commit`."""
        is_new = session.reading is None
        outcome = super().commit(session, waiter)
        if is_new and session.is_valid and session.held is not None:
            self._spares.setdefault(session.key, session.held)
        return outcome

    def store(self, session: Session) -> CommitResult:
        """See `MemcachedManager.store`."""
        return self._store_key(session.key, session)

    def _find(self, token: str, name: str, request: RequestLine | None) -> Session | None:
        key = self.table.resolve(token, self.now_ds())
        record = None if key is None else self.table.get(key)
        if key is None or record is None or header(record).life == Life.EXPIRED:
            self._fetch(self._links.get(token, token), token, name)
        elif header(record).life == Life.LIVE and not (request is not None and request.is_at_home):
            self._refresh(key)
        session = LocalManager.find(self, token)
        if session is not None:
            self._attach(session)
        return session

    def _attach(self, session: Session) -> None:
        """Give a session from memory its home, another one if that is down."""
        held = self._spare_of(session.key)
        if held.home is None or not held.home.is_up or held.home not in self.ring.nodes:
            with self._stripe(session.key):
                if held.home is None or not held.home.is_up or held.home not in self.ring.nodes:
                    other = self.ring.pick(avoid=held.home)
                    if other is not None:
                        self.counters.relocations += held.home is not None
                        held.home = other
                        held.must_copy = True
        session.held = held
        session.suffix = "" if held.home is None else suffix_of(held.home.name)

    def _spare_of(self, key: str) -> Held:
        held = self._spares.get(key)
        if held is None:
            held = self._spares.setdefault(key, Held(key, None))
        return held

    def _stripe(self, key: str) -> AbstractContextManager[Any]:
        return self._stripes[hash(key) % STRIPES]

    def _fetch(self, key: str, token: str, name: str) -> None:
        """Bring a session from its node into memory, if it is there."""
        home = self.ring.get(name)
        try:
            held = self._load(key, home)
            if isinstance(held, Link):
                self._note_link(token, held.key)
                held = self._load(held.key, home)
        except StoreError:
            # As if there were none: the service goes on in memory.
            return
        if held is None or isinstance(held, Link) or held.record is None:
            return
        if not self._is_known(held.key, held.record, token):
            return
        held.content = digest(held.key, held.record)
        held.touched_ds = self.now_ds()
        # The node has kept it alive, whenever it was last written.
        access = header(held.record).access
        held.record = with_access(held.record, access, self.now_ds())
        self._spares[held.key] = held
        self.counters.takeovers += 1
        self._admit_held(held, activate=True)

    def _admit_held(self, held: Held, *, activate: bool) -> None:
        """Merge what a node has into the table."""
        assert held.record is not None
        try:
            before, after, _ = self.table.merge_in(held.key, held.record)
        except RemoteProtocolError:
            return
        if activate and before is None and header(after).life == Life.LIVE:
            session = Session(self, SessionKey(held.key), after)
            session.suffix = "" if held.home is None else suffix_of(held.home.name)
            self._listeners.activated(session)

    def _refresh(self, key: str) -> None:
        """See whether the node has something newer than the memory: a balancer that roams."""
        held = self._spares.get(key)
        if held is None or held.home is None or not held.home.is_up:
            return
        with self._stripe(key):
            known = held.versions.get(held.home)
            try:
                version = self.copies.version(held)
                if version is not None and version != known:
                    fresh = self.copies.load(key, held.home)
                else:
                    held.must_copy = held.must_copy or version is None
                    return
            except StoreError:
                return
            if fresh is None or isinstance(fresh, Link) or fresh.record is None:
                return
            self.counters.stale += 1
            if header(fresh.record).life == Life.LIVE:
                access = header(fresh.record).access
                fresh.record = with_access(fresh.record, access, self.now_ds())
            fresh.content = digest(key, fresh.record)
            fresh.touched_ds = self.now_ds()
            self._spares[key] = fresh
            self._admit_held(fresh, activate=False)

    def _must_store(self, session: Session, outcome: CommitOutcome) -> bool:
        key = session.key
        held = self._spares.get(key)
        if not session.is_valid:
            return outcome.version is not None and held is not None
        record = self.table.get(key)
        if held is None or record is None:
            return False
        must = outcome.version is not None or held.must_copy or self._is_touch_due(held, record)
        if must and self.later is not None:
            held.must_copy = True  # until it is done
            self.later(key)
            return False
        return must

    def _is_touch_due(self, held: Held, record: Record) -> bool:
        limit_s = self.copies.limit_of(record)
        if limit_s <= 0:
            return False
        return self.now_ds() - held.touched_ds >= 10 * self.copies.slack_of(limit_s)

    def store_key(self, key: str) -> CommitResult:
        """Write a session from memory to its node, if the node lacks something. Blocks.

        Raises:
            StoreError: No node takes it; a later request's store, or the stop, tries again.
        """
        return self._store_key(key, None)

    def _store_key(self, key: str, session: Session | None) -> CommitResult:
        with self._stripe(key):
            record = self.table.get(key)
            held = self._spares.get(key)
            if record is None or held is None:
                return CommitResult(0, (), {})
            life = header(record).life
            content = digest(key, record)
            if life == Life.LIVE and not held.must_copy and content == held.content:
                self._touch_copy(held)
                if not held.must_copy:
                    return CommitResult(0, (), {})
            if life == Life.DESTROYED and held.record is None:
                self._spares.pop(key, None)
                return CommitResult(0, (), {})
            held.must_copy = True
            written = self.copies.save(
                held, lambda current: record if current is None else merge(current, record)
            )
            assert written is not None
            assert held.record is not None
            self.counters.saves += 1
            held.content = digest(key, held.record)
            has_ended = header(held.record).life == Life.DESTROYED
            if has_ended:
                self._spares.pop(key, None)
            if life == Life.LIVE:
                self._admit_held(held, activate=False)
            if has_ended and life == Life.LIVE:
                self.counters.ended_elsewhere += 1
                if session is not None:
                    session.close()
            elif not has_ended:
                self._write_links(held)
            if session is not None:
                session.suffix = "" if held.home is None else suffix_of(held.home.name)
            return CommitResult(header(record).access, written.nodes, written.missing)

    def _touch_copy(self, held: Held) -> None:
        known = None if held.home is None else held.versions.get(held.home)
        try:
            held.must_copy = self.copies.version(held) != known
        except StoreError:
            self.counters.touch_failures += 1

    # Background, and the end.

    def process_expires(self) -> int:
        """See `LocalManager.process_expires`; then write what could not be written before."""
        count = super().process_expires()
        if self._enabled:
            self._retry(lambda: True)
        for key in list(self._spares):  # requests put some in meanwhile
            if key not in self.table:
                self._spares.pop(key, None)
        return count

    def _unwritten(self) -> list[str]:
        return [key for key, held in list(self._spares.items()) if held.must_copy]

    def _retry(self, has_time: Callable[[], bool]) -> None:
        for key in self._unwritten():
            if not has_time():
                return
            if key in self.table:
                try:
                    self._store_key(key, None)
                except StoreError as why:
                    self.counters.save_failures += 1
                    self.copies.tell("save", why)
                    return

    def _expire(self, key: str, record: Record) -> bool:
        held = self._spares.get(key)
        if held is not None and self._enabled:
            try:
                if not self.copies.delete(held):
                    # Used elsewhere since: it is no longer ours.
                    self._spares.pop(key, None)
                    self.table.drop(key, record)
                    return False
            except StoreError:
                self.counters.save_failures += 1  # Its own time ends it there.
        self._spares.pop(key, None)
        return super()._expire(key, record)

    def _write_rest(self) -> None:
        if not self._enabled:
            return
        self._retry(lambda: self.service is None or self.service.has_time())
        left = sum(key in self.table for key in self._unwritten())
        if left:
            self.copies.tell("save at the end", StoreError(f"{left} sessions are not written"))
