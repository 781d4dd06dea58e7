"""The session managers of a process: what its request threads and its node share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

import msgspec
import structlog

from tribes.config.managers import (
    ManagerConfig,
    MemcachedConfig,
    PersistentConfig,
    StandardConfig,
    shared_settings,
)
from tribes.config.model import NodeConfig, check_managers
from tribes.config.valves import SSO_CONTEXT
from tribes.errors import LocalProtocolError
from tribes.manager.clock import Clock, ClockAheadError
from tribes.manager.delta import DeltaManager
from tribes.manager.inbox import Inbox
from tribes.manager.policy import CommitPolicy
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.maps.manager import MapManager, map_context
from tribes.maps.questions import LazyParts
from tribes.rpc.endpoints import RpcEndpoints
from tribes.runtime.commits import Committer, manager_of
from tribes.runtime.flight import FlightRecorder, Sources
from tribes.runtime.local import LocalSessions
from tribes.runtime.locks import ShortLock
from tribes.runtime.managers import ManagerParts, make_manager
from tribes.runtime.map_listeners import MapListeners
from tribes.runtime.otel import make_tracing
from tribes.runtime.session_locks import SessionLocks
from tribes.runtime.session_news import NewsTeller
from tribes.runtime.sso import SingleSignOn

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.local import LocalCommitter
    from tribes.runtime.session_locks import LockMode

__all__ = ["Sessions"]

log = structlog.get_logger("tribes")


class Sessions:
    """The session managers of one process: what request threads and the channel share.

    Exactly three kinds of objects cross threads, each with one lock: the tables, the clock and the
    inbox (DESIGN §2.10).

    A forked child has new ones, empty and unlocked, and another actor: two processes with one actor
    would give different writes the same version. Its managers are the same objects, so that an
    application may be built before the fork; they have no sessions until a node of the child's own
    has joined, see ``revive``.

    Args:
        config: Limits of the managers.
        codec: Encodes attribute values; one with your registered types, or the built-in ones.

    Raises:
        ConfigError: A manager's settings cannot work.

    Attributes:
        endpoints: The RPC channels of this process.
        map_listeners: Who is told what happens to the replicated maps.
        local: The sessions of the contexts that are in no group.
        sign_on: The logins that all contexts share; None: each has its own.
        tracing: Makes spans; None: nobody does.
        recorder: Keeps the last minutes; None: nothing does.
        sources: Time and chance, as the core gets them.
        news: Tells listeners of sessions what other members did.
    """

    def __init__(self, config: NodeConfig, *, codec: ValueCodec | None = None) -> None:
        check_managers(config)
        self._config = config
        self._codec = codec or ValueCodec()
        self._managers: dict[str, DeltaManager] = {}
        self._maps: dict[str, MapManager] = {}
        self._lazy_maps: dict[str, LazyParts] = {}
        self._revive: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self.tracing = make_tracing() if config.tracing else None
        self.recorder = None if config.recorder is None else FlightRecorder(config)
        self.sources = Sources() if self.recorder is None else self.recorder.sources
        self.clock = Clock(self.sources.wall_ms, _new_actor(), ShortLock())
        self.inbox = self._new_inbox()
        self.endpoints = RpcEndpoints()
        self.map_listeners = MapListeners()
        self.local = {
            context: LocalSessions(context, own, codec=codec)
            for context in config.contexts
            if isinstance(
                own := config.manager_of(context),
                StandardConfig | PersistentConfig | MemcachedConfig,
            )
        }
        self.news = NewsTeller()
        self._committers: dict[str, Committer] = {}
        self.sign_on: SingleSignOn | None = None
        if config.sso is not None:
            self.sign_on = SingleSignOn(
                config.sso, self.manager(SSO_CONTEXT), self._manager_if_listed
            )
            for context in config.contexts:
                self.sign_on.watch(self.listed_manager(context))
        _forkable.add(self)

    @property
    def revive(self) -> Callable[[], None] | None:
        """In a forked child: what a use of the managers calls first, until a node runs.

        See `SessionManager`.
        """
        return self._revive

    @revive.setter
    def revive(self, revive: Callable[[], None] | None) -> None:
        with self._lock:
            self._revive = revive
            presences = [parts.presence for parts in self._lazy_maps.values()]
            for manager in (*self._managers.values(), *self._maps.values(), *presences):
                manager.revive = revive

    def manager(self, context: str) -> DeltaManager:
        """The manager of a context; the same object for the same name."""
        with self._lock:
            manager = self._managers.get(context)
            if manager is None:
                manager = self._managers[context] = self._make(context)
            return manager

    def listed_manager(self, context: str) -> SessionManager:
        """The manager of a context that the node serves, of whatever kind.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
        """
        if context not in self._config.contexts:
            raise LocalProtocolError(
                f"context {context!r} is not in the node's contexts {self._config.contexts!r}"
            )
        alone = self.local.get(context)
        return self.manager(context) if alone is None else alone.manager(context)

    def _manager_if_listed(self, context: str) -> SessionManager | None:
        return self.listed_manager(context) if context in self._config.contexts else None

    def committer(
        self, context: str, on_unreplicated: OnUnreplicated | None = None
    ) -> Committer | LocalCommitter:
        """What commits sessions of a context and waits as its manager promises.

        Args:
            context: Of the node's.
            on_unreplicated: What to do about a commit on too few members, instead of what the
                configuration says; see `OnUnreplicated`.

        Raises:
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        alone = self.local.get(context)
        if alone is not None:
            return alone.committer(on_unreplicated)
        config = self._config.replicated_manager_of(context)
        if on_unreplicated is not None:
            return Committer(config, on_unreplicated=on_unreplicated)
        found = self._committers.get(context)
        if found is None:
            found = self._committers[context] = Committer(config)
        return found

    def locks(
        self,
        context: str,
        mode: LockMode,
        timeout_s: float,
        channel: Callable[[], GroupChannel],
    ) -> SessionLocks:
        """The locks of a context: ``mode`` is ``local`` or ``cluster``; see `SessionLocks`."""
        return SessionLocks(self.listed_manager(context), mode, timeout_s, channel)

    def committer_of(
        self, session: Session, on_unreplicated: OnUnreplicated | None = None
    ) -> Committer | LocalCommitter:
        """The same for the context that a session is of.

        Raises:
            LocalProtocolError: The session is from no manager of this node.
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        return self.committer(manager_of(session).context, on_unreplicated)

    def start_local(self) -> None:
        """Begin to look after the sessions that are in no group. May block on their stores."""
        for each in self.local.values():
            if not each.was_started:
                each.start()

    def stop_local(self) -> None:
        """Save them, as their managers' settings say. May block."""
        for each in self.local.values():
            each.stop()

    @property
    def managers(self) -> dict[str, DeltaManager]:
        """All managers by context, as a copy."""
        with self._lock:
            return dict(self._managers)

    @property
    def maps(self) -> tuple[MapManager, ...]:
        """The replicated maps of this process."""
        with self._lock:
            return tuple(self._maps.values())

    @property
    def lazy_maps(self) -> tuple[LazyParts, ...]:
        """The lazy ones among the replicated maps of this process."""
        with self._lock:
            return tuple(self._lazy_maps.values())

    def add_map(self, name: str, *, codec: ValueCodec | None, options: int) -> MapManager:
        """Make a replicated map; the node takes part in it when told, or when it starts.

        Raises:
            LocalProtocolError: There is one of that name already, or it cannot be a name.
        """
        context = map_context(name)
        with self._lock:
            if context in self._maps or context in self._managers:
                raise LocalProtocolError(f"a map {name!r} is open in this process already")
            manager = self._maps[context] = self._make_map(context, codec, options)
        return manager

    def add_lazy_map(
        self,
        name: str,
        *,
        codec: ValueCodec | None,
        options: int,
        copies: int,
        made: Callable[[MapManager], None],
    ) -> LazyParts:
        """Make a lazy map, as :meth:`add_map` makes one.

        Args:
            name: Of the map.
            codec: Encodes values.
            options: How changes are sent.
            copies: Backups of each entry.
            made: Told every manager that is made for a partition.

        Raises:
            LocalProtocolError: There is one of that name already, or it cannot be a name.
        """
        context = map_context(name, is_lazy=True)

        def make(partition: int) -> MapManager:
            of_partition = map_context(name, partition=partition, is_lazy=True)
            manager = self._make_map(of_partition, codec, options)
            made(manager)
            return manager

        with self._lock:
            if context in self._lazy_maps:
                raise LocalProtocolError(f"a lazy map {name!r} is open in this process already")
            presence = self._make_map(context, codec, options)
            parts = self._lazy_maps[context] = LazyParts(presence, copies, make)
        return parts

    def remove_lazy_map(self, parts: LazyParts) -> None:
        """Forget a lazy map, as :meth:`remove_map` does."""
        with self._lock:
            if self._lazy_maps.get(parts.presence.context) is parts:
                del self._lazy_maps[parts.presence.context]

    def _make_map(self, context: str, codec: ValueCodec | None, options: int) -> MapManager:
        manager = MapManager(
            context,
            self._map_table(),
            self.clock,
            inbox=self.inbox,
            codec=codec or self._codec,
            entropy=self.sources.entropy,
            monotonic=self.sources.monotonic,
            max_inactive_s=0,
        )
        shared = ManagerConfig(**shared_settings(self._config.manager))
        manager.config = msgspec.structs.replace(shared, channel_send_options=options)
        manager.revive = self._revive
        return manager

    def remove_map(self, manager: MapManager) -> None:
        """Forget a map; the node must have been told to take no part in it any more."""
        with self._lock:
            if self._maps.get(manager.context) is manager:
                del self._maps[manager.context]

    def _map_table(self) -> SessionTable:
        return SessionTable(ShortLock(), self.inbox, max_inactive_s=0)

    def _make(self, context: str) -> DeltaManager:
        config = self._config.replicated_manager_of(context)
        parts = ManagerParts(
            context=context,
            config=config,
            table=self._table(config),
            clock=self.clock,
            inbox=self.inbox,
            codec=self._codec,
            policy=self._policy(context),
            monotonic=self.sources.monotonic,
            entropy=self.sources.entropy,
        )
        manager = make_manager(parts)
        assert isinstance(manager, DeltaManager)
        manager.tracing = self.tracing
        manager.on_news = self.news.waker(manager)
        manager.revive = self._revive
        return manager

    def _new_inbox(self) -> Inbox:
        return Inbox(ShortLock(), max_bytes=self._config.manager.inbox_max_bytes)

    def _table(self, config: ManagerConfig) -> SessionTable:
        return SessionTable(ShortLock(), self.inbox, max_inactive_s=config.max_inactive_s)

    def _policy(self, context: str) -> CommitPolicy:
        settings = self._config.replicated_manager_of(context)
        return CommitPolicy(
            context,
            ShortLock(),
            monotonic=time.monotonic,
            on_unreplicated=settings.on_unreplicated,
            min_copies=settings.min_copies,
            report=_report_unreplicated,
        )

    def _start_over(self) -> None:
        """In a forked child, before anything else: leave all that is the parent's."""
        seen = self.clock.last
        if self.recorder is not None:
            self.recorder.ring.start_over()
        self._lock = threading.Lock()
        self.clock = Clock(self.sources.wall_ms, _new_actor(), ShortLock())
        with suppress(ClockAheadError):
            self.clock.observe(seen)
        self.inbox = self._new_inbox()
        for context, manager in self._managers.items():
            config = self._config.replicated_manager_of(context)
            manager.start_over(self._table(config), self.clock, self.inbox, self._policy(context))
            manager.replicator = None
        presences = [parts.presence for parts in self._lazy_maps.values()]
        for parts in self._lazy_maps.values():
            parts.held.clear()
        for each in (*self._maps.values(), *presences):
            each.start_over(self._map_table(), self.clock, self.inbox, self._policy(each.context))
            each.replicator = None


def _report_unreplicated(fields: dict[str, object]) -> None:
    log.warning("session not on enough members", **fields)


_forkable: WeakSet[Sessions] = WeakSet()


def _new_actor() -> int:
    return int.from_bytes(os.urandom(4), "big")


def _after_fork_in_child() -> None:
    # structlog's own loggers hold a lock per file while they write, and forget it at no fork. The
    # thread that held it, perhaps the parent's channel, does not exist here.
    locks = getattr(structlog._output, "WRITE_LOCKS", None)
    if locks is not None:
        locks.clear()
    for sessions in list(_forkable):
        sessions._start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
