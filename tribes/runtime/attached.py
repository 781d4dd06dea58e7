"""A worker without a member of its own: it is attached to the node of its host by a unix socket.

An `AttachedNode` stands where a `BackgroundNode` stands, in the middleware and in a program. The
sessions are the node's, so a worker that ends or begins moves none, and no member notices.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, final
from weakref import WeakSet

import msgspec
import structlog

from tribes.config.managers import (
    ManagerConfig,
    MemcachedConfig,
    PersistentConfig,
    StandardConfig,
)
from tribes.config.model import check_config, check_managers
from tribes.errors import (
    ConfigError,
    LocalProtocolError,
)
from tribes.manager.attached import AttachedManager
from tribes.manager.clock import Clock
from tribes.manager.inbox import CommitResult, Inbox
from tribes.manager.policy import CommitPolicy
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.runtime.attach_client import AttachClient
from tribes.runtime.attach_socket import check_path
from tribes.runtime.attached_commits import AttachedCommitter
from tribes.runtime.attached_locks import AttachedLocks
from tribes.runtime.background import BackgroundNode
from tribes.runtime.commits import manager_of
from tribes.runtime.hosts import refuse_uwsgi_without
from tribes.runtime.local import LocalSessions
from tribes.runtime.locks import ShortLock
from tribes.runtime.managers import ManagerParts, wall_ms
from tribes.runtime.waiters import result_of

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.handle import SessionCommitter
    from tribes.runtime.session_locks import LockMode

__all__ = ["AttachedNode", "AttachedSessions", "check_node", "open_node"]

log = structlog.get_logger("tribes")

START_S: Final = 5.0
"""How long the first request waits for the first connection."""

_REFUSED: Final[tuple[tuple[str, object, str], ...]] = (
    ("session_activity_check", False, "the node does not see which requests run"),
    ("session_last_access_at_start", False, "the node counts from the end of a request"),
    ("announce_created", False, "a session reaches the node with its first commit"),
    ("expire_sessions_on_shutdown", False, "a worker that stops ends nothing; set it on the node"),
    ("notify_listeners_on_replication", False, "a worker hears of its own requests only"),
    ("notify_session_listeners_on_replication", False, "a worker hears of its own requests only"),
    ("notify_container_listeners_on_replication", False, "a worker hears of its own requests only"),
)


class AttachedNode:
    """The node of this host, for one worker process.

    ::

        node = AttachedNode(NodeConfig(contexts=("shop",), attach="/run/tribes/node.sock"))
        app = SessionMiddleware(app, node)

    `start` begins to connect and returns; a request that finds no connection is answered 503, and
    the worker connects by itself when the node is back. Of the configuration what is about requests
    counts here, and what is about the group is the node's business.

    Args:
        config: With ``attach``; the same file as the node's will do.
        codec: Encodes attribute values.

    Raises:
        ConfigError: ``attach`` is missing, or a setting cannot work in an attached process.
    """

    def __init__(self, config: NodeConfig, *, codec: ValueCodec | None = None) -> None:
        _check(config)
        self.config = config
        self.sessions = AttachedSessions(config, codec or ValueCodec())
        self._started_in = 0
        self._is_retired = False
        _nodes.add(self)

    @property
    def client(self) -> AttachClient:
        """The connection, for its counters."""
        return self.sessions.client

    def start(self) -> None:
        """Begin to connect.

        Raises:
            LocalProtocolError: It was started before, in this process.
            ConfigError: This is uWSGI, and runs no threads.
        """
        if self.was_started:
            raise LocalProtocolError("an attached node is started once")
        refuse_uwsgi_without()
        self._started_in = os.getpid()
        for each in self.sessions.local.values():
            each.start()
        self.client.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Give back what this process holds, and end the connection. A second call does nothing."""
        atexit.unregister(self.stop)
        self.client.stop()
        for each in self.sessions.local.values():
            each.stop()

    @property
    def was_started(self) -> bool:
        """Whether `start` was called in this process."""
        return self._started_in == os.getpid()

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped, whether there is a connection or not."""
        return self.was_started and self.client.is_running

    @property
    def is_ready(self) -> bool:
        """Whether a balancer should send requests here: there is a connection."""
        return self.is_running and self.client.is_up and not self._is_retired

    def retire(self) -> None:
        """This process is about to end: a balancer is told so. Nobody else needs to know."""
        self._is_retired = True

    def wait_joined(self, timeout: float | None = None) -> bool:
        """Block until there is a connection, or the first attempt has failed; tell which."""
        try:
            return self.client.settled.result(START_S if timeout is None else timeout)
        except TimeoutError:
            return False

    async def await_joined(self, timeout: float | None = None) -> bool:
        """The same in a task of asyncio or trio."""
        try:
            return await result_of(self.client.settled, START_S if timeout is None else timeout)
        except TimeoutError:
            return False

    def manager(self, context: str) -> SessionManager:
        """The session manager of a context.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
        """
        return self.sessions.manager(context)

    def commit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """Commit a session; block this thread until the node has it, and the members as the options
        say.

        Raises:
            LocalProtocolError: It would block an event loop.
            SessionNotReplicatedError: The node does not answer, or too few members have it and that
                is to be an error.
            SessionLimitError: The node has no room for it.
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        return self.sessions.committer_of(session, on_unreplicated).commit(session)

    async def acommit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: the commit goes on."""
        return await self.sessions.committer_of(session, on_unreplicated).acommit(session)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(BackgroundNode, name):
            raise AttributeError(name)
        raise LocalProtocolError(
            f"{name} is a member's, and this process is none: it is attached to the node at "
            f"{self.config.attach}, whose process has it"
        )


@final
class AttachedSessions:
    """The managers of one attached process. It is a `SessionsHandle`."""

    sign_on = None

    def __init__(self, config: NodeConfig, codec: ValueCodec) -> None:
        self._config = config
        self._clock = _new_clock()
        alone = {c: config.manager_of(c) for c in config.contexts}
        self.local = {
            context: LocalSessions(context, own, codec=codec)
            for context, own in alone.items()
            if isinstance(own, StandardConfig | PersistentConfig | MemcachedConfig)
        }
        shared = tuple(each for each in config.contexts if each not in self.local)
        self.client = AttachClient(config.attach, shared, self._clock)
        self._managers = {context: self._make(context, codec) for context in shared}

    def manager(self, context: str) -> SessionManager:
        """The manager of a context.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
        """
        alone = self.local.get(context)
        if alone is not None:
            return alone.manager(context)
        found = self._managers.get(context)
        if found is None:
            raise LocalProtocolError(
                f"context {context!r} is not in the node's contexts {self._config.contexts!r}"
            )
        return found

    def committer(
        self, context: str, on_unreplicated: OnUnreplicated | None = None
    ) -> SessionCommitter:
        """See `SessionsHandle`.

        Raises:
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        alone = self.local.get(context)
        if alone is not None:
            return alone.committer(on_unreplicated)
        config = self._config.manager_of(context)
        return AttachedCommitter(self._managers[context], config, on_unreplicated)

    def committer_of(
        self, session: Session, on_unreplicated: OnUnreplicated | None = None
    ) -> SessionCommitter:
        """The same for the context that a session is of."""
        return self.committer(manager_of(session).context, on_unreplicated)

    def locks(
        self,
        context: str,
        mode: LockMode,
        timeout_s: float,
        channel: Callable[[], GroupChannel],
    ) -> AttachedLocks:
        """The locks of a context: those of its host, or of the whole group."""
        return AttachedLocks(self.client, context, mode, timeout_s)

    def _make(self, context: str, codec: ValueCodec) -> AttachedManager:
        config = self._config.manager_of(context)
        parts = ManagerParts(
            context=context,
            config=config,
            table=self._table(config),
            clock=self._clock,
            inbox=Inbox(ShortLock()),
            codec=codec,
            policy=self._policy(context, config),
        )
        # How many there are is the node's to count.
        settings = {**parts.settings(), "max_active_sessions": -1}
        return AttachedManager(context, parts.table, parts.clock, remote=self.client, **settings)

    def _table(self, config: ManagerConfig) -> SessionTable:
        inbox = Inbox(ShortLock())
        return SessionTable(ShortLock(), inbox, max_inactive_s=config.max_inactive_s)

    def _policy(self, context: str, config: ManagerConfig) -> CommitPolicy:
        return CommitPolicy(
            context,
            ShortLock(),
            monotonic=time.monotonic,
            on_unreplicated=config.on_unreplicated,
            min_copies=config.min_copies,
            report=lambda fields: log.warning("session not on enough members", **fields),
        )

    def start_over(self) -> None:
        """In a forked child: leave all that is the parent's."""
        self._clock = clock = _new_clock()
        self.client.clock = clock
        for context, manager in self._managers.items():
            config = self._config.manager_of(context)
            inbox = Inbox(ShortLock())
            policy = self._policy(context, config)
            manager.start_over(self._table(config), clock, inbox, policy)


def open_node(
    config: NodeConfig,
    *,
    codec: ValueCodec | None = None,
    environ: Mapping[str, str] | None = None,
) -> BackgroundNode | AttachedNode:
    """The node that a configuration means: attached if it has ``attach``, else a member.

    Args:
        config: The node's.
        codec: Encodes attribute values.
        environ: Where ``TRIBES_ATTACH`` may say it too; None: this process's environment.

    Raises:
        ConfigError: A setting cannot work.
    """
    config = _with_attach(config, environ)
    if config.attach:
        return AttachedNode(config, codec=codec)
    return BackgroundNode(config, codec=codec)


def check_node(config: NodeConfig, *, environ: Mapping[str, str] | None = None) -> None:
    """Refuse what `open_node` and the start would, without looking at anything but the settings.

    Raises:
        ConfigError: A setting cannot work.
    """
    config = _with_attach(config, environ)
    if config.attach:
        _check(config)
    else:
        check_config(config)


def _with_attach(config: NodeConfig, environ: Mapping[str, str] | None) -> NodeConfig:
    attach = (os.environ if environ is None else environ).get("TRIBES_ATTACH", "")
    if attach and not config.attach:
        return msgspec.structs.replace(config, attach=attach)
    return config


def _check(config: NodeConfig) -> None:
    """Refuse what cannot work in an attached process.

    Raises:
        ConfigError: Names the key, and says why.
    """
    if not config.attach:
        raise ConfigError(
            "is empty; write the path of the node's socket, such as /run/tribes/node.sock",
            key="attach",
        )
    check_path(config.attach)
    check_managers(config)
    if config.sso is not None:
        raise ConfigError(
            "cannot be had in an attached process, which does not hear when logins end; leave "
            "attach empty, or sso out",
            key="sso",
        )
    if config.valves is not None and "CrawlerSessionManagerValve" in config.valves:
        raise ConfigError(
            "CrawlerSessionManagerValve keeps robots' sessions in one process; it cannot be had in "
            "an attached one",
            key="valves",
        )
    for context in config.contexts:
        settings = config.manager_of(context)
        if not settings.in_group:
            continue
        for name, allowed, why in _REFUSED:
            if getattr(settings, name) != allowed:
                key = "manager" if context not in config.context else f"context.{context}.manager"
                raise ConfigError(
                    f"cannot be had in an attached process: {why}", key=f"{key}.{name}"
                )


def _new_actor() -> int:
    return int.from_bytes(os.urandom(4), "big")


def _new_clock() -> Clock:
    return Clock(wall_ms, _new_actor(), ShortLock())


_nodes: WeakSet[AttachedNode] = WeakSet()


def _after_fork_in_child() -> None:
    for node in list(_nodes):
        atexit.unregister(node.stop)
        node.sessions.start_over()


if hasattr(os, "register_at_fork"):
    # Registered after the client, so called after it.
    os.register_at_fork(after_in_child=_after_fork_in_child)
