"""What a simulated process has in its memory: the core, the managers, their clock and inbox."""

from __future__ import annotations

from contextlib import nullcontext
from random import Random
from typing import TYPE_CHECKING

from tribes.config.managers import BackupConfig
from tribes.config.model import ManagerConfig
from tribes.ids import UniqueId, make_unique_id
from tribes.interceptors.domain import parse_domain
from tribes.interceptors.static import adopt_local_member
from tribes.manager.backup import BackupManager
from tribes.manager.clock import Clock
from tribes.manager.delta import DeltaManager
from tribes.manager.inbox import CommitResult, Inbox
from tribes.manager.rules import Rules
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.maps.manager import MapManager, map_context
from tribes.maps.questions import LazyParts
from tribes.node import NodeCore
from tribes.rpc.endpoints import RpcEndpoints
from tribes.runtime.stacks import make_interceptors
from tribes.wire.member import Member, host_octets

if TYPE_CHECKING:
    from tribes.maps.lazy import LazyCore
    from tribes.testing.sim.node import SimNode

__all__ = ["Process", "SimWaiter"]


class SimWaiter:
    """Notes the result of a commit."""

    def __init__(self) -> None:
        self.result: CommitResult | None = None

    @property
    def is_done(self) -> bool:
        """Whether the result is known."""
        return self.result is not None

    def resolve(self, result: CommitResult) -> None:
        """Called by the core."""
        self.result = result


class Process:
    """One incarnation of a node.

    Args:
        node: The machine it runs on.
        unique_id: 16 bytes; None: new ones.
    """

    def __init__(self, node: SimNode, *, unique_id: UniqueId | None) -> None:
        self._node = node
        self._entropy = Random(node.world.random.getrandbits(64))
        self._clock = Clock(node.wall_ms, self._entropy.getrandbits(32), nullcontext())
        self.inbox = Inbox(nullcontext(), max_bytes=node.config.manager.inbox_max_bytes)
        self.inbox.wake = node.wake
        self._managers: dict[str, DeltaManager] = {}
        self.endpoints = RpcEndpoints()
        fresh = make_unique_id(self._entropy.randbytes(16))
        make = node.make_interceptors
        interceptors = make_interceptors(node.config.channel) if make is None else make()
        local = Member(
            host=host_octets("127.0.0.1"),
            port=node.port,
            unique_id=fresh if unique_id is None else unique_id,
            domain=parse_domain(node.config.channel.membership.domain),
            payload=node.name.encode(),
            # UDP has ports of its own: the same number is free there.
            udp_port=-1 if node.config.channel.receiver.udp_port < 0 else node.port,
        )
        self.local = adopt_local_member(local, interceptors)
        self.core = NodeCore(
            node.config,
            self.local,
            interceptors=interceptors,
            make_manager=self.manager,
            wall_ms=node.wall_ms,
            entropy=self._entropy.randbytes,
            randrange=self._entropy.randrange,
            endpoints=self.endpoints,
        )
        self.core.channel.membership.read = node.world.read_heartbeat

    def open_map(self, name: str, options: int) -> MapManager:
        """Open a replicated map on the running node."""
        manager = self._map(map_context(name), options)
        self.core.open_map(manager, self._node.clock.monotonic())
        return manager

    def open_lazy_map(self, name: str, options: int, copies: int) -> LazyCore:
        """Open a lazy map on the running node."""
        parts = LazyParts(
            self._map(map_context(name, is_lazy=True), options),
            copies,
            lambda p: self._map(map_context(name, partition=p, is_lazy=True), options),
        )
        return self.core.open_lazy_map(parts, self._node.clock.monotonic())

    def _map(self, context: str, options: int) -> MapManager:
        manager = MapManager(
            context,
            SessionTable(nullcontext(), self.inbox, max_inactive_s=0),
            self._clock,
            inbox=self.inbox,
            codec=ValueCodec(),
            entropy=self._entropy.randbytes,
            monotonic=self._node.clock.monotonic,
            max_inactive_s=0,
        )
        manager.config = ManagerConfig(channel_send_options=options)
        return manager

    def manager(self, context: str) -> DeltaManager:
        """The session manager of a context, made when first asked for."""
        manager = self._managers.get(context)
        if manager is None:
            settings = self._node.config.replicated_manager_of(context)
            kind = BackupManager if isinstance(settings, BackupConfig) else DeltaManager
            manager = self._managers[context] = kind(
                context,
                SessionTable(nullcontext(), self.inbox, max_inactive_s=settings.max_inactive_s),
                self._clock,
                inbox=self.inbox,
                codec=ValueCodec(),
                entropy=self._entropy.randbytes,
                monotonic=self._node.clock.monotonic,
                max_inactive_s=settings.max_inactive_s,
                session_id_length=settings.session_id_length,
                max_active_sessions=settings.max_active_sessions,
                rules=Rules.of(settings),
            )
        return manager
