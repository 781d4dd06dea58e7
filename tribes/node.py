"""A node: the channel and the session managers on it, as one deterministic core.

Two drivers run it: the trio shell (:mod:`tribes.runtime.shell`) and the simulator
(:mod:`tribes.testing.sim`). Both give it the same inputs, with the time, and perform the same
outputs; neither holds a rule of its own (DESIGN §2.2, 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from tribes.channel.core import ChannelCore, Output
from tribes.channel.outputs import Notice
from tribes.config.managers import BackupConfig
from tribes.errors import ChannelError, LocalProtocolError
from tribes.gauges import NodeGauges, gauges_of
from tribes.interceptors.rules import advice, check_stack
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.group import SessionGroup
from tribes.manager.inbox import Wakes
from tribes.manager.messages import CONTEXTS_MAX
from tribes.manager.replication import Replicator
from tribes.manager.serving_budget import ServingBudget
from tribes.maps.lazy import LazyCore
from tribes.maps.manager import MapManager
from tribes.maps.placement import PARTITIONS
from tribes.maps.replicator import MapReplicator
from tribes.rpc.core import RpcCore
from tribes.rpc.endpoints import RpcEndpoints
from tribes.rpc.static_service import StaticService
from tribes.security.keys import KeyRing
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.channel.trail import Tracing
    from tribes.config.model import NodeConfig
    from tribes.manager.delta import DeltaManager
    from tribes.manager.inbox import Batch, Inbox
    from tribes.maps.questions import LazyParts
    from tribes.membership.change import MemberChange
    from tribes.membership.view import View
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["NAMED_JOIN_S", "NodeCore"]

NAMED_JOIN_S: Final = 2.0
"""Seconds that a start takes longer where members are found by name."""

_BYTE_MESSAGE = int(SendOptions.BYTE_MESSAGE)


class NodeCore:
    """One member with its sessions, without sockets, clock, threads or randomness of its own.

    Its inputs are those of :class:`ChannelCore` (``datagram``, ``udp_datagram``, ``link_opened``,
    ``link_bytes``, ``link_closed``, ``connect_failed``, ``writable``, ``probe_result``, ``send``,
    ``delivered``, ``timer``) and ``commits``. After each input the driver performs
    ``take_outputs()``, in order, and calls ``timer`` no earlier than ``next_deadline``.

    Args:
        config: The node's settings.
        local: The own record, with the address and port that others connect to.
        interceptors: The chain, first to last.
        make_manager: Makes the request side of a context.
        wall_ms: Wall clock in milliseconds.
        entropy: Gives n random bytes.
        randrange: Gives a number below its argument; chooses among equals.
        product: Version of the program, for who asks.
        keys: The group's keys, where they were read from ``channel.key_file``; those in
            ``channel.keys`` are read here.
        endpoints: The RPC channels of this process; None: it has none, and says so when asked.
        maps: The replicated maps of this process; more can be opened later.
        lazy_maps: The lazy ones among them.
        tracing: Makes spans of what messages pass; None: nobody does.

    Raises:
        ConfigError: The text in ``channel.keys`` is no key, or the interceptors cannot work in this
            order, or not with this member.
    """

    def __init__(
        self,
        config: NodeConfig,
        local: Member,
        *,
        interceptors: Sequence[Interceptor],
        make_manager: Callable[[str], DeltaManager],
        wall_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
        randrange: Callable[[int], int],
        product: str = "",
        keys: KeyRing | None = None,
        endpoints: RpcEndpoints | None = None,
        maps: Iterable[MapManager] = (),
        lazy_maps: Iterable[LazyParts] = (),
        tracing: Tracing | None = None,
    ) -> None:
        self.config = config
        if keys is None and config.channel.has_key:
            # A core reads no files: to go on without a key would protect nothing.
            keys = KeyRing.parse(config.channel.keys, key="channel.keys")
        check_stack(interceptors, local=local, option_check=config.channel.option_check)
        self._advice = advice(interceptors)
        self.channel = channel = ChannelCore(
            local,
            config.channel,
            interceptors,
            keys=keys,
            wall_ms=wall_ms,
            entropy=entropy,
            product=product,
            consume=self._consume,
            members_changed=self._members_changed,
            link_lost=self._link_lost,
            suspicion=self._suspected,
            room=self._has_room,
            tracing=tracing,
        )
        self._endpoints = RpcEndpoints() if endpoints is None else endpoints
        self.rpc = RpcCore(channel, self._endpoints, entropy=entropy)
        self.datagram = channel.datagram
        self.udp_datagram = channel.udp_datagram
        self.discovered = channel.discovered
        self.announce = channel.announce
        self.link_opened = channel.link_opened
        self.link_bytes = channel.link_bytes
        self.link_closed = channel.link_closed
        self.connect_failed = channel.connect_failed
        self.writable = channel.writable
        self.probe_result = channel.probe_result
        self.send = channel.send
        self.released = channel.released
        self.delivered = channel.delivered
        self.timer = channel.timer
        self.set_keys = channel.set_keys
        self.rpc_call = self.rpc.call
        self.rpc_answer = self.rpc.answer
        self.static_service: StaticService | None = None
        if name := config.channel.membership.static_service_name:
            self.static_service = StaticService(name, channel=channel, rpc=self.rpc)
            self._endpoints.put_in_core(self.static_service.membership_id, self.static_service)
        self._make_manager = make_manager
        self._budget = ServingBudget()
        self._randrange = randrange
        self.wake_waiters = Wakes()
        """Wakes the event loops whose commits have ended since the last call, each once. The driver
        calls it when it has performed all outputs."""
        self.sessions = SessionGroup(
            config.name or local.label,
            self.channel,
            adopt=self._replicator if config.hold_all else None,
            wakes=self.wake_waiters,
        )
        for context in config.replicated:
            self.sessions.add(self._replicator(context), 0.0)
        self.lazy_maps: dict[str, LazyCore] = {}
        for each in maps:
            self.open_map(each, 0.0)
        for parts in lazy_maps:
            self.open_lazy_map(parts, 0.0)

    @property
    def local(self) -> Member:
        """The own member record."""
        return self.channel.local

    @property
    def view(self) -> View:
        """The other members, as an immutable snapshot."""
        return self.channel.view

    @property
    def next_deadline(self) -> float:
        """Monotonic seconds at which ``timer`` wants to be called; infinity for never."""
        return self.channel.next_deadline

    @property
    def is_joined(self) -> bool:
        """True when every context has what the other members had."""
        return self.sessions.is_joined

    def check_start(self) -> None:
        """Refuse to go on where a manager could not start and is to end the node then.

        Raises:
            ChannelError: Names the context.
        """
        for context, replicator in self.sessions.replicators.items():
            if isinstance(replicator, BackupReplicator) and replicator.has_failed:
                raise ChannelError(
                    f"the members with the context {context!r} did not say what they hold within "
                    "rpc_timeout, and terminate_on_start_failure is set"
                )

    @property
    def is_drained(self) -> bool:
        """True when nothing is on its way to any member, and no member is known to be behind.

        After `drain`: when every member that stays has confirmed that it has what is here.
        """
        replicators = self.sessions.replicators.values()
        return (
            self.channel.is_idle
            and self.sessions.knows_all
            and all(each.is_drained for each in replicators)
            and all(each.is_drained for each in self.lazy_maps.values())
        )

    def gauges(self, inbox: Inbox, now: float) -> NodeGauges:
        """What is kept for the members at this moment, and how often each bound was met.

        Args:
            inbox: Where the requests of this node leave their commits.
            now: Monotonic seconds.
        """
        return gauges_of(self.channel, self.sessions.replicators.values(), inbox, now)

    @property
    def has_outputs(self) -> bool:
        """True when ``take_outputs`` has something."""
        return self.channel.has_outputs

    def take_outputs(self) -> list[Output]:
        """The outputs since the last call. The driver must act on all of them, in order."""
        return self.channel.take_outputs()

    def start(self, now: float) -> None:
        """Join the group."""
        for text in self._advice:
            self.channel.event(Notice("interceptors", {"advice": text}))
        self.sessions.start(now)
        self.channel.start(now)

    def hold(self, contexts: Iterable[str]) -> None:
        """Take part in more contexts, before the start: what was saved of them is here."""
        for context in contexts:
            self.sessions.add(self._replicator(context), 0.0)

    def retire(self, now: float) -> None:
        """Tell the members that this node is about to leave, so that none of them counts on it."""
        self.sessions.retire(now)

    def drain(self, now: float) -> None:
        """Ask the members for receipts before leaving; ``is_drained`` tells when all have what is
        here, what others made included.
        """
        for lazy in self.lazy_maps.values():
            lazy.drain(now)
        self.sessions.drain(now)

    def stop(self, now: float) -> None:
        """Leave the group; ``drain`` and wait for ``is_drained`` before to lose nothing."""
        if self.static_service is not None:
            self.static_service.stop(now)
        self.sessions.stop()
        self.rpc.stop()
        for lazy in self.lazy_maps.values():
            lazy.questions.stop()
        self.channel.stop(now)

    def open_map(self, manager: MapManager, now: float) -> None:
        """Take part in a map, and get what the others have of it.

        Raises:
            LocalProtocolError: This node has it already.
        """
        if manager.context in self.sessions.replicators:
            raise LocalProtocolError(f"{manager.context!r} is open on this node already")
        replicator = manager.replicator = MapReplicator(manager, **self._replication(manager))
        self.sessions.add(replicator, now)

    def close_map(self, manager: MapManager, now: float) -> None:
        """Take no part in a map any more; the others keep it."""
        self.sessions.change((), (manager.context,), now)

    def open_lazy_map(self, parts: LazyParts, now: float) -> LazyCore:
        """Take part in a lazy map: hold what is placed here.

        Raises:
            LocalProtocolError: This node has it already, or too many maps.
        """
        context = parts.presence.context
        if context in self.sessions.replicators:
            raise LocalProtocolError(f"{context!r} is open on this node already")
        if len(self.sessions.replicators) + PARTITIONS + 1 > CONTEXTS_MAX:
            raise LocalProtocolError(f"a node replicates at most {CONTEXTS_MAX} contexts")
        lazy = self.lazy_maps[context] = LazyCore(
            parts,
            channel=self.channel,
            group=self.sessions,
            rpc=self.rpc,
            replication=self._replication(parts.presence),
        )
        self._endpoints.put_in_core(parts.rpc_id, lazy.questions)
        lazy.start(now)
        return lazy

    def close_lazy_map(self, parts: LazyParts, now: float) -> None:
        """Take no part in a lazy map any more, with what is held here."""
        lazy = self.lazy_maps.pop(parts.presence.context, None)
        if lazy is not None:
            self._endpoints.remove(parts.rpc_id, lazy.questions)
            lazy.close(now)

    def resync(self, context: str, now: float) -> int:
        """Compare the sessions of a context with every member now; returns how many are asked.

        Raises:
            KeyError: Nobody replicates that context here.
        """
        return self.sessions.replicators[context].resync(now)

    def acquire_lock(
        self, context: str, key: str, granted: Callable[[], None], now: float
    ) -> int | None:
        """Ask the members for a session's lock; None: the context is in no group here."""
        replicator = self.sessions.replicators.get(context)
        return None if replicator is None else replicator.locks.acquire(key, granted, now)

    def release_lock(self, context: str, number: int, now: float) -> None:
        """Give a lock back, or stop waiting for it."""
        replicator = self.sessions.replicators.get(context)
        if replicator is not None:
            replicator.locks.release(number, now)

    def commits(self, batch: Batch, now: float) -> None:
        """Spread what request threads have left in the inbox."""
        if batch.commits:
            self.sessions.commits(batch.commits, now)
        if batch.overflowed or batch.dirty:
            self.sessions.overflowed(batch.overflowed, batch.dirty, now)
        if batch.questions:
            self.sessions.questions(batch.questions, now)

    def _consume(self, data: ChannelData, now: float) -> bool:
        if not data.options & _BYTE_MESSAGE:
            if self.static_service is not None and self.static_service.consume(data, now):
                return True
            return self.rpc.consume(data, now)
        return self.sessions.consume(data, now)

    def _members_changed(self, change: MemberChange, now: float) -> None:
        self.rpc.on_members(change, now)
        self.sessions.on_members(change, now)

    def _link_lost(self, member: Member, now: float) -> None:
        self.sessions.link_lost(member, now)

    def _suspected(self, member: Member, is_suspected: bool, now: float) -> None:
        self.rpc.suspicion(member, is_suspected, now)
        self.sessions.suspicion(member, is_suspected, now)

    def _has_room(self, member: Member, now: float) -> None:
        self.sessions.room(member, now)

    def _replicator(self, context: str) -> Replicator:
        manager = self._make_manager(context)
        settings = self._replication(manager)
        config = self.config.replicated_manager_of(context)
        if isinstance(manager, BackupManager) and isinstance(config, BackupConfig):
            settings["config"] = config
            manager.replicator = BackupReplicator(manager, group=self.sessions, **settings)
        else:
            manager.replicator = Replicator(manager, **settings)
        return manager.replicator

    def _replication(self, manager: DeltaManager) -> dict[str, Any]:
        # Everybody sends a heartbeat within one period; the second allows for a lost one.
        membership = self.config.channel.membership
        window = 2 * membership.frequency / 1000 + 0.2
        if membership.names_hosts:
            # A name is looked up, its address tried, and who is there tells of the others.
            window += NAMED_JOIN_S
        config = self.config.replicated_manager_of(manager.context)
        if isinstance(manager, MapManager):
            config = manager.config
        return {
            "channel": self.channel,
            "config": config,
            "randrange": self._randrange,
            "join_window": window,
            "wakes": self.wake_waiters,
            "budget": self._budget,
        }
