"""A request on a member that does not hold its session: seeking it at the holders (DESIGN §5.5).

The owner is asked first, and the next holder when it has not answered within `HEDGE_S`: one hung
member costs a request little. Whoever has a copy tells its digest, and gets only the age of the
last use when it is the same as the holder's. Nothing moves: what was fetched is a copy to read, and
is asked about again at the next request.

That there is no such session is believed when all holders that answer have said so.

A request that comes with a token of what its client has written (:mod:`tribes.manager.fetch`) goes
on asking until it has that, for `FRESH_MAX_S`; then it takes what there is. A holder first waits
for it, since it is probably on its way.

It is longer than other files because who asks and who is asked are two sides of one rule.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from tribes.errors import ChannelClosedError, SessionUnreachableError
from tribes.wire.options import SendOptions

from .conflicts import tell_conflicts
from .fetch import ARRIVES_S, FRESH_MAX_S, SETTLED_MAX, UNKNOWN_S, has_write
from .inbox import CommitResult, Question, Wakes
from .merge import digest, is_whole
from .placed_messages import HOLDS, Answer, PlaceState, Seek, Sought
from .placement import part_of
from .recent import remember
from .record import (
    Life,
    bare,
    deciseconds,
    equal_state,
    from_wire,
    header,
    to_wire,
    with_access,
)

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.timers import Timer
    from tribes.wire.member import Member

    from .base import SessionManager
    from .places import PlaceBook

__all__ = ["FETCHES_MAX", "HEDGE_S", "SeekStatistics", "Seeks"]

HEDGE_S: Final = 0.05
"""How long a holder is waited for before the next one is asked too."""

FETCHES_MAX: Final = 4096
"""Sessions that are asked for at once; one more is an error of its request."""

_AGAIN_S: Final = 0.25

_USE_ACK = int(SendOptions.USE_ACK)
_LIVE: Final = int(Life.LIVE)

Done = Callable[[Exception | None], None]
"""Told that the session is here now, or that there is none; or why nobody knows."""


class SeekStatistics:
    """Counters of one context's fetches, plain ints.

    Attributes:
        started: Sessions that were asked for.
        fetched: Holders' answers with a session.
        same: Answers that the copy here is as good.
    """

    __slots__ = ("fetched", "same", "started")

    def __init__(self) -> None:
        self.started = 0
        self.fetched = 0
        self.same = 0


class _Fetch:
    __slots__ = (
        "asked",
        "done",
        "key",
        "known",
        "none",
        "number",
        "session_id",
        "timer",
        "until",
        "waiting",
        "written",
    )

    def __init__(
        self, number: int, session_id: str, done: Done, written: tuple[int, int] | None
    ) -> None:
        self.number = number
        self.session_id = session_id
        self.done = done
        self.written = written
        self.until = 0.0  # the write is looked for
        self.key = ""  # of what was found, or is here
        self.known = 0
        self.timer: Timer | None = None
        self.asked: set[Member] = set()
        self.waiting: set[Member] = set()
        self.none: set[Member] = set()


class Seeks:
    """The sessions that this member asks for, and those that it is asked for.

    Args:
        manager: Its table gets and gives records.
        channel: Where messages go.
        book: Who holds what.
        timeout_s: How long one fetch may take.
        merged: Told the key of a copy that is in use, and who has just given it, if anybody.
        lacking: Told the key of a copy of which its holder has less than is here.
        wakes: Gets the event loops whose requests have their answer.

    Attributes:
        is_open: The members are known: that nobody holds a session means that there is none.
        settled: By session, the write last asked for, and until when the answer holds; request
            threads read it.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        book: PlaceBook,
        *,
        timeout_s: float,
        merged: Callable[[str, float, Member | None], None],
        lacking: Callable[[str, float], None],
        wakes: Wakes,
    ) -> None:
        self.statistics = SeekStatistics()
        self.is_open = False
        self.settled: OrderedDict[str, tuple[int, int, float]] = OrderedDict()
        self._wakes = wakes
        self._by_key: dict[str, dict[int, _Fetch]] = {}
        self._manager = manager
        self._channel = channel
        self._book = book
        self._timeout_s = timeout_s
        self._merged = merged
        self._lacking = lacking
        self._by_number: dict[int, _Fetch] = {}
        self._number = 0
        self._is_stopped = False

    def ask(self, question: Question, now: float) -> None:
        """A request needs a session; its waiter is told as `Seeks.fetch` ends."""

        def done(error: Exception | None) -> None:
            missing = {} if error is None else {"*": str(error)}
            is_here = error is None
            self._wakes.tell(question.waiter, CommitResult(int(is_here), (), missing))

        written = (question.hlc, question.actor) if question.hlc else None
        key = self._manager.table.resolve(question.session_id, deciseconds(now))
        known = None if key is None else self.settled.get(key)
        if known is not None and known[:2] == written and now < known[2]:
            # It was asked for already.
            written = None
        self.fetch(question.session_id, done, now, written)

    def fetch(
        self,
        session_id: str,
        done: Done,
        now: float,
        written: tuple[int, int] | None = None,
    ) -> None:
        """Get a session from its holders, into the table.

        Args:
            session_id: Any of its ids.
            done: Called once, perhaps before this returns.
            now: Monotonic seconds.
            written: A write that it should have: hlc and actor.
        """
        if self._is_stopped:
            done(ChannelClosedError("the channel was stopped"))
            return
        if len(self._by_number) >= FETCHES_MAX:
            done(SessionUnreachableError(f"{FETCHES_MAX} sessions are asked for already"))
            return
        self.statistics.started += 1
        self._number += 1
        # Each request asks for itself: an answer to an earlier one may lack what was written since.
        fetch = _Fetch(self._number, session_id, done, written)
        self._by_number[self._number] = fetch
        fetch.timer = self._channel.timers.at(now + self._timeout_s, lambda _: self._over(fetch))
        if written is None:
            self._ask_next(fetch, now)
            return
        fetch.until = now + ARRIVES_S + FRESH_MAX_S
        key = self._manager.table.resolve(session_id, deciseconds(now))
        fetch.key = session_id if key is None else key
        self._by_key.setdefault(fetch.key, {})[fetch.number] = fetch
        if self._book.states[part_of(session_id)] in HOLDS:
            self._channel.timers.at(now + ARRIVES_S, lambda then: self._again(fetch, then))
        else:
            self._ask_next(fetch, now)

    def seen(self, key: str) -> None:
        """A session has changed here."""
        for fetch in list(self._by_key.get(key, {}).values()):
            if self._is_fresh(fetch):
                self._settle(fetch, inf)

    def _is_fresh(self, fetch: _Fetch) -> bool:
        record = self._manager.table.get(fetch.key)
        if record is None or fetch.written is None:
            return False
        return has_write(record, *fetch.written)

    def _settle(self, fetch: _Fetch, until: float) -> None:
        """End a search for a write: it is here, or was looked for long enough."""
        assert fetch.written is not None
        remember(self.settled, fetch.key, (*fetch.written, until), SETTLED_MAX)
        self._finish(fetch, None)

    def stop(self) -> None:
        """Tell all who wait that the channel was stopped."""
        self._is_stopped = True
        for fetch in list(self._by_number.values()):
            self._finish(fetch, ChannelClosedError("the channel was stopped"))

    def _over(self, fetch: _Fetch) -> None:
        if fetch.number in self._by_number:
            self._finish(fetch, SessionUnreachableError("no holder of the session answers"))

    def _finish(self, fetch: _Fetch, error: Exception | None) -> None:
        if self._by_number.pop(fetch.number, None) is not None:
            same = self._by_key.get(fetch.key)
            if same is not None:
                same.pop(fetch.number, None)
                if not same:
                    del self._by_key[fetch.key]
            if fetch.timer is not None:
                fetch.timer.cancel()
            fetch.done(error)

    # Asking.

    def _ask_next(self, fetch: _Fetch, now: float) -> None:
        """Ask the next holder that can answer; without one, wait for those that were asked."""
        book, part = self._book, part_of(fetch.session_id)
        suspected = self._channel.view.suspected
        holders = book.donors(part)
        left = [m for m in holders if m not in fetch.asked and m not in suspected]
        if left:
            fetch.asked.add(left[0])
            fetch.waiting.add(left[0])
            self._ask(fetch, left[0], now)
            if len(left) > 1:
                self._channel.timers.at(now + HEDGE_S, lambda then: self._hedge(fetch, then))
            return
        if fetch.waiting:
            return
        if fetch.written is not None and self._has_found(fetch):
            if now >= fetch.until:
                self._settle(fetch, now + UNKNOWN_S)
            else:
                self._channel.timers.at(now + ARRIVES_S, lambda then: self._again(fetch, then))
            return
        is_known = fetch.none and fetch.none.issuperset(m for m in holders if m not in suspected)
        is_mine = book.states[part] in HOLDS
        is_alone = self.is_open and not (holders or book.peers)
        if is_known or (is_mine and not holders) or is_alone:
            self._finish(fetch, None)
            return
        # Nobody has it whole just now, or who has it does not answer: it will be otherwise soon.
        self._channel.timers.at(now + _AGAIN_S, lambda then: self._again(fetch, then))

    def _has_found(self, fetch: _Fetch) -> bool:
        """Whether there is the session, with the write or without."""
        record = self._manager.table.get(fetch.key)
        return is_whole(record)

    def _hedge(self, fetch: _Fetch, now: float) -> None:
        if fetch.number in self._by_number and fetch.waiting:
            self._ask_next(fetch, now)

    def _again(self, fetch: _Fetch, now: float, *, is_asked: bool = False) -> None:
        if fetch.number in self._by_number and (is_asked or not fetch.waiting):
            fetch.asked.clear()
            fetch.none.clear()
            self._ask_next(fetch, now)

    def _ask(self, fetch: _Fetch, member: Member, now: float) -> None:
        manager = self._manager
        key = manager.table.resolve(fetch.session_id, deciseconds(now))
        record = None if key is None else manager.table.get(key)
        fetch.known = 0
        if key is not None and record is not None:
            fetch.known = digest(key, record)
            self._merged(key, now, None)
        seek = Seek(manager.context, fetch.number, fetch.session_id, key or "", fetch.known)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty:
                self._lost(fetch, member, then)

        manager.traffic.count_message(seek)
        self._channel.post((member,), seek.encode(), _USE_ACK, now, settled=settled)

    def _lost(self, fetch: _Fetch, member: Member, now: float) -> None:
        """A holder cannot answer."""
        if fetch.number in self._by_number and member in fetch.waiting:
            fetch.waiting.discard(member)
            self._ask_next(fetch, now)

    def member_down(self, member: Member, now: float) -> None:
        """A member is gone, or does not answer now: nobody waits for it."""
        for fetch in list(self._by_number.values()):
            self._lost(fetch, member, now)

    # Answers.

    def on_sought(self, source: Member, message: Sought, now: float) -> None:
        """A holder's answer.

        Raises:
            RemoteProtocolError: Its record is malformed.
        """
        fetch = self._by_number.get(message.ask)
        if fetch is None or source not in fetch.asked:
            return
        if message.answer != Answer.FOUND:
            if message.answer == Answer.NONE:
                fetch.none.add(source)
            self._lost(fetch, source, now)
            return
        manager = self._manager
        now_ds = deciseconds(now)
        record = from_wire(message.record, now_ds)
        if fetch.known and not header(record).entries and message.key not in manager.table:
            # The age of a copy that is not here any more.
            self._again(fetch, now, is_asked=True)
            return
        manager.clock.observe(header(record).access)
        before, after, has_changed = manager.table.merge_in(message.key, record, now_ds)
        if has_changed:
            manager.merged(message.key, before, after)
            losses = manager.overwritten(before, after)
            tell_conflicts(manager, self._channel, message.key, losses)
        if header(record).entries:
            self.statistics.fetched += 1
        else:
            self.statistics.same += 1
        self._merged(message.key, now, source)
        # A later use is told by other means, and is no reason to send a session.
        same = with_access(after, header(record).access, header(after).last_seen)
        if header(record).entries and not equal_state(same, record):
            self._lacking(message.key, now)
        if fetch.written is None:
            self._finish(fetch, None)
            return
        self._rename(fetch, message.key)
        if fetch.number not in self._by_number:
            return
        if self._is_fresh(fetch):
            self._settle(fetch, inf)
        else:
            self._lost(fetch, source, now)

    def _rename(self, fetch: _Fetch, key: str) -> None:
        """A session has ids that are not its key."""
        same = self._by_key.get(fetch.key)
        if key != fetch.key and same is not None and same.pop(fetch.number, None) is not None:
            if not same:
                del self._by_key[fetch.key]
            fetch.key = key
            self._by_key.setdefault(key, {})[fetch.number] = fetch

    # The side that is asked.

    def on_seek(self, source: Member, message: Seek, now: float) -> None:
        """Another member has a request for a session."""
        answer = self._answer(message, deciseconds(now))
        self._manager.traffic.count_message(answer)
        self._channel.post((source,), answer.encode(), _USE_ACK, now)

    def _answer(self, message: Seek, now_ds: int) -> Sought:
        table, context, ask = self._manager.table, message.context, message.ask
        state = self._book.states[part_of(message.session_id)]
        if state == PlaceState.NONE:
            return Sought(context, ask, Answer.NOT_HERE)
        key = message.key or table.resolve(message.session_id, now_ds)
        record = None if key is None else table.get(key)
        if key is None or record is None or not is_whole(record):
            is_sure = state != PlaceState.PULL
            return Sought(context, ask, Answer.NONE if is_sure else Answer.NOT_HERE)
        if header(record).life == _LIVE and digest(key, record) == message.digest:
            record = bare(record)
        return Sought(context, ask, Answer.FOUND, key, to_wire(record, now_ds))
