"""A manager without sessions of its own: they are the node's, in another process of this host.

A worker asks its node for a session when a request begins, and hands it the delta when it commits:
the table's swap over a unix socket (:mod:`tribes.manager.attach_wire`). What needs the
application's code happens here: values are encoded and decoded, changes of parallel requests
joined, listeners told. Versions are made here too, with an actor that the node lends this process.

``wanted`` and ``ask`` bring a session, as they do for the Delta manager; ``find`` then takes what
was brought for this very request, so that nothing old is ever read. A ``find`` without that asks,
which blocks. Commits are made by `tribes.runtime.attached_commits.AttachedCommitter`.

It is longer than most modules because it stands for the whole of `SessionManager`'s request side.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

from tribes.errors import (
    LocalProtocolError,
    ProtocolError,
    SessionLimitError,
    SessionUnreachableError,
)
from tribes.ids import SessionKey

from .attach_wire import (
    ALIVE,
    ALIVE_MAX,
    COMMIT,
    DEAD,
    DONE,
    FIND,
    FOUND,
    GONE,
    HAS_DRAINING,
    IS_PRIMARY,
    MERGE,
    STALE,
    SWAP,
    TOUCH,
    UNDONE,
)
from .attached_work import REMOVED, Work, newer_values
from .base import CommitOutcome, SessionManager
from .changes import Built, attributes_of, build_delta
from .container import facts_of
from .cursor import KeyCursor
from .fetch import FETCH_MAX_S
from .inbox import CommitResult, Wakes
from .merge import destroyed, digest, lost_updates
from .merged import value_or_none
from .recent import remember
from .record import (
    WHOLE,
    Entry,
    Life,
    Namespace,
    Record,
    from_wire,
    life_and_access,
    to_wire,
)
from .session import Session
from .session_ids import is_possible_id

if TYPE_CHECKING:
    from .attach_calls import Done, Ended
    from .inbox import Waiter
    from .request_line import RequestLine

__all__ = ["AttachedManager", "Remote"]

_DESTROYED: Final = int(Life.DESTROYED)
_LIVE: Final = int(Life.LIVE)

ROUNDS_MAX: Final = 100
"""How often a commit is built again because somebody else was faster; each time one of them was."""
LOOK_S: Final = 30.0
"""Between two questions whether sessions live of which something is kept here."""
PRIMARY_MAX: Final = 1000
"""Sessions of which it is remembered whether this host used them last."""
FIND_S: Final = FETCH_MAX_S + 0.5
"""The node answers within that, whomever it has to ask itself."""


class Remote(Protocol):
    """The node, as the manager sees it."""

    def call(
        self,
        kind: int,
        fields: tuple[object, ...],
        done: Done,
        *,
        timeout_s: float,
        again: tuple[object, ...] | None = None,
    ) -> None:
        """Put a question; ``done`` is told once, in whatever thread, unless this raises.

        Raises:
            SessionUnreachableError: The node is gone.
            ProtocolError: It cannot be sent.
        """

    def post(self, kind: int, *fields: object) -> bool:
        """Tell something that has no answer; False if nobody is there."""

    def bring(self, manager: AttachedManager, session_id: str) -> None:
        """Block until a session was asked for.

        Raises:
            LocalProtocolError: It would block an event loop.
            SessionUnreachableError: The node does not answer.
        """


@dataclass(slots=True)
class _Slot:
    """What was brought for one request."""

    is_answered: bool = False
    why: str = "the node of this host did not answer in time"
    key: str = ""
    record: Record | None = None


_brought: ContextVar[dict[tuple[int, str], _Slot] | None] = ContextVar("brought", default=None)
"""Of the request that runs in this context, by manager and id."""


class AttachedManager(SessionManager):
    """See the module. Arguments as of `SessionManager`.

    Attributes:
        remote: The node.
    """

    is_local = True
    ask_max_s = FIND_S

    def __init__(self, *args: Any, remote: Remote, **settings: Any) -> None:
        self.remote = remote
        super().__init__(*args, **settings)

    def start_over(self, *args: Any) -> None:
        """See `SessionManager.start_over`."""
        super().start_over(*args)
        self._unknown: WeakKeyDictionary[Session, Work] = WeakKeyDictionary()
        self._primary: OrderedDict[str, bool] = OrderedDict()
        self._has_draining = False
        self._kept_keys = KeyCursor(self.watch.kept.keys)
        self._looked_s = self._monotonic()
        self._dead: deque[str] = deque()

    @property
    def has_draining(self) -> bool:
        """Whether a member that is about to leave still serves, as the node said last."""
        return self._has_draining

    def is_primary(self, session_id: str) -> bool:
        """Whether this host used the session last, as of this request's beginning."""
        return self._primary.get(session_id, False)

    # Finding.

    def wanted(self, session_ids: Iterable[str], written: tuple[int, int] | None) -> Iterable[str]:
        """See `SessionManager.wanted`: each is asked for. It begins a request."""
        _brought.set({})
        if self.watch.kept.values or self._dead:
            self._look()
        return [each for each in session_ids if is_possible_id(each)]

    def _look(self) -> None:
        """Now and then, let go what is kept here of sessions that are no more."""
        while self._dead:
            self.endings.forget(Session(self, SessionKey(self._dead.popleft()), None))
        now = self._monotonic()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        keys = list(self._kept_keys.round(ALIVE_MAX))

        def done(ended: Ended) -> None:
            if ended.answer is not None and ended.answer.kind == DEAD:
                self._dead.extend(ended.answer.fields[0])

        try:
            self.remote.call(ALIVE, (self.context, keys), done, timeout_s=FIND_S)
        except SessionUnreachableError:
            return  # the request finds out

    def ask(self, session_id: str, written: tuple[int, int] | None, waiter: Waiter) -> bool:
        """See `DeltaManager.ask`: the waiter is always told, unless this raises.

        Raises:
            SessionUnreachableError: The node is gone.
        """
        slots = _brought.get()
        if slots is None:
            slots = {}
            _brought.set(slots)
        slot = slots[id(self), session_id] = _Slot()
        fields = (self.context, session_id, *(written or (0, 0)))

        def done(ended: Ended) -> None:
            self._arrived(slot, session_id, ended)
            why = {} if slot.is_answered else {"node": slot.why}
            _tell(waiter, CommitResult(int(slot.is_answered), (), why))

        self.remote.call(FIND, fields, done, timeout_s=FIND_S)
        return True

    def _arrived(self, slot: _Slot, session_id: str, ended: Ended) -> None:
        answer = ended.answer
        if answer is None or answer.kind != FOUND:
            slot.why = ended.why if answer is None else str(answer.fields[0])
            return
        flags, key, wire = answer.fields
        record = from_wire(wire, self.now_ds()) if wire else None
        if record is not None:
            self.clock.observe(life_and_access(record)[1])
        self._note_flags(flags)
        remember(self._primary, session_id, bool(flags & IS_PRIMARY), PRIMARY_MAX)
        slot.key, slot.record, slot.is_answered = key, record, True

    def _note_flags(self, flags: int) -> None:
        self._has_draining = bool(flags & HAS_DRAINING)

    def find(
        self, session_id: str, *, partial: bool = False, request: RequestLine | None = None
    ) -> Session | None:
        """See `SessionManager.find`.

        Raises:
            SessionUnreachableError: The node does not answer.
            LocalProtocolError: It was not asked for before, and asking would block an event loop.
        """
        if not is_possible_id(session_id):
            return None
        slot = self._take(session_id)
        if slot is None:
            self.remote.bring(self, session_id)
            slot = self._take(session_id)
        if slot is None or not slot.is_answered:
            raise SessionUnreachableError((slot or _Slot()).why)
        if slot.record is None:
            return None
        limit = facts_of(slot.record).max_inactive_s
        return Session(self, SessionKey(slot.key), slot.record, session_id=session_id, limit=limit)

    def _take(self, session_id: str) -> _Slot | None:
        slots = _brought.get()
        return None if slots is None else slots.pop((id(self), session_id), None)

    def list_ids(self) -> list[str]:
        """Not here.

        Raises:
            LocalProtocolError: Always.
        """
        raise LocalProtocolError(
            "this process has no sessions of its own; ask its node: tribes sessions list"
        )

    # Committing.

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """Not without waiting for the node.

        Raises:
            LocalProtocolError: Always.
        """
        raise LocalProtocolError(
            "a process that is attached commits by node.commit(session), or in an event loop by "
            "await node.acommit(session)"
        )

    def invalidate(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """Not without waiting for the node: ``session.invalidate()`` and a commit do it.

        Raises:
            LocalProtocolError: Always.
        """
        return self.commit(session)

    def prepare(self, session: Session) -> Work | None:
        """Return what is to be committed of a session; None: nothing. It says that it was used.

        If nobody knows what became of its last commit, that one is returned, to be sent once more.
        """
        unknown = self._unknown.get(session)
        if unknown is not None:
            return unknown
        if not session.is_valid:
            return self._prepare_end(session)
        failed: dict[str, Exception] = {}
        changes = session.changes(failed)
        if failed:
            self.counts.attribute_failures += len(failed.keys() - session.failures)
            session.failures |= failed.keys()
        if self._has_limits:
            self.sizes.check(changes, failed)
        work = Work(session.key, changes, failed, session.reading, session.first_hlc)
        reading = session.reading
        if reading is None or (changes and self._build(work, reading.record)):
            if reading is None:
                self._build(work, None)
            return work
        self._used(session)
        return work if failed or session.is_watched else None

    def _used(self, session: Session) -> None:
        # Lost with the connection, as in a process that is killed: it is told with the next use.
        self.remote.post(TOUCH, self.context, session.key)

    def _prepare_end(self, session: Session) -> Work | None:
        session.abandoned()
        if session.reading is None:
            return None
        hlc, now_ds = self.clock.next(), self.now_ds()
        end = destroyed(hlc, now_ds)
        work = Work(session.key, [], {}, session.reading, session.first_hlc)
        work.version, work.wire, work.is_end = hlc, to_wire(end, now_ds), True
        return work

    def _build(self, work: Work, current: Record | None) -> bool:
        """Build the delta for a record; False: there is nothing to commit, or it has ended."""
        work.current, work.built, work.version = current, None, 0
        work.actor = self.clock.actor
        while True:
            hlc = self.clock.next()
            if current is not None:
                life, access = life_and_access(current)
                if life == _DESTROYED:
                    work.is_gone = True
                    return False
                if hlc <= access:
                    self.clock.observe(access)
                    continue
            built = build_delta(
                work.changes,
                work.seen,
                current,
                created=work.created,
                hlc=hlc,
                actor=work.actor,
                now_ds=self.now_ds(),
                flags=WHOLE if work.seen is None else 0,
                codec=self.codec,
            )
            if built is None:
                return False
            if self._has_limits and self.sizes.check_session(
                built.record, work.seen, work.changes, work.failed
            ):
                continue
            work.built, work.version, work.wire = built, hlc, built.delta
            return True

    def send(self, work: Work, waiter: Waiter, *, timeout_s: float, waits: bool) -> None:
        """Give the node a commit; the waiter is told when `finish` can be called, in any case."""
        work.waiter, work.timeout_s, work.waits = waiter, timeout_s, waits
        work.error = None
        self._send(work)

    def _send(self, work: Work) -> None:
        now_ds = self.now_ds()
        whole = work.wire if work.built is None else to_wire(work.built.record, now_ds)
        seen = None if work.current is None else digest(work.key, work.current)
        again = (self.context, work.key, None, whole, MERGE, work.waits)
        first: tuple[object, ...] = again
        if not (work.is_end or work.is_unknown):
            first = (self.context, work.key, seen, work.wire, SWAP, work.waits)
        try:
            self.remote.call(
                COMMIT,
                first,
                lambda ended: self._answered(work, ended),
                timeout_s=work.timeout_s,
                again=again,
            )
        except SessionUnreachableError as why:
            work.error = why
            self._over(work)
        except ProtocolError as why:
            work.error = SessionLimitError(f"the session cannot be sent to its node: {why}")
            self._over(work)

    def _answered(self, work: Work, ended: Ended) -> None:
        """In the connection's thread."""
        answer = ended.answer
        if answer is None:
            work.is_unknown = work.is_unknown or ended.is_unknown
            work.error = SessionUnreachableError(ended.why)
        elif answer.kind == DONE:
            flags, acked, missing, after = answer.fields
            self._note_flags(flags)
            work.acked, work.missing, work.is_unknown = tuple(acked), missing, False
            work.after = from_wire(after[0], self.now_ds()) if after else None
        elif answer.kind == STALE:
            work.rounds += 1
            (wire,) = answer.fields
            if work.rounds > ROUNDS_MAX:
                work.error = SessionUnreachableError("others change the session all the time")
            elif self._build(work, from_wire(wire, self.now_ds()) if wire else None):
                self._send(work)
                return
        elif answer.kind == GONE:
            work.is_gone, work.is_unknown = True, False
        elif answer.kind == UNDONE:
            reason, text = answer.fields
            is_limit = reason == "limit"
            work.is_unknown = False
            work.error = SessionLimitError(text) if is_limit else SessionUnreachableError(text)
        else:
            work.error = SessionUnreachableError(f"the node answered {answer.kind}")
        self._over(work)

    def _over(self, work: Work) -> None:
        waiter, work.waiter = work.waiter, None
        if waiter is not None:
            _tell(waiter, CommitResult(work.version, work.acked, work.missing))

    def finish(self, session: Session, work: Work) -> CommitOutcome:
        """Go on from what became of a commit, in the request's thread.

        Raises:
            SessionUnreachableError: It does not stand, or nobody knows.
            SessionLimitError: The node has no room for it.
        """
        if work.waiter is not None:
            # Its own time is over, and that of the connection's thread too: it hangs.
            work.waiter, work.is_unknown = None, True
            work.error = SessionUnreachableError("no answer in time")
        if work.is_unknown:
            work.was_unknown = True
            self._unknown[session] = work
        else:
            self._unknown.pop(session, None)
        if work.error is not None:
            raise work.error
        if work.is_gone:
            session.close()
            session.abandoned()
            return CommitOutcome(None, work.failed, is_gone=True, void=attributes_of(work.changes))
        if work.is_end:
            return self._ended(session, work)
        if work.built is None:
            if session.is_watched:
                session.settled(work.current, self.clock.last, work.failed)
            return CommitOutcome(None, work.failed)
        self._stands(session, work, work.built)
        return CommitOutcome(work.version, work.failed)

    def _ended(self, session: Session, work: Work) -> CommitOutcome:
        assert work.seen is not None
        self.counts.destroyed += 1
        self.counts.commits += 1
        last = Session(self, SessionKey(work.key), work.seen.record)
        self.endings.tell(last, "invalidated")
        return CommitOutcome(work.version, {})

    def _stands(self, session: Session, work: Work, built: Built) -> None:
        counts = self.counts
        counts.commits += 1
        counts.commit_retries += work.rounds
        counts.commit_conflicts += len(built.conflicts)
        counts.elements_dropped += built.dropped
        old_id = session.rotated_from
        newer = newer_values(session, work) if work.was_unknown else {}
        session.committed(work.changes, built)
        for name, value in newer.items():
            if value is not REMOVED:
                session[name] = value
            elif name in session:
                del session[name]
        if session.is_watched:
            session.settled(work.current, work.version, work.failed)
        if old_id is not None:
            self._id_changed(session, old_id)
        found = list(built.conflicts)
        if work.after is not None:
            losses = lost_updates(built.record, work.after, work.actor)
            found += [each for each in losses if each[0].hlc == work.version]
        for lost, won in found:
            self._tell_conflict(session, lost, won)

    def _tell_conflict(self, session: Session, lost: Entry, won: Entry) -> None:
        tell = self.on_conflict
        if tell is None or lost.namespace != Namespace.ATTRIBUTE:
            return
        values = [value_or_none(entry, self.codec) for entry in (lost, won)]
        self._listeners.guard(lambda: tell(session, lost.name.decode(), *values))


def _tell(waiter: Waiter, result: CommitResult) -> None:
    wakes = Wakes()
    wakes.tell(waiter, result)
    wakes()
