"""What a member did not take, until it has it.

A member that lacks changes has a *debt*, in up to three steps (DESIGN §5.4)::

    live ──▶ dirty keys: the merged records of these sessions are sent
                 └──▶ needs sync, beyond ``dirty_max``: everything is compared by digests, and
                      nothing is remembered per session

There are two ways into debt. A delta was lost, failed or late: its key becomes dirty, and the next
deltas go as ever. Or the member is *held off*: it is suspected, or its live queue was full. Then
nothing is sent at all but what it owes; what changes only marks keys, however often it changes. A
suspected member is paid when it answers, one that is behind when its queue is half empty; with the
last of the dirty keys, or the first question of a comparison, the deltas go directly again. They
stand in one queue, so the member gets them in this order.

Payments that fail are repeated, ever more rarely while the member does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tribes.channel.outputs import Notice
from tribes.errors import MemberBehindError, MemberSuspectedError, RemoteProcessError
from tribes.wire.options import SendOptions

from .messages import Pairs, Records
from .record import deciseconds, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .base import SessionManager

__all__ = ["DebtState", "Repair"]

BATCH_MAX = 1024
BATCH_MAX_BYTES = 256 * 1024
"""Bounds of one message of repaired records, of which one is on its way to a member at a time; a
longer record travels alone. Also at most a quarter of the live queue."""

_FIRST_S = 0.5
_MAX_S = 5.0

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class _Debt:
    __slots__ = (
        "backoff",
        "dirty",
        "fell_behind",
        "is_behind",
        "is_under_way",
        "needed_sync",
        "needs_sync",
        "repaired",
    )

    def __init__(self) -> None:
        self.dirty: dict[str, None] = {}
        self.needs_sync = False
        self.is_behind = False  # its live queue was full
        self.is_under_way = False
        self.backoff = _FIRST_S
        self.fell_behind = 0
        self.needed_sync = 0
        self.repaired = 0

    @property
    def is_paid(self) -> bool:
        return not (self.dirty or self.needs_sync or self.is_under_way)


class DebtState(NamedTuple):
    """What one context owes to one member.

    Attributes:
        dirty: Sessions whose merged records it is to get.
        needs_sync: Too many to remember: everything is compared when it answers.
        is_behind: Its live queue was full, and changes do not go to it directly.
        fell_behind: How often that happened.
        needed_sync: How often everything had to be compared.
        repaired: Merged records that it got.
    """

    dirty: int
    needs_sync: bool
    is_behind: bool
    fell_behind: int
    needed_sync: int
    repaired: int


class Repair:
    """The debts of one context to its members.

    Args:
        manager: Its table has the records.
        channel: Where they go.
        dirty_max: Keys remembered per member; beyond, everything is compared. ``sys.maxsize`` where
            nothing can be compared.
        compare: Compares everything with a member and sends it what it lacks; its third argument is
            told how that ended.

    Attributes:
        repaired: Merged records that members got, members that are gone included.
        fell_behind: How often a member's live queue was full when it was not behind yet; likewise.
        needed_sync: How often everything had to be compared; likewise.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        *,
        dirty_max: int,
        compare: Callable[[Member, float, Callable[[Exception | None, float], None]], None],
    ) -> None:
        self._compare_all = compare
        self.repaired = 0
        self.fell_behind = 0
        self.needed_sync = 0
        self.dirty_max = dirty_max
        self._batch_max_bytes = min(
            BATCH_MAX_BYTES, channel.config.sender.live_queue_max_bytes // 4
        )
        self._manager = manager
        self._channel = channel
        self._debts: dict[Member, _Debt] = {}
        self._behind: dict[Member, None] = {}
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
        self._behind.pop(member, None)

    def go_on(self, member: Member, now: float) -> None:
        """A member answers again, or there is room in its live queue: it gets what it is owed."""
        debt = self._debts.get(member)
        if debt is not None and not debt.is_paid and not debt.is_under_way:
            debt.is_under_way = True
            self._later(member, debt, now)

    def held_off(self) -> Collection[Member]:
        """The members that get no deltas now: they are suspected, or behind."""
        suspected = self._channel.suspected
        return suspected | self._behind.keys() if self._behind else suspected

    def why_held_off(self, member: Member) -> Exception:
        """Say why a member gets no deltas now."""
        if member in self._channel.suspected:
            return MemberSuspectedError("it does not answer now; it gets the change when it does")
        debt = self._debts.get(member)
        if debt is None or debt.needs_sync:
            return MemberBehindError("it is behind with too many sessions to count")
        return MemberBehindError(f"it is behind with {len(debt.dirty)} sessions, this one included")

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

    def state(self, member: Member) -> DebtState:
        """What a member is owed now; may be asked from any thread."""
        debt = self._debts.get(member) or _Debt()
        return DebtState(
            len(debt.dirty),
            debt.needs_sync,
            debt.is_behind,
            debt.fell_behind,
            debt.needed_sync,
            debt.repaired,
        )

    def mark(
        self, member: Member, keys: Iterable[str], now: float, why: Exception | None = None
    ) -> None:
        """A member did not take changes of these sessions.

        Args:
            member: Who.
            keys: The sessions.
            now: Monotonic seconds.
            why: What its part of the send failed with, if there was one.
        """
        debt = self._debts.get(member)
        if debt is None:
            return
        self._owe(debt, keys)
        if isinstance(why, MemberBehindError):
            self._fall_behind(member, debt)
        is_held_off = debt.is_behind or member in self._channel.suspected
        if not debt.is_under_way and not is_held_off:
            debt.is_under_way = True
            self._later(member, debt, now + debt.backoff)

    def send(self, member: Member, keys: Iterable[str], now: float) -> None:
        """Send the merged records of these sessions to a member as soon as may be."""
        debt = self._debts.get(member)
        if debt is not None:
            self._owe(debt, keys)
            if not debt.is_behind:
                self.go_on(member, now)

    def compare(self, member: Member, now: float) -> None:
        """A member may have missed changes of sessions that nobody can name."""
        debt = self._debts.get(member)
        if debt is not None:
            self._owe_everything(debt)
            self.mark(member, (), now)

    def _owe(self, debt: _Debt, keys: Iterable[str]) -> None:
        if debt.needs_sync:
            return
        debt.dirty.update(dict.fromkeys(keys))
        if len(debt.dirty) > self.dirty_max:
            self._owe_everything(debt)

    def _owe_everything(self, debt: _Debt) -> None:
        debt.dirty.clear()
        if not debt.needs_sync:
            debt.needs_sync = True
            debt.needed_sync += 1
            self.needed_sync += 1

    def _fall_behind(self, member: Member, debt: _Debt) -> None:
        if debt.is_behind:
            return
        debt.is_behind = True
        self._behind[member] = None
        debt.fell_behind += 1
        self.fell_behind += 1
        context = self._manager.application
        self._channel.event(Notice("member behind", {"context": context, "member": member.label}))

    def _catch_up(self, member: Member, debt: _Debt) -> None:
        debt.is_behind = False
        self._behind.pop(member, None)

    def _later(self, member: Member, debt: _Debt, when: float) -> None:
        self._channel.timers.at(when, lambda then: self._pay(member, debt, then))

    def _pay(self, member: Member, debt: _Debt, now: float) -> None:
        if self._debts.get(member) is not debt or not self._is_running:
            return
        if member in self._channel.suspected:
            debt.is_under_way = False
            return
        if debt.needs_sync:
            self._compare(member, debt, now)
            return
        keys, pairs = self._batch(debt, deciseconds(now))
        if not debt.dirty:
            # What changes from here on stands behind these records in the member's queue.
            self._catch_up(member, debt)
        if not pairs:
            self._paid(member, debt, now, None)
            return

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            # A record that the member refuses will be refused again; the digests know of it.
            why = faulty.get(member)
            if why is None or isinstance(why, RemoteProcessError):
                why = None
                self.repaired += len(keys)
                debt.repaired += len(keys)
            else:
                self._owe(debt, keys)
            self._paid(member, debt, then, why)

        message = Records(self._manager.context, 0, pairs, True)
        self._manager.traffic.count_sent("records")
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    def _batch(self, debt: _Debt, now_ds: int) -> tuple[list[str], Pairs]:
        keys: list[str] = []
        pairs: Pairs = []
        size = 0
        for key in debt.dirty:
            record = self._manager.table.get(key)
            data = b"" if record is None else to_wire(record, now_ds)
            if pairs and size + len(data) > self._batch_max_bytes:
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

    def _paid(self, member: Member, debt: _Debt, now: float, why: Exception | None) -> None:
        """A payment succeeded (None), or failed."""
        debt.backoff = _FIRST_S if why is None else min(2 * debt.backoff, _MAX_S)
        debt.is_under_way = False
        if self._debts.get(member) is not debt or not (debt.dirty or debt.needs_sync):
            return
        if isinstance(why, MemberBehindError):
            # The channel says when there is room.
            self._fall_behind(member, debt)
            return
        debt.is_under_way = True
        self._later(member, debt, now + (0.0 if why is None else debt.backoff))

    def _compare(self, member: Member, debt: _Debt, now: float) -> None:
        context = self._manager.application
        self._channel.event(
            Notice("replica compared whole", {"context": context, "member": member.label})
        )
        # What changes from here on is marked, or stands behind the question in the member's queue.
        debt.needs_sync = False
        self._catch_up(member, debt)

        def ended(why: Exception | None, then: float) -> None:
            if why is not None:
                debt.dirty.clear()
                debt.needs_sync = True
            self._paid(member, debt, then, why)

        self._compare_all(member, now, ended)
