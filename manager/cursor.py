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

    __slots__ = ("_keys", "_left")

    def __init__(self, keys: Callable[[], list[str]]) -> None:
        self._keys = keys
        self._left: list[str] = []

    def round(self, limit: int) -> Iterator[str]:
        """Visit up to ``limit`` further keys, none of them twice. It may be left early."""
        if not self._left:
            self._left = self._keys()
            limit = min(limit, len(self._left))
        for _ in range(limit):
            if not self._left:
                return
            yield self._left.pop()
