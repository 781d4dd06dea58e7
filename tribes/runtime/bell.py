"""Wakes a task of the channel's event loop from any thread, without stopping that thread.

The event loop's own way in (``TrioToken.run_sync_soon``) writes to a socket, for which Python gives
up the interpreter's lock: the channel's thread takes it, works off all that waits, and the request
that rang gets the lock back after that. So where the system has them, an event counter (eventfd) is
written here by a call that keeps the lock. The request goes on; the channel begins when that thread
next waits for anything, which a request soon does, or when Python takes the lock from it (5 ms).
It also takes the loop three system calls less to answer.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, final

import trio

__all__ = ["Bell"]


class _Knocker(Protocol):
    """Something by which one task is woken: made and used in its loop, except ``knock``."""

    def knock(self) -> None:
        """Wake the task, from any thread, also when the loop has ended."""

    async def wait(self) -> None:
        """Wait for a knock since the last wait; at once when there was one."""

    def close(self) -> None:
        """Knocks do nothing any more."""


@final
class _Counter:
    """By an event counter of the system."""

    __slots__ = ("_fd", "_lock", "_read", "_value", "_write")

    def __init__(self) -> None:
        library = ctypes.PyDLL(None)
        self._write = library.eventfd_write
        self._write.argtypes = (ctypes.c_int, ctypes.c_uint64)
        self._read = library.eventfd_read
        self._read.argtypes = (ctypes.c_int, ctypes.c_void_p)
        self._value = ctypes.c_uint64()
        # Reentrant, for a signal handler may commit, too. It keeps a knock from a number that has
        # been closed and is something else's by now.
        self._lock = threading.RLock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def knock(self) -> None:
        with self._lock:
            if self._fd >= 0:
                self._write(self._fd, 1)

    async def wait(self) -> None:
        await trio.lowlevel.wait_readable(self._fd)
        self._read(self._fd, ctypes.byref(self._value))

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        os.close(fd)


@final
class _Entry:
    """By the loop's own way in, where there are no event counters."""

    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def knock(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._set, idempotent=True)

    def _set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()

    def close(self) -> None:
        """Nothing is to be closed: a late knock sets an event that nobody waits for."""


def _make_knocker() -> _Knocker:
    try:
        return _Counter()
    except (AttributeError, OSError):
        # No eventfd in this system's library, or not in this Python.
        return _Entry()


@final
class Bell:
    """Rung by any thread, in any state of the loop; one task answers."""

    __slots__ = ("_knocker",)

    def __init__(self) -> None:
        self._knocker: _Knocker | None = None

    def ring(self) -> None:
        """Have `answer` look. While nobody answers, nothing happens: it looks when it begins."""
        knocker = self._knocker
        if knocker is not None:
            knocker.knock()

    async def answer(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` now and after every ring, until cancelled.

        Args:
            work: Does all that there is to do. A ring while it runs makes it run again.
        """
        knocker = self._knocker = _make_knocker()
        try:
            while True:
                await work()
                await knocker.wait()
        finally:
            self._knocker = None
            knocker.close()
