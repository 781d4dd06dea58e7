"""Which idle session may go: one owner asks, everybody who saw a later use objects.

Idle times are ages measured on each node's own monotonic clock, so wall clocks never decide. The
owner of a session is the member whose hash with the session's partition is greatest; when the
membership changes, so does the owner, and nothing has to be agreed on, because expiring is a merge:
a later use anywhere wins against it (DESIGN §5.3, 5.5).

**The destroyed event** comes when all members that hold a copy have the expiry, or are known not
to answer.  The record says who was to tell the listeners, and that it was done.  If that member is
gone before the second, the owner of the moment tells them.  So no event is lost while a copy lives;
there is one, unless a member crashed between telling and saying so, or a split was open; and all of
one session have one id, `destroyed_event_id`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from tribes.channel.outputs import Event
from tribes.errors import RemoteProtocolError
from tribes.wire.options import SendOptions

from .marks import destroyed_event_id, expired_by, is_fired, to_be_fired_by
from .messages import ExpireAnswer, ExpireAsk, Pairs
from .record import Life, bare, deciseconds, from_wire, header, main_of, to_wire
from .session_ids import partition_of

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.timers import Timer
    from tribes.wire.member import Member

    from .base import SessionManager
    from .record import Record

__all__ = ["Expiry", "SessionExpired", "owner_of"]

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)

_SOON_S = 0.02

LEFT_BEHIND_S = 3.0
"""An expiry whose event was left to a member that is gone; the time is for a view that settles."""

ASK_MAX = 256
"""Sessions asked for in one message; more wait for the next look."""


@dataclass(frozen=True, slots=True)
class SessionExpired(Event):
    """A session has expired, and its destroyed event is due here.

    Attributes:
        context: Name of the application.
        key: The session's.
    """

    context: str
    key: str

    @property
    def event_id(self) -> str:
        """Equal wherever, and however often, this event fires."""
        return destroyed_event_id(self.context, self.key)

    @property
    def name(self) -> str:
        """``session expired``."""
        return "session expired"

    def fields(self) -> dict[str, object]:
        """Context and the first digits of the key, which is a secret."""
        return {"context": self.context, "session": self.key[:8] + "…"}


def owner_of(partition: int, members: tuple[bytes, ...]) -> bytes:
    """The unique id, among ``members``, that owns a partition (rendezvous hashing)."""
    mark = partition.to_bytes(2, "big")
    return max(members, key=lambda uid: (blake2b(uid + mark, digest_size=8).digest(), uid))


class _Ask:
    __slots__ = ("asked", "keys", "waiting")

    def __init__(self, keys: dict[str, int], waiting: dict[Member, None]) -> None:
        self.asked = frozenset(keys)
        self.keys = keys
        """Those that nobody objected to yet, with the last use that was asked about."""
        self.waiting = waiting


class Expiry:
    """The idle sessions of one context.

    Args:
        manager: Its table is looked through.
        channel: Where questions go.
        interval: Seconds between two looks.
        spread: Sends the records of expired sessions to all members, and then calls its third
            argument, whoever could not be reached.
        owns: Whether this node owns the session of a key; None: by a hash over all members.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        *,
        interval: float,
        spread: Callable[[Pairs, float, Callable[[float], None]], None],
        owns: Callable[[str], bool] | None = None,
    ) -> None:
        self.expired = 0
        self.objections = 0
        self._manager = manager
        self._channel = channel
        self._interval = interval
        self._spread = spread
        self._peers: dict[Member, None] = {}
        self._asks: dict[int, _Ask] = {}
        self._asked: set[str] = set()
        self._number = 0
        self._is_running = False
        self._timer: Timer | None = None
        self._owners: dict[int, bytes] = {}
        self._draining: set[Member] = set()
        self._is_retired = False
        self._firing: set[str] = set()
        """Whose events are due here."""
        self._unfired: dict[str, float] = {}
        """Expired sessions whose event is another member's, and since when that is known here."""
        self._owns = owns

    def start(self, now: float) -> None:
        """Begin to look; what an earlier start began is over."""
        self.stop()
        self._is_running = True
        self._timer = self._channel.timers.at(now + self._interval, self._look)

    def stop(self) -> None:
        """No more looking."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()

    def peer_up(self, member: Member) -> None:
        """A member runs this context: it is asked too."""
        self._peers[member] = None
        self._owners.clear()

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone: its answer is not waited for."""
        self._peers.pop(member, None)
        self._draining.discard(member)
        self._owners.clear()
        for number, ask in list(self._asks.items()):
            self._answered(number, ask, member, now)

    def peer_draining(self, member: Member) -> None:
        """A member is about to leave: it is asked, and decides nothing any more."""
        self._draining.add(member)
        self._owners.clear()

    def retire(self) -> None:
        """This node is about to leave: others decide from here on."""
        self._is_retired = True

    def is_owner(self, key: str) -> bool:
        """Whether this node owns a session now."""
        if self._is_retired:
            return False
        if self._owns is not None:
            return self._owns(key)
        partition = partition_of(key)
        owner = self._owners.get(partition)
        if owner is None:
            staying = (peer for peer in self._peers if peer not in self._draining)
            ids = (self._channel.local.unique_id, *(peer.unique_id for peer in staying))
            owner = self._owners[partition] = owner_of(partition, ids)
        return owner == self._channel.local.unique_id

    def _look(self, now: float) -> None:
        self._timer = self._channel.timers.at(now + self._interval, self._look)
        self._look_once(now)

    def merged(self, key: str, after: Record) -> None:
        """A record was merged: perhaps it has expired, and somebody must tell of that."""
        if main_of(after)[1] != Life.EXPIRED:
            self._unfired.pop(key, None)
        elif is_fired(after):
            self._unfired.pop(key, None)
            self._firing.discard(key)
        elif key not in self._firing:
            self._unfired.setdefault(key, self._channel.now)

    def fired(self, key: str) -> None:
        """The listeners here were told; may be called from any thread."""
        self._firing.discard(key)

    def _take_over(self, now: float) -> None:
        """Tell of the expiries whose tellers are gone."""
        if not self._unfired:
            return
        here = {self._channel.local.unique_id, *(peer.unique_id for peer in self._peers)}
        table, left = self._manager.table, ASK_MAX
        for key, since in list(self._unfired.items()):
            if now - since < LEFT_BEHIND_S or left <= 0:
                break
            record = table.get(key)
            if record is None or main_of(record)[1] != Life.EXPIRED or is_fired(record):
                del self._unfired[key]
            elif to_be_fired_by(record) in here or not self.is_owner(key):
                # Not now: behind those that may be due.
                del self._unfired[key]
                self._unfired[key] = now
            else:
                del self._unfired[key]
                left -= 1
                self._fire(key)

    def _fire(self, key: str) -> None:
        self._firing.add(key)
        self._channel.event(SessionExpired(self._manager.context, key))

    def _look_once(self, now: float) -> None:
        self._take_over(now)
        manager, now_ds = self._manager, deciseconds(now)
        manager.sweep(manager.clock.wall_ms(), now_ds)
        keys: dict[str, int] = {}
        for key in manager.expired_candidates(now_ds):
            if key in self._asked or not self.is_owner(key):
                continue
            record = manager.table.get(key)
            if record is not None:
                keys[key] = header(record).access
            if len(keys) >= ASK_MAX:
                # There are more: go on as soon as the network had its turn.
                self._channel.timers.at(now + _SOON_S, self._go_on)
                break
        if not keys:
            return
        if not self._peers:
            self._expire(keys, now)
            return
        self._number += 1
        number = self._number
        ask = self._asks[number] = _Ask(keys, dict(self._peers))
        self._asked.update(keys)
        message = ExpireAsk(manager.context, number, list(keys.items()))

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty:
                # Who cannot be asked may have seen a use: leave it to a later look.
                self._drop(number)

        manager.traffic.count_sent("expire_asks")
        self._channel.post(ask.waiting, message.encode(), _ACKED, now, settled=settled)
        timeout = 2 * self._channel.config.sender.timeout / 1000
        self._channel.timers.at(now + timeout, lambda then: self._drop(number))

    def _go_on(self, now: float) -> None:
        if self._is_running:
            self._look_once(now)

    def _drop(self, number: int) -> None:
        ask = self._asks.pop(number, None)
        if ask is not None:
            self._asked.difference_update(ask.keys)

    def on_ask(self, source: Member, message: ExpireAsk, now: float) -> None:
        """Object where this node saw a later use."""
        now_ds = deciseconds(now)
        objections: Pairs = []
        idle = self._manager.is_idle
        for key, access in message.keys:
            record = self._manager.table.get(key)
            if record is None:
                continue
            known = header(record)
            if known.life == Life.LIVE and (known.access > access or not idle(record, now_ds, key)):
                objections.append((key, to_wire(bare(record), now_ds)))
        answer = ExpireAnswer(message.context, message.ask, objections)
        self._manager.traffic.count_sent("expire_answers")
        self._channel.post((source,), answer.encode(), _ACKED, now)

    def on_answer(self, source: Member, message: ExpireAnswer, now: float) -> None:
        """One member's answer; the last one decides."""
        ask = self._asks.get(message.ask)
        if ask is None or source not in ask.waiting:
            return
        now_ds = deciseconds(now)
        for key, data in message.objections:
            if key not in ask.asked:
                raise RemoteProtocolError("an objection to a question that was not asked")
            ask.keys.pop(key, None)
            self._asked.discard(key)
            self.objections += 1
            record = from_wire(data, now_ds)
            self._manager.clock.observe(header(record).access)
            self._manager.table.merge_in(key, record, now_ds)
        self._answered(message.ask, ask, source, now)

    def _answered(self, number: int, ask: _Ask, member: Member, now: float) -> None:
        ask.waiting.pop(member, None)
        if not ask.waiting and number in self._asks:
            self._drop(number)
            self._expire(ask.keys, now)

    def _expire(self, keys: dict[str, int], now: float) -> None:
        table, now_ds = self._manager.table, deciseconds(now)
        pairs: Pairs = []
        for key, access in keys.items():
            current = table.get(key)
            if current is None or not self.is_owner(key):
                # Who owns it by now asks too, and both would tell of it.
                continue
            fixed = header(current)
            if fixed.life != Life.LIVE or fixed.access != access:
                continue
            record = expired_by(current, self._channel.local.unique_id, self._manager.clock.actor)
            _, after, _ = table.merge_in(key, record, now_ds)
            if header(after).life != Life.EXPIRED:
                # A request used it between the look and the merge: it lives.
                continue
            self.expired += 1
            self._firing.add(key)
            pairs.append((key, to_wire(record, now_ds)))
        if pairs:
            self._spread(pairs, now, lambda then: self._spread_out(pairs, then))

    def _spread_out(self, pairs: Pairs, now: float) -> None:
        """All copies have expired that can be reached: now the listeners may know."""
        del now
        for key, _ in pairs:
            record = self._manager.table.get(key)
            if record is not None and main_of(record)[1] == Life.EXPIRED:
                self._fire(key)
            else:
                # Somebody has just used it.
                self._firing.discard(key)
