"""Remembering a bounded number of things: the oldest are forgotten first."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections import OrderedDict

__all__ = ["remember"]

K = TypeVar("K")
V = TypeVar("V")


def remember(cache: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Put something in as the newest of at most ``most`` entries. For any thread.

    Every step is one of the dictionary's, so threads that do this at once forget one entry too
    many at worst.
    """
    cache.pop(key, None)
    cache[key] = value
    if len(cache) > most:
        cache.popitem(last=False)
