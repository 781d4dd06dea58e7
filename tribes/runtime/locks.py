"""A lock for a few instructions, taken by many threads in turn, that makes no convoy.

Python's own lock is handed to a thread that sleeps for it. That thread then waits for the
interpreter's lock, up to 5 ms, while it holds this one; whoever runs meets it, sleeps in its turn,
and hands over the interpreter's lock. From then on every use of the lock costs a change of threads:
four threads that commit get a third of what one gets (Blasgen, Gray, Mitoma, Price, *The Convoy
Phenomenon*, 1979). Here nobody queues: who finds it taken lets others run and looks again, so a
lock that is free is taken by whoever runs.
"""

from __future__ import annotations

import threading
import time
from typing import Final, final

__all__ = ["ShortLock"]

_YIELDS: Final = 8
_SLEEP_S: Final = 50e-6


@final
class ShortLock:
    """Guards a few instructions that do not block; not reentrant, and not fair.

    For what may be held longer take ``threading.Lock``: a thread that waits here looks again every
    50 µs.
    """

    __slots__ = ("_try", "release")

    def __init__(self) -> None:
        lock = threading.Lock()
        self._try = lock.acquire
        self.release = lock.release

    def __enter__(self) -> None:
        if not self._try(False):
            self._await()

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take it."""
        self.__enter__()

    def _await(self) -> None:
        for _ in range(_YIELDS):
            time.sleep(0)
            if self._try(False):
                return
        while not self._try(False):
            time.sleep(_SLEEP_S)
