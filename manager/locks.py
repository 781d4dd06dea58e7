"""One holder of a session's lock in the whole group, without asking the whole group (``cluster``).

Of each key one member is the *keeper*: the one that the members who run the context agree on by
hashing, as with the owner of a partition.  Who wants the lock asks the keeper, waits in its queue,
and gets it for `LEASE_S`; it asks again four times within that, which renews it.  A holder that
ends, or is cut off, loses it by the lease at the latest; one that is known to be dead at once.

**Time.** The holder counts its lease from the moment at which it *sent* the question that was
granted, the keeper from the moment at which it granted it.  So the keeper never gives it away while
the holder still counts on it, whatever was delayed, as long as both clocks run equally fast.

**Another view.** When members come or go, keys get another keeper.  That grants nothing anew for a
lease, in which the holders claim what they have.  As long as two members disagree about who is a
member, as in a split, each side has a keeper and may have a holder: this guards against lost
updates, it is no consensus, and sessions are merged whoever holds what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Final, final

from tribes.membership.change import RemovalReason
from tribes.wire.options import SendOptions

from .expiry import owner_of
from .messages import Lock, LockVerb
from .session_ids import partition_of

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.timers import Timer
    from tribes.wire.member import Member

__all__ = ["LEASE_S", "ClusterLocks"]

LEASE_S: Final = 2.0
"""Less than ``drop_time``: who is removed for its silence has lost its locks before."""
_AGAIN_S: Final = LEASE_S / 4
_MARGIN_S: Final = 0.05
"""For clocks that do not run equally fast."""
_FORGET_S: Final = 3 * _AGAIN_S
"""Who waits says so every `_AGAIN_S`; who has not for so long has given up."""

KEYS_MAX: Final = 100_000
"""Locks that one keeper keeps; who asks for more waits until there is room."""
WAITING_MAX: Final = 1000
"""Who may wait for one lock; others ask again."""
_TURNS_MAX: Final = 8

_ASYNC: Final = int(SendOptions.ASYNCHRONOUS)
_WISHES: Final = (LockVerb.ASK, LockVerb.CLAIM)
_DEAD: Final = frozenset((RemovalReason.LEFT, RemovalReason.CRASHED, RemovalReason.REPLACED))


class _Ask:
    """One request of this process that wants, or has, a lock."""

    __slots__ = ("granted", "is_granted", "keeper", "key", "number", "sent", "timer", "until")

    def __init__(self, number: int, key: str, granted: Callable[[], None]) -> None:
        self.number = number
        self.key = key
        self.granted = granted
        self.is_granted = False
        self.until = 0.0
        self.sent: dict[int, float] = {}
        self.keeper = b""
        self.timer: Timer | None = None


_Who = tuple[bytes, int]
"""Unique id of a process and the number of its ask."""


class _Lock:
    """What the keeper knows of one lock."""

    __slots__ = ("holder", "queue", "timer", "until")

    def __init__(self) -> None:
        self.holder: _Who | None = None
        self.until = 0.0
        self.queue: dict[_Who, tuple[int, float]] = {}
        self.timer: Timer | None = None


@final
class ClusterLocks:
    """The locks of one context, in the core: both what this process wants, and what it keeps.

    Args:
        context: The web application.
        channel: Where messages go.

    Attributes:
        granted: Locks that requests of this process got.
        lost: Those among them whose lease ran out while the request still ran.
        freed: Locks that this keeper took from holders that ended or went silent.
    """

    def __init__(self, context: str, channel: ChannelCore) -> None:
        self.granted = 0
        self.lost = 0
        self.freed = 0
        self._context = context
        self._channel = channel
        self._numbers = 0
        self._asks: dict[int, _Ask] = {}
        self._locks: dict[str, _Lock] = {}
        self._members: dict[bytes, Member] = {}
        self._started = 0.0
        self._views: list[tuple[float, tuple[bytes, ...]]] = []
        """Since when who could be a keeper; the last is the present one."""

    def start(self, now: float) -> None:
        """Begin; what others may have granted before is waited for."""
        self._started = now
        self._views = [(now, (self._me,))]

    def stop(self) -> None:
        """End all timers; whoever waits here waits in vain."""
        timers = [ask.timer for ask in self._asks.values()]
        timers += [lock.timer for lock in self._locks.values()]
        for timer in timers:
            if timer is not None:
                timer.cancel()
        self._asks.clear()
        self._locks.clear()

    @property
    def _me(self) -> bytes:
        return self._channel.local.unique_id

    # What this process wants.

    def acquire(self, key: str, granted: Callable[[], None], now: float) -> int:
        """Ask for a lock until it is granted or released.

        Args:
            key: The session.
            granted: Called once, perhaps before this method returns.
            now: Monotonic seconds.

        Returns:
            The number to release it by, also while it is not granted yet.
        """
        self._numbers += 1
        ask = self._asks[self._numbers] = _Ask(self._numbers, key, granted)
        self._ask(ask, now)
        return ask.number

    def release(self, number: int, now: float) -> None:
        """Give a lock back, or wait for it no longer; does nothing if it is lost."""
        ask = self._asks.pop(number, None)
        if ask is None:
            return
        if ask.timer is not None:
            ask.timer.cancel()
        self._say(ask.keeper, Lock(self._context, LockVerb.END, number, 0, ask.key), now)

    def is_held(self, number: int, now: float) -> bool:
        """Whether a lock is granted and its lease has not run out."""
        ask = self._asks.get(number)
        return ask is not None and ask.is_granted and now < ask.until

    def held(self, now: float) -> list[str]:
        """The keys of all locks that requests of this process hold."""
        return [ask.key for ask in self._asks.values() if ask.is_granted and now < ask.until]

    @property
    def is_idle(self) -> bool:
        """Whether nobody here wants or has a lock, and none is kept for others."""
        return not self._asks and not self._locks

    def keeper_since(self, key: str, since: float) -> bytes | None:
        """The unique id of a lock's keeper, if that has been the keeper since this time."""
        if not self._views or self._views[-1][0] > since:
            return None
        return self._keeper_of(key)

    def _ask(self, ask: _Ask, now: float) -> None:
        turn = max(ask.sent, default=0) + 1
        ask.sent[turn] = now
        if len(ask.sent) > _TURNS_MAX:
            del ask.sent[min(ask.sent)]
        if ask.timer is not None:
            ask.timer.cancel()
        ask.timer = self._channel.timers.at(now + _AGAIN_S, lambda then: self._again(ask, then))
        ask.keeper = self._keeper_of(ask.key)
        verb = LockVerb.CLAIM if ask.is_granted else LockVerb.ASK
        self._say(ask.keeper, Lock(self._context, verb, ask.number, turn, ask.key), now)

    def _again(self, ask: _Ask, now: float) -> None:
        if self._asks.get(ask.number) is not ask:
            return
        if ask.is_granted and now >= ask.until:
            self.lost += 1
            self.release(ask.number, now)
            return
        self._ask(ask, now)

    def _on_grant(self, source: bytes, message: Lock, now: float) -> None:
        ask = self._asks.get(message.ask)
        if ask is None or ask.key != message.key:
            # Given up while the grant was on its way.
            end = Lock(self._context, LockVerb.END, message.ask, 0, message.key)
            self._say(source, end, now)
            return
        until = ask.sent.get(message.turn, -LEASE_S) + LEASE_S - _MARGIN_S
        if until <= now or (ask.is_granted and now >= ask.until):
            return
        ask.until = max(until, ask.until)
        if not ask.is_granted:
            ask.is_granted = True
            self.granted += 1
            ask.granted()

    # What it keeps.

    def message(self, source: Member, message: Lock, now: float) -> None:
        """A member says something of a lock."""
        self._hear(source.unique_id, message, now)

    def _hear(self, source: bytes, message: Lock, now: float) -> None:
        if message.verb == LockVerb.GRANT:
            self._on_grant(source, message, now)
        elif message.verb == LockVerb.END:
            self._on_end((source, message.ask), message.key, now)
        elif message.verb in _WISHES and self._keeper_of(message.key) == self._me:
            # Who asks another one than its keeper has another view, and will ask again.
            self._on_ask((source, message.ask), message, now)

    def _on_ask(self, who: _Who, message: Lock, now: float) -> None:
        key = message.key
        lock = self._locks.get(key)
        if lock is None:
            if len(self._locks) >= KEYS_MAX:
                return
            lock = self._locks[key] = _Lock()
        self._expire(lock, now)
        if lock.holder == who or (lock.holder is None and message.verb == LockVerb.CLAIM):
            lock.queue.pop(who, None)
            self._grant(key, lock, who, message.turn, now)
        elif who in lock.queue or len(lock.queue) < WAITING_MAX:
            lock.queue[who] = message.turn, now
            self._next(key, now)

    def _on_end(self, who: _Who, key: str, now: float) -> None:
        lock = self._locks.get(key)
        if lock is None:
            return
        lock.queue.pop(who, None)
        if lock.holder == who:
            lock.holder = None
        self._next(key, now)

    def _grant(self, key: str, lock: _Lock, who: _Who, turn: int, now: float) -> None:
        lock.holder, lock.until = who, now + LEASE_S
        self._arm(key, lock, lock.until)
        self._say(who[0], Lock(self._context, LockVerb.GRANT, who[1], turn, key), now)

    def _expire(self, lock: _Lock, now: float) -> None:
        if lock.holder is not None and now >= lock.until:
            lock.holder = None
            self.freed += 1

    def _next(self, key: str, now: float) -> None:
        """Grant a lock that is free to whoever has waited longest."""
        lock = self._locks.get(key)
        if lock is None:
            return
        self._expire(lock, now)
        if lock.holder is not None:
            return
        free_at = self._may_grant_at(key)
        if now < free_at:
            self._arm(key, lock, free_at)
            return
        while lock.queue:
            who = next(iter(lock.queue))
            turn, heard = lock.queue.pop(who)
            if now - heard <= _FORGET_S and (who[0] in self._members or who[0] == self._me):
                self._grant(key, lock, who, turn, now)
                return
        if lock.timer is not None:
            lock.timer.cancel()
        del self._locks[key]

    def _arm(self, key: str, lock: _Lock, when: float) -> None:
        if lock.timer is not None:
            lock.timer.cancel()
        lock.timer = self._channel.timers.at(when, lambda now: self._next(key, now))

    # Who is there.

    def members(self, members: Iterable[Member], now: float) -> None:
        """These run the context now, besides this one."""
        self._members = {member.unique_id: member for member in members}
        present = (self._me, *sorted(self._members))
        if not self._views or self._views[-1][1] == present:
            return
        # An older one matters as long as what was granted then may be held.
        ended = [since for since, _ in self._views[1:]] + [now]
        self._views = [
            view for view, end in zip(self._views, ended, strict=True) if now - end < LEASE_S
        ]
        self._views.append((now, present))
        for key in [key for key in self._locks if self._keeper_of(key) != self._me]:
            lock = self._locks.pop(key)
            if lock.timer is not None:
                lock.timer.cancel()
        for ask in list(self._asks.values()):
            if self._keeper_of(ask.key) != ask.keeper:
                self._ask(ask, now)

    def gone(self, member: Member, reason: RemovalReason, now: float) -> None:
        """A member was removed: one that is dead holds nothing any more.

        Of one that is silent the lease ends by itself: it may still run.
        """
        for key, lock in list(self._locks.items()):
            if lock.holder is not None and lock.holder[0] == member.unique_id and reason in _DEAD:
                lock.holder = None
                self.freed += 1
                self._next(key, now)

    def _keeper_of(self, key: str) -> bytes:
        return owner_of(partition_of(key), self._views[-1][1] if self._views else (self._me,))

    def _may_grant_at(self, key: str) -> float:
        """From when on no other keeper's grant can still be in force."""
        partition, when = partition_of(key), self._started + LEASE_S
        for (_, before), (since, _) in pairwise(self._views):
            if owner_of(partition, before) != self._me:
                when = since + LEASE_S
        return when

    def _say(self, to: bytes, message: Lock, now: float) -> None:
        if to == self._me:
            self._hear(to, message, now)
            return
        member = self._members.get(to)
        if member is not None:
            self._channel.post((member,), message.encode(), _ASYNC, now)
