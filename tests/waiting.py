"""Waiting for what tells nobody: other threads, other processes, tasks on a clock that jumps."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from tests.standstill import Stopwatch

__all__ = ["until", "wait_until"]

Condition = Callable[[], object]


async def until(condition: Condition, within: float = 60.0, *, every: float = 0.005) -> None:
    """Wait on trio's clock, which a test may have replaced.

    Raises:
        trio.TooSlowError: It is not so within so many seconds.
    """
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await trio.sleep(every)


def wait_until(
    condition: Condition,
    within: float = 20.0,
    *,
    every: float = 0.005,
    what: str | Callable[[], object] = "it did not happen",
) -> float:
    """Wait in real time; return the seconds that it took, without those of a standstill.

    Args:
        condition: What is to become true.
        within: Seconds, without a standstill, until the test fails.
        every: Seconds between two looks.
        what: What the failure says.
    """
    watch = Stopwatch()
    while not condition():
        assert watch.seconds < within, what() if callable(what) else what
        time.sleep(every)
    return watch.seconds
