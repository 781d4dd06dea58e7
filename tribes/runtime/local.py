"""Sessions without a group: one process, its memory, and a file or a store (Tomcat: StandardManager
and PersistentManager).

A `LocalSessions` stands where a `BackgroundNode` stands, in the middleware and in a program.  Its
one thread expires sessions, backs them up and swaps them out; it has no socket.

**Fork.** A forked child begins without sessions and connections, as in a process of its own; its
thread starts with its first ``start``.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

import structlog
import trio

from tribes.config.managers import (
    MemcachedConfig,
    PersistentConfig,
    StandardConfig,
    check_manager,
)
from tribes.config.model import NodeConfig
from tribes.config.patterns import compiled
from tribes.errors import LocalProtocolError, StoreError
from tribes.manager.clock import Clock
from tribes.manager.inbox import CommitResult, Inbox
from tribes.manager.memcached import MemcachedManager
from tribes.manager.persistent import PersistentManager
from tribes.manager.policy import CommitPolicy, check_on_unreplicated
from tribes.manager.session import Session, home_of
from tribes.manager.standard import StandardManager
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.runtime.commits import report_unstored, report_void
from tribes.runtime.locks import ShortLock
from tribes.runtime.managers import ManagerParts, make_manager, wall_ms
from tribes.runtime.waiters import in_thread, refuse_in_event_loop, running_loop

if TYPE_CHECKING:
    import re

    from tribes.manager.base import CommitOutcome, SessionManager
    from tribes.manager.local import LocalManager
    from tribes.manager.policy import OnUnreplicated
    from tribes.stores.protocol import Store

__all__ = ["LocalCommitter", "LocalSessions"]

log = structlog.get_logger("tribes")

_T = TypeVar("_T")


class LocalSessions:
    """The sessions of one context in this process alone.

    ::

        sessions = LocalSessions("shop", StandardConfig(pathname="/var/lib/shop/sessions"))
        app = SessionMiddleware(app, sessions)

    Args:
        context: Name of the application.
        config: The manager: `StandardConfig`, `PersistentConfig` or `MemcachedConfig`.
        store: A store of your own for a Persistent manager, instead of the configuration's.
        codec: Encodes attribute values.

    Attributes:
        config: As every node has one: the context, and what all managers share.

    Raises:
        ConfigError: A value cannot work.
        StoreError: The database does not answer.
    """

    def __init__(
        self,
        context: str,
        config: StandardConfig | PersistentConfig | MemcachedConfig | None = None,
        *,
        store: Store | None = None,
        codec: ValueCodec | None = None,
    ) -> None:
        settings = config or StandardConfig()
        self.config = NodeConfig(contexts=(context,), manager=settings)
        check_manager(settings, "manager")
        self.path_filter: re.Pattern[str] | None = None
        self._inbox = Inbox(ShortLock())
        self._clock = _new_clock()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._was_started = False
        parts = ManagerParts(
            context=context,
            config=settings,
            table=self._table(),
            clock=self._clock,
            inbox=self._inbox,
            codec=codec or ValueCodec(),
            policy=self._policy(context),
            store=store,
        )
        if isinstance(settings, PersistentConfig):
            self.path_filter = compiled(settings.filter, "filter")
        made = make_manager(parts)
        assert isinstance(made, StandardManager | PersistentManager | MemcachedManager)
        self._manager = made
        _all.add(self)

    # Use, from any thread.

    def manager(self, context: str) -> LocalManager:
        """The session manager.

        Raises:
            LocalProtocolError: The context is another one.
        """
        if context not in self.config.contexts:
            raise LocalProtocolError(f"context {context!r} is not {self.config.contexts[0]!r}")
        return self._manager

    def committer(self, on_unreplicated: OnUnreplicated | None = None) -> LocalCommitter:
        """What commits sessions and writes them where the request must wait for that."""
        return LocalCommitter(self._manager, on_unreplicated=on_unreplicated)

    def commit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """Commit a session; block until it is stored, if the manager works per request.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`acommit`.
            SessionNotReplicatedError: The store does not do it, and that is to be an error.
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        return self.committer(on_unreplicated).commit(session)

    async def acommit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """The same in a task of asyncio or trio; cancelling is safe."""
        return await self.committer(on_unreplicated).acommit(session)

    # Life.

    def start(self) -> None:
        """Load what the last stop saved, and begin to look after the sessions.

        Raises:
            LocalProtocolError: It was started before, in this process.
        """
        with self._lock:
            if self._was_started:
                raise LocalProtocolError("local sessions are started once")
            self._was_started = True
            manager = self._manager
            manager.start()
            if isinstance(manager, StandardManager) and manager.damaged:
                log.error(
                    "saved sessions were damaged; their file was set aside",
                    loaded=manager.loaded,
                    damaged=manager.damaged,
                )
            name = f"tribes-{manager.context}"
            self._thread = threading.Thread(target=self._look, name=name, daemon=True)
            self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Save the sessions as the manager's settings say. A second call does nothing."""
        atexit.unregister(self.stop)
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        thread.join()
        self._manager.stop()

    @property
    def was_started(self) -> bool:
        """Whether :meth:`start` was called in this process, whatever has happened since."""
        return self._was_started

    @property
    def is_running(self) -> bool:
        """Whether the sessions are looked after, in this process."""
        return self._thread is not None

    @property
    def is_ready(self) -> bool:
        """Whether a balancer should send requests here."""
        return self.is_running

    def wait_joined(self, timeout: float | None = None) -> bool:
        """As a node's: there is nobody to wait for."""
        return True

    async def await_joined(self, timeout: float | None = None) -> bool:
        """The same in a task."""
        return True

    def _look(self) -> None:
        interval_s = self.config.manager.expiry_interval / 1000
        while not self._stopping.wait(interval_s):
            try:
                self._manager.process_expires()
            except Exception as error:
                log.error("looking after sessions failed", exc_info=error)

    # Making.

    def _table(self) -> SessionTable:
        limit = self.config.manager.max_inactive_s
        return SessionTable(ShortLock(), self._inbox, max_inactive_s=limit)

    def _policy(self, context: str) -> CommitPolicy:
        return CommitPolicy(
            context,
            ShortLock(),
            monotonic=time.monotonic,
            on_unreplicated=self.config.manager.on_unreplicated,
            report=lambda fields: log.warning("session not in its store", **fields),
        )

    def _start_over(self) -> None:
        """In a forked child, before anything else: leave all that is the parent's."""
        atexit.unregister(self.stop)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = None
        self._was_started = False
        self._inbox = Inbox(ShortLock())
        self._clock = _new_clock()
        manager = self._manager
        policy = self._policy(manager.context)
        manager.start_over(self._table(), self._clock, self._inbox, policy)


class LocalCommitter:
    """Commits sessions of one `LocalSessions`, and writes them where a request must wait for it.

    Args:
        manager: The manager.
        on_unreplicated: What to do when the store does not do it; see `OnUnreplicated`. The result
            then names the store as missing.

    Raises:
        ConfigError: ``on_unreplicated`` cannot be used.
    """

    def __init__(
        self,
        manager: LocalManager,
        *,
        on_unreplicated: OnUnreplicated | None = None,
    ) -> None:
        self._manager = manager
        self._store: PersistentManager | MemcachedManager | None = None
        waits = False
        if isinstance(manager, PersistentManager):
            self._store, waits = manager, manager.per_request
        elif isinstance(manager, MemcachedManager):
            self._store, waits = manager, manager.later is None
        check_on_unreplicated(on_unreplicated, waits=waits)
        self._on_unreplicated = on_unreplicated

    def commit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """See `Committer.commit`."""
        outcome, must_store = self._commit(session, known_failures)
        if not must_store:
            return CommitResult(outcome.version or 0, (), {})
        refuse_in_event_loop("await sessions.acommit(session)")
        return self._judge(*self._write(session, outcome), can_refuse=can_refuse)

    async def acommit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """See `Committer.acommit`. Cancelling is safe: it is stored all the same."""
        outcome, must_store = self._commit(session, known_failures)
        if not must_store:
            return CommitResult(outcome.version or 0, (), {})
        result, is_lost = await _to_its_end(partial(self._write, session, outcome))
        return self._judge(result, is_lost, can_refuse=can_refuse)

    def _commit(self, session: Session, known: set[str] | None) -> tuple[CommitOutcome, bool]:
        """Commit in memory; also say whether the store must have it before the answer."""
        if home_of(session) is not self._manager:
            raise LocalProtocolError("the session is from another manager")
        outcome = self._manager.commit(session)
        report_unstored(outcome.failed, known)
        report_void(outcome)
        return outcome, self._store is not None and self._store.must_store(session, outcome)

    def _write(self, session: Session, outcome: CommitOutcome) -> tuple[CommitResult, bool]:
        """Store it, in a worker thread; also say whether the change is nowhere now."""
        assert self._store is not None
        missing: dict[str, str] = {}
        is_lost = False
        try:
            if isinstance(self._store, MemcachedManager):
                return self._store.store(session), False
            self._store.store(session)
        except StoreError as error:
            missing["store"] = str(error)
            is_lost = isinstance(self._store, MemcachedManager) and self._store.loses(error)
        return CommitResult(outcome.version or 0, (), missing), is_lost

    def _judge(self, result: CommitResult, is_lost: bool, *, can_refuse: bool) -> CommitResult:
        manager: SessionManager = self._manager
        choice = "error" if is_lost else self._on_unreplicated
        manager.policy.judge(result, choice, can_refuse=can_refuse)
        return result


async def _to_its_end(call: Callable[[], _T]) -> _T:
    """Run a blocking function in a thread, also for a task that is cancelled.

    Stores are waited for within bounds of their own. Without this, a trio task that is cancelled
    would not begin, and an asyncio task that waits for a thread take its call out of the queue.
    """
    if running_loop() == "trio":
        with trio.CancelScope(shield=True):
            return await in_thread(call)
    return await asyncio.shield(in_thread(call))


def _new_clock() -> Clock:
    return Clock(wall_ms, int.from_bytes(os.urandom(4), "big"), ShortLock())


_all: WeakSet[LocalSessions] = WeakSet()


def _after_fork_in_child() -> None:
    for sessions in list(_all):
        sessions._start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
