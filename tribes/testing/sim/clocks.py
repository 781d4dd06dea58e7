"""The clocks of a simulated machine: a wall clock that lies, and a monotonic one that only drifts.

A world has one true time, ``World.now``. A machine has two readings of it:

* the wall clock, in ms since 1970, with an offset, a rate, and steps as an operator or a time
  daemon makes them;
* the monotonic clock, in seconds, from which cores get their ``now``: steps don't touch it, it has
  a rate of its own, and it never runs backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

__all__ = ["EPOCH_MS", "MachineClock"]

EPOCH_MS = 1_800_000_000_000
"""Wall time of a world at its start, ms since 1970; any value would do."""


class MachineClock:
    """Both clocks of one machine. They survive crashes and restarts of its process.

    Args:
        true_time: Reads the world's time, in seconds.
        offset_ms: How far the wall clock is ahead of the world's, in ms.
    """

    def __init__(self, true_time: Callable[[], float], offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms
        """How far the wall clock is ahead of one that was right from the start, in ms; what a
        drift has added comes on top."""
        self.steps = 0
        """How often :meth:`step` was called."""
        self._true_time = true_time
        self._drift = 1.0
        self._wall_from = self._wall_base = 0.0
        self._rate = 1.0
        self._monotonic_from = self._monotonic_base = 0.0
        self.is_exact = True
        """Whether the monotonic clock shows the world's time."""

    # The wall clock.

    @property
    def drift(self) -> float:
        """How many wall clock seconds pass in a true second; 1.0 is a perfect clock.

        A change counts from now on: it moves no reading.
        """
        return self._drift

    @drift.setter
    def drift(self, drift: float) -> None:
        self._wall_base = self._wall_s()
        self._wall_from = self._true_time()
        self._drift = drift

    def step(self, ms: int) -> None:
        """Let the wall clock jump by so many ms, backwards when negative."""
        self.offset_ms += ms
        self.steps += 1

    def wall_ms(self) -> int:
        """Read the wall clock, in ms since 1970."""
        return EPOCH_MS + self.offset_ms + int(self._wall_s() * 1000)

    def _wall_s(self) -> float:
        return self._wall_base + (self._true_time() - self._wall_from) * self._drift

    # The monotonic clock.

    @property
    def monotonic_drift(self) -> float:
        """How many monotonic seconds pass in a true second; above 0. A change moves no reading."""
        return self._rate

    @monotonic_drift.setter
    def monotonic_drift(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError(f"a monotonic clock runs forward, not at {rate}")
        self._monotonic_base = self.monotonic()
        self._monotonic_from = self._true_time()
        self._rate = rate
        # Without drift both times are one number, and no rounding comes between them.
        self.is_exact = rate == 1.0 and self._monotonic_base == self._monotonic_from

    def monotonic(self) -> float:
        """Read the monotonic clock, in seconds since the world began, by this machine's count."""
        if self.is_exact:
            return self._true_time()
        return self._monotonic_base + (self._true_time() - self._monotonic_from) * self._rate

    def true_time_of(self, monotonic: float) -> float:
        """The world's time at which the monotonic clock shows this, if its rate stays."""
        if self.is_exact or monotonic == inf:
            return monotonic
        return self._monotonic_from + (monotonic - self._monotonic_base) / self._rate
