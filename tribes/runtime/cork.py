"""Holding back what is sent in one pass of the event loop, so that it is written together.

One acknowledgement often releases several waiting sends, and each of their tasks is likely to send
again in the same pass of the event loop. Written one by one, each costs a system call here and a
wake-up of the other side. So all but the last of them are held back; should one of them not send
again, what is held goes out one pass later, which takes no longer than the loop's own turn.

Who sends asynchronously waits for nobody, and often sends again at once. Up to `QUEUED_MAX` of such
sends go out together, in the next pass at the latest, and their task goes on without a pass between
them: a pass and a system call cost as much as all the rest of such a send.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

__all__ = ["QUEUED_MAX", "QUEUED_MAX_BYTES", "Cork"]

QUEUED_MAX: Final = 16
"""Asynchronous sends of one pass; then the others have their turn: some 0.3 ms."""

QUEUED_MAX_BYTES: Final = 64 * 1024
"""Their bytes; more at once saves next to nothing."""


@final
class Cork:
    """Of one node's driver.

    Args:
        pour: Lets out what is held; may be called when nothing is.
    """

    def __init__(self, pour: Callable[[], None]) -> None:
        self._pour = pour
        self._expected = 0
        self._queued = 0
        self._queued_bytes = 0
        self._sleeper: trio.lowlevel.Task | None = None
        self._is_awake = False

    def released(self) -> None:
        """A task that waited for its send was woken; it runs in the next pass."""
        self._expected += 1
        if self._expected > 1:
            self._wake()

    def holds(self) -> bool:
        """Count one more send; True: others are expected in this pass, let them go together."""
        others = self._expected - 1
        self._expected = max(others, 0)
        return others > 0 and self._is_awake

    def queued(self, size: int) -> bool:
        """Count an asynchronous send of so many bytes; True: it goes out in the next pass, and its
        task need not wait for that. False: let out what is held, and let others run.
        """
        self._queued += 1
        self._queued_bytes += size
        if self._queued < QUEUED_MAX and self._queued_bytes < QUEUED_MAX_BYTES:
            self._wake()
            return self._is_awake
        self._queued = self._queued_bytes = 0
        return False

    def _wake(self) -> None:
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            self._is_awake = True
            trio.lowlevel.reschedule(sleeper)

    async def run(self) -> None:
        """Let out, one pass later, what the sends themselves did not let out; until cancelled."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._sleeper = None
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            while True:
                self._expected = self._queued = self._queued_bytes = 0
                self._is_awake = False
                self._sleeper = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
                if self._expected:
                    # This pass is that of the released tasks.
                    await trio.lowlevel.checkpoint()
                self._pour()
        finally:
            self._is_awake = False
