"""The side of a Delta manager that lives in the core: what goes to the other members, and when.

Commits of request threads arrive in batches; what waits becomes one ``DELTAS`` message to all
members that run the context (group commit). A delta that a member did not take is not lost, see
:mod:`tribes.manager.repair`. Waiting commits end when every member answered or after
``commit_timeout``, whichever comes first, with the exact members that are missing.

It is longer than other files because a group's news come in here and are handed on, most of them in
a line or two, to those that have the rules: `transfer`, `repair`, `expiry`, `fetch`, `drain` and
`locks`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from math import inf
from typing import TYPE_CHECKING

from tribes.channel.outputs import Notice
from tribes.wire.options import SendOptions

from .drain import Drain, differing_partitions
from .expiry import Expiry
from .fetch import Fetches
from .inbox import Commit, Question, Wakes, resolve_all
from .locks import ClusterLocks
from .messages import (
    Confirm,
    Deltas,
    Digests,
    ExpireAnswer,
    ExpireAsk,
    Fetch,
    Fetched,
    Lack,
    Lock,
    ManagerMessage,
    Pairs,
    Receipt,
    Records,
    Summary,
    Want,
)
from .record import deciseconds, to_wire
from .repair import Repair
from .transfer import Transfer

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.channel.tickets import Ticket
    from tribes.config.model import ManagerConfig
    from tribes.timers import Timer
    from tribes.wire.member import Member

    from .base import SessionManager
    from .serving_budget import ServingBudget

__all__ = ["Replicator", "ReplicatorStatistics"]

BATCH_MAX = 256
BATCH_MAX_BYTES = 64 * 1024
"""Bounds of one DELTAS message (DESIGN §4.2); a longer delta travels alone."""

_TOUCH_S = 1.0

_LOST_S = 0.2
"""Between the loss of a member and comparing with the rest: several may go together."""

_COMPARED_MAX = 8
"""Members that are asked at once after a loss; the others' turn comes with the second's window."""

_USE_ACK = int(SendOptions.USE_ACK)
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class ReplicatorStatistics:
    """Counters of one context's replication, plain ints."""

    __slots__ = (
        "commits",
        "commits_incomplete",
        "deltas_received",
        "messages_sent",
    )

    def __init__(self) -> None:
        self.commits = 0
        self.commits_incomplete = 0
        self.messages_sent = 0
        self.deltas_received = 0


class _Flight:
    """One DELTAS message and the commits that wait for it, until ``until``."""

    __slots__ = ("commits", "missing", "targets", "ticket", "until")

    def __init__(
        self,
        commits: list[Commit],
        targets: tuple[Member, ...],
        missing: dict[Member, Exception],
    ) -> None:
        self.commits = commits
        self.targets = targets
        self.missing = missing
        self.ticket: Ticket | None = None
        self.until = inf


class Replicator:
    """Copies the sessions of one context to all members that run it.

    Args:
        manager: The request side: table, clock, inbox.
        channel: Where messages go.
        config: Options, timeouts.
        randrange: Gives a number below its argument; chooses whom to compare replicas with.
        join_window: Seconds in which other members may still be found after a start.
        wakes: Gets the event loops whose tasks' commits have ended.
        budget: What all donors of this process may have on its way; None: one of its own.
    """

    _transfer_type: type[Transfer] = Transfer

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        config: ManagerConfig,
        *,
        randrange: Callable[[int], int],
        join_window: float,
        wakes: Wakes,
        budget: ServingBudget | None = None,
    ) -> None:
        self.manager = manager
        self.statistics = ReplicatorStatistics()
        self.transfer = self._transfer_type(
            manager,
            channel,
            randrange=randrange,
            join_window=join_window,
            timeout=config.state_transfer_timeout_s,
            budget=budget,
            batch_max=config.send_all_sessions_size,
        )
        self.repair = Repair(
            manager, channel, dirty_max=config.dirty_max, compare=self._compare_whole
        )
        self.fetches = Fetches(manager, channel, merge=self.transfer.merge, wakes=wakes)
        self.expiry = Expiry(
            manager, channel, interval=config.expiry_interval / 1000, spread=self._spread
        )
        self.receipts = Drain(manager, channel)
        self._draining: dict[Member, None] = {}
        self.locks = ClusterLocks(manager.context, channel)
        self._channel = channel
        self._options = config.send_options
        self._waits = bool(self._options & _USE_ACK) and not self._options & _ASYNC
        self._commit_timeout = config.commit_timeout / 1000
        self._targets: tuple[Member, ...] = ()
        self._target_set: set[Member] = set()
        self._is_running = False
        self._losses = 0
        self._toucher: Timer | None = None
        self._flights: deque[_Flight] = deque()
        """Those that somebody waits for, the oldest first, and some that have landed."""
        self._patience: Timer | None = None
        self._wakes = wakes

    @property
    def local(self) -> Member:
        """This node's own record."""
        return self._channel.local

    @property
    def targets(self) -> tuple[Member, ...]:
        """The members that hold copies."""
        return self._targets

    @property
    def is_quiet(self) -> bool:
        """True when every change known here was taken by every member, as far as anybody knows.

        False while replicas are being compared: what others made and could not send on, because
        they are gone, may be here and nowhere else.
        """
        return self.repair.is_quiet and not self._losses and not self.transfer.is_comparing

    @property
    def is_drained(self) -> bool:
        """True when every member that stays has confirmed that it has what is here.

        Unless this node drains: when it knows of nothing that a member misses.
        """
        return self.receipts.is_over if self.receipts.has_begun else self.is_quiet

    @property
    def has_draining(self) -> bool:
        """Whether a member is about to leave; safe from any thread."""
        return bool(self._draining)

    @property
    def staying(self) -> tuple[Member, ...]:
        """The members that hold copies and are not about to leave."""
        if not self._draining:
            return self._targets
        return tuple(member for member in self._targets if member not in self._draining)

    def retire(self) -> None:
        """This node is about to leave: it decides nothing any more."""
        self.expiry.retire()

    def _compare_whole(
        self, member: Member, now: float, ended: Callable[[Exception | None, float], None]
    ) -> None:
        self.transfer.pull(member, now, offers=True, done=ended)

    def resync(self, now: float) -> int:
        """Compare with all members now, see `Transfer.resync`."""
        return self.transfer.resync(now)

    def drain(self, now: float) -> None:
        """Ask every member that stays for its receipts; `is_drained` tells when all are here."""
        self.receipts.begin(self.staying, now)

    def compare_all(self, now: float) -> None:
        """Compare with every member, so that ``is_quiet`` says that all have what is here."""
        suspected = self._channel.suspected
        for member in self._targets:
            if member not in suspected:
                self.transfer.pull(member, now, offers=True)

    def start(self, now: float) -> None:
        """Begin to replicate."""
        self._is_running = True
        self.locks.start(now)
        self.locks.members(self._targets, now)
        self.transfer.start(now)
        self.expiry.start(now)
        self._touch_later(now)

    def _touch_later(self, now: float) -> None:
        if self._toucher is not None:
            self._toucher.cancel()
        self._toucher = self._channel.timers.at(now + _TOUCH_S, self._send_touches)

    def stop(self) -> None:
        """No more timers; commits are answered without copies."""
        self._is_running = False
        self.transfer.stop()
        self.expiry.stop()
        self.repair.stop()
        self.receipts.stop()
        self.fetches.stop()
        self.locks.stop()

    def peer_up(self, member: Member, now: float) -> None:
        """A member runs this context: from here on it gets every change."""
        if member in self._target_set:
            return
        self._target_set.add(member)
        self._targets = (*self._targets, member)
        self.repair.peer_up(member)
        self.expiry.peer_up(member)
        self.fetches.peer_up(member)
        self.transfer.peer_up(member, now)
        self.receipts.peer_up(member, now)
        self.locks.members(self._targets, now)

    def peer_draining(self, member: Member, now: float) -> None:
        """A member is about to leave: nobody waits for it, and it is no copy to count on."""
        if member in self._target_set and member not in self._draining:
            self._draining[member] = None
            self.receipts.peer_down(member)
            self.expiry.peer_draining(member)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone, or does not run this context any more."""
        if member not in self._target_set:
            return
        self._target_set.discard(member)
        self._draining.pop(member, None)
        self.receipts.peer_down(member)
        self._targets = tuple(target for target in self._targets if target != member)
        self.repair.peer_down(member)
        self.transfer.peer_down(member, now)
        self.expiry.peer_down(member, now)
        self.fetches.peer_down(member, now)
        self.locks.members(self._targets, now)

    def peer_forgot(self, member: Member, now: float) -> None:
        """A member had taken this node for gone: what it changed meanwhile is not here."""
        if member in self._target_set:
            self.transfer.pull(member, now)

    def peer_lost(self, now: float) -> None:
        """A member went: what it still owed others is with some members and not with all.

        Some of those others may never have seen the member, so who saw it go offers what it has.
        """
        self._losses += 1
        self.receipts.again(now)
        self._channel.timers.at(now + _LOST_S, self._compare_after_loss)

    def _compare_after_loss(self, now: float) -> None:
        self._losses -= 1
        if self._is_running:
            for member in self._targets[:_COMPARED_MAX]:
                self.transfer.pull(member, now, offers=True)

    def suspicion(self, member: Member, is_suspected: bool, now: float) -> None:
        """A member stopped answering, or answers again: then it gets what it missed."""
        if not is_suspected:
            self.repair.go_on(member, now)

    def room(self, member: Member, now: float) -> None:
        """There is room again in the live queue of a member that was behind."""
        self.repair.go_on(member, now)

    def link_lost(self, member: Member, now: float) -> None:
        """A connection to a member broke. Without acknowledgements nobody knows what was lost."""
        if not self._options & _USE_ACK:
            self.repair.compare(member, now)

    # The way out.

    def ask(self, question: Question, now: float) -> None:
        """A request needs a session that is not here, or not with what its client has written."""
        self.fetches.ask(question, now)

    def seen(self, key: str) -> None:
        """A session has changed here: perhaps a request waits for that."""
        self.fetches.seen(key)

    @property
    def settled(self) -> dict[str, tuple[int, int, float]]:
        """By session, the write last asked for, and until when the answer holds."""
        return self.fetches.settled

    def commits(self, batch: list[Commit], now: float) -> None:
        """Spread what request threads committed."""
        self.statistics.commits += len(batch)
        self.receipts.changed([commit.key for commit in batch], now)
        group: list[Commit] = []
        size = 0
        for commit in batch:
            length = len(commit.delta)
            if length > self.transfer.record_max_bytes:
                self._too_large(commit)
                continue
            if group and (size + length > BATCH_MAX_BYTES or len(group) >= BATCH_MAX):
                self._send(group, now)
                group, size = [], 0
            group.append(commit)
            size += length
        if group:
            self._send(group, now)

    def mark_dirty(self, keys: list[str], now: float) -> None:
        """Changes that found no room in the inbox: every member gets the merged records later."""
        self.receipts.changed(keys, now)
        for member in self._targets:
            self.repair.mark(member, keys, now)

    def overflowed(self, commits: list[Commit]) -> None:
        """Commits that found no room in the inbox: they are on no other member yet."""
        full = "the inbox was full; the session is sent later"
        missing = {m.label: full for m in self._targets} if self._waits else {}
        self._resolve(commits, (), missing)

    def _too_large(self, commit: Commit) -> None:
        why = (
            f"the change has {len(commit.delta)} bytes; members read at most "
            f"{self.transfer.record_max_bytes} (receiver.frame_max_bytes)"
        )
        self._channel.event(
            Notice("session too large to replicate", {"context": commit.context, "why": why})
        )
        missing = {m.label: why for m in self._targets} if self._waits else {}
        self._resolve([commit], (), missing)

    def _send(self, commits: list[Commit], now: float) -> None:
        if not self._targets or not self._is_running:
            self._resolve(commits, (), {})
            return
        keys = [commit.key for commit in commits]
        targets = self._following(keys, now)
        missing: dict[Member, Exception] = {}
        if self._waits and len(targets) < len(self._targets):
            missing = {m: self.repair.why_held_off(m) for m in self.staying if m not in targets}
        pairs = [(commit.key, commit.delta) for commit in commits]
        payload = self._deltas(pairs).encode()
        if self._draining:
            targets = self._send_to_draining(targets, payload, keys, now)
        if not targets:
            self._resolve(commits, (), _reasons(missing))
            return
        flight = _Flight(commits, targets, missing)
        self.statistics.messages_sent += 1
        self.manager.traffic.count_sent("deltas")

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            self._land(flight, faulty)
            del then

        if not self._waits:
            self._resolve(commits, (), {})
        trail = self._channel.trail
        spans = () if trail is None else [each.trace for each in commits if each.trace]
        with nullcontext() if trail is None else trail.following(spans):
            flight.ticket = self._channel.post(
                targets, payload, self._options, now, settled=settled, each=self._marker(keys)
            )
        if flight.commits and self._waits and any(commit.waiter for commit in commits):
            self._watch(flight, now)

    def _send_to_draining(
        self, targets: tuple[Member, ...], payload: bytes, keys: list[str], now: float
    ) -> tuple[Member, ...]:
        """Send to those that still answer requests but will be gone; returns the others."""
        leaving = tuple(member for member in targets if member in self._draining)
        if leaving:
            self._channel.post(leaving, payload, self._options, now, each=self._marker(keys))
        return tuple(member for member in targets if member not in self._draining)

    def _land(self, flight: _Flight, faulty: dict[Member, Exception]) -> None:
        commits, flight.commits = flight.commits, []
        if commits and self._waits:
            acked = tuple(m.label for m in flight.targets if m not in faulty)
            self._resolve(commits, acked, _reasons({**flight.missing, **faulty}))

    def _watch(self, flight: _Flight, now: float) -> None:
        """Give the flight up in time. One timer does it for all: hardly any has to wait for it."""
        flights = self._flights
        while flights and not flights[0].commits:
            flights.popleft()
        flight.until = now + self._commit_timeout
        flights.append(flight)
        if self._patience is None or not self._patience.is_armed:
            self._patience = self._channel.timers.at(flight.until, self._lose_patience)

    def _lose_patience(self, now: float) -> None:
        flights = self._flights
        while flights and (not flights[0].commits or flights[0].until <= now):
            self._give_up(flights.popleft())
        if flights:
            self._patience = self._channel.timers.at(flights[0].until, self._lose_patience)

    def _give_up(self, flight: _Flight) -> None:
        ticket = flight.ticket
        if not flight.commits or ticket is None:
            return
        commits, flight.commits = flight.commits, []
        waiting = ticket.waiting
        late = TimeoutError(f"no acknowledgement within {self._commit_timeout * 1000:g} ms")
        missing = {m: ticket.faulty.get(m, late) for m in flight.targets if m in waiting}
        missing.update(ticket.faulty)
        missing.update(flight.missing)
        acked = tuple(m.label for m in flight.targets if m not in missing)
        self._resolve(commits, acked, _reasons(missing))

    def _resolve(
        self, commits: list[Commit], acked: tuple[str, ...], missing: dict[str, str]
    ) -> None:
        if missing:
            self.statistics.commits_incomplete += len(commits)
        resolve_all(commits, acked, missing, self._wakes)

    def _marker(self, keys: list[str]) -> Callable[[Member, Exception | None, float], None]:
        """Notes whoever does not take changes of these sessions, as soon as that is known."""

        def mark(member: Member, error: Exception | None, now: float) -> None:
            if error is not None:
                self.repair.mark(member, keys, now, error)

        return mark

    def _following(self, keys: list[str], now: float) -> tuple[Member, ...]:
        """The members to send changes of these sessions to; the others are owed them."""
        following = self._current()
        if len(following) != len(self._targets):
            for member in self._targets:
                if member not in following:
                    self.repair.mark(member, keys, now)
        return following

    def _current(self) -> tuple[Member, ...]:
        """The members that are neither suspected nor behind."""
        held_off = self.repair.held_off()
        if not held_off:
            return self._targets
        return tuple(member for member in self._targets if member not in held_off)

    def _spread(self, pairs: Pairs, now: float, then: Callable[[float], None]) -> None:
        keys = [key for key, _ in pairs]
        targets = self._following(keys, now)
        if not targets:
            then(now)
            return
        self.manager.traffic.count_sent("expiries")
        payload = self._deltas(pairs).encode()
        self._channel.post(
            targets,
            payload,
            _ACKED,
            now,
            settled=lambda faulty, when: then(when),
            each=self._marker(keys),
        )

    def _deltas(self, pairs: Pairs) -> Deltas:
        return Deltas(self.manager.context, pairs)

    def _send_touches(self, now: float) -> None:
        if not self._is_running:
            return
        self._touch_later(now)
        now_ds = deciseconds(now)
        pairs = [(key, to_wire(touch, now_ds)) for key, touch in self.manager.take_touches(now_ds)]
        targets = self._current()
        if not targets:
            return
        for start in range(0, len(pairs), BATCH_MAX):
            # A lost touch costs nothing but an objection when somebody wants to expire the session.
            payload = Deltas(self.manager.context, pairs[start : start + BATCH_MAX]).encode()
            self.manager.traffic.count_sent("touches")
            self._channel.post(targets, payload, _ASYNC, now)

    # The way in.

    def message(self, source: Member, message: ManagerMessage, now: float) -> None:
        """A member's message for this context.

        Raises:
            RemoteProtocolError: It cannot be applied, or not all of it.
        """
        self.manager.traffic.count_received(message)
        if isinstance(message, Deltas):
            self.statistics.deltas_received += len(message.pairs)
            self.transfer.merge(message.pairs, now)
        elif isinstance(message, Records):
            self.transfer.on_records(source, message, now)
        elif isinstance(message, Summary):
            self.transfer.donor.on_summary(source, message, now)
        elif isinstance(message, Digests):
            self.transfer.on_digests(source, message, now)
        elif isinstance(message, Want):
            self.transfer.donor.on_want(source, message, now)
        elif isinstance(message, Lack):
            self.transfer.on_lack(source, message, now)
        elif isinstance(message, Fetch):
            self.fetches.on_fetch(source, message, now)
        elif isinstance(message, Fetched):
            self.fetches.on_fetched(source, message, now)
        elif isinstance(message, ExpireAsk):
            self.expiry.on_ask(source, message, now)
        elif isinstance(message, ExpireAnswer):
            self.expiry.on_answer(source, message, now)
        elif isinstance(message, Confirm):
            differing = differing_partitions(self.manager, message)
            receipt = Receipt(message.context, message.sync, differing)
            self.manager.traffic.count_message(receipt)
            self._channel.post((source,), receipt.encode(), _ACKED, now)
        elif isinstance(message, Receipt):
            self.receipts.on_receipt(source, message, now)
        elif isinstance(message, Lock):
            self.locks.message(source, message, now)


def _reasons(faulty: dict[Member, Exception]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for member, error in faulty.items():
        # Two members may be called the same; each of them counts.
        name = member.label if member.label not in reasons else f"{member.label} ({member.name})"
        reasons[name] = f"{type(error).__name__}: {error}"
    return reasons
