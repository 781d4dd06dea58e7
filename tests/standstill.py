"""What a limit on real time leaves out: the time in which this process stood still.

A busy machine takes the processor away for milliseconds, sometimes for a second. A thread that
does nothing but wake up every few milliseconds sees each of these gaps. Waiting for a socket, a
lock or a timer lets it run, and work shows as processor time of this process, so time that the code
under test wastes, by waiting or by working, still counts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import cache

TICK_S = 0.005
KEPT = 10_000


class Standstill:
    """The gaps of this process, as intervals of `time.monotonic`."""

    def __init__(self) -> None:
        self._gaps: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._due = time.monotonic() + TICK_S
        self._worked = time.process_time()
        threading.Thread(target=self._watch, name="standstill", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(TICK_S)
            since, now = self._idle_since(), time.monotonic()
            if now - since > TICK_S:
                self._gaps.append((since, now))
            self._due, self._worked = now + TICK_S, time.process_time()

    def _idle_since(self) -> float:
        """When the gap that ends now began, as if all work in it had come first."""
        return self._due + time.process_time() - self._worked

    def between(self, begin: float, end: float) -> float:
        """Seconds of the gaps between two times of `time.monotonic`."""
        # The last may go on: the thread that asks woke up before the one that watches.
        gaps = [*self._gaps, (self._idle_since(), time.monotonic())]
        return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in gaps)


@cache
def standstill() -> Standstill:
    """The one watch of this process; the first call starts it."""
    return Standstill()


class Stopwatch:
    """Seconds since it was made, without those in which this process stood still."""

    def __init__(self) -> None:
        self._gaps = standstill()
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds until now."""
        now = time.monotonic()
        return now - self._begin - self._gaps.between(self._begin, now)
