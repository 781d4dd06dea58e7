"""Which sessions go when there are too many, and what that means in a cluster (``on_full``).

Where every member holds every session, a session that one member alone forgot would come back with
the next comparison, so evicting means ending early, for all.  It is an expiry ahead of time: the
least recently used sessions get a *mark*, a container entry that says "idle for long enough, as of
this use", and their owner asks and expires them like any idle session.  Whoever saw a later use
objects, and the mark means nothing any more: a session in use on any member is not lost.  The
destroyed event, with the reason ``"evicted"``, has the promise of every expiry.

The mark takes effect within two looks for idle sessions or so.  Until then a full manager goes a
little above its limit, by a tenth or 16 sessions; what comes beyond is rejected.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, Final, final

from .container import EVICT
from .inbox import Commit
from .merge import merge
from .record import Entry, Kind, Life, Namespace, Record, header, main_of, pack_delta, to_wire

if TYPE_CHECKING:
    from .base import SessionManager

__all__ = ["Eviction"]

SHARE: Final = 100
"""One hundredth of the limit goes at once, so that not every creation looks at all sessions."""
SLACK_MIN: Final = 16
SLACK_SHARE: Final = 10

_CONTAINER: Final = int(Namespace.CONTAINER)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_LIVE: Final = int(Life.LIVE)


@final
class Eviction:
    """Makes room in one manager.

    Args:
        manager: It has the limit.

    Attributes:
        evicted: Sessions that were marked, or ended, to make room.
    """

    __slots__ = ("_manager", "evicted")

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self.evicted = 0

    def make_room(self) -> bool:
        """Mark what must go for one more session; False if the limit is exceeded by too much."""
        manager = self._manager
        if not self.has_slack:
            return False
        most = manager.max_active_sessions
        lacking = manager.table.live + 1 - most - len(manager.table.marked)
        if lacking > 0:
            for key in self.oldest(max(lacking, most // SHARE)):
                self.evicted += self._mark(key)
        return True

    @property
    def has_slack(self) -> bool:
        """Whether a full manager may take one more until room is made."""
        most = self._manager.max_active_sessions
        return self._manager.table.live < most + max(SLACK_MIN, most // SLACK_SHARE)

    def oldest(self, count: int) -> list[str]:
        """Return the least recently used sessions that are not marked and not in use."""
        manager = self._manager
        table, marked, busy = manager.table, manager.table.marked, manager.in_use()
        ages = []
        for key in table.keys():  # noqa: SIM118 - a method of the table, which is no dict
            record = table.get(key)
            if record is None or main_of(record)[1] != _LIVE or key in marked or key in busy:
                continue
            ages.append((header(record).last_seen, key))
        return [key for _, key in nsmallest(count, ages)]

    def _mark(self, key: str) -> bool:
        manager = self._manager
        table, clock = manager.table, manager.clock
        while True:
            current = table.get(key)
            if current is None or main_of(current)[1] != _LIVE:
                return False
            known = header(current)
            clock.observe(known.access)
            hlc = clock.next()
            delta = self._delta(known.created, hlc, known.last_seen)
            wire = to_wire(delta, manager.now_ds())
            commit = None if manager.is_local else Commit(manager.context, key, hlc, wire)
            if table.swap(key, current, merge(current, delta), commit):
                return True

    def _delta(self, created: int, hlc: int, last_seen: int) -> Record:
        actor = self._manager.clock.actor
        entry = Entry(_CONTAINER, _LAST_WRITER, EVICT, b"1", hlc, actor, 0)
        return pack_delta(created, hlc, actor, last_seen, 0, [entry])
