"""Sessions that a request needs now: brought by asking those who have them.

A request asks the core (`Question`, by the inbox) when

- its session is not here, and this node is still comparing what it has with the others: joining
  costs no session, however early a request comes;
- its client has written something that is not in the session here (*read your writes*): a version
  token, hlc and actor of the write, came with the request.  The change is probably on its way, so
  it is waited for first, for `ARRIVES_S`.

Then the holders are asked, one after the other: the next one as soon as one says that it does not
have it, or after `HEDGE_S`.  Everything is bounded: the time, the members asked, the questions that
are open.  A token that nobody knows, because it is forged or the write is lost, costs its sender
that time, once in `UNKNOWN_S`, and nobody else anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from tribes.wire.options import SendOptions

from .inbox import CommitResult, Question, Wakes
from .layout import walk
from .merge import is_whole
from .messages import Fetch, Fetched, Pairs
from .recent import remember
from .record import Life, Record, deciseconds, main_of, size, to_wire, write_of

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .base import SessionManager

__all__ = ["FETCH_MAX_S", "FetchStatistics", "Fetches", "has_write"]

ARRIVES_S: Final = 0.05
"""A change that its client has seen is on its way: so long it is waited for."""

HEDGE_S: Final = 0.05
"""After that the next holder is asked too."""

FRESH_MAX_S: Final = 0.25
"""For all holders together, to bring a session up to date."""

ABSENT_MAX_S: Final = 1.0
"""The same for a session that is not here at all."""

FETCH_MAX_S: Final = max(ARRIVES_S + FRESH_MAX_S, ABSENT_MAX_S)
"""No question is open for longer."""

HOLDERS_MAX: Final = 8
"""Members asked for one session."""

QUESTIONS_MAX: Final = 1000
"""Open questions of one context; further requests go on with what is here."""

UNKNOWN_S: Final = 5.0
"""A write that was not to be had is not asked for again so soon."""

SETTLED_MAX: Final = 10_000
"""Answers that are remembered, one per session."""

_USE_ACK = int(SendOptions.USE_ACK)
_HERE: Final = CommitResult(1, (), {})
_NOT_HERE: Final = CommitResult(0, (), {})


def has_write(record: Record, hlc: int, actor: int) -> bool:
    """Whether a record has a write, or has ended: then no write counts any more.

    A write all of whose entries were overwritten leaves no trace; then this says False.
    """
    main = main_of(record)
    if main[1] == Life.DESTROYED:
        return True
    wanted = hlc, actor.to_bytes(4, "big")
    return any(write_of(main, span[0]) == wanted for span in walk(main))


class FetchStatistics:
    """Counters, plain ints.

    Attributes:
        asked: Requests that needed a session, or a write of their client, that was not here.
        arrived: Those among them for which it came by itself.
        fetched: Those among them for which another member was asked and had it.
        unknown: Those that asked in vain, and went on with what was here.
        refused: Those that asked nobody, because too many asked already, or there was nobody.
    """

    __slots__ = ("arrived", "asked", "fetched", "refused", "unknown")

    def __init__(self) -> None:
        self.asked = 0
        self.arrived = 0
        self.fetched = 0
        self.unknown = 0
        self.refused = 0


class _Ask:
    __slots__ = ("asked", "key", "left", "number", "question", "waiting")

    def __init__(self, number: int, question: Question, key: str) -> None:
        self.number = number
        self.question = question
        self.key = key
        self.left: list[Member] = []
        self.waiting: dict[Member, None] = {}
        self.asked = False


class Fetches:
    """The questions of one context.

    Args:
        manager: Its table is looked into.
        channel: Where questions go.
        merge: Takes in what comes.
        wakes: Gets the event loops whose requests have their answer.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        *,
        merge: Callable[[Pairs, float], None],
        wakes: Wakes,
    ) -> None:
        self.statistics = FetchStatistics()
        self._manager = manager
        self._channel = channel
        self._merge = merge
        self._wakes = wakes
        self._peers: dict[Member, None] = {}
        self._asks: dict[int, _Ask] = {}
        self._by_key: dict[str, dict[int, _Ask]] = {}
        self._number = 0
        self.settled: OrderedDict[str, tuple[int, int, float]] = OrderedDict()
        """By session, the write last asked for, and until when the answer holds; request threads
        read it."""

    def peer_up(self, member: Member) -> None:
        """A member runs this context: it can be asked."""
        self._peers[member] = None

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone: it answers nothing."""
        self._peers.pop(member, None)
        for ask in list(self._asks.values()):
            if member in ask.waiting:
                self._said_no(ask, member, now)

    def stop(self) -> None:
        """Nobody waits any more."""
        for ask in list(self._asks.values()):
            self._finish(ask, is_here=False, until=0.0)

    # Who asks.

    def ask(self, question: Question, now: float) -> None:
        """A request needs a session."""
        self.statistics.asked += 1
        key = self._manager.table.resolve(question.session_id, deciseconds(now))
        self._number += 1
        ask = _Ask(self._number, question, question.session_id if key is None else key)
        if self._is_answered(ask):
            self._wakes.tell(question.waiter, _HERE)
            return
        if len(self._asks) >= QUESTIONS_MAX or not self._peers:
            self.statistics.refused += 1
            self._wakes.tell(question.waiter, _NOT_HERE)
            return
        self._asks[ask.number] = ask
        self._by_key.setdefault(ask.key, {})[ask.number] = ask
        if question.hlc:
            self._channel.timers.at(now + ARRIVES_S, lambda then: self._begin(ask, then))
            end = now + ARRIVES_S + FRESH_MAX_S
        else:
            self._begin(ask, now)
            end = now + ABSENT_MAX_S
        self._channel.timers.at(end, lambda then: self._in_vain(ask, then))

    def seen(self, key: str) -> None:
        """A session has changed here."""
        for ask in list(self._by_key.get(key, {}).values()):
            if self._is_answered(ask):
                self.statistics.arrived += not ask.asked
                self.statistics.fetched += ask.asked
                self._finish(ask, is_here=True, until=inf)

    def _is_answered(self, ask: _Ask) -> bool:
        question, table = ask.question, self._manager.table
        record = table.get(ask.key)
        if record is None or not question.hlc:
            return is_whole(record)
        return has_write(record, question.hlc, question.actor)

    def _begin(self, ask: _Ask, now: float) -> None:
        if ask.number not in self._asks:
            return
        ask.asked = True
        suspected = self._channel.suspected
        peers = [member for member in self._peers if member not in suspected]
        # Not always the same one first.
        first = ask.number % len(peers) if peers else 0
        ask.left = [*peers[first:], *peers[:first]][:HOLDERS_MAX]
        self._next(ask, now)

    def _next(self, ask: _Ask, now: float) -> None:
        if ask.number not in self._asks:
            return
        if not ask.left:
            if not ask.waiting:
                self._in_vain(ask, now)
            return
        member = ask.left.pop(0)
        ask.waiting[member] = None
        question = ask.question
        fetch = Fetch(
            self._manager.context, ask.number, question.session_id, question.hlc, question.actor
        )

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty:
                self._said_no(ask, member, then)

        self._channel.timers.at(now + HEDGE_S, lambda then: self._hedge(ask, member, then))
        self._manager.traffic.count_message(fetch)
        self._channel.post((member,), fetch.encode(), _USE_ACK, now, settled=settled)

    def _hedge(self, ask: _Ask, member: Member, now: float) -> None:
        if member in ask.waiting:
            self._next(ask, now)

    def _said_no(self, ask: _Ask, member: Member, now: float) -> None:
        if ask.waiting.pop(member, self) is None:
            # Not from within: who is known not to answer says so at once.
            self._channel.timers.at(now, lambda then: self._next(ask, then))

    def _in_vain(self, ask: _Ask, now: float) -> None:
        if ask.number in self._asks:
            self.statistics.unknown += 1
            self._finish(ask, is_here=False, until=now + UNKNOWN_S)

    def _finish(self, ask: _Ask, *, is_here: bool, until: float) -> None:
        del self._asks[ask.number]
        asks = self._by_key[ask.key]
        del asks[ask.number]
        if not asks:
            del self._by_key[ask.key]
        question = ask.question
        if question.hlc:
            answer = question.hlc, question.actor, until
            remember(self.settled, ask.key, answer, SETTLED_MAX)
        self._wakes.tell(question.waiter, _HERE if is_here else _NOT_HERE)

    def on_fetched(self, source: Member, message: Fetched, now: float) -> None:
        """A holder's answer."""
        ask = self._asks.get(message.ask)
        if ask is None or source not in ask.waiting:
            return
        try:
            self._merge(message.pairs, now)
        finally:
            if ask.number in self._asks:
                if message.pairs:
                    # A session has ids that are not its key.
                    self._rename(ask, message.pairs[0][0])
                # The holder knows better than our copy, where all of the write was overwritten.
                if message.is_sure or self._is_answered(ask):
                    self.statistics.fetched += 1
                    self._finish(ask, is_here=True, until=inf)
                else:
                    self._said_no(ask, source, now)

    def _rename(self, ask: _Ask, key: str) -> None:
        if key == ask.key:
            return
        asks = self._by_key[ask.key]
        del asks[ask.number]
        if not asks:
            del self._by_key[ask.key]
        ask.key = key
        self._by_key.setdefault(key, {})[ask.number] = ask

    # Who is asked.

    def on_fetch(self, source: Member, message: Fetch, now: float) -> None:
        """Another member asks for a session."""
        manager = self._manager
        now_ds = deciseconds(now)
        key = manager.table.resolve(message.session_id, now_ds)
        record = None if key is None else manager.table.get(key)
        pairs: Pairs = []
        is_sure = False
        if key is not None and record is not None:
            if message.hlc:
                is_sure = message.actor == manager.clock.actor
                is_sure = is_sure or has_write(record, message.hlc, message.actor)
            else:
                is_sure = is_whole(record)
            if size(record) + 4096 <= self._channel.message_max_bytes:
                pairs.append((key, to_wire(record, now_ds)))
        answer = Fetched(message.context, message.ask, pairs, is_sure)
        self._manager.traffic.count_message(answer)
        self._channel.post((source,), answer.encode(), _USE_ACK, now)
