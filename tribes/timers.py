"""A heap of deadlines that a core asks its driver to wake it for.

The cores own no clock: they put callbacks on a heap, and the driver (trio shell or simulator) calls
``run_due(now)`` no earlier than ``next_deadline``. Equal deadlines run in the order in which they
were set, so that the same inputs always give the same outputs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf

__all__ = ["Timer", "Timers"]


class Timer:
    """One armed deadline. ``cancel`` is idempotent and may come after it has run."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callable[[float], None]) -> None:
        self.when = when
        self._callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback. Its place on the heap is given back when its time comes."""
        self._callback = None

    @property
    def is_armed(self) -> bool:
        """True until the timer ran or was cancelled."""
        return self._callback is not None

    def _run(self, now: float) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(now)


class Timers:
    """Deadlines in monotonic seconds, earliest first."""

    __slots__ = ("_heap", "count")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self.count = 0
        """How many were ever set: while it stays, ``next_deadline`` does not come earlier."""

    def at(self, when: float, callback: Callable[[float], None]) -> Timer:
        """Run ``callback(now)`` in the first ``run_due`` whose ``now`` is not before ``when``."""
        timer = Timer(when, callback)
        self.count += 1
        heapq.heappush(self._heap, (when, self.count, timer))
        return timer

    @property
    def next_deadline(self) -> float:
        """Monotonic seconds of the earliest armed timer, or infinity."""
        heap = self._heap
        while heap and heap[0][2]._callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def run_due(self, now: float) -> None:
        """Run every timer that is due. One that a callback sets for ``now`` waits for the next
        call, so that this call always ends.
        """
        last = self.count
        later: list[tuple[float, int, Timer]] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            item = heapq.heappop(heap)
            if item[1] > last:
                later.append(item)
            else:
                item[2]._run(now)
        for item in later:
            heapq.heappush(heap, item)
