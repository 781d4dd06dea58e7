"""The hybrid logical clock that gives versions their time (DESIGN §5.3).

A reading (hlc, u64) is ``max(last + 1, wall_ms << 8)``: it follows the wall clock while that moves,
and counts on when the wall clock stands, jumps back, or is behind a peer's.  Readings of one clock
ascend strictly, and every reading is greater than all that were observed before it, so a write is
newer than whatever its writer could have seen.  A version is a reading plus the actor, a random u32
per process start that decides between equal readings of two processes.

Readings order writes.  They never decide how long a session has been idle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["AHEAD_MAX_MS", "Clock", "ClockAheadError", "hlc_to_ms", "ms_to_hlc"]

AHEAD_MAX_MS: Final = 24 * 60 * 60 * 1000
"""How far a peer's clock may be ahead. One peer with a wrong year must not drag everybody along."""


class ClockAheadError(RemoteProtocolError):
    """A peer's clock is more than 24 hours ahead of ours; nothing was changed.

    Attributes:
        ahead_ms: By how much, in milliseconds.
    """

    def __init__(self, ahead_ms: int) -> None:
        super().__init__(ahead_ms)
        self.ahead_ms = ahead_ms

    def __str__(self) -> str:
        return f"a version lies {self.ahead_ms / 1000:.0f} s ahead of this machine's wall clock"


def hlc_to_ms(hlc: int) -> int:
    """Return the wall time of a reading, milliseconds since 1970."""
    return hlc >> 8


def ms_to_hlc(ms: int) -> int:
    """Return the first reading of a wall time, milliseconds since 1970."""
    return ms << 8


@final
class Clock:
    """One process's clock, shared by all threads.

    Args:
        wall_ms: Reads the wall clock, milliseconds since 1970.
        actor: Random u32 of this process start.
        lock: Guards ``last``; held for a few instructions.
    """

    __slots__ = ("_last", "_lock", "_wall_ms", "actor")

    def __init__(
        self, wall_ms: Callable[[], int], actor: int, lock: AbstractContextManager[Any]
    ) -> None:
        if not 0 <= actor < 2**32:
            raise LocalProtocolError(f"an actor is a u32, not {actor}")
        self.actor = actor
        self._wall_ms = wall_ms
        self._lock = lock
        self._last = 0

    @property
    def last(self) -> int:
        """The greatest reading given or observed so far; 0 before the first."""
        return self._last

    def wall_ms(self) -> int:
        """Read the wall clock that was passed in."""
        return self._wall_ms()

    def next(self) -> int:
        """Return a reading that is greater than every one given or observed before."""
        wall = self._wall_ms() << 8
        with self._lock:
            last = self._last + 1
            self._last = last = wall if wall > last else last
        return last

    def observe(self, hlc: int) -> None:
        """Take note of a peer's reading, so that later writes here are newer.

        Raises:
            ClockAheadError: The reading is more than 24 hours ahead of the wall clock.
        """
        if hlc <= self._last:
            return
        ahead_ms = (hlc >> 8) - self._wall_ms()
        if ahead_ms > AHEAD_MAX_MS:
            raise ClockAheadError(ahead_ms)
        with self._lock:
            self._last = max(self._last, hlc)

    def __repr__(self) -> str:
        return f"<Clock last={self._last} actor={self.actor:#010x}>"
