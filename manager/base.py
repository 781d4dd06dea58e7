"""The request's side of a session manager, the same for every manager (DESIGN §5.1, 5.4).

::

    session = manager.find(session_id) or manager.create()
    session["cart"].append(item)
    outcome = manager.commit(session, waiter)

Finding reads the table, without a lock or a message.  A commit replaces the session's record and
leaves the delta for the core in one step, whatever other requests and peers do meanwhile; only the
waiter, if there is one, learns what the peers say.  Everything may be called from any thread except
what is marked as the core's.

The rules stand beside it, each in a module of its own; this one is longer than most because it is
where they meet, and what a request costs is to be seen in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.errors import SessionLimitError
from tribes.ids import SessionId, SessionKey

from .changes import attributes_of, build_delta
from .clock import hlc_to_ms
from .container import active_ids
from .endings import Endings
from .eviction import Eviction
from .idleness import EXPIRY_KEYS, Idleness, is_over
from .inbox import Commit, Waiter
from .kept_here import KeptHere
from .listeners import SessionListener, SessionListeners
from .lives import Lives
from .merge import destroyed, lost_updates
from .merged import value_or_none
from .news import News
from .policy import CommitPolicy
from .record import (
    WHOLE,
    Entry,
    Life,
    Namespace,
    Record,
    aged,
    bare,
    deciseconds,
    header,
    life_and_access,
    main_of,
    to_wire,
)
from .rules import Rules
from .session import Session
from .session_ids import SessionIds
from .session_listeners import replicated_listeners
from .size_limits import SizeLimits
from .statistics import Counts, ManagerStatistics, collect, reset
from .sweeper import SWEEP_KEYS, Sweeper
from .table import MAX_INACTIVE_S, SessionTable
from .touches import Touches
from .traffic import Traffic
from .unknown import UnknownEntries
from .watched import Watch

if TYPE_CHECKING:
    from tribes.channel.trail import Tracing

    from .clock import Clock
    from .inbox import Inbox
    from .request_line import RequestLine
    from .values import ValueCodec

__all__ = ["CommitOutcome", "ManagerStatistics", "SessionListener", "SessionManager"]

TOUCHES_MAX: Final = 4096

_LIVE: Final = int(Life.LIVE)
_DESTROYED: Final = int(Life.DESTROYED)


class CommitOutcome(msgspec.Struct, frozen=True):
    """What a commit did here. What the peers did is told to the waiter.

    Attributes:
        version: hlc of the commit; None if nothing changed: then there is nothing to wait for.
        failed: Attributes that were not committed, because they cannot be encoded or are too large.
        is_gone: The session had ended elsewhere meanwhile; what this request did to it is void.
        void: Names of the attributes that it changed, in that case.
    """

    version: int | None
    failed: Mapping[str, Exception]
    is_gone: bool = False
    void: tuple[str, ...] = ()


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
        rules: Limits, filters, and who hears of what; by default as `ManagerConfig` has them.
        report: Gets level (``"warning"``, ``"debug"``), event and fields of log lines.

    Attributes:
        watch: Who hears of attributes, and which of them stay in this process.
        news: What other members did that listeners here are to hear of.
        traffic: The messages of the core's side, by type.
        revive: Called before a commit, and when a session is not found, in a forked process whose
            node does not run yet: it starts one of its own, or raises. None everywhere else.
        on_conflict: Called as ``on_conflict(session, name, lost, won)`` when the value of an
            attribute that a request of this process wrote was replaced by one whose writer had not
            seen it; None stands for a removal, and for what cannot be read here. Never called in
            the core's thread; what it raises is counted with the listeners' failures.

    Raises:
        ConfigError: ``session_id_length`` is out of range.
    """

    tracing: Tracing | None = None
    """Makes spans of commits; None: nobody does."""
    is_part: bool = False
    """A part of something greater that moves while the node runs: a node has joined without it."""
    is_local = False
    """Whether no channel takes what commits leave: then they leave nothing."""
    wants_request = False
    """Whether `find`, `is_away` and `ignores` look at the request."""
    ask_max_s: float = 0.0
    """Seconds within which the waiter of `ask` is told."""
    lent_actors: frozenset[int] = frozenset()
    """Actors of processes that are attached to this one: what they write, this node has written."""

    @property
    def application(self) -> str:
        """The context as operators know it: a part's is that of which it is a part."""
        return self.context

    @property
    def copies_on(self) -> tuple[str, ...]:
        """Names of the other members that hold copies now; safe from any thread."""
        return ()

    @property
    def has_draining(self) -> bool:
        """Whether a member that is about to leave still serves, and no commit waits for it."""
        return False

    @property
    def is_joined(self) -> bool:
        """Whether this node has the sessions that the others had; safe from any thread."""
        return True

    def is_primary(self, session_id: str) -> bool:
        """Whether this node is the first of those that have a session; safe from any thread."""
        return True

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
        rules: Rules | None = None,
        report: Callable[[str, str, dict[str, object]], None] | None = None,
    ) -> None:
        self.context = context
        self.codec = codec
        self.revive: Callable[[], None] | None = None
        self.on_conflict: Callable[[Session, str, Any, Any], None] | None = None
        self.ids = SessionIds(entropy, session_id_length)
        self.max_active_sessions = max_active_sessions
        self._monotonic = monotonic
        self._listeners = SessionListeners(on_listener_error)
        self.rules = rules or Rules()
        self._report = report or (lambda level, event, fields: None)
        self._on_news: Callable[[], None] | None = None
        # What most managers do not need, in one look each.
        self._has_limits = self.rules.has_size_limits
        self._marks_requests = (
            self.rules.checks_activity
            or self.rules.access_at_start
            or self.rules.max_lifetime_s > 0
        )
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
        self.watch = Watch(
            self.rules, self._listeners, KeptHere(table.lock), self.codec, self._report
        )
        self.lives = Lives(self._monotonic)
        self.endings = Endings(self.context, self.watch, self.lives, clock, self.codec, table)
        self.news = News(self.context, self, self.watch, self.endings)
        self.news.on_news = self._on_news
        self.traffic = Traffic(is_on=self.rules.counts_messages)
        self.eviction = Eviction(self)
        self.idleness = Idleness(table, clock, self.rules, self._monotonic)
        self.sizes = SizeLimits(self.rules, self._report)
        self.unknown = UnknownEntries(self._report)
        self.counts = Counts()
        self.locks_waited = 0
        self.locks_timed_out = 0

    def now_ds(self) -> int:
        """Read the monotonic clock in deciseconds, as records count."""
        return deciseconds(self._monotonic())

    # Requests.

    def create(self) -> Session:
        """Make a session. Nobody else sees it before its first commit, which with
        ``announce_created`` is here.

        Raises:
            SessionLimitError: There are ``max_active_sessions`` already, and they shall not, or
                cannot, go for this one (``on_full``).
        """
        self.check_room()
        key = self.new_key()
        while key in self.table:
            self.counts.duplicates += 1
            key = self.new_key()
        session = Session(self, SessionKey(key), None, created=self.clock.next())
        self.counts.created += 1
        self.lives.begun()
        self._begin(session)
        self._place(session)
        self._listeners.created(session)
        self._listeners.container(self.context, "session_created", session.id)
        if self.rules.announces:
            self.commit(session)
        return session

    def check_room(self) -> None:
        """Refuse one session more, as `create` does.

        Raises:
            SessionLimitError: There are too many.
        """
        if 0 <= self.max_active_sessions <= self.active_here() and not (
            self.rules.evicts and self._make_room()
        ):
            self.counts.rejected += 1
            raise SessionLimitError(f"{self.max_active_sessions} sessions are active already")

    def _make_room(self) -> bool:
        return self.eviction.make_room()

    def _begin(self, session: Session) -> None:
        if self.rules.access_at_start:
            session.begun_ds = self.now_ds()
        if self.rules.checks_activity:
            self.idleness.begin(session)

    def _place(self, session: Session) -> None:
        """Say where the copies of a new session will be, for managers that have them elsewhere."""

    def wanted(self, session_ids: Iterable[str], written: tuple[int, int] | None) -> Iterable[str]:
        """Return the ids of sessions that a request must `ask` for before it can `find` them.

        Args:
            session_ids: What the client sent, without the route; any text.
            written: The write that its client knows of: hlc and actor.
        """
        return ()

    def ask(self, session_id: str, written: tuple[int, int] | None, waiter: Waiter) -> bool:
        """Have a session brought here; False when nobody does, and the waiter is not told.

        The waiter is told within `ask_max_s` seconds, whatever comes of it. What it is told has
        something in ``missing`` when nobody knows whether there is such a session.
        """
        return False

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
        if known.life != _LIVE or (self._marks_requests and self.idleness.is_old(known.created)):
            return None
        if is_over(now_ds - known.last_seen, table.limit_of(key)) and key not in self.in_use():
            return None
        if not known.flags & WHOLE:
            self.counts.partial_reads += 1
            if not partial:
                return None
        session = Session(self, key, record, session_id=session_id)
        if self._marks_requests:
            self._begin(session)
        return session

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """Make a request's changes the session's, here at once and at the others soon.

        The session can be used and committed again afterwards.

        Args:
            session: From this manager; perhaps invalidated by the request.
            waiter: Told when the other members have the change; not kept if nothing changed.

        Raises:
            SessionLimitError: The session would have more than 65,535 entries; nothing is changed.
        """
        if self.tracing is None:
            return self._commit(session, waiter, b"")
        span = self.tracing.begin("tribes.commit", b"", {"tribes.context": self.context})
        try:
            return self._commit(session, waiter, span)
        finally:
            self.tracing.end(span)

    def _commit(self, session: Session, waiter: Waiter | None, trace: bytes) -> CommitOutcome:
        if self.revive is not None:
            self.revive()
        if not session.is_valid:
            return self._end(session, waiter, trace=trace)
        failed: dict[str, Exception] = {}
        changes = session.changes(failed)
        if failed:
            # A request commits more than once; an attribute that stays bad counts once.
            self.counts.attribute_failures += len(failed.keys() - session.failures)
            session.failures |= failed.keys()
        if self._has_limits:
            self.sizes.check(changes, failed)
        now_ds = session.begun_ds or deciseconds(self._monotonic())
        if not changes and session.reading is not None and self._touch(session, now_ds):
            return self._unchanged(session, failed)
        key, table, clock, life = session.key, self.table, self.clock, _LIVE
        while True:
            current = table.get(key)
            hlc = clock.next()
            if current is not None:
                life, access = life_and_access(current)
                if life == _DESTROYED:
                    session.close()
                    session.abandoned()
                    return CommitOutcome(None, failed, is_gone=True, void=attributes_of(changes))
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
                    return self._unchanged(session, failed)
                continue
            if self._has_limits and self.sizes.check_session(
                built.record, session.reading, changes, failed
            ):
                continue
            wire = built.delta
            if session.begun_ds:
                wire = aged(wire, self.now_ds() - session.begun_ds)
            commit = None if self.is_local else Commit(self.context, key, hlc, wire, waiter, trace)
            if table.swap(key, current, built.record, commit):
                break
            self.counts.commit_retries += 1
        counts = self.counts
        counts.commits += 1
        if built.conflicts or built.dropped:
            counts.commit_conflicts += len(built.conflicts)
            counts.elements_dropped += built.dropped
        old_id = session.rotated_from
        session.committed(changes, built)
        if current is not None and life != _LIVE:
            self.endings.revived(session, current)
        if session.is_watched:
            session.settled(current, hlc, failed)
        if old_id is not None:
            self._id_changed(session, old_id)
        for lost, won in built.conflicts:
            self.notify_conflict(key, lost, won)
        return CommitOutcome(hlc, failed)

    def _unchanged(self, session: Session, failed: Mapping[str, Exception]) -> CommitOutcome:
        if session.is_watched:
            session.settled(self.table.get(session.key), self.clock.last, failed)
        return CommitOutcome(None, failed)

    def _id_changed(self, session: Session, old_id: str) -> None:
        self._listeners.id_changed(session, old_id)
        self._listeners.container(self.context, "session_id_changed", (old_id, session.id))
        reading, kept = session.reading, self.watch.kept
        assert reading is not None
        replicated = replicated_listeners(reading, self.codec)
        for listener in (*replicated, *kept.listeners_of(session.key)):
            if (call := getattr(listener, "session_id_changed", None)) is not None:
                self._listeners.guard(partial(call, session, old_id))

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

    def _end(
        self,
        session: Session,
        waiter: Waiter | None,
        reason: str = "invalidated",
        *,
        trace: bytes = b"",
    ) -> CommitOutcome:
        key, table = session.key, self.table
        now_ds = deciseconds(self._monotonic())
        session.abandoned()
        while session.reading is not None:
            current = table.get(key)
            if current is not None and main_of(current)[1] == _DESTROYED:
                return CommitOutcome(None, {}, is_gone=True)
            hlc = self.clock.next()
            end = destroyed(hlc, now_ds)
            commit = (
                None
                if self.is_local
                else Commit(self.context, key, hlc, to_wire(end, now_ds), waiter, trace)
            )
            if table.swap(key, current, end, commit):
                self.counts.destroyed += 1
                self.counts.commits += 1
                last = session.reading.record if current is None else current
                self.endings.tell(Session(self, key, last), reason)
                return CommitOutcome(hlc, {})
            self.counts.commit_retries += 1
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
        return collect(self)

    def reset_statistics(self) -> None:
        """Begin all counters again at zero; ``max_active`` at the present count."""
        reset(self)

    def add_listener(self, listener: object) -> None:
        """Call a listener from now on; see `tribes.manager.listeners` for what it may have.

        Raises:
            LocalProtocolError: It has none of the methods of a listener.
        """
        self._listeners.add(listener)
        self.watch.look()

    def remove_listener(self, listener: object) -> None:
        """Do not call a listener any more."""
        self._listeners.remove(listener)
        self.watch.look()

    @property
    def on_news(self) -> Callable[[], None] | None:
        """Called in the core's thread when `News.tell` has something to do; must not block."""
        return self._on_news

    @on_news.setter
    def on_news(self, call: Callable[[], None] | None) -> None:
        self._on_news = self.news.on_news = call

    def notify_destroyed(self, key: str, reason: str) -> None:
        """Tell the listeners that a session expired. The runtime calls it, from a worker thread.

        One that a late request has revived meanwhile is told of when it ends.
        """
        record = self.endings.claim(key)
        if record is not None:
            self.endings.tell(
                Session(self, SessionKey(key), record), self.idleness.why(record, reason)
            )

    def leaving(self) -> None:
        """This node is about to stop in good order, and still has a channel. May call listeners.

        Its sessions live on, on the other members: listeners are told that they are evicted here.
        With ``expire_sessions_on_shutdown`` they end instead, on all members.
        """
        for key in self.table.keys():  # noqa: SIM118 - a method of the table, which is no dict
            record = self.table.get(key)
            if record is None or main_of(record)[1] != _LIVE:
                continue
            session = Session(self, SessionKey(key), record)
            if self.rules.ends_on_shutdown:
                self._end(session, None, "shutdown")
            elif not self._listeners.wants("session_evicted"):
                return
            else:
                self._listeners.evicted(session, "shutdown")

    def in_use(self) -> set[str]:
        """Return the keys of the sessions whose requests run, if ``session_activity_check``."""
        return self.idleness.in_use()

    def used_ms(self, record: Record) -> int:
        """Return when a session was last used, in milliseconds since 1970."""
        known = header(record)
        if not self.rules.access_at_start:
            return hlc_to_ms(known.access)
        return self.clock.wall_ms() - 100 * (self.now_ds() - known.last_seen)

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
        self._listeners.guard(partial(tell, session, lost.name.decode(), *values))

    # For the core's thread.

    def overwritten(self, before: Record | None, after: Record) -> list[tuple[Entry, Entry]]:
        """Count this process's writes that a merge has replaced by writes that did not know them.

        Returns:
            Each with what took its place.
        """
        if before is None:
            return []
        found = list(lost_updates(before, after, self.clock.actor))
        for actor in self.lent_actors:
            found += lost_updates(before, after, actor)
        self.counts.overwritten += len(found)
        return found

    def merged(self, key: str, before: Record | None, after: Record) -> None:
        """A peer's delta or copy has changed a record."""
        self.news.note(key, before, after)

    def is_idle(self, record: Record, now_ds: int, key: str = "") -> bool:
        """Tell whether a live record may go: idle for as long as it may be, too old, or marked.

        Not while a request uses the session of that key, where that is checked.
        """
        return self.idleness.may_go(record, now_ds, key)

    def expired_candidates(self, now_ds: int, limit: int = EXPIRY_KEYS) -> Iterator[str]:
        """Go through up to ``limit`` further keys; yield those of sessions that may go."""
        return self.idleness.candidates(now_ds, limit)

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
        self.news.look(self.table, limit)
        return self.sweeper.sweep(now_ms, now_ds, limit)
