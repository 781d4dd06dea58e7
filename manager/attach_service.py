"""The node's side of its attached workers: their messages, done to the node's own managers.

A worker's commit is a commit of this node in every respect: it is swapped into the table and left
in the inbox in one step, so replication, receipts, expiry and repair know nothing of workers. Its
versions have an actor that is lent to the worker. An actor is lent again only when nothing of the
worker that had it can come any more: at once when it said so (BYE), else after `QUARANTINE_S`.

In the core's thread throughout; no I/O. It is longer than other files because every message of a
worker has its method here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from tribes.errors import RemoteProtocolError, SessionLimitError

from .attach_wire import (
    ALIVE,
    ALIVE_MAX,
    BYE,
    COMMIT,
    DEAD,
    DONE,
    FIND,
    FOUND,
    GONE,
    HAS_DRAINING,
    HELLO,
    IS_PRIMARY,
    LOCK,
    LOST,
    MERGE,
    REFUSED,
    STALE,
    SWAP,
    TOUCH,
    UNDONE,
    UNLOCK,
    VERSION,
    WELCOME,
    Message,
    encode,
)
from .inbox import Commit
from .merge import digest, lost_updates, merge
from .recent import remember
from .record import WHOLE, Life, from_wire, header, life_and_access, main_of, parse, to_wire
from .session import Session
from .session_ids import is_possible_id

if TYPE_CHECKING:
    from .clock import Clock
    from .delta import DeltaManager
    from .inbox import CommitResult
    from .record import Record

__all__ = ["OPEN_MAX", "QUARANTINE_S", "AttachService", "Locker", "WorkerLine"]

OPEN_MAX: Final = 1000
"""Questions of one worker under way; beyond, its connection is not read."""
QUARANTINE_S: Final = 60.0
"""No worker sends a commit again after that: its `commit_timeout` is over long before."""
ACTORS_MAX: Final = 10_000
"""Actors that are remembered as this node's own."""

_DESTROYED: Final = int(Life.DESTROYED)
_LIVE: Final = int(Life.LIVE)
_U32_MAX: Final = 2**32 - 1


class Locker(Protocol):
    """Locks sessions for one worker."""

    def lock(self, number: int, context: str, key: str, mode: str, timeout_ms: int) -> None:
        """Get a lock, and answer the worker."""

    def unlock(self, number: int) -> None:
        """Give it back, or wait for it no longer."""


class _Later:
    """A waiter of the inbox or of a question."""

    __slots__ = ("_tell", "_wake")

    def __init__(self, tell: Callable[[CommitResult], None], wake: Callable[[], None]) -> None:
        self._tell = tell
        self._wake = wake

    def resolve(self, result: CommitResult) -> Callable[[], None]:
        self._tell(result)
        return self._wake


@final
class AttachService:
    """What the connections of one node share.

    Args:
        name: Of the node, for its workers' logs.
        lookup: The manager of a context, or None: this node does not have it.
        clock: The node's.
        new_actor: Makes a random one.

    Attributes:
        lines: The workers that are attached.
        commits: Of workers.
        repeats: Of those, the ones that were there already: sent again after a connection broke.
    """

    def __init__(
        self,
        name: str,
        lookup: Callable[[str], DeltaManager | None],
        clock: Clock,
        new_actor: Callable[[], int],
    ) -> None:
        self.name = name
        self.lookup = lookup
        self.clock = clock
        self.lines: set[WorkerLine] = set()
        self.commits = 0
        self.repeats = 0
        self._new_actor = new_actor
        self._lent: OrderedDict[int, None] = OrderedDict()
        self._free: deque[int] = deque()
        self._waiting: deque[tuple[float, int]] = deque()

    def lend(self, managers: Iterable[DeltaManager], now: float) -> int:
        """Lend a worker an actor for its writes."""
        while self._waiting and self._waiting[0][0] <= now:
            self._free.append(self._waiting.popleft()[1])
        actor = self._free.popleft() if self._free else self._new_actor()
        remember(self._lent, actor, None, ACTORS_MAX)
        for manager in managers:
            manager.lent_actors = frozenset(self._lent)
        return actor

    def give_back(self, actor: int, now: float, *, is_clean: bool) -> None:
        """A worker is gone."""
        if is_clean:
            self._free.append(actor)
        else:
            self._waiting.append((now + QUARANTINE_S, actor))


@final
class WorkerLine:
    """One connection.

    Args:
        service: The node's.
        send: Puts a frame on its way, without waiting.
        flush: Sends what is there; a bound method, so that it is called once for many answers.
        locker: Its locks.

    Attributes:
        is_welcome: It has said who it is, and was not refused.
        is_over: It is to be closed when everything was sent.
        open: Questions that are not answered yet.
    """

    def __init__(
        self,
        service: AttachService,
        send: Callable[[bytes], None],
        flush: Callable[[], None],
        locker: Locker,
    ) -> None:
        self._service = service
        self._send = send
        self._flush = flush
        self._locker = locker
        self._managers: dict[str, DeltaManager] = {}
        self._actor = 0
        self._is_clean = False
        self.is_welcome = False
        self.is_over = False
        self.open = 0
        self._does: dict[int, Callable[..., None]] = {
            FIND: self._find,
            COMMIT: self._commit,
            TOUCH: self._touch,
            LOCK: self._lock,
            UNLOCK: self._unlock,
            ALIVE: self._alive,
        }

    def receive(self, message: Message, now: float) -> None:
        """Do what a worker asks.

        Raises:
            RemoteProtocolError: It may not: the connection is to be closed.
        """
        if not self.is_welcome:
            if message.kind != HELLO:
                raise RemoteProtocolError("the first message is not HELLO")
            self._hello(message, now)
        elif message.kind == BYE:
            self._is_clean = self.is_over = True
        elif message.kind in self._does:
            self._does[message.kind](message.number, *message.fields)
        else:
            raise RemoteProtocolError(f"a worker sends no message of kind {message.kind}")

    def closed(self, now: float) -> None:
        """The connection has ended, however."""
        if self.is_welcome:
            self._service.lines.discard(self)
            is_clean = self._is_clean and not self.open
            self._service.give_back(self._actor, now, is_clean=is_clean)

    def answer(self, kind: int, number: int, *fields: object) -> None:
        """Put an answer on its way."""
        try:
            frame = encode(kind, number, *fields)
        except RemoteProtocolError as why:
            # A session that other members have made too large for one message.
            frame = encode(LOST if kind == FOUND else UNDONE, number, *_too_large(kind, why))
        self._send(frame)

    def _hello(self, message: Message, now: float) -> None:
        oldest, newest, contexts = message.fields
        if not oldest <= VERSION <= newest:
            self._refuse(
                f"the node speaks version {VERSION} of this protocol, the worker {oldest} to "
                f"{newest}: install the same release of tribes for both"
            )
            return
        found = {context: self._service.lookup(context) for context in contexts}
        missing = sorted(context for context, manager in found.items() if manager is None)
        if missing:
            self._refuse(
                f"the node does not share the sessions of {', '.join(missing)[:200]}; start it "
                f"with --context {missing[0][:100]}, or contexts in its configuration"
            )
            return
        self._managers = {c: manager for c, manager in found.items() if manager is not None}
        self._actor = self._service.lend(self._managers.values(), now)
        self.is_welcome = True
        self._service.lines.add(self)
        last = self._service.clock.last
        self._send(encode(WELCOME, message.number, VERSION, self._actor, last, self._service.name))

    def _refuse(self, why: str) -> None:
        self._send(encode(REFUSED, 0, why))
        self.is_over = True

    def manager(self, context: str) -> DeltaManager:
        """The manager of a context that this worker has named.

        Raises:
            RemoteProtocolError: It has not.
        """
        manager = self._managers.get(context)
        if manager is None:
            raise RemoteProtocolError(f"a worker asks for {context!r:.100}, which it did not name")
        return manager

    def _flags(self, manager: DeltaManager, session_id: str = "") -> int:
        flags = HAS_DRAINING if manager.has_draining else 0
        return flags | (IS_PRIMARY if session_id and manager.is_primary(session_id) else 0)

    # Sessions.

    def _find(self, number: int, context: str, session_id: str, hlc: int, actor: int) -> None:
        manager = self.manager(context)
        if actor > _U32_MAX:
            raise RemoteProtocolError(f"{actor} is no actor")

        def found(result: CommitResult | None) -> None:
            if result is not None:
                self.open -= 1
            if result is not None and result.missing:
                self.answer(LOST, number, "; ".join(result.missing.values()))
                return
            self._found(number, manager, session_id)

        written = (hlc, actor) if hlc else None
        if manager.lacks(session_id, written):
            self.open += 1
            if manager.ask(session_id, written, _Later(found, self._flush)):
                return
            self.open -= 1
        found(None)

    def _found(self, number: int, manager: DeltaManager, session_id: str) -> None:
        session = manager.find(session_id)
        if session is None or session.reading is None:
            self.answer(FOUND, number, self._flags(manager), "", b"")
            return
        wire = to_wire(session.reading.record, manager.now_ds())
        self.answer(FOUND, number, self._flags(manager, session_id), session.key, wire)

    def _commit(
        self,
        number: int,
        context: str,
        key: str,
        seen: int | None,
        wire: bytes,
        mode: int,
        waits: bool,
    ) -> None:
        manager = self.manager(context)
        if not is_possible_id(key) or mode not in (SWAP, MERGE):
            raise RemoteProtocolError("a worker's commit has a key or mode that nobody makes")
        now_ds = manager.now_ds()
        delta = from_wire(wire, now_ds)
        life, hlc = life_and_access(delta)
        # A worker's clock is this machine's: one that is ahead is broken.
        manager.clock.observe(hlc)
        self._service.commits += 1
        while True:
            current = manager.table.get(key)
            if current is not None and main_of(current)[1] == _DESTROYED:
                self.answer(GONE, number)
                return
            if mode == SWAP and seen != _seen(key, current):
                self.answer(STALE, number, b"" if current is None else to_wire(current, now_ds))
                return
            try:
                if current is None and life == _LIVE:
                    manager.check_room()
                new = delta if current is None else merge(current, delta)
            except SessionLimitError as why:
                self.answer(UNDONE, number, "limit", str(why))
                return
            waiter = None
            if waits:
                after = _overwritten(delta, new) if mode == MERGE else None
                waiter = _Later(self._teller(number, manager, after), self._flush)
            self.open += waits
            if manager.table.swap(key, current, new, Commit(context, key, hlc, wire, waiter)):
                break
            self.open -= waits
        self._count(manager, current, delta)
        self._service.repeats += new is current
        if not waits:
            after = _overwritten(delta, new) if mode == MERGE else None
            self._done(number, manager, (), {}, after)

    def _teller(
        self, number: int, manager: DeltaManager, after: Record | None
    ) -> Callable[[CommitResult], None]:
        def tell(result: CommitResult) -> None:
            self.open -= 1
            self._done(number, manager, result.acked, result.missing, after)

        return tell

    def _done(
        self, number: int, manager: DeltaManager, acked: Any, missing: Any, after: Record | None
    ) -> None:
        lost = [] if after is None else [to_wire(after, manager.now_ds())]
        manager.counts.overwritten += after is not None
        self.answer(DONE, number, self._flags(manager), list(acked), dict(missing), lost)

    def _count(self, manager: DeltaManager, current: Record | None, delta: Record) -> None:
        counts = manager.counts
        counts.commits += 1
        known = header(delta)
        if known.life == _DESTROYED:
            counts.destroyed += 1
        elif current is None and known.flags & WHOLE:
            counts.created += 1

    def _touch(self, number: int, context: str, key: str) -> None:
        manager = self.manager(context)
        record = manager.table.get(key)
        if record is not None and main_of(record)[1] != _DESTROYED:
            manager.commit(Session(manager, key, record))  # type: ignore[arg-type]

    def _alive(self, number: int, context: str, keys: list[str]) -> None:
        table = self.manager(context).table
        if len(keys) > ALIVE_MAX:
            raise RemoteProtocolError(f"a worker asks for {len(keys)} sessions at once")
        records = ((key, table.get(key)) for key in keys)
        dead = [k for k, record in records if record is None or main_of(record)[1] == _DESTROYED]
        self.answer(DEAD, number, dead)

    # Locks.

    def _lock(self, number: int, context: str, key: str, mode: str, timeout_ms: int) -> None:
        self.manager(context)
        if mode not in ("local", "cluster") or not is_possible_id(key) or timeout_ms > _U32_MAX:
            raise RemoteProtocolError("a worker wants a lock of a kind that there is not")
        self._locker.lock(number, context, key, mode, timeout_ms)

    def _unlock(self, number: int) -> None:
        self._locker.unlock(number)


def _seen(key: str, record: Record | None) -> int | None:
    return None if record is None else digest(key, record)


def _overwritten(delta: Record, new: Record) -> Record | None:
    """The session, if it does not show an attribute of a delta, whose writer is to be told."""
    if new is delta or main_of(delta)[1] != _LIVE or main_of(new)[1] != _LIVE:
        return None
    # It is a whole session, sent again: only what this very commit wrote is news.
    hlc = header(delta).access
    actors = {entry.actor for entry in parse(delta).entries.values() if entry.hlc == hlc}
    losses = (lost for actor in actors for lost, _ in lost_updates(delta, new, actor))
    return new if any(lost.hlc == hlc for lost in losses) else None


def _too_large(kind: int, why: Exception) -> tuple[str, ...]:
    return (str(why),) if kind == FOUND else ("limit", str(why))
