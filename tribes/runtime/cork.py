"""Holding back what sends write that were released together, so that they are written together.

One acknowledgement often releases several waiting sends, and each of their tasks is likely to send
again in the same pass of the event loop. Written one by one, each costs a system call here and a
wake-up of the other side. So all but the last of them are held back; should one of them not send
again, what is held goes out one pass later, which takes no longer than the loop's own turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

__all__ = ["Cork"]


@final
class Cork:
    """Of one node's driver.

    Args:
        pour: Lets out what is held; may be called when nothing is.
    """

    def __init__(self, pour: Callable[[], None]) -> None:
        self._pour = pour
        self._expected = 0
        self._sleeper: trio.lowlevel.Task | None = None
        self._is_awake = False

    def released(self) -> None:
        """A task that waited for its send was woken; it runs in the next pass."""
        self._expected += 1
        if self._expected > 1 and self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            self._is_awake = True
            trio.lowlevel.reschedule(sleeper)

    def holds(self) -> bool:
        """Count one more send; True: others are expected in this pass, let them go together."""
        others = self._expected - 1
        self._expected = max(others, 0)
        return others > 0 and self._is_awake

    async def run(self) -> None:
        """Let out, one pass later, what the expected sends did not let out; until cancelled."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._sleeper = None
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            while True:
                self._expected = 0
                self._is_awake = False
                self._sleeper = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
                # This pass is that of the released tasks.
                await trio.lowlevel.checkpoint()
                self._pour()
        finally:
            self._is_awake = False
