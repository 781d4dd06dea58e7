"""Python's search for garbage, while a simulated world grows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["patient_collector"]

_GARBAGE_MIN = 400_000
"""Objects made, and not yet given back, before anybody looks for cycles: some 100 MB."""


@contextmanager
def patient_collector() -> Iterator[Callable[[], None]]:
    """Let garbage wait until it is worth looking for.

    A world is made of objects that live as long as it does: looking through them again and again
    took up to two thirds of a large world's time. Yields what is to be called now and then: it
    looks for garbage when there are half as many new objects as there were old ones.
    """
    left = 0

    def collect() -> None:
        nonlocal left
        made = gc.get_count()[0]
        if made > max(_GARBAGE_MIN, left // 2):
            left = max(0, left + made - gc.collect())

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield collect
    finally:
        if was_enabled:
            gc.enable()
