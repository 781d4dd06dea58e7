"""A map of which each member holds a part: primary, backups, proxies (Tomcat: LazyReplicatedMap).

Each partition is a replicated context of its own, which the placed members run and no others. So
what holds for a full copy holds for a partition, with the same code: changes go to all who hold it,
a new holder joins by digests, a split heals by merge. What is here is who should hold what.

**Taking.** A member that finds itself placed opens the partition and gets it from its holders.
**Giving.** A holder that is not placed any more goes on until every placed member holds the
partition and a whole comparison with them found nothing to send; then it forgets its copy. So a
partition has at least the copies that it had, at every moment of a change.
**Using.** How others reach an entry is in :mod:`tribes.maps.questions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tribes.manager.inbox import Commit, resolve_all
from tribes.manager.messages import Deltas
from tribes.manager.replication import Replicator
from tribes.maps.placement import PARTITIONS, EntryKind, order_of, partition_of_entry
from tribes.maps.questions import LazyParts, Questions
from tribes.maps.replicator import MapReplicator
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.manager.group import SessionGroup
    from tribes.rpc.core import RpcCore
    from tribes.wire.member import Member

__all__ = ["LazyCore"]

_TICK_S: Final = 1.0
_DRAIN_TICK_S: Final = 0.1

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class _Presence(MapReplicator):
    """Tells who has the map."""

    moved: Callable[[float], None] | None = None

    def peer_up(self, member: Member, now: float) -> None:
        """A member has the map."""
        # Called for every introduction of the member, also for those that change nothing.
        is_new = member not in self.targets
        super().peer_up(member, now)
        if is_new and self.moved is not None:
            self.moved(now)

    def peer_down(self, member: Member, now: float) -> None:
        """A member has it no longer."""
        was_there = member in self.targets
        super().peer_down(member, now)
        if was_there and self.moved is not None:
            self.moved(now)


class _Quiet:
    """A channel that tells no events: 64 partitions that join are one map that does."""

    def __init__(self, channel: ChannelCore) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def event(self, event: object) -> None:
        """Say nothing."""


class LazyCore:
    """One lazy map in the core of one node.

    Args:
        parts: What it shares with users' threads.
        channel: Where messages go.
        group: Where contexts are run.
        rpc: By which members ask each other.
        replication: Arguments of every replicator.
    """

    def __init__(
        self,
        parts: LazyParts,
        *,
        channel: ChannelCore,
        group: SessionGroup,
        rpc: RpcCore,
        replication: dict[str, Any],
    ) -> None:
        self.parts = parts
        self._channel = channel
        self._group = group
        self.questions = Questions(parts, self.order, channel=channel, rpc=rpc)
        self._replication = {**replication, "channel": _Quiet(channel)}
        self._rounds: dict[int, int] = {}
        self._orders: dict[int, list[Member]] = {}
        self._heirs: tuple[Member, ...] | None = None
        self._is_open = True
        self._is_due = False
        parts.held.clear()
        self._presence = _Presence(parts.presence, **replication)
        parts.presence.replicator = self._presence

    def start(self, now: float) -> None:
        """Take part; alone at first, with all partitions."""
        self._presence.moved = self._moved
        self._group.add(self._presence, now)
        self._take(now)
        self._channel.timers.at(now + _TICK_S, self._tick)

    def drain(self, now: float) -> None:
        """Give everything to the others, before this member goes; `is_drained` tells when."""
        if self._heirs is None:
            self._heirs = self._presence.targets
            self._presence.moved = None
            self._group.change((), [self.parts.presence.context], now)
            self._rounds.clear()
            self._tick(now)

    @property
    def is_drained(self) -> bool:
        """True when nothing is here that another member with the map should have instead."""
        return not (self._others() and self.parts.held)

    def close(self, now: float) -> None:
        """Take no part any more. What no other member holds is lost: `drain` first."""
        self._is_open = False
        self.questions.stop()
        contexts = [manager.context for manager in self.parts.held.values()]
        for context in contexts:
            self._group.strays[context] = lambda commits: resolve_all(commits, (), {})
        self.parts.held.clear()
        self._group.change((), [*contexts, self.parts.presence.context], now)

    # Who holds what.

    def order(self, partition: int) -> list[Member]:
        """All members with the map, those first that should hold this partition."""
        if self._heirs is None:
            known = self._orders.get(partition)
            if known is None:
                known = self._orders[partition] = self._order(partition)
            return known
        return self._order(partition)

    def _order(self, partition: int) -> list[Member]:
        others = self._others()
        # Who is about to go is no holder any more, unless there is nobody else.
        here = () if self._heirs is not None and others else (self._channel.local,)
        return order_of(partition, (*here, *others))

    def _others(self) -> tuple[Member, ...]:
        if self._heirs is None:
            return self._presence.targets
        view = self._channel.view
        return tuple(member for member in self._heirs if member in view)

    def _placed(self, partition: int) -> list[Member]:
        return self.order(partition)[: 1 + self.parts.copies]

    def kind_of(self, name: str) -> EntryKind:
        """What an entry is here, whether or not it exists."""
        placed = self._placed(partition_of_entry(name))
        if self._channel.local not in placed:
            return EntryKind.PROXY
        return EntryKind.PRIMARY if placed[0] == self._channel.local else EntryKind.BACKUP

    @property
    def is_joined(self) -> bool:
        """True when the others with the map are known, and all that is held here is whole."""
        held = list(self.parts.held.values())
        return self.parts.presence.is_joined and all(manager.is_joined for manager in held)

    @property
    def is_settled(self) -> bool:
        """True when this member holds, whole, what it should, and nothing else."""
        local, held = self._channel.local, self.parts.held
        wanted = {p for p in range(PARTITIONS) if local in self._placed(p)}
        return wanted == held.keys() and all(manager.is_joined for manager in held.values())

    def _moved(self, now: float) -> None:
        """A member came or went: look what that means here, once for all of this moment."""
        self._rounds.clear()
        self._orders.clear()
        if not self._is_due:
            self._is_due = True
            self._channel.timers.at(now, self._take)

    def _take(self, now: float) -> None:
        """Open the partitions that are placed here now."""
        self._is_due = False
        if not self._is_open or self._heirs is not None:
            return
        held, local = self.parts.held, self._channel.local
        added = []
        for partition in range(PARTITIONS):
            if partition not in held and local in self._placed(partition):
                manager = self.parts.make(partition)
                manager.is_part = True
                manager.replicator = Replicator(manager, **self._replication)
                self._group.strays.pop(manager.context, None)
                added.append((partition, manager, manager.replicator))
        # Run before it is known to threads: their commits find the context.
        self._group.change([replicator for _, _, replicator in added], (), now)
        held.update({partition: manager for partition, manager, _ in added})

    def _tick(self, now: float) -> None:
        if not self._is_open or self._channel.is_shut_down():
            return
        period = _TICK_S if self._heirs is None else _DRAIN_TICK_S
        self._channel.timers.at(now + period, self._tick)
        gone = [p for p in self.parts.held if self._may_go(p, now)]
        if not gone:
            return
        contexts = []
        for partition in gone:
            manager = self.parts.held.pop(partition)
            self._rounds.pop(partition, None)
            contexts.append(manager.context)
            self._group.strays[manager.context] = self._forward(partition)
        self._group.change((), contexts, now)

    def _may_go(self, partition: int, now: float) -> bool:
        """Whether a partition is not placed here, and all who should have it do, whole."""
        placed = self._placed(partition)
        if self._channel.local in placed:
            return False
        replicator = self.parts.held[partition].replicator
        assert replicator is not None
        suspected = self._channel.view.suspected
        if any(m not in replicator.targets or m in suspected for m in placed):
            self._rounds.pop(partition, None)
            return False
        if not replicator.is_quiet:
            return False
        sent = replicator.transfer.statistics.records_sent
        if self._rounds.get(partition) == sent and not replicator.transfer.is_comparing:
            # A whole comparison with all holders has ended, and nobody lacked anything.
            return True
        self._rounds[partition] = sent
        replicator.compare_all(now)
        return False

    def _forward(self, partition: int) -> Callable[[list[Commit]], None]:
        """Commits of a thread that did not know that the partition has just been given away."""

        def send(commits: list[Commit]) -> None:
            context = commits[0].context
            targets = [m for m in self._placed(partition) if m != self._channel.local]

            def settled(faulty: dict[Member, Exception], then: float) -> None:
                del then
                missing = {m.label: f"{type(e).__name__}: {e}" for m, e in faulty.items()}
                acked = tuple(m.label for m in targets if m not in faulty)
                resolve_all(commits, acked, missing)

            payload = Deltas(context, [(c.key, c.delta) for c in commits]).encode()
            if targets:
                self._channel.post(targets, payload, _ACKED, self._channel.now, settled=settled)
            else:
                settled({}, 0.0)

        return send
