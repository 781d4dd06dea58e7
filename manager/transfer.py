"""How replicas become equal: join, heal and repair are one exchange of digests and records.

A node that wants to be complete sends its digests, partition by partition, to every member that
runs the context; each sends the records of the partitions that differ (DESIGN §5.5). A joining node
is a target of live changes before it asks, and asks every member, so a change is with it directly,
or was made at a member that it asks afterwards: nothing falls between.

Afterwards each node compares one window of partitions a second with one other member, so whatever a
lost message left different is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tribes.channel.outputs import Notice
from tribes.errors import RemoteProcessError, RemoteProtocolError
from tribes.wire.options import SendOptions

from .conflicts import SessionConflict
from .messages import Digests, Pairs, Records
from .record import deciseconds, from_wire, header, to_wire
from .session_ids import PARTITIONS

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.timers import Timer
    from tribes.wire.member import Member

    from .base import SessionManager
    from .record import Record

__all__ = ["Transfer", "TransferStatistics"]

RECORDS_MAX_BYTES = 256 * 1024
"""Records of one message; the next one leaves when this one was processed."""

_MESSAGE_ROOM_BYTES = 4096
"""What a message of records needs beyond them: context, keys, lengths."""

WINDOW_PARTITIONS = 256
"""Partitions compared per second once a node has joined: all of them every 16 s."""

_PULL_AGAIN_S = 1.0

SERVING_STRANGERS_MAX = 1000
"""Askers that are not (yet) members here and get more than one message of records."""

PULL_SILENCE_S = 5.0
"""A member that owes records and sends none for so long is not waited for."""

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class TransferStatistics:
    """Counters of the exchange, plain ints."""

    __slots__ = (
        "pulls_done",
        "pulls_failed",
        "pulls_started",
        "records_received",
        "records_refused",
        "records_sent",
        "records_too_large",
    )

    def __init__(self) -> None:
        self.pulls_started = 0
        self.pulls_done = 0
        self.pulls_failed = 0
        self.records_sent = 0
        self.records_received = 0
        self.records_refused = 0
        self.records_too_large = 0


class _Pull:
    __slots__ = ("heard", "member")

    def __init__(self, member: Member, now: float) -> None:
        self.member = member
        self.heard = now


class Transfer:
    """The digests and records of one context.

    Args:
        manager: Its table is compared and merged into.
        channel: Where messages go.
        randrange: Gives a number below its argument; chooses whom to compare with.
        joined: Called once when this node has what the others had.
        join_window: Seconds in which other members may still be found.
        timeout: Seconds after which this node goes on although records are missing.
        unserved: Told when a member could not be sent what it lacks or could be asked for: nobody
            else knows of that.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        *,
        randrange: Callable[[int], int],
        join_window: float,
        timeout: float,
        unserved: Callable[[Member, float], None] = lambda member, now: None,
    ) -> None:
        self._unserved = unserved
        self.statistics = TransferStatistics()
        self.is_joined = False
        self.is_complete = True
        self._manager = manager
        self._channel = channel
        self._randrange = randrange
        self._join_window = join_window
        self._timeout = timeout
        self._peers: dict[Member, None] = {}
        self._pulls: dict[int, _Pull] = {}
        self._owed: dict[Member, None] = {}
        self._serving: dict[Member, int] = {}
        self._sync = 0
        self._cursor = 0
        self._started = 0.0
        self._timer: Timer | None = None

    # Life.

    def start(self, now: float) -> None:
        """Begin: joined is who has the sessions of everybody found in the join window."""
        self._started = now
        self._channel.timers.at(now + self._join_window, self._look)
        self._timer = self._channel.timers.at(now + self._join_window + 1, self._compare)

    def stop(self) -> None:
        """No more comparing."""
        if self._timer is not None:
            self._timer.cancel()

    def peer_up(self, member: Member, now: float) -> None:
        """A member runs this context: ask it for what differs."""
        self._peers[member] = None
        self.pull(member, now)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone: whoever else has its sessions is asked too, or was already."""
        self._peers.pop(member, None)
        self._serving.pop(member, None)
        self._owed.pop(member, None)
        for sync in [s for s, pull in self._pulls.items() if pull.member == member]:
            self._give_up(sync, "it is gone", now)

    def pull(self, member: Member, now: float, *, offers: bool = False) -> None:
        """Ask one member for the records of all partitions that differ.

        With ``offers`` it is also told to ask for what it lacks itself.
        """
        self._owed.pop(member, None)
        self._sync += 1
        sync = self._sync
        self._pulls[sync] = _Pull(member, now)
        self.statistics.pulls_started += 1
        table = self._manager.table
        digests = table.partition_digests()
        message = Digests(self._manager.context, sync, 0, PARTITIONS - 1, offers, digests)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if member in faulty and sync in self._pulls:
                self._give_up(sync, str(faulty[member]), then)

        self._manager.traffic.count_sent("digests")
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)
        self._channel.timers.at(now + PULL_SILENCE_S, lambda then: self._watch(sync, then))

    @property
    def is_comparing(self) -> bool:
        """True while a member has not sent all that it was asked for, or is to be asked again."""
        return bool(self._pulls or self._owed)

    def _watch(self, sync: int, now: float) -> None:
        pull = self._pulls.get(sync)
        if pull is None:
            return
        if now >= pull.heard + PULL_SILENCE_S:
            self._give_up(sync, f"it sent nothing for {PULL_SILENCE_S:g} s", now)
        else:
            self._channel.timers.at(
                pull.heard + PULL_SILENCE_S, lambda then: self._watch(sync, then)
            )

    def _give_up(self, sync: int, why: str, now: float) -> None:
        pull = self._pulls.pop(sync)
        self.statistics.pulls_failed += 1
        if pull.member in self._peers:
            # It has what this node may lack: ask it again, for as long as it is a member.
            self._owed[pull.member] = None
            self._channel.timers.at(
                now + _PULL_AGAIN_S, lambda then: self._again(pull.member, then)
            )
        self._channel.event(
            Notice(
                "state transfer given up",
                {"context": self._manager.context, "member": pull.member.label, "why": why},
            )
        )
        self._look(now)

    def _again(self, member: Member, now: float) -> None:
        if member in self._owed:
            self.pull(member, now)

    def _look(self, now: float) -> None:
        if self.is_joined:
            return
        elapsed = now - self._started
        if now >= self._started + self._timeout:
            self.is_complete = not self.is_comparing
        elif self.is_comparing or now < self._started + self._join_window:
            if self.is_comparing:
                when = self._started + self._timeout
                self._channel.timers.at(when, self._look)
            return
        self.is_joined = True
        self._channel.event(
            Notice(
                "joined" if self.is_complete else "joined without all sessions",
                {
                    "context": self._manager.context,
                    "sessions": len(self._manager.table),
                    "members": len(self._peers),
                    "seconds": round(elapsed, 3),
                },
            )
        )

    @property
    def record_max_bytes(self) -> int:
        """The longest record that can travel."""
        return self._channel.message_max_bytes - RECORDS_MAX_BYTES - _MESSAGE_ROOM_BYTES

    # The side that has records.

    def on_digests(self, source: Member, message: Digests, now: float) -> None:
        """Send the source what differs, and ask it for the same if it offers that."""
        differing = self._differing(message)
        if message.offers and differing:
            table = self._manager.table
            mine = {p: table.partition_digest(p) for p in differing}
            answer = Digests(self._manager.context, 0, PARTITIONS, -1, False, mine)

            def settled(faulty: dict[Member, Exception], then: float) -> None:
                if _are_lost(faulty):
                    self._unserved(source, then)

            self._manager.traffic.count_sent("digests")
            self._channel.post((source,), answer.encode(), _ACKED, now, settled=settled)
        if differing or message.sync:
            self._sync += 1
            if source in self._peers or len(self._serving) < SERVING_STRANGERS_MAX:
                self._serving[source] = self._sync
            records = self._records_of(differing, deciseconds(now))
            self._serve(source, message.sync, self._sync, records, now)

    def _differing(self, message: Digests) -> list[int]:
        table, theirs = self._manager.table, message.digests
        if message.first > message.last:
            return [p for p, digest in theirs.items() if table.partition_digest(p) != digest]
        first, last = message.first, message.last
        mine = table.partition_digests(first, last)
        if mine == theirs:
            return []
        listed = sorted(mine.keys() | theirs.keys())
        return [p for p in listed if first <= p <= last and mine.get(p, 0) != theirs.get(p, 0)]

    def _records_of(self, partitions: list[int], now_ds: int) -> Iterator[tuple[str, bytes]]:
        table = self._manager.table
        for partition in partitions:
            for key in table.keys_of(partition):
                record = table.get(key)
                if record is None:
                    continue
                data = to_wire(record, now_ds)
                if len(data) > self.record_max_bytes:
                    # No member could read it. Its writer was told; all others shall have theirs.
                    self.statistics.records_too_large += 1
                    continue
                yield key, data

    def _serve(
        self,
        target: Member,
        sync: int,
        serving: int,
        records: Iterator[tuple[str, bytes]],
        now: float,
    ) -> None:
        pairs: Pairs = []
        size = 0
        done = True
        for key, record in records:
            pairs.append((key, record))
            size += len(record)
            if size >= RECORDS_MAX_BYTES:
                done = False
                break
        if not pairs and not sync:
            return
        self.statistics.records_sent += len(pairs)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            # A newer request of the same member replaces this one.
            if self._serving.get(target) != serving:
                return
            if not _are_lost(faulty):
                if not done:
                    self._serve(target, sync, serving, records, then)
            elif not sync:
                # Who asked for them, with a number, asks again.
                self._unserved(target, then)

        message = Records(self._manager.context, sync, pairs, done)
        self._manager.traffic.count_sent("records")
        self._channel.post((target,), message.encode(), _ACKED, now, settled=settled)

    # The side that wants records.

    def on_records(self, source: Member, message: Records, now: float) -> None:
        """Merge what a member sent."""
        pull = self._pulls.get(message.sync)
        if pull is not None and pull.member == source:
            pull.heard = now
        try:
            self.merge(message.pairs, now)
        finally:
            # Whether or not all of it could be merged: the member has sent what it has.
            if pull is not None and pull.member == source and message.done:
                self._pulls.pop(message.sync, None)
                self.statistics.pulls_done += 1
                self._look(now)

    def merge(self, pairs: Pairs, now: float) -> None:
        """Merge records or deltas into the table. A bad one costs only itself.

        Raises:
            RemoteProtocolError: Some were refused; all others were merged.
        """
        table, clock = self._manager.table, self._manager.clock
        now_ds = deciseconds(now)
        refused: RemoteProtocolError | None = None
        for key, data in pairs:
            try:
                record = from_wire(data, now_ds)
                clock.observe(header(record).access)
            except RemoteProtocolError as error:
                self.statistics.records_refused += 1
                refused = error
                continue
            before, after, has_changed = table.merge_in(key, record, now_ds)
            self.statistics.records_received += 1
            if has_changed:
                self._manager.merged(key, before, after)
                self._report_overwritten(key, before, after)
        if refused is not None:
            raise refused

    def _report_overwritten(self, key: str, before: Record | None, after: Record) -> None:
        manager = self._manager
        for lost, won in manager.overwritten(before, after):
            if manager.on_conflict is not None:
                self._channel.event(SessionConflict(manager.context, key, lost, won))

    # Anti-entropy.

    def _compare(self, now: float) -> None:
        self._timer = self._channel.timers.at(now + 1.0, self._compare)
        suspected = self._channel.suspected
        peers = tuple(peer for peer in self._peers if peer not in suspected)
        if not peers or self._pulls:
            return
        peer = peers[self._randrange(len(peers))]
        first = self._cursor
        last = first + WINDOW_PARTITIONS - 1
        self._cursor = (last + 1) % PARTITIONS
        table = self._manager.table
        digests = table.partition_digests(first, last)
        message = Digests(self._manager.context, 0, first, last, True, digests)
        self._manager.traffic.count_sent("digests")
        self._channel.post((peer,), message.encode(), int(SendOptions.USE_ACK), now)


def _are_lost(faulty: dict[Member, Exception]) -> bool:
    """Whether a message did not arrive. Refused records cost only themselves."""
    return any(not isinstance(why, RemoteProcessError) for why in faulty.values())
