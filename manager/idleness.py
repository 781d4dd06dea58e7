"""Which sessions may go: idle for as long as they may be, too old, or marked to make room.

Nothing is decided here for other nodes: the owner of a session asks them before it expires it, and
each looks with these eyes at what it has itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from .activity import Activity
from .clock import hlc_to_ms
from .container import facts_of
from .cursor import KeyCursor
from .record import Life, Record, header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .clock import Clock
    from .rules import Rules
    from .session import Session
    from .table import SessionTable

__all__ = ["EXPIRY_KEYS", "Idleness", "is_over"]

EXPIRY_KEYS: Final = 10_000
"""Keys that one search for idle sessions looks at: about 5 ms."""

_LIVE: Final = int(Life.LIVE)


@final
class Idleness:
    """Of the sessions of one manager.

    Args:
        table: Where they are.
        clock: Tells how old they are.
        rules: How old they may become, and whether requests hold them.
        monotonic: Reads the monotonic clock in seconds.

    Attributes:
        lifetime_ms: How long a session may live; 0: for ever.
        spent_s: Time that was spent looking.
    """

    __slots__ = ("_activity", "_clock", "_cursor", "_monotonic", "_table", "lifetime_ms", "spent_s")

    def __init__(
        self, table: SessionTable, clock: Clock, rules: Rules, monotonic: Callable[[], float]
    ) -> None:
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._activity = Activity() if rules.checks_activity else None
        self._cursor = KeyCursor(table.keys)
        self.lifetime_ms = 1000 * max(rules.max_lifetime_s, 0)
        self.spent_s = 0.0

    def begin(self, session: Session) -> None:
        """A request holds this object from now on."""
        if self._activity is not None:
            self._activity.begin(session)

    def in_use(self) -> set[str]:
        """Return the keys of the sessions whose requests run, where that is checked."""
        return set() if self._activity is None else self._activity.keys()

    def is_old(self, created: int) -> bool:
        """Tell whether a session that was created then has lived for as long as it may."""
        return self.lifetime_ms > 0 and (
            self._clock.wall_ms() - hlc_to_ms(created) >= self.lifetime_ms
        )

    def may_go(self, record: Record, now_ds: int, key: str) -> bool:
        """Tell whether a live record may go, unless a request uses the session of that key."""
        known = header(record)
        if known.life != _LIVE:
            return False
        facts = facts_of(record)
        if facts.evict_hlc != known.access and not self.is_old(known.created):
            idle_ds, limit = now_ds - known.last_seen, facts.max_inactive_s
            if idle_ds < 10:  # limits are whole seconds
                return False
            if not is_over(idle_ds, self._table.max_inactive_s if limit is None else limit):
                return False
        return self._activity is None or not self._activity.has(key)

    def candidates(self, now_ds: int, limit: int) -> Iterator[str]:
        """Go through up to ``limit`` further keys; yield those of sessions that may go."""
        begin = self._monotonic()
        try:
            yield from self._marked()
            yield from self._idle(now_ds, limit)
        finally:
            self.spent_s += self._monotonic() - begin

    def _marked(self) -> Iterator[str]:
        table, busy = self._table, self.in_use()
        for key, mark in list(table.marked.items()):
            record = table.get(key)
            if record is None or header(record).access != mark:
                # It was used since, or is gone.
                table.marked.pop(key, None)
            elif key not in busy:
                yield key

    def _idle(self, now_ds: int, limit: int) -> Iterator[str]:
        table, busy = self._table, self.in_use()
        for key in self._cursor.round(limit):
            record = table.get(key)
            if record is None or key in busy:
                continue
            known = header(record)
            if known.life == _LIVE and (
                is_over(now_ds - known.last_seen, table.limit_of(key))
                or (self.lifetime_ms and self.is_old(known.created))
            ):
                yield key

    def why(self, record: Record, reason: str) -> str:
        """Say why a session was expired, if it was not for the given reason."""
        known = header(record)
        if facts_of(record).evict_hlc == known.access:
            return "evicted"
        return "lifetime" if self.is_old(known.created) else reason


def is_over(idle_ds: int, limit_s: int) -> bool:
    """Tell whether so many deciseconds of idleness are too many for a limit in seconds."""
    return limit_s > 0 and idle_ds >= 10 * limit_s
