"""The Memcached manager: sessions on memcached or Redis, as memcached-session-manager keeps them.

**Sticky** (the default): the process's memory is the authority, and a node has a spare copy.  What
a request changed is written there before its answer, or soon after it.  A request whose id has this
node's route trusts the memory; any other one first asks the node whether it has something newer.

**Not sticky**: the nodes are the authority, two of them where there are two.  A request loads its
session, and saves what it changed on condition that nobody was faster; else it merges, by
attribute, and tries again.  Memory is empty between requests.

What blocks is in `find`, `store` and `stop`; commits never do (msm-sessions §7, §8, §19).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from tribes.errors import (
    ConfigError,
    RemoteProtocolError,
    StoreConflictError,
    StoreError,
    StoreLimitError,
)
from tribes.ids import SessionKey

from .base import CommitOutcome
from .changes import Built, Change, build_delta
from .clock import hlc_to_ms
from .container import ID_ACTIVE, active_ids, facts_of, id_entry_name
from .copies import Copies, Held
from .inbox import CommitResult
from .local import LocalManager
from .memcached_statistics import MemcachedCounters, MemcachedStatistics
from .merge import destroyed, digest, merge
from .node_ids import split_node, suffix_of
from .reading import Reading
from .record import WHOLE, Kind, Life, Namespace, Record, header, with_access
from .session import Session
from .stored import Link

if TYPE_CHECKING:
    import re
    from contextlib import AbstractContextManager

    from tribes.stores.ring import Ring

    from .clock import Clock
    from .inbox import Waiter
    from .node_locks import NodeLocks
    from .request_line import RequestLine
    from .table import SessionTable

__all__ = ["MemcachedManager"]

LINKS_MAX: Final = 10_000
STRIPES: Final = 64
_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)


class Service(Protocol):
    """What looks after the nodes; see `tribes.runtime.memcached`."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def start_over(self) -> None: ...
    def set_nodes(self, nodes: str) -> None: ...
    def set_failover_nodes(self, failover: str) -> None: ...


class MemcachedManager(LocalManager):
    """See the module.

    Args:
        context: As every manager's, like what follows.
        table: See `SessionManager`.
        clock: See `SessionManager`.
        copies: Finds and saves them.
        locks: Of sessions.
        sticky: See the module.
        later: Gets the key of a session that is to be stored after the answer; None: each is
            stored before it (sticky only).
        ignored: Requests that have no session unless the application asks for it.
        on_conflict: ``"error"``: of two requests that write one attribute at the same time, the
            later one is refused.  ``"serve"``: its value wins.  A function gets the session and
            the names, and what it raises is raised.
        new_lock: Makes a lock.
        service: Started and stopped with the manager.
        settings: See `SessionManager`.
    """

    wants_request = True

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        copies: Copies,
        locks: NodeLocks,
        sticky: bool,
        new_lock: Callable[[], AbstractContextManager[Any]],
        later: Callable[[str], None] | None = None,
        ignored: re.Pattern[str] | None = None,
        on_conflict: str | Callable[[Session, list[str]], None] = "serve",
        service: Service | None = None,
        **settings: Any,
    ) -> None:
        self.copies = copies
        self.locks = locks
        self.sticky = sticky
        self.later = later
        self.counters = MemcachedCounters()
        self._enabled = True
        self._ignored = ignored
        self._on_conflict = on_conflict
        self._new_lock = new_lock
        self.service = service
        super().__init__(context, table, clock, **settings)

    def start_over(self, table: SessionTable, clock: Clock, *args: Any) -> None:
        """See `SessionManager.start_over`."""
        super().start_over(table, clock, *args)
        self.copies.clock = clock
        self.copies.ring.start_over()
        self.locks.start_over()
        if self.service is not None:
            self.service.start_over()
        self._spares: dict[str, Held] = {}
        self._links: OrderedDict[str, str] = OrderedDict()
        self._linked: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._stripes = [self._new_lock() for _ in range(STRIPES)]

    @property
    def ring(self) -> Ring:
        """The nodes."""
        return self.copies.ring

    @property
    def enabled(self) -> bool:
        """Whether the nodes are used at all; may be set at any time, for sticky sessions."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        if not enabled and not self.sticky:
            raise ConfigError(
                "must be true with sticky = false: nothing else has them", key="enabled"
            )
        self._enabled = enabled

    # Requests.

    def ignores(self, request: RequestLine) -> bool:
        """See `SessionManager.ignores`."""
        if self._ignored is None or not request.matches(self._ignored):
            return False
        self.counters.ignored += 1
        return True

    def is_away(self, session_id: str, request: RequestLine | None = None) -> bool:
        """Tell whether `find` asks a node for this id."""
        token, _ = split_node(session_id)
        if not token or not self._enabled:
            return False
        if not self.sticky:
            return True
        key = self.table.resolve(token, self.now_ds())
        record = None if key is None else self.table.get(key)
        if record is None or header(record).life == Life.EXPIRED:
            return True
        return request is None or not request.is_at_home

    def find(
        self, session_id: str, *, partial: bool = False, request: RequestLine | None = None
    ) -> Session | None:
        """See `SessionManager.find`.

        Raises:
            StoreNodeError: No node answers, and the memory does not have it either.
            StoreLockedError: Another request has the session.
        """
        token, name = split_node(session_id)
        if not token:
            return None
        if not self._enabled:
            return super().find(token)
        if self.sticky:
            found = self._find_sticky(token, name, request)
        else:
            found = self._find_remote(token, name, request)
        self.counters.found += found is not None
        self.counters.not_found += found is None
        return found

    def _place(self, session: Session) -> None:
        home = self.ring.pick() if self._enabled else None
        session.held = Held(session.key, home)
        session.suffix = "" if home is None else suffix_of(home.name)

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """See `SessionManager.commit`. Of sessions that are not sticky, `store` does the rest."""
        if self.sticky:
            return self._commit_sticky(session, waiter)
        held = _held(session)
        if not session.is_valid:
            ends = session.reading is not None and held.record is not None
            return CommitOutcome(self.clock.next() if ends else None, {})
        failed: dict[str, Exception] = {}
        changes = session.changes(failed)
        self.counts.attribute_failures += len(failed)
        if not changes and session.reading is not None:
            held.changes = []
            return CommitOutcome(None, failed)
        held.changes = changes
        return CommitOutcome(self.clock.next(), failed)

    def must_store(self, session: Session, outcome: CommitOutcome) -> bool:
        """Tell whether the request must wait for `store` after this commit. Does not block."""
        if not self._enabled:
            return False
        if outcome.version is None:
            self.counters.unchanged += 1
        if self.sticky:
            return self._must_store_sticky(session, outcome)
        held = _held(session)
        if held.lock is not None or outcome.version is not None:
            return True
        if not session.is_valid or session.reading is None:
            return False
        must = self._must_write(held, session.reading.record)
        if not must:
            self._learn(held)
        return must

    def store(self, session: Session) -> CommitResult:
        """Write what a request has done, as `must_store` says. Blocks.

        Raises:
            StoreError: No node has it; of a session that is not sticky nobody has.
            StoreConflictError: Another request was faster, and that is to be an error.
        """
        if self.sticky:
            return self._store_key(session.key, session)
        return self._store_remote(session)

    # Not sticky.

    def _find_remote(self, token: str, name: str, request: RequestLine | None) -> Session | None:
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
                    _remember(self._links, token, held.key)
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

    def _load(self, key: str, home: Any) -> Held | Link | None:
        self.counters.loads += 1
        try:
            return self.copies.load(key, home)
        except StoreError:
            self.counters.load_failures += 1
            raise

    def _is_known(self, key: str, record: Record | None, token: str) -> bool:
        """Whether a session lives, and the token is one of its ids at this moment."""
        if record is None or header(record).life != Life.LIVE:
            return False
        entry = Reading(record).entry(int(Namespace.CONTAINER), id_entry_name(token))
        if entry is None:
            return token == key
        if entry.value == ID_ACTIVE and entry.kind != Kind.TOMBSTONE:
            return True
        grace_s = facts_of(record).ids.get(token) or 0
        return self.clock.wall_ms() < hlc_to_ms(entry.hlc) + 1000 * grace_s

    def _must_write(self, held: Held, record: Record) -> bool:
        """Whether a copy is missing, or the last use must be written so that all copies live on."""
        limit_s = self.copies.limit_of(record)
        if held.must_copy or limit_s <= 0:
            return held.must_copy
        return self.now_ds() - header(record).last_seen >= 10 * self.copies.slack_of(limit_s)

    def _learn(self, held: Held) -> None:
        if held.question and self.locks.kind == "auto":
            self.locks.known.learn(held.question, has_written=not held.is_read_only)

    def _store_remote(self, session: Session) -> CommitResult:
        held = _held(session)
        try:
            if not session.is_valid:
                held.is_read_only = False
                return self._end_remote(session, held)
            changes, held.changes = held.changes, []
            return self._save_remote(session, held, changes)
        finally:
            if held.lock is not None:
                self.locks.release(held.lock)
                held.lock = None
            self._learn(held)

    def _save_remote(self, session: Session, held: Held, changes: list[Change]) -> CommitResult:
        built: Built | None = None
        told: list[str] = []

        def build(current: Record | None) -> Record | None:
            nonlocal built
            built = None
            if current is not None and header(current).life == Life.DESTROYED:
                return None
            built = self._built(session, changes, current)
            if built is not None:
                names = self._clashing(changes, current) if built.conflicts else []
                if names and names != told:
                    told[:] = names
                    self._clash(session, names)
                return built.record
            assert current is not None
            return with_access(current, self._next_after(current), self.now_ds())

        if session.reading is not None and not self._must_write(held, session.reading.record):
            if self._built(session, changes, held.record) is None:
                return CommitResult(0, (), {})  # Assigned, and the same as before.
            held.is_read_only = False
        before = held.record
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

    def _end_remote(self, session: Session, held: Held) -> CommitResult:
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

    def _write_links(self, held: Held) -> None:
        """Make the later ids of a session lead to it, on the nodes where it is."""
        record = held.record
        if record is None or held.home is None:
            return
        now_ds = self.now_ds()
        limit_s = self.copies.limit_of(record)
        life_ds = 10 * self.copies.link_life_of(limit_s)
        for session_id in active_ids(held.key, record):
            if session_id == held.key:
                continue
            _remember(self._links, session_id, held.key)
            home, since = self._linked.get(session_id, ("", -life_ds))
            if home == held.home.name and now_ds - since < life_ds // 4:
                continue
            self.copies.save_link(session_id, held.key, held.home, limit_s)
            _remember(self._linked, session_id, (held.home.name, now_ds))

    # Sticky.

    def _find_sticky(self, token: str, name: str, request: RequestLine | None) -> Session | None:
        key = self.table.resolve(token, self.now_ds())
        record = None if key is None else self.table.get(key)
        if key is None or record is None or header(record).life == Life.EXPIRED:
            self._fetch(self._links.get(token, token), token, name)
        elif header(record).life == Life.LIVE and not (request is not None and request.is_at_home):
            self._refresh(key)
        session = super().find(token)
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
                _remember(self._links, token, held.key)
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

    def _commit_sticky(self, session: Session, waiter: Waiter | None) -> CommitOutcome:
        is_new = session.reading is None
        outcome = super().commit(session, waiter)
        if is_new and session.is_valid and session.held is not None:
            self._spares.setdefault(session.key, session.held)
        return outcome

    def _must_store_sticky(self, session: Session, outcome: CommitOutcome) -> bool:
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

    def loses(self, error: StoreError) -> bool:
        """Tell whether what a request changed is nowhere after this error of `store`."""
        self.counters.oversize += isinstance(error, StoreLimitError)
        self.counters.save_failures += 1
        return not self.sticky

    # Background, and the end.

    def process_expires(self) -> int:
        """See `LocalManager.process_expires`; then write what could not be written before."""
        count = super().process_expires()
        if self._enabled and self.sticky:
            self._retry()
        for key in [key for key in self._spares if key not in self.table]:
            self._spares.pop(key, None)
        return count

    def _retry(self) -> None:
        for key, held in list(self._spares.items()):
            if held.must_copy and key in self.table:
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
                    return self.table.drop(key, record) and False
            except StoreError:
                self.counters.save_failures += 1  # Its own time ends it there.
        self._spares.pop(key, None)
        return super()._expire(key, record)

    def start(self) -> None:
        """See `LocalManager.start`."""
        if self.service is not None:
            self.service.start()

    def stop(self) -> None:
        """Write what is not written, give the locks back, and close all connections."""
        if self.service is not None:
            self.service.stop()
        if self._enabled and self.sticky:
            self._retry()
        self.locks.release_all()
        self.ring.close()

    def memcached_statistics(self) -> MemcachedStatistics:
        """Return the numbers of the nodes, of copies and of locks as they are now."""
        return MemcachedStatistics.of(self)


def _held(session: Session) -> Held:
    assert session.held is not None
    return session.held


def _remember(cache: OrderedDict[str, Any], name: str, value: Any) -> None:
    cache[name] = value
    if len(cache) > LINKS_MAX:
        cache.popitem(last=False)
