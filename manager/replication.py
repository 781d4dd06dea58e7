"""The side of a Delta manager that lives in the core: what goes to the other members, and when.

Commits of request threads arrive in batches; what waits becomes one ``DELTAS`` message to all
members that run the context (group commit). A delta that a member did not take is not lost: its key
is dirty for that member, and the merged record is sent until it was taken. Waiting commits end when
every member answered or after ``commit_timeout``, whichever comes first, with the exact members
that are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.channel.outputs import Notice
from tribes.wire.options import SendOptions

from .expiry import Expiry
from .inbox import Commit, CommitResult
from .messages import (
    Deltas,
    Digests,
    ExpireAnswer,
    ExpireAsk,
    ManagerMessage,
    Pairs,
    Records,
)
from .record import deciseconds, to_wire
from .session_ids import PARTITIONS
from .transfer import Transfer

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.channel.tickets import Ticket
    from tribes.config.model import ManagerConfig
    from tribes.wire.member import Member

    from .base import SessionManager

__all__ = ["Replicator", "ReplicatorStatistics"]

BATCH_MAX = 256
BATCH_MAX_BYTES = 64 * 1024
"""Bounds of one DELTAS message (DESIGN §4.2); a longer delta travels alone."""

DIRTY_MAX = 10_000
"""Keys remembered per member that misses changes; beyond, everything is compared."""

_REPAIR_FIRST_S = 0.5
_REPAIR_MAX_S = 5.0
_TOUCH_S = 1.0

_USE_ACK = int(SendOptions.USE_ACK)
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class ReplicatorStatistics:
    """Counters of one context's replication, plain ints."""

    __slots__ = (
        "commits",
        "commits_incomplete",
        "deltas_received",
        "messages_received",
        "messages_sent",
        "repaired",
        "touches_sent",
    )

    def __init__(self) -> None:
        self.commits = 0
        self.commits_incomplete = 0
        self.messages_sent = 0
        self.messages_received = 0
        self.deltas_received = 0
        self.repaired = 0
        self.touches_sent = 0


class _Peer:
    __slots__ = ("backoff", "dirty", "is_repairing", "needs_sync")

    def __init__(self) -> None:
        self.dirty: dict[str, None] = {}
        self.needs_sync = False
        self.is_repairing = False
        self.backoff = _REPAIR_FIRST_S


class _Flight:
    """One DELTAS message and the commits that wait for it."""

    __slots__ = ("commits", "targets", "ticket")

    def __init__(self, commits: list[Commit], targets: tuple[Member, ...]) -> None:
        self.commits = commits
        self.targets = targets
        self.ticket: Ticket | None = None


class Replicator:
    """Copies the sessions of one context to all members that run it.

    Args:
        manager: The request side: table, clock, inbox.
        channel: Where messages go.
        config: Options, timeouts.
        randrange: Gives a number below its argument; chooses whom to compare replicas with.
        join_window: Seconds in which other members may still be found after a start.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        config: ManagerConfig,
        *,
        randrange: Callable[[int], int],
        join_window: float,
    ) -> None:
        self.manager = manager
        self.statistics = ReplicatorStatistics()
        self.transfer = Transfer(
            manager,
            channel,
            randrange=randrange,
            join_window=join_window,
            timeout=config.state_transfer_timeout_s,
        )
        self.expiry = Expiry(
            manager, channel, interval=config.expiry_interval / 1000, spread=self._spread
        )
        self._channel = channel
        self._options = config.channel_send_options
        self._waits = bool(self._options & _USE_ACK) and not self._options & _ASYNC
        self._commit_timeout = config.commit_timeout / 1000
        self._peers: dict[Member, _Peer] = {}
        self._targets: tuple[Member, ...] = ()
        self._is_running = False

    @property
    def targets(self) -> tuple[Member, ...]:
        """The members that hold copies."""
        return self._targets

    @property
    def dirty(self) -> dict[Member, int]:
        """How many sessions each member is known to be behind with."""
        return {m: len(p.dirty) for m, p in self._peers.items() if p.dirty or p.needs_sync}

    @property
    def is_quiet(self) -> bool:
        """True when every change known here was taken by every member."""
        return not any(p.dirty or p.needs_sync or p.is_repairing for p in self._peers.values())

    def start(self, now: float) -> None:
        """Begin to replicate."""
        self._is_running = True
        self.transfer.start(now)
        self.expiry.start(now)
        self._channel.timers.at(now + _TOUCH_S, self._send_touches)

    def stop(self) -> None:
        """No more timers; commits are answered without copies."""
        self._is_running = False
        self.transfer.stop()
        self.expiry.stop()

    def peer_up(self, member: Member, now: float) -> None:
        """A member runs this context: from here on it gets every change."""
        if member in self._peers:
            return
        self._peers[member] = _Peer()
        self._targets = tuple(self._peers)
        self.expiry.peer_up(member)
        self.transfer.peer_up(member, now)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone, or does not run this context any more."""
        if self._peers.pop(member, None) is None:
            return
        self._targets = tuple(self._peers)
        self.transfer.peer_down(member, now)
        self.expiry.peer_down(member, now)

    # The way out.

    def commits(self, batch: list[Commit], now: float) -> None:
        """Spread what request threads committed."""
        self.statistics.commits += len(batch)
        group: list[Commit] = []
        size = 0
        for commit in batch:
            length = len(commit.delta)
            if group and (size + length > BATCH_MAX_BYTES or len(group) >= BATCH_MAX):
                self._send(group, now)
                group, size = [], 0
            group.append(commit)
            size += length
        if group:
            self._send(group, now)

    def mark_dirty(self, keys: list[str], now: float) -> None:
        """Changes that found no room in the inbox: every member gets the merged records later."""
        for member in self._targets:
            self._mark(member, keys, now)

    def overflowed(self, commits: list[Commit]) -> None:
        """Commits that found no room in the inbox: they are on no other member yet."""
        full = "the inbox was full; the session is sent later"
        missing = {m.label: full for m in self._targets} if self._waits else {}
        self._resolve(commits, (), missing)

    def _send(self, commits: list[Commit], now: float) -> None:
        targets = self._targets
        if not targets or not self._is_running:
            self._resolve(commits, (), {})
            return
        flight = _Flight(commits, targets)
        pairs = [(commit.key, commit.delta) for commit in commits]
        payload = Deltas(self.manager.context, pairs).encode()
        self.statistics.messages_sent += 1

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            for member in faulty:
                self._mark(member, [commit.key for commit in commits], then)
            self._land(flight, faulty)

        if not self._waits:
            self._resolve(commits, (), {})
        flight.ticket = self._channel.post(targets, payload, self._options, now, settled=settled)
        if flight.commits and self._waits and any(commit.waiter for commit in commits):
            self._channel.timers.at(now + self._commit_timeout, lambda _: self._give_up(flight))

    def _land(self, flight: _Flight, faulty: dict[Member, Exception]) -> None:
        commits, flight.commits = flight.commits, []
        if commits and self._waits:
            missing = {m.label: f"{type(e).__name__}: {e}" for m, e in faulty.items()}
            acked = tuple(m.label for m in flight.targets if m not in faulty)
            self._resolve(commits, acked, missing)

    def _give_up(self, flight: _Flight) -> None:
        ticket = flight.ticket
        if not flight.commits or ticket is None:
            return
        commits, flight.commits = flight.commits, []
        late = f"no acknowledgement within {self._commit_timeout * 1000:g} ms"
        missing = {m.label: late for m in ticket.waiting}
        missing.update({m.label: f"{type(e).__name__}: {e}" for m, e in ticket.faulty.items()})
        acked = tuple(m.label for m in flight.targets if m.label not in missing)
        self._resolve(commits, acked, missing)

    def _resolve(
        self, commits: list[Commit], acked: tuple[str, ...], missing: dict[str, str]
    ) -> None:
        if missing:
            self.statistics.commits_incomplete += len(commits)
        for commit in commits:
            if commit.waiter is not None:
                commit.waiter.resolve(CommitResult(commit.version, acked, missing))
                commit.waiter = None

    def _spread(self, pairs: Pairs, now: float) -> None:
        targets = self._targets
        if not targets:
            return

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            for member in faulty:
                self._mark(member, [key for key, _ in pairs], then)

        payload = Deltas(self.manager.context, pairs).encode()
        self._channel.post(targets, payload, self._options, now, settled=settled)

    def _send_touches(self, now: float) -> None:
        if not self._is_running:
            return
        self._channel.timers.at(now + _TOUCH_S, self._send_touches)
        now_ds = deciseconds(now)
        pairs = [(key, to_wire(touch, now_ds)) for key, touch in self.manager.take_touches(now_ds)]
        self.statistics.touches_sent += len(pairs)
        for start in range(0, len(pairs), BATCH_MAX):
            # A lost touch costs nothing but an objection when somebody wants to expire the session.
            payload = Deltas(self.manager.context, pairs[start : start + BATCH_MAX]).encode()
            if self._targets:
                self._channel.post(self._targets, payload, _ASYNC, now)

    # Repair of what a member did not take.

    def _mark(self, member: Member, keys: list[str], now: float) -> None:
        peer = self._peers.get(member)
        if peer is None:
            return
        peer.dirty.update(dict.fromkeys(keys))
        if len(peer.dirty) > DIRTY_MAX:
            peer.dirty.clear()
            peer.needs_sync = True
        if not peer.is_repairing:
            peer.is_repairing = True
            self._channel.timers.at(
                now + peer.backoff, lambda then: self._repair(member, peer, then)
            )

    def _repair(self, member: Member, peer: _Peer, now: float) -> None:
        if self._peers.get(member) is not peer or not self._is_running:
            return
        if peer.needs_sync:
            peer.needs_sync = False
            self._channel.event(
                Notice(
                    "replica compared whole",
                    {"context": self.manager.context, "member": member.label},
                )
            )
            self._offer_everything(member, now)
        keys: list[str] = []
        pairs: Pairs = []
        size = 0
        now_ds = deciseconds(now)
        for key in peer.dirty:
            record = self.manager.table.get(key)
            keys.append(key)
            if record is not None:
                pairs.append((key, to_wire(record, now_ds)))
                size += len(pairs[-1][1])
            if len(keys) >= BATCH_MAX or size >= BATCH_MAX_BYTES:
                break
        for key in keys:
            # What changes while the records travel is marked again if it is lost.
            del peer.dirty[key]
        if not pairs:
            peer.is_repairing = bool(peer.dirty)
            if peer.dirty:
                self._channel.timers.at(now, lambda then: self._repair(member, peer, then))
            return

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty:
                peer.dirty.update(dict.fromkeys(keys))
                peer.backoff = min(2 * peer.backoff, _REPAIR_MAX_S)
            else:
                self.statistics.repaired += len(keys)
                peer.backoff = _REPAIR_FIRST_S
            peer.is_repairing = bool(peer.dirty or peer.needs_sync)
            if peer.is_repairing:
                wait = peer.backoff if faulty else 0.0
                self._channel.timers.at(then + wait, lambda when: self._repair(member, peer, when))

        message = Records(self.manager.context, 0, pairs, True)
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    def _offer_everything(self, member: Member, now: float) -> None:
        table = self.manager.table
        digests = {p: d for p in range(PARTITIONS) if (d := table.partition_digest(p))}
        message = Digests(self.manager.context, 0, 0, PARTITIONS - 1, True, digests)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            peer = self._peers.get(member)
            if faulty and peer is not None:
                peer.needs_sync = True
                self._mark(member, [], then)

        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    # The way in.

    def message(self, source: Member, message: ManagerMessage, now: float) -> None:
        """A member's message for this context.

        Raises:
            RemoteProtocolError: It cannot be applied, or not all of it.
        """
        self.statistics.messages_received += 1
        if isinstance(message, Deltas):
            self.statistics.deltas_received += len(message.pairs)
            self.transfer.merge(message.pairs, now)
        elif isinstance(message, Records):
            self.transfer.on_records(source, message, now)
        elif isinstance(message, Digests):
            self.transfer.on_digests(source, message, now)
        elif isinstance(message, ExpireAsk):
            self.expiry.on_ask(source, message, now)
        elif isinstance(message, ExpireAnswer):
            self.expiry.on_answer(source, message, now)
