"""Uses of sessions that changed nothing: told to the others in batches, not one by one.

A use postpones the expiry, so the other copies must hear of it, but not at once: a session that may
be idle for M seconds reports its uses every clamp(M / 8, 1 s, 60 s) at most (DESIGN §5.5).  Until
then the member that was used objects to an expiry.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["TOUCH_INTERVAL_MAX_S", "TOUCH_INTERVAL_MIN_S", "Touches"]

TOUCH_INTERVAL_MIN_S: Final = 1
TOUCH_INTERVAL_MAX_S: Final = 60


@final
class Touches:
    """The keys whose uses the others do not know yet.

    ``add`` may be called by any thread, ``take`` by one.  There is no lock: each step is one
    dictionary operation, and a key that slips through is added again by its next use.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # By interval, since keys of one interval fall due in the order in which they came.
        self._waiting: dict[int, dict[str, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __contains__(self, key: str) -> bool:
        return any(key in waiting for waiting in list(self._waiting.values()))

    def add(self, key: str, now_ds: int, max_inactive_s: int) -> None:
        """Note a use; the first one that is not reported starts the interval."""
        interval_ds = 10 * TOUCH_INTERVAL_MAX_S
        if max_inactive_s > 0:
            interval_ds = min(max(max_inactive_s * 10 // 8, 10 * TOUCH_INTERVAL_MIN_S), interval_ds)
        waiting = self._waiting.get(interval_ds)
        if waiting is None:
            waiting = self._waiting.setdefault(interval_ds, {})
        waiting.setdefault(key, now_ds)

    def take(self, now_ds: int, limit: int) -> list[str]:
        """Take up to ``limit`` keys that are due."""
        due: list[str] = []
        for interval_ds in list(self._waiting):
            waiting = self._waiting[interval_ds]
            for key in list(waiting):
                if len(due) >= limit or now_ds - waiting[key] < interval_ds:
                    break
                del waiting[key]
                due.append(key)
        return due
