"""Forgetting what nobody needs any more, a little per call (DESIGN §5.3, "Tombstones").

===================  ==============================================  ============================
what                 forgotten                                       bound
===================  ==============================================  ============================
destroyed session    24 h after its end                              10**6 per table, oldest first
expired session      10 min after its idle limit was over            as many as sessions
removed attribute    1 h after its removal, and one more for clocks  64 per session, oldest first
retired id           when its grace is over                          as removed attributes
===================  ==============================================  ============================

A wall clock that is set ahead makes nothing old: what was removed a moment ago may not be known to
anybody else (see `Sweeper.sweep`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from .clock import ms_to_hlc
from .cursor import KeyCursor
from .merge import TOMBSTONE_AGE_MS, prune
from .record import Life, Record

if TYPE_CHECKING:
    from .table import SessionTable

__all__ = ["DESTROYED_KEPT_MS", "DESTROYED_MAX", "SWEEP_KEYS", "Sweeper"]

DESTROYED_KEPT_MS: Final = 24 * 60 * 60 * 1000
DESTROYED_MAX: Final = 10**6
SWEEP_KEYS: Final = 1000
"""Keys that one call looks at: about 2 ms."""

_JUMP_MS: Final = 60_000
"""A wall clock that is further ahead than at the last call was set, and did not only go wrong."""


@final
class Sweeper:
    """Sweeps one table; called from the core's thread now and then.

    Args:
        table: What to sweep.
        destroyed_max: Destroyed sessions that are remembered.

    Attributes:
        dropped: Dead sessions forgotten so far.
        pruned: Sessions that lost tombstones of attributes so far.
    """

    __slots__ = (
        "_ahead_ms",
        "_believed_ms",
        "_cursor",
        "_jumped_ds",
        "_table",
        "destroyed_max",
        "dropped",
        "pruned",
    )

    def __init__(self, table: SessionTable, *, destroyed_max: int = DESTROYED_MAX) -> None:
        self._table = table
        self._cursor = KeyCursor(table.keys)
        self.destroyed_max = destroyed_max
        self.dropped = 0
        self.pruned = 0
        # How far the wall clock is ahead of the monotonic one: as is, and as is believed.
        self._ahead_ms = 0
        self._believed_ms: int | None = None
        self._jumped_ds = 0

    def sweep(self, now_ms: int, now_ds: int, limit: int = SWEEP_KEYS) -> int:
        """Look at up to ``limit`` keys, and at as many of the longest dead.

        Args:
            now_ms: Wall clock, milliseconds since 1970. Where it was set ahead, that is believed
                when all that was removed before is old by the other clock, too.
            now_ds: The local monotonic clock in deciseconds.
            limit: How many.

        Returns:
            How many sessions were forgotten.
        """
        table = self._table
        now_ms = self._without_jump(now_ms, now_ds)
        horizon = ms_to_hlc(max(now_ms - DESTROYED_KEPT_MS, 0))
        table.destroyed_horizon = max(table.destroyed_horizon, horizon)
        dropped = self.dropped
        table.sweep_ids(now_ds)
        for life in (Life.EXPIRED, Life.DESTROYED):
            # In the order of dying, so that what is due goes everywhere at about the same time and
            # the digests of the nodes differ for a moment only.
            for key in table.dead_keys(life, limit):
                record = table.get(key)
                if record is None or not table.is_forgettable(record, now_ds):
                    break
                self._drop(key, record)
        excess = table.count(Life.DESTROYED) - self.destroyed_max
        for key in table.dead_keys(Life.DESTROYED, min(max(excess, 0), limit)):
            record = table.get(key)
            if record is not None:
                self._drop(key, record)
        for key in self._cursor.round(limit):
            record = table.get(key)
            if record is None:
                continue
            if table.is_forgettable(record, now_ds):
                self._drop(key, record)
            elif (pruned := prune(record, now_ms)) is not record:
                # If it changed meanwhile, the next pass will do.
                self.pruned += table.swap(key, record, pruned)
        return self.dropped - dropped

    def _without_jump(self, now_ms: int, now_ds: int) -> int:
        ahead_ms = now_ms - 100 * now_ds
        if self._believed_ms is None or ahead_ms <= self._believed_ms + _JUMP_MS:
            self._believed_ms = ahead_ms
        elif ahead_ms > self._ahead_ms + _JUMP_MS:
            self._jumped_ds = now_ds
        elif now_ds - self._jumped_ds > TOMBSTONE_AGE_MS // 100:
            self._believed_ms = ahead_ms
        self._ahead_ms = ahead_ms
        return 100 * now_ds + self._believed_ms

    def _drop(self, key: str, record: Record) -> None:
        self.dropped += self._table.drop(key, record)
