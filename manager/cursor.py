"""Going through all keys a few at a time, however the table changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

__all__ = ["KeyCursor"]


@final
class KeyCursor:
    """Remembers where the last round ended.

    A key that is there during a whole pass is visited in it; it may be gone when it is visited.

    Args:
        keys: Returns all keys, as a list of its own.
    """

    __slots__ = ("_count", "_keys", "_pass")

    def __init__(self, keys: Callable[[], list[str]]) -> None:
        self._keys = keys
        # A tuple, for the garbage collector does not look into tuples of text again and again: a
        # list of a million keys made each full collection 40 ms longer.
        self._pass: tuple[str, ...] = ()
        self._count = 0

    def round(self, limit: int) -> Iterator[str]:
        """Visit up to ``limit`` further keys, none of them twice. It may be left early."""
        if not self._count:
            self._pass = tuple(self._keys())
            self._count = len(self._pass)
            limit = min(limit, self._count)
        for _ in range(limit):
            if not self._count:
                return
            self._count -= 1
            yield self._pass[self._count]
