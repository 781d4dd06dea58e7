"""Wakes a task of the channel's event loop from any thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import trio

__all__ = ["Bell"]


@final
class Bell:
    """Rung by any thread, in any state of the loop; one task answers."""

    __slots__ = ("_event", "_token")

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._event = trio.Event()

    def ring(self) -> None:
        """Have `answer` look. While nobody answers, nothing happens: it looks when it begins."""
        token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._set, idempotent=True)
            except trio.RunFinishedError:
                return

    def _set(self) -> None:
        self._event.set()

    async def answer(
        self, token: trio.lowlevel.TrioToken, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Do ``work`` now and after every ring, until cancelled.

        Args:
            token: Of the loop this runs in.
            work: Does all that there is to do. A ring while it runs makes it run again.
        """
        self._token = token
        try:
            while True:
                self._event = trio.Event()
                await work()
                await self._event.wait()
        finally:
            self._token = None
