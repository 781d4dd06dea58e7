"""What the demo shows: lines on a terminal that may be slow, or not read at all."""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Callable
from typing import Final, final

import trio

__all__ = ["Screen", "write_stdout"]

_LINES_WAITING_MAX: Final = 2000


@final
class Screen:
    """Writes lines from a thread, so that a terminal that doesn't read stops nothing else."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    def line(self, text: str) -> None:
        if len(self._lines) >= _LINES_WAITING_MAX:
            self._dropped += 1
            return
        self._lines.append(text)
        if self._idle.is_set():
            self._idle = trio.Event()
        self._wake.set()

    info = line  # makes it a structlog logger

    async def run(self) -> None:
        """Write until cancelled; a write that hangs is left behind then."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            batch = [*self._lines]
            self._lines.clear()
            if self._dropped:
                batch.append(f"({self._dropped} lines not shown: the terminal was too slow)")
                self._dropped = 0
            text = "".join(f"{line}\n" for line in batch)
            try:
                await trio.to_thread.run_sync(self._write, text, abandon_on_cancel=True)
            except (OSError, ValueError):  # nobody reads any more; the nodes go on
                self._write = len
            if not self._lines:
                self._idle.set()

    async def flush(self) -> None:
        """Wait until all lines are written. The caller sets the limit."""
        await self._idle.wait()


def write_stdout(text: str) -> None:
    # Not print(): a thread that is stuck in it would hold the lock of sys.stdout, and Python's
    # own exit waits for that lock.
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # captured by a test
        sys.stdout.write(text)
        return
    data = memoryview(text.encode(sys.stdout.encoding, "replace"))
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program on this terminal left it in that mode
            select.select((), (descriptor,), (), 1.0)
