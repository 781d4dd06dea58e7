"""What a member did not take, until it has it.

A delta that could not be delivered leaves its key here: the merged record of that session is sent
until the member has processed it, ever more rarely while it does not answer. When too many keys are
missing they are not remembered one by one; then everything is compared by digests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.channel.outputs import Notice
from tribes.errors import RemoteProcessError
from tribes.wire.options import SendOptions

from .messages import Digests, Pairs, Records
from .record import deciseconds, to_wire
from .session_ids import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .base import SessionManager

__all__ = ["Repair"]

DIRTY_MAX = 10_000
"""Keys remembered per member; beyond, everything is compared."""

BATCH_MAX = 256
BATCH_MAX_BYTES = 64 * 1024
"""Bounds of one message of repaired records; a longer record travels alone."""

_FIRST_S = 0.5
_MAX_S = 5.0

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class _Debt:
    __slots__ = ("backoff", "dirty", "is_under_way", "needs_sync")

    def __init__(self) -> None:
        self.dirty: dict[str, None] = {}
        self.needs_sync = False
        self.is_under_way = False
        self.backoff = _FIRST_S

    @property
    def is_paid(self) -> bool:
        return not (self.dirty or self.needs_sync or self.is_under_way)


class Repair:
    """The debts of one context to its members.

    Args:
        manager: Its table has the records.
        channel: Where they go.
    """

    def __init__(self, manager: SessionManager, channel: ChannelCore) -> None:
        self.repaired = 0
        self._manager = manager
        self._channel = channel
        self._debts: dict[Member, _Debt] = {}
        self._is_running = True

    def stop(self) -> None:
        """Send nothing more."""
        self._is_running = False

    def peer_up(self, member: Member) -> None:
        """A member gets changes from here on, and may miss some."""
        self._debts[member] = _Debt()

    def peer_down(self, member: Member) -> None:
        """A member is gone; when it comes back everything is compared anyway."""
        self._debts.pop(member, None)

    def refuted(self, member: Member, now: float) -> None:
        """A member answers again: it gets all that it is owed. While suspected it gets nothing."""
        debt = self._debts.get(member)
        if debt is not None and not debt.is_paid and not debt.is_under_way:
            debt.is_under_way = True
            self._later(member, debt, now)

    @property
    def is_quiet(self) -> bool:
        """True when no member is known to miss anything."""
        return all(debt.is_paid for debt in self._debts.values())

    @property
    def dirty(self) -> dict[Member, int]:
        """How many sessions each member is known to be behind with; -1: too many to count."""
        return {
            member: -1 if debt.needs_sync else len(debt.dirty)
            for member, debt in self._debts.items()
            if debt.dirty or debt.needs_sync
        }

    def mark(self, member: Member, keys: Iterable[str], now: float) -> None:
        """A member did not take changes of these sessions."""
        debt = self._debts.get(member)
        if debt is None:
            return
        debt.dirty.update(dict.fromkeys(keys))
        if len(debt.dirty) > DIRTY_MAX:
            debt.dirty.clear()
            debt.needs_sync = True
        if not debt.is_under_way and member not in self._channel.view.suspected:
            debt.is_under_way = True
            self._later(member, debt, now + debt.backoff)

    def compare(self, member: Member, now: float) -> None:
        """A member may have missed changes of sessions that nobody can name."""
        debt = self._debts.get(member)
        if debt is not None:
            debt.needs_sync = True
            self.mark(member, (), now)

    def _later(self, member: Member, debt: _Debt, when: float) -> None:
        self._channel.timers.at(when, lambda then: self._pay(member, debt, then))

    def _pay(self, member: Member, debt: _Debt, now: float) -> None:
        if self._debts.get(member) is not debt or not self._is_running:
            return
        if member in self._channel.view.suspected:
            debt.is_under_way = False
            return
        if debt.needs_sync:
            self._compare(member, debt, now)
            return
        keys, pairs = self._batch(debt, deciseconds(now))
        if not pairs:
            self._go_on(member, debt, now, has_failed=False)
            return

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            # A record that the member refuses will be refused again; the digests know of it.
            has_failed = any(not isinstance(e, RemoteProcessError) for e in faulty.values())
            if has_failed:
                debt.dirty.update(dict.fromkeys(keys))
            else:
                self.repaired += len(keys)
            self._go_on(member, debt, then, has_failed=has_failed)

        message = Records(self._manager.context, 0, pairs, True)
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    def _batch(self, debt: _Debt, now_ds: int) -> tuple[list[str], Pairs]:
        keys: list[str] = []
        pairs: Pairs = []
        size = 0
        for key in debt.dirty:
            record = self._manager.table.get(key)
            data = b"" if record is None else to_wire(record, now_ds)
            if pairs and size + len(data) > BATCH_MAX_BYTES:
                break
            keys.append(key)
            if data and len(data) <= self._channel.message_max_bytes - 4096:
                pairs.append((key, data))
                size += len(data)
            if len(keys) >= BATCH_MAX:
                break
        for key in keys:
            # What changes while the records travel is marked again if it is lost.
            del debt.dirty[key]
        return keys, pairs

    def _go_on(self, member: Member, debt: _Debt, now: float, *, has_failed: bool) -> None:
        debt.backoff = min(2 * debt.backoff, _MAX_S) if has_failed else _FIRST_S
        debt.is_under_way = bool(debt.dirty or debt.needs_sync)
        if debt.is_under_way:
            self._later(member, debt, now + (debt.backoff if has_failed else 0.0))

    def _compare(self, member: Member, debt: _Debt, now: float) -> None:
        context = self._manager.context
        self._channel.event(
            Notice("replica compared whole", {"context": context, "member": member.label})
        )
        table = self._manager.table
        digests = table.partition_digests()

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if not faulty:
                debt.needs_sync = False
            self._go_on(member, debt, then, has_failed=bool(faulty))

        message = Digests(context, 0, 0, PARTITIONS - 1, True, digests)
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)
