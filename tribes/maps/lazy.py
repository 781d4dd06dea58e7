"""A map of which each member holds a part: primary, backups, proxies (Tomcat: LazyReplicatedMap).

Each partition is a replicated context of its own, which the placed members run and no others. So
what holds for a full copy holds for a partition, with the same code: changes go to all who hold it,
a new holder joins by digests, a split heals by merge. What is here is who should hold what.

**Taking.** A member that finds itself placed opens the partition and gets it from its holders.
**Giving.** A holder that is not placed any more goes on until every placed member holds the
partition and a whole comparison with them found nothing to send; then it forgets its copy. So a
partition has at least the copies that it had, at every moment of a change.
**Asking.** Who does not hold a partition asks its holders in their order, each for `TRY_S` at
first, so one hung member costs little. A member that has not got all of the partition yet says so.

A write that nobody answers is tried at the next holder, and may then have been done twice; the
second has the later version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tribes.errors import (
    ChannelClosedError,
    MemberUnreachableError,
    QueueFullError,
    RemoteProtocolError,
)
from tribes.manager.inbox import Commit, CommitResult, resolve_all
from tribes.manager.messages import Deltas
from tribes.manager.replication import Replicator
from tribes.maps.lazy_messages import Get, MapReply, Put, decode_reply, decode_request
from tribes.maps.placement import PARTITIONS, EntryKind, order_of, partition_of_entry
from tribes.maps.replicator import MapReplicator
from tribes.rpc.calls import RpcMode
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.manager.group import SessionGroup
    from tribes.maps.manager import MapManager
    from tribes.rpc.calls import RpcBody, RpcResult
    from tribes.rpc.core import RpcCore
    from tribes.wire.member import Member
    from tribes.wire.rpc import RpcEnvelope

__all__ = ["TRY_S", "LazyCore", "LazyParts"]

TRY_S: Final = 0.2
"""How long a holder is waited for before the next one is asked."""

ASKED_MAX: Final = 8
"""Members asked for one entry: the holders, then those who may still hold it after a change."""

ASKS_MAX: Final = 4096
"""Questions that this member has open at once; one more is an error of its caller."""

_AGAIN_S: Final = 0.1
_TICK_S: Final = 1.0
_DRAIN_TICK_S: Final = 0.1

_USE_ACK = int(SendOptions.USE_ACK)
_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


@dataclass(slots=True)
class LazyParts:
    """What the core and the users' threads share of one lazy map.

    Attributes:
        presence: A context without entries, by which members find out who has the map.
        copies: Backups of each entry.
        make: Makes the manager of a partition.
        held: The partitions that lie here; threads read it, the core changes it.
    """

    presence: MapManager
    copies: int
    make: Callable[[int], MapManager]
    held: dict[int, MapManager] = field(default_factory=dict)

    @property
    def rpc_id(self) -> bytes:
        """Of the RPC channel on which members ask each other."""
        return self.presence.context.encode()


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


class _Ask:
    """One question, put to whoever may hold the entry, until one of them knows or time is over."""

    __slots__ = ("deadline", "done", "left", "patience", "request", "why")

    def __init__(
        self,
        request: Get | Put,
        deadline: float,
        done: Callable[[MapReply | Exception], None],
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.done = done
        self.patience = TRY_S
        self.left: list[Member] = []
        self.why: dict[str, str] = {}


class LazyCore:
    """One lazy map in the core of one node.

    Args:
        parts: What it shares with users' threads.
        channel: Where messages go.
        group: Where contexts are run.
        rpc: By which members ask each other.
        replication: Arguments of every replicator.
    """

    takes_requests = True
    takes_left_over = False

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
        self._rpc = rpc
        self._replication = {**replication, "channel": _Quiet(channel)}
        self._rounds: dict[int, int] = {}
        self._asks: dict[_Ask, None] = {}
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
        self.stop()
        contexts = [manager.context for manager in self.parts.held.values()]
        for context in contexts:
            self._group.strays[context] = lambda commits: resolve_all(commits, (), {})
        self.parts.held.clear()
        self._group.change((), [*contexts, self.parts.presence.context], now)

    # Who holds what.

    def order(self, partition: int) -> list[Member]:
        """All members with the map, those first that should hold this partition."""
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
        replicator.drain(now)
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

    # Asking for entries that lie elsewhere.

    def ask(
        self,
        request: Get | Put,
        timeout: float,
        now: float,
        done: Callable[[MapReply | Exception], None],
    ) -> None:
        """Ask the holders of an entry.

        Args:
            request: What to ask.
            timeout: Seconds, for all of them together.
            now: Monotonic seconds.
            done: Gets the reply, or `MemberUnreachableError` when nobody who has it replied. Called
                inside the core.

        Raises:
            QueueFullError: `ASKS_MAX` questions are open.
        """
        if len(self._asks) >= ASKS_MAX:
            raise QueueFullError(f"{ASKS_MAX} questions to members with the map are open already")
        ask = _Ask(request, now + timeout, done)
        self._asks[ask] = None
        self._ask_all(ask, now)

    def stop(self) -> None:
        """Tell all who wait that the channel was stopped."""
        for ask in list(self._asks):
            self._finish(ask, ChannelClosedError("the channel was stopped"))

    def _finish(self, ask: _Ask, reply: MapReply | Exception) -> None:
        if ask in self._asks:
            del self._asks[ask]
            ask.done(reply)

    def _ask_all(self, ask: _Ask, now: float) -> None:
        """Look here, then go through the others; again, with more patience, while there is time."""
        if ask not in self._asks or self._take_local(ask):
            return
        local, order = self._channel.local, self.order(partition_of_entry(ask.request.name))
        ask.left = [member for member in order if member != local][:ASKED_MAX]
        self._ask_next(ask, now)

    def _take_local(self, ask: _Ask) -> bool:
        request = ask.request
        manager = self.parts.held.get(partition_of_entry(request.name))
        if manager is None or not _knows(manager, request):
            return False
        reply = _done_at_once(manager, request)
        if reply is not None:
            self._finish(ask, reply)
        else:
            assert isinstance(request, Put)
            waiter = _Waiter(lambda result: self._finish(ask, MapReply(result=result)))
            manager.write(request.name, request.value, waiter)
        return True

    def _ask_next(self, ask: _Ask, now: float) -> None:
        left = ask.deadline - now
        if ask not in self._asks:
            return
        if left <= 0:
            why = "; ".join(f"{name}: {text}" for name, text in ask.why.items())
            error = MemberUnreachableError(f"no member gave the entry: {why or 'there is none'}")
            self._finish(ask, error)
            return
        if not ask.left:
            # Members that join, or that had little time: soon again.
            ask.patience *= 2
            self._channel.timers.at(
                min(now + _AGAIN_S, ask.deadline), lambda then: self._ask_all(ask, then)
            )
            return
        target = ask.left.pop(0)

        def replied(result: RpcResult) -> None:
            reply = _reply_in(result)
            if reply is not None and reply.is_here:
                self._finish(ask, reply)
                return
            ask.why[target.label] = "it does not hold it now"
            for error in result.missing.values():
                ask.why[target.label] = f"{type(error).__name__}: {error}"
            # Not from within: a member that is known not to answer is told of at once.
            self._channel.timers.at(self._channel.now, lambda then: self._ask_next(ask, then))

        try:
            self._rpc.call(
                self.parts.rpc_id,
                (target,),
                ask.request.encode(),
                mode=RpcMode.FIRST_REPLY,
                timeout=min(ask.patience, left),
                options=_USE_ACK,
                now=now,
                done=replied,
            )
        except QueueFullError as error:
            self._finish(ask, error)

    # Answering.

    def handle(self, source: Member, envelope: RpcEnvelope, body: RpcBody, now: float) -> None:
        """Another member asks for an entry.

        Raises:
            RemoteProtocolError: The request is malformed.
        """
        request = decode_request(body)
        manager = self.parts.held.get(partition_of_entry(request.name))
        if manager is None or not _knows(manager, request):
            self._answer(source, envelope, MapReply(is_here=False), now)
            return
        reply = _done_at_once(manager, request)
        if reply is not None:
            self._answer(source, envelope, reply, now)
            return
        assert isinstance(request, Put)

        def told(result: CommitResult) -> None:
            acked = (self._channel.local.label, *result.acked)
            whole = CommitResult(result.version, acked, result.missing)
            self._answer(source, envelope, MapReply(result=whole), self._channel.now)

        manager.write(request.name, request.value, _Waiter(told))

    def _answer(self, source: Member, envelope: RpcEnvelope, reply: MapReply, now: float) -> None:
        self._rpc.answer(source, envelope, reply.encode(), options=0, now=now)


class _Waiter:
    """Waits, in the core, for the other holders of an entry."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[CommitResult], None]) -> None:
        self._tell = tell

    def resolve(self, result: CommitResult) -> None:
        """Called in the core, once."""
        self._tell(result)


def _knows(manager: MapManager, request: Get | Put) -> bool:
    """Whether a holder may answer: it has the entry, or all that there is.

    To write it must have all: else its version might be older than one that it has not seen.
    """
    return manager.is_joined or (
        isinstance(request, Get) and manager.entry_of(request.name) is not None
    )


def _done_at_once(manager: MapManager, request: Get | Put) -> MapReply | None:
    """The reply that needs no waiting; None for a write that is to be done."""
    entry = manager.entry_of(request.name)
    if isinstance(request, Get):
        return MapReply(value=None if entry is None else entry.value)
    if entry is not None:
        return None
    if request.value is None:
        return MapReply()
    return MapReply(is_full=True) if manager.table.live >= manager.max_entries else None


def _reply_in(result: RpcResult) -> MapReply | None:
    for body in result.bodies:
        try:
            return decode_reply(body)
        except RemoteProtocolError:
            return None
    return None
