"""What happens to a frame that finds a member's queue full (DESIGN §5.4).

A user's waits outside, and its sender with it, for ``queue_timeout``. A session manager's fails at
once with :class:`MemberBehindError`: the manager remembers the session, and is told when there is
room again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.errors import MemberBehindError, MemberSuspectedError
from tribes.links.blocked import BlockedSends

if TYPE_CHECKING:
    from tribes.config.model import SenderConfig
    from tribes.links.base import OutFrame, PeerSender, QueueBounds
    from tribes.timers import Timers
    from tribes.wire.member import Member

__all__ = ["FullQueues", "QueueCounts"]


class QueueCounts:
    """How often a member's queue was full, plain ints.

    Attributes:
        live_refused: Managers' messages that found no room: their sessions are sent later.
        blocked: Users' messages whose senders had to wait for room.
        timed_out: Those among them that found none in time, or that too many were waiting before.
    """

    __slots__ = ("blocked", "live_refused", "timed_out")

    def __init__(self) -> None:
        self.live_refused = 0
        self.blocked = 0
        self.timed_out = 0


@final
class FullQueues:
    """The frames and the changes that wait for room.

    Args:
        config: How long users' messages wait.
        bounds: What the queues hold.
        timers: Where those that wait ask to be woken.
        is_suspected: Whether a member does not answer now: nobody waits for room in its queue.
        room: Told when the live queue of a member that was full is half empty again.

    Attributes:
        totals: How often queues were full, of all members.
        blocked: Users' messages that wait, of those who have such. Always the same mapping, like
            ``behind``: it may be kept.
        behind: Whose live queue had no room, and for how many bytes.
    """

    def __init__(
        self,
        config: SenderConfig,
        bounds: QueueBounds,
        *,
        timers: Timers,
        is_suspected: Callable[[Member], bool],
        room: Callable[[Member, float], None],
    ) -> None:
        self.totals: Final = QueueCounts()
        self.blocked: Final[dict[Member, BlockedSends]] = {}
        self.behind: Final[dict[Member, int]] = {}
        self._counts: dict[Member, QueueCounts] = {}
        self._timeout = config.queue_timeout / 1000
        self._bounds = bounds
        self._timers = timers
        self._is_suspected = is_suspected
        self._room = room

    def refuse(self, sender: PeerSender, frame: OutFrame, now: float) -> None:
        """Fail a manager's frame for which there is no room."""
        member = sender.member
        self.totals.live_refused += 1
        self._count(member).live_refused += 1
        self.behind[member] = max(len(frame.data), self.behind.get(member, 0))
        why = (
            f"{sender.load.live} bytes of changes wait for it (sender.live_queue_max_bytes is "
            f"{self._bounds.live}); it gets the newest state later"
        )
        frame.settle(MemberBehindError(why), now)

    def block(self, member: Member, frame: OutFrame, now: float) -> bool:
        """Let a user's frame wait for room; False when it may not, and has failed."""
        if self._is_suspected(member):
            frame.settle(_not_sent(member), now)
            return False
        totals, counts = self.totals, self._count(member)
        totals.blocked += 1
        counts.blocked += 1

        def timed_out() -> None:
            totals.timed_out += 1
            counts.timed_out += 1

        blocked = self.blocked.get(member)
        if blocked is None:
            blocked = self.blocked[member] = BlockedSends(
                member.name, self._timeout, timers=self._timers, timed_out=timed_out
            )
        return blocked.put(frame, now)

    def use_room(
        self,
        make: Callable[[Member, float], PeerSender],
        find: Callable[[Member], PeerSender | None],
        now: float,
    ) -> None:
        """Let in what there is room for, and tell of room for changes.

        Args:
            make: Gives the sender to a member, a new one where there is none.
            find: Gives it where there is one.
            now: Monotonic seconds.
        """
        for member, blocked in list(self.blocked.items()):
            blocked.admit(make(member, now), now)
            if not blocked and self.blocked.get(member) is blocked:
                del self.blocked[member]
        for member, size in list(self.behind.items()):
            sender = find(member)
            # What was refused fits now, so that being told and trying again makes no circle.
            if sender is None or (
                sender.load.live <= self._bounds.live // 2 and sender.has_room(size, is_live=True)
            ):
                self.behind.pop(member, None)
                self._room(member, now)

    def excuse(self, member: Member, now: float) -> None:
        """Let go of everybody who waits for room at a member that is suspected."""
        blocked = self.blocked.pop(member, None)
        if blocked is not None:
            blocked.fail(_not_sent(member), now)

    def forget(self, member: Member, why: Exception, now: float) -> None:
        """A member is gone: nobody waits for it any more."""
        blocked = self.blocked.pop(member, None)
        if blocked is not None:
            blocked.fail(why, now)
        self.behind.pop(member, None)
        self._counts.pop(member, None)

    def close(self, why: Exception, now: float) -> None:
        """Let go of everybody."""
        everybody = list(self.blocked.values())
        self.blocked.clear()
        for each in everybody:
            each.fail(why, now)

    def blocked_on(self, member: Member) -> int:
        """How many sends wait for room in a destination's queue."""
        blocked = self.blocked.get(member)
        return 0 if blocked is None else len(blocked)

    def counts_of(self, member: Member) -> QueueCounts:
        """How often the queue of a destination was full; not to be changed."""
        return self._counts.get(member) or QueueCounts()

    def _count(self, member: Member) -> QueueCounts:
        counts = self._counts.get(member)
        if counts is None:
            counts = self._counts[member] = QueueCounts()
        return counts


def _not_sent(member: Member) -> MemberSuspectedError:
    return MemberSuspectedError(
        f"{member.name} does not answer now and its queue is full; the message was not sent"
    )
