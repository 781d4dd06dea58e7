"""The request's side of a session manager, the same for every manager (DESIGN §5.1, 5.4).

::

    session = manager.find(session_id) or manager.create()
    session["cart"].append(item)
    outcome = manager.commit(session, waiter)

Finding reads the table, without a lock or a message.  A commit replaces the session's record and
leaves the delta for the core in one step, whatever other requests and peers do meanwhile; only the
waiter, if there is one, learns what the peers say.  Everything may be called from any thread except
what is marked as the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.errors import SessionLimitError
from tribes.ids import SessionId, SessionKey

from .changes import build_delta
from .container import active_ids, facts_of
from .cursor import KeyCursor
from .inbox import Commit, Waiter
from .listeners import SessionListener, SessionListeners
from .merge import destroyed, lost_updates
from .merged import value_or_none
from .policy import CommitPolicy
from .record import (
    WHOLE,
    Entry,
    Life,
    Namespace,
    Record,
    bare,
    deciseconds,
    header,
    life_and_access,
    main_of,
    to_wire,
)
from .session import Session
from .session_ids import SessionIds
from .statistics import ManagerStatistics
from .sweeper import SWEEP_KEYS, Sweeper
from .table import MAX_INACTIVE_S, SessionTable
from .touches import Touches

if TYPE_CHECKING:
    from .clock import Clock
    from .inbox import Inbox
    from .session_locks import RequestLine
    from .values import ValueCodec

__all__ = ["CommitOutcome", "ManagerStatistics", "SessionListener", "SessionManager"]

EXPIRY_KEYS: Final = 10_000
"""Keys that one search for idle sessions looks at: about 5 ms."""
TOUCHES_MAX: Final = 4096

_LIVE: Final = int(Life.LIVE)
_DESTROYED: Final = int(Life.DESTROYED)


class CommitOutcome(msgspec.Struct, frozen=True):
    """What a commit did here. What the peers did is told to the waiter.

    Attributes:
        version: hlc of the commit; None if nothing changed: then there is nothing to wait for.
        failed: Attributes that were not committed because they cannot be encoded.
        is_gone: The session had ended elsewhere meanwhile; what this request did to it is void.
    """

    version: int | None
    failed: Mapping[str, Exception]
    is_gone: bool = False


class SessionManager:
    """Creates, finds and commits the sessions of one context.

    Args:
        context: Name of the web application.
        table: Where its sessions are.
        clock: The process's clock.
        inbox: Where the table leaves commits: the very one that the table has.
        codec: Encodes attribute values.
        entropy: Returns n random bytes fit for secrets.
        monotonic: Reads the monotonic clock in seconds, the same one that the core gets.
        max_inactive_s: Seconds a new session may be idle; 0 or less: for ever.
        session_id_length: Random bytes of an id (``sessionIdLength``).
        max_active_sessions: Live sessions that may exist; -1: no limit (``maxActiveSessions``).
        on_listener_error: Told what a listener raised, see `SessionListeners`.
        policy: What to do about commits that are on too few members; None: serve and count.

    Attributes:
        revive: Called before a commit, and when a session is not found, in a forked process whose
            node does not run yet: it starts one of its own, or raises. None everywhere else.
        on_conflict: Called as ``on_conflict(session, name, lost, won)`` when the value of an
            attribute that a request of this process wrote was replaced by one whose writer had not
            seen it; None stands for a removal, and for what cannot be read here. Never called in
            the core's thread; what it raises is counted with the listeners' failures.

    Raises:
        ConfigError: ``session_id_length`` is out of range.
    """

    is_part: bool = False
    """A part of something greater that moves while the node runs: a node has joined without it."""
    is_local = False
    """Whether no channel takes what commits leave: then they leave nothing."""
    wants_request = False
    """Whether `find`, `is_away` and `ignores` look at the request."""

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        inbox: Inbox,
        codec: ValueCodec,
        entropy: Callable[[int], bytes],
        monotonic: Callable[[], float],
        max_inactive_s: int = MAX_INACTIVE_S,
        session_id_length: int = 16,
        max_active_sessions: int = -1,
        on_listener_error: Callable[[Exception], None] | None = None,
        policy: CommitPolicy | None = None,
    ) -> None:
        self.context = context
        self.codec = codec
        self.revive: Callable[[], None] | None = None
        self.on_conflict: Callable[[Session, str, Any, Any], None] | None = None
        self.ids = SessionIds(entropy, session_id_length)
        self.max_active_sessions = max_active_sessions
        self._monotonic = monotonic
        self._listeners = SessionListeners(on_listener_error)
        table.max_inactive_s = max_inactive_s
        self.start_over(
            table, clock, inbox, policy or CommitPolicy(context, nullcontext(), monotonic=monotonic)
        )

    def start_over(
        self, table: SessionTable, clock: Clock, inbox: Inbox, policy: CommitPolicy
    ) -> None:
        """Go on without sessions and with counters at zero, as in a process of its own.

        For a forked process, before anything else uses the manager there: what was its parent's
        (and perhaps locked by a thread that exists only in the parent) is not touched.
        """
        self.table = table
        self.clock = clock
        self.inbox = inbox
        self.policy = policy
        self.touches = Touches()
        self.sweeper = Sweeper(table)
        self._idle_cursor = KeyCursor(table.keys)
        self._created = 0
        self._destroyed = 0
        self._rejected = 0
        self._commits = 0
        self._commit_retries = 0
        self._commit_conflicts = 0
        self._overwritten = 0
        self._elements_dropped = 0
        self._attribute_failures = 0
        self._partial_reads = 0

    def now_ds(self) -> int:
        """Read the monotonic clock in deciseconds, as records count."""
        return deciseconds(self._monotonic())

    # Requests.

    def create(self) -> Session:
        """Make a session. Nobody else sees it before its first commit.

        Raises:
            SessionLimitError: There are ``max_active_sessions`` already.
        """
        if 0 <= self.max_active_sessions <= self.active_here():
            self._rejected += 1
            raise SessionLimitError(f"{self.max_active_sessions} sessions are active already")
        key = self.new_key()
        while key in self.table:
            key = self.new_key()
        session = Session(self, SessionKey(key), None, created=self.clock.next())
        self._place(session)
        self._created += 1
        self._listeners.created(session)
        return session

    def _place(self, session: Session) -> None:
        """Say where the copies of a new session will be, for managers that have them elsewhere."""

    def find(
        self, session_id: str, *, partial: bool = False, request: RequestLine | None = None
    ) -> Session | None:
        """Return the live session that an id means at this moment, or None.

        Args:
            session_id: What the client sent, without the route; any text.
            partial: Also return a session of which only later changes have arrived here so far,
                with what there is of it.
            request: What asks, for managers with `wants_request`.
        """
        now_ds = deciseconds(self._monotonic())
        table = self.table
        key = table.resolve(session_id, now_ds)
        record = None if key is None else table.get(key)
        if key is None or record is None:
            if self.revive is None:
                return None
            self.revive()
            table = self.table
            key = table.resolve(session_id, now_ds)
            record = None if key is None else table.get(key)
            if key is None or record is None:
                return None
        known = header(record)
        if known.life != _LIVE or _is_over(now_ds - known.last_seen, table.limit_of(key)):
            return None
        if not known.flags & WHOLE:
            self._partial_reads += 1
            if not partial:
                return None
        return Session(self, key, record, session_id=session_id)

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """Make a request's changes the session's, here at once and at the others soon.

        The session can be used and committed again afterwards.

        Args:
            session: From this manager; perhaps invalidated by the request.
            waiter: Told when the other members have the change; not kept if nothing changed.

        Raises:
            SessionLimitError: The session would have more than 65,535 entries; nothing is changed.
        """
        if self.revive is not None:
            self.revive()
        if not session.is_valid:
            return self._end(session, waiter)
        failed: dict[str, Exception] = {}
        changes = session.changes(failed)
        if failed:
            # A request commits more than once; an attribute that stays bad counts once.
            self._attribute_failures += len(failed.keys() - session.failures)
            session.failures |= failed.keys()
        now_ds = deciseconds(self._monotonic())
        if not changes and session.reading is not None and self._touch(session, now_ds):
            return CommitOutcome(None, failed)
        key, table, clock = session.key, self.table, self.clock
        while True:
            current = table.get(key)
            hlc = clock.next()
            if current is not None:
                life, access = life_and_access(current)
                if life == _DESTROYED:
                    session.close()
                    return CommitOutcome(None, failed, is_gone=True)
                if hlc <= access:
                    # Merged by somebody who did not tell the clock.
                    clock.observe(access)
                    continue
            built = build_delta(
                changes,
                session.reading,
                current,
                created=session.first_hlc,
                hlc=hlc,
                actor=clock.actor,
                now_ds=now_ds,
                flags=WHOLE if session.reading is None else 0,
                codec=self.codec,
            )
            if built is None:
                if self._touch(session, now_ds):
                    return CommitOutcome(None, failed)
                continue
            commit = None if self.is_local else Commit(self.context, key, hlc, built.delta, waiter)
            if table.swap(key, current, built.record, commit):
                break
            self._commit_retries += 1
        self._commits += 1
        self._commit_conflicts += len(built.conflicts)
        self._elements_dropped += built.dropped
        old_id = session.rotated_from
        session.committed(changes, built)
        if old_id is not None:
            self._listeners.id_changed(session, old_id)
        for lost, won in built.conflicts:
            self.notify_conflict(key, lost, won)
        return CommitOutcome(hlc, failed)

    def invalidate(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """End a session at once; the same as ``session.invalidate()`` and a commit."""
        session.invalidate()
        return self._end(session, waiter)

    def rotate_id(self, session: Session, grace_s: int = 30) -> SessionId:
        """Give the session a new id; it is valid from the commit on. See `Session.rotate_id`."""
        return session.rotate_id(grace_s)

    def active_here(self) -> int:
        """Return how many sessions count for ``max_active_sessions``."""
        return self.table.live

    def new_key(self) -> str:
        """Make the key of a new session."""
        return self.ids.new()

    def limit_of(self, key: str) -> int:
        """Return how many seconds a session may be idle; 0 or less: for ever."""
        return self.table.limit_of(key)

    def _touch(self, session: Session, now_ds: int) -> bool:
        """Note a use that changed nothing; False if the session has expired meanwhile."""
        key = session.key
        if not self.table.touch(key, self.clock.next(), now_ds):
            current = self.table.get(key)
            return current is None or main_of(current)[1] == _LIVE
        if not self.is_local:
            self.touches.add(key, now_ds, self.table.limit_of(key))
        return True

    def _end(self, session: Session, waiter: Waiter | None) -> CommitOutcome:
        key, table = session.key, self.table
        now_ds = deciseconds(self._monotonic())
        while session.reading is not None:
            current = table.get(key)
            if current is not None and main_of(current)[1] == _DESTROYED:
                return CommitOutcome(None, {}, is_gone=True)
            hlc = self.clock.next()
            end = destroyed(hlc, now_ds)
            commit = (
                None
                if self.is_local
                else Commit(self.context, key, hlc, to_wire(end, now_ds), waiter)
            )
            if table.swap(key, current, end, commit):
                self._destroyed += 1
                self._commits += 1
                last = session.reading.record if current is None else current
                self._listeners.destroyed(Session(self, key, last), "invalidated")
                return CommitOutcome(hlc, {})
            self._commit_retries += 1
        return CommitOutcome(None, {})

    def is_away(self, session_id: str, request: RequestLine | None = None) -> bool:
        """Tell whether `find` may block on a store for this id: then not in an event loop."""
        return False

    def ignores(self, request: RequestLine) -> bool:
        """Tell whether a request has no session unless its application asks for it."""
        return False

    # Management.

    def list_ids(self) -> list[str]:
        """Return the present id of every live session; costs a few µs per session."""
        ids = []
        keys = self.table.keys()
        for key in keys:
            record = self.table.get(key)
            if record is not None and main_of(record)[1] == _LIVE:
                ids.append((active_ids(key, record) or [key])[0])
        return ids

    def statistics(self) -> ManagerStatistics:
        """Return the numbers as they are now."""
        table = self.table
        return ManagerStatistics(
            active=table.live,
            max_active=table.live_peak,
            created=self._created,
            appeared=table.created,
            expired=table.count(Life.EXPIRED),
            destroyed=self._destroyed,
            rejected=self._rejected,
            bytes=table.bytes,
            commits=self._commits,
            commit_retries=self._commit_retries,
            commit_conflicts=self._commit_conflicts,
            overwritten=self._overwritten,
            elements_dropped=self._elements_dropped,
            commits_incomplete=self.policy.incomplete,
            commits_served_unreplicated=self.policy.served,
            commits_refused=self.policy.refused,
            attribute_failures=self._attribute_failures,
            listener_failures=self._listeners.failures,
            partial_reads=self._partial_reads,
            dropped=self.sweeper.dropped,
        )

    def add_listener(self, listener: SessionListener) -> None:
        """Call a listener from now on."""
        self._listeners.add(listener)

    def remove_listener(self, listener: SessionListener) -> None:
        """Do not call a listener any more."""
        self._listeners.remove(listener)

    def notify_destroyed(self, key: str, reason: str) -> None:
        """Tell the listeners that a session expired. The runtime calls it, from a worker thread."""
        record = self.table.get(key)
        if record is not None:
            self._listeners.destroyed(Session(self, SessionKey(key), record), reason)

    def notify_conflict(self, key: str, lost: Entry, won: Entry) -> None:
        """Tell the application of a write from here that another replaced without knowing it.

        Called in the thread of the request whose commit did that, or by the runtime in a worker
        thread if it was another member's.
        """
        tell, record = self.on_conflict, self.table.get(key)
        if tell is None or record is None or lost.namespace != Namespace.ATTRIBUTE:
            return
        values = [value_or_none(entry, self.codec) for entry in (lost, won)]
        session = Session(self, SessionKey(key), record)
        self._listeners.call(partial(tell, session, lost.name.decode(), *values))

    # For the core's thread.

    def overwritten(self, before: Record | None, after: Record) -> list[tuple[Entry, Entry]]:
        """Count this process's writes that a merge has replaced by writes that did not know them.

        Returns:
            Each with what took its place.
        """
        if before is None:
            return []
        found = list(lost_updates(before, after, self.clock.actor))
        self._overwritten += len(found)
        return found

    def merged(self, key: str, before: Record | None, after: Record) -> None:
        """A peer's delta or copy has changed a record; for managers that want to know."""

    def is_idle(self, record: Record, now_ds: int) -> bool:
        """Tell whether a live record has been idle for as long as it may be."""
        known = header(record)
        idle_ds = now_ds - known.last_seen
        if known.life != _LIVE or idle_ds < 10:  # limits are whole seconds
            return False
        limit = facts_of(record).max_inactive_s
        return _is_over(idle_ds, self.table.max_inactive_s if limit is None else limit)

    def expired_candidates(self, now_ds: int, limit: int = EXPIRY_KEYS) -> Iterator[str]:
        """Go through up to ``limit`` further keys; yield those of sessions idle for too long."""
        table = self.table
        for key in self._idle_cursor.round(limit):
            record = table.get(key)
            if record is not None:
                known = header(record)
                if known.life == _LIVE and _is_over(now_ds - known.last_seen, table.limit_of(key)):
                    yield key

    def take_touches(self, now_ds: int, limit: int = TOUCHES_MAX) -> list[tuple[str, Record]]:
        """Take the uses that are due to be told to the others, as deltas without entries."""
        due = []
        for key in self.touches.take(now_ds, limit):
            record = self.table.get(key)
            if record is not None and main_of(record)[1] == _LIVE:
                due.append((key, bare(record)))
        return due

    def sweep(self, now_ms: int, now_ds: int, limit: int = SWEEP_KEYS) -> int:
        """Forget a bounded number of things that nobody needs any more; see `Sweeper.sweep`."""
        return self.sweeper.sweep(now_ms, now_ds, limit)


def _is_over(idle_ds: int, limit_s: int) -> bool:
    return limit_s > 0 and idle_ds >= 10 * limit_s
