"""How long sessions live, and how often they begin and end: what a manager counts of them.

Rates and the average are of the last hundred, as Tomcat's, so they follow the present.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

__all__ = ["Lives"]

REMEMBERED: Final = 100
"""Beginnings and ends that rates and the average are made of, as many as Tomcat's."""


@final
class Lives:
    """Begins and ends of the sessions of one manager. For any thread.

    Args:
        monotonic: Reads the monotonic clock in seconds.

    Attributes:
        ended: Sessions whose end was told here.
        longest_s: The longest life among them.
    """

    __slots__ = ("_begins", "_ends", "_monotonic", "ended", "longest_s")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._begins: deque[float] = deque(maxlen=REMEMBERED)
        self._ends: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self.ended = 0
        self.longest_s = 0.0

    def begun(self) -> None:
        """A session was created here."""
        self._begins.append(self._monotonic())

    def end(self, life_s: float) -> None:
        """A session that lived so long has ended, and its end is told here."""
        life_s = max(life_s, 0.0)
        self._ends.append((self._monotonic(), life_s))
        self.ended += 1
        self.longest_s = max(self.longest_s, life_s)

    @property
    def average_s(self) -> float:
        """Of the lives of the last hundred that ended; 0 before."""
        lives = [life for _, life in list(self._ends)]
        return sum(lives) / len(lives) if lives else 0.0

    @property
    def create_rate(self) -> float:
        """Sessions created per minute, since the first of the last hundred."""
        return self._rate(list(self._begins))

    @property
    def expire_rate(self) -> float:
        """Sessions ended per minute, since the first of the last hundred."""
        return self._rate([at for at, _ in list(self._ends)])

    def _rate(self, moments: list[float]) -> float:
        if not moments:
            return 0.0
        span = self._monotonic() - moments[0]
        return 60.0 * len(moments) / span if span > 0 else 0.0
