"""One part of what is spread over the members: replicated among those that hold it.

A part has a context of its own, so everything that makes full copies equal makes the copies of a
part equal, with the same code: changes go to all that hold it, a new holder takes it by digests, a
split heals by merge. What is particular:

**Visiting.** A member that does not hold a part may change what lies in it. Its changes go to all
holders and are repaired like everybody's, but nothing comes back, and nothing is compared.
**Epochs.** A change says the latest epoch of the part that its sender knows.

It is longer than other files because what differs from a full copy stands side by side: the table,
the manager, the comparisons and the replicator of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from sys import maxsize
from typing import TYPE_CHECKING, Any, Final, Protocol

from tribes.channel.outputs import Notice
from tribes.errors import MemberUnreachableError, RemoteProtocolError
from tribes.wire.options import SendOptions

from .digests import sums_by_group
from .messages import Deltas
from .placement import PER_PART
from .progress import JoinProgress
from .replication import Replicator
from .session_ids import PARTITIONS, partition_of
from .transfer import Done, Transfer

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.config.model import ManagerConfig
    from tribes.wire.member import Member

    from .base import SessionManager
    from .inbox import Commit
    from .losers import Losers
    from .messages import ManagerMessage, Pairs
    from .record import Record
    from .table import SessionTable

__all__ = ["HOMELESS", "PartHost", "PartReplicator", "PartTable", "PartTransfer", "PartView"]

HOMELESS: Final = "no member that is known here holds the session now; it gets the change later"

_COMPARE_S: Final = 16.0
"""Between two comparisons of a part with one of its holders."""

_USE_ACK = int(SendOptions.USE_ACK)


class PartHost(Protocol):
    """What a part asks of those who place it."""

    def epoch_of(self, part: int) -> int:
        """Return the latest epoch of a part that is known here."""

    def is_pulling(self, member: Member, part: int) -> bool:
        """Tell whether a member that is to have a part does not have all of it yet."""

    def strangers(self, part: int) -> list[Member]:
        """Return the members that do not hold a part."""

    def check_epoch(self, part: int, source: Member, message: Deltas, now: float) -> None:
        """Count a change of somebody who has missed an epoch, and tell him."""

    def became_whole(self, part: int, now: float) -> None:
        """A part that was taken is all here."""


class PartTable:
    """The sessions of one part, in the table that has those of all. In the core's thread.

    Args:
        table: With all.
        part: Which.
    """

    def __init__(self, table: SessionTable, part: int) -> None:
        self._table = table
        self._first = part * PER_PART
        self._last = self._first + PER_PART - 1
        self.get = table.get

    def __len__(self) -> int:
        return sum(len(self._table.keys_of(p)) for p in range(self._first, self._last + 1))

    def keys(self) -> list[str]:
        """Return the keys of the part."""
        return [k for p in range(self._first, self._last + 1) for k in self._table.keys_of(p)]

    def keys_of(self, partition: int) -> list[str]:
        """Return the keys of one partition; none of one outside."""
        return self._table.keys_of(partition) if self._first <= partition <= self._last else []

    def partition_digest(self, partition: int) -> int:
        """Return the digest of one partition; 0 for one outside, as if it were empty."""
        is_inside = self._first <= partition <= self._last
        return self._table.partition_digest(partition) if is_inside else 0

    def partition_digests(self, first: int = 0, last: int = PARTITIONS - 1) -> dict[int, int]:
        """Return the digests of those in the range that belong to the part."""
        return self._table.partition_digests(max(first, self._first), min(last, self._last))

    def group_digests(self) -> list[int]:
        """Return the sums by group of partitions; 0 where all is outside."""
        return sums_by_group(self.partition_digests())

    def session_digests(self, partition: int) -> list[tuple[int, str]]:
        """Return the digest and key of every session of a partition; none of one outside."""
        is_inside = self._first <= partition <= self._last
        return self._table.session_digests(partition) if is_inside else []

    def merge_in(
        self, key: str, incoming: Record, now_ds: int | None = None
    ) -> tuple[Record | None, Record, bool]:
        """Merge a peer's delta or copy, see `SessionTable.merge_in`.

        Raises:
            RemoteProtocolError: It belongs to another part, or cannot be merged.
        """
        if not self._first <= partition_of(key) <= self._last:
            raise RemoteProtocolError("a session of another part")
        return self._table.merge_in(key, incoming, now_ds)


class PartView:
    """What the core needs of a manager, for one part of its sessions.

    Args:
        manager: Of all sessions.
        context: Of the part.
        part: Which.
    """

    is_part = True

    def __init__(self, manager: SessionManager, context: str, part: int) -> None:
        self.context = context
        self.table = PartTable(manager.table, part)
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        """All else is the manager's: its clock, what it counts."""
        return getattr(self._manager, name)


class PartTransfer(Transfer):
    """Digests and records of a part. See `Transfer`."""

    owner: PartReplicator
    is_open = False
    """Whether the part is being taken, or was: before that it is only said that it will be."""

    def pull(
        self,
        member: Member,
        now: float,
        *,
        offers: bool = False,
        is_background: bool = False,
        done: Done | None = None,
    ) -> None:
        """Compare with one member, unless all will be compared soon anyway."""
        if not self.owner.is_held or self.is_open:
            super().pull(member, now, offers=offers, is_background=is_background, done=done)
        elif done is not None:
            done(MemberUnreachableError("the part is not taken yet"), now)

    def peer_up(self, member: Member, now: float) -> None:
        """Another holder: ask it for what differs, unless it is the one that has to ask."""
        self._peers[member] = None
        part = self.owner
        if part.is_held and not (self.is_joined and part.host.is_pulling(member, part.part)):
            self.pull(member, now)

    def peer_has_pulled(self, member: Member, now: float) -> None:
        """Another holder has asked for all it lacked: now it is asked, for it may have had some."""
        if self.is_open and self.is_joined and member in self._peers:
            self.pull(member, now)

    def merge(self, pairs: Pairs, now: float) -> None:
        """Merge records or deltas, and tell whose writes got lost. See `Transfer.merge`.

        Raises:
            RemoteProtocolError: Some were refused; all others were merged.
        """
        try:
            super().merge(pairs, now)
        finally:
            self.owner.tell_losers(now)

    def _look_for_losers(self, key: str, before: Record | None, incoming: Record) -> None:
        losers = self.owner.losers
        if losers is not None and before is not None:
            losers.look(key, before, incoming)

    def stop(self) -> None:
        """Ask nobody any more, and send nobody records; who waits for a comparison is told so."""
        super().stop()
        waiting = [pull.done for pull in self._pulls.values() if pull.done is not None]
        for pulls in (self._pulls, self._wants, self._under_way):
            pulls.clear()
        for done in waiting:
            done(MemberUnreachableError("the comparison was ended here"), self._channel.now)
        for peer in self._peers:
            self.donor.peer_down(peer)
        self._owed.clear()
        self._peers.clear()

    def _look(self, now: float) -> None:
        was_joined = self.is_joined
        super()._look(now)
        if self.is_joined and not was_joined and self.owner.transfer is self:
            self.owner.host.became_whole(self.owner.part, now)

    def _compare(self, now: float) -> None:
        # There are many parts: each as seldom as costs little.
        self._timer = self._channel.timers.at(now + _COMPARE_S, self._compare)
        suspected = self._channel.suspected
        peers = tuple(peer for peer in self._peers if peer not in suspected)
        if not peers or self._pulls or self._owed:
            return
        peer = peers[self._randrange(len(peers))]
        self.pull(peer, now, offers=True, is_background=True)


class _PartChannel:
    """A channel that does not tell of each part that it is here: together they are one context."""

    def __init__(self, channel: ChannelCore) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def event(self, event: Any) -> None:
        """Tell of what is about members, or a loss."""
        is_joining = isinstance(event, Notice) and event.text.startswith("joined")
        if not is_joining and not isinstance(event, JoinProgress):
            self._channel.event(event)


class PartReplicator(Replicator):
    """The copies of one part.

    Args:
        manager: Of the part: one of its own, or a `PartView`.
        channel: Where messages go.
        config: Options, timeouts.
        part: Its number.
        host: Who places it.
        is_view: Somebody else looks for idle sessions and tells of their uses.
        losers: Notes lost writes of members that do not hold the part; None: there are none.
        settings: See `Replicator`.
    """

    _transfer_type = PartTransfer
    transfer: PartTransfer

    def __init__(
        self,
        manager: Any,
        channel: ChannelCore,
        config: ManagerConfig,
        *,
        part: int,
        host: PartHost,
        is_view: bool = False,
        losers: Losers | None = None,
        **settings: Any,
    ) -> None:
        self.part = part
        self.host = host
        self.is_held = False
        self.losers = losers
        self._is_view = is_view
        self._homeless: dict[str, None] = {}
        """What changed here as long as no holder was known."""
        self._changed: dict[str, None] = {}
        """What changed here lately, on a visit: a holder that was not known has it from nobody."""
        self._visitors: set[Member] = set()
        """Members that do not hold the part and have sent changes of it."""
        self._transfer_settings = {
            "randrange": settings["randrange"],
            "join_window": 0.0,
            "timeout": config.state_transfer_timeout_s,
            "budget": settings.get("budget"),
            "batch_max": config.send_all_sessions_size,
        }
        # Who knows the holders is here long enough to know all.
        quiet: Any = _PartChannel(channel)
        super().__init__(manager, quiet, config, **{**settings, "join_window": 0.0})
        self.transfer.owner = self
        # What a holder did not get must be known: who visits compares nothing. So every session is
        # remembered, as many as there are copies here that were changed.
        self._options |= _USE_ACK
        self.repair.dirty_max = maxsize
        self._dirty_max = config.dirty_max
        self._is_running = True

    def hold(self, now: float) -> None:
        """Take the part: be told of every change, and get what the other holders have."""
        self.is_held = True
        self.repair.dirty_max = self._dirty_max
        self.forget_transfer()
        self.transfer.is_open = True
        self.start(now)
        changed = {**self._changed, **self._homeless}
        self._changed.clear()
        self._homeless.clear()
        for member in self._targets:
            self.transfer.peer_up(member, now)
            if changed:
                self.repair.mark(member, changed, now)

    def forget_transfer(self) -> None:
        """What is here has to be compared anew, from the next `hold` on."""
        self.transfer.stop()
        self.transfer = PartTransfer(self.manager, self._channel, **self._transfer_settings)
        self.transfer.owner = self

    def start(self, now: float) -> None:
        """Begin to replicate."""
        if self._is_view:
            self._is_running = True
            self.transfer.start(now)
        else:
            super().start(now)

    def release(self) -> None:
        """Hold the part no more; changes that are made here go on to the holders."""
        self.is_held = False
        # One that has joined would say, as soon as the part is to be taken back, that it is here.
        self.forget_transfer()
        self.repair.dirty_max = maxsize
        self.expiry.stop()

    def tell_losers(self, now: float) -> None:
        """Tell members that do not hold the part which writes got lost; perhaps they made them."""
        if self.losers is not None:
            self.losers.tell(self.host.strangers(self.part), now)

    @property
    def is_idle(self) -> bool:
        """True when there is nothing left to bring to the holders."""
        return self.repair.is_quiet and not self._homeless and not self._losses

    @property
    def changes(self) -> int:
        """How many sessions have changed here lately that do not lie here."""
        return len(self._changed.keys() | self._homeless.keys())

    @property
    def has_visits(self) -> bool:
        """True when something has changed here lately that does not lie here."""
        return bool(self._changed)

    def peer_up(self, member: Member, now: float) -> None:
        """A member holds the part: it gets every change, and those of late visits."""
        is_new = member not in self._target_set
        super().peer_up(member, now)
        if is_new and (keys := {**self._changed, **self._homeless}):
            # The next one needs them too.
            self._changed, self._homeless = keys, {}
            self.repair.send(member, keys, now)

    def peer_has_pulled(self, member: Member, now: float) -> None:
        """A holder that was about to ask has asked; see :meth:`PartTransfer.peer_has_pulled`."""
        if self.is_held:
            self.transfer.peer_has_pulled(member, now)

    def forget(self, key: str) -> None:
        """A session is not here any more: all holders have it."""
        self._changed.pop(key, None)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone or holds the part no more: what it owed other holders may be here."""
        has_sent = member in self._target_set or member in self._visitors
        self._visitors.discard(member)
        super().peer_down(member, now)
        if has_sent and self.is_held:
            super().peer_lost(now)

    def peer_draining(self, member: Member, now: float) -> None:
        """A member is about to leave: it holds the part until others do."""

    def peer_lost(self, now: float) -> None:
        """A member went: of no concern unless it held the part or wrote to it, see `peer_down`."""

    def _compare_after_loss(self, now: float) -> None:
        if self.is_held:
            super()._compare_after_loss(now)
        else:
            self._losses -= 1

    def mark_dirty(self, keys: list[str], now: float) -> None:
        """Changes that found no room in the inbox."""
        self._note(keys)
        super().mark_dirty(keys, now)

    def _note(self, keys: Iterable[str]) -> bool:
        """Remember what changed on a visit; True if nobody can be told of it now."""
        if self.is_held:
            return False
        noted = self._changed if self._targets else self._homeless
        noted.update(dict.fromkeys(keys))
        return not self._targets

    def bring(self, keys: list[str], now: float) -> None:
        """Give the holders what a copy here has and theirs may lack."""
        if not self._note(keys) and not self.is_held:
            for member in self._targets:
                self.repair.send(member, keys, now)

    def _send(self, commits: list[Commit], now: float) -> None:
        if self._note(commit.key for commit in commits):
            self._resolve(commits, (), {"*": HOMELESS})
            return
        super()._send(commits, now)

    def _spread(self, pairs: Pairs, now: float, then: Callable[[float], None]) -> None:
        self._note(key for key, _ in pairs)
        super()._spread(pairs, now, then)

    def _deltas(self, pairs: Pairs) -> Deltas:
        return Deltas(self.manager.context, pairs, self.host.epoch_of(self.part))

    def message(self, source: Member, message: ManagerMessage, now: float) -> None:
        """A member's message for this part.

        Raises:
            RemoteProtocolError: It cannot be applied, or not all of it.
        """
        if isinstance(message, Deltas):
            if source not in self._target_set:
                self._visitors.add(source)
            if message.epoch < self.host.epoch_of(self.part):
                self.host.check_epoch(self.part, source, message, now)
        super().message(source, message, now)

    def tell(self, pairs: Pairs, options: int, now: float) -> None:
        """Tell the holders of uses of sessions."""
        targets = self._current()
        if targets:
            self._channel.post(targets, self._deltas(pairs).encode(), options, now)
