"""Tells listeners of sessions what other members did: users' functions, outside the core.

The core leaves what it merged in a manager's `News` and wakes this; a worker thread tells it, one
manager after the other, in the order in which it happened on this member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio

from .bell import Bell

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager

__all__ = ["NewsTeller", "report_listener", "report_session"]

log = structlog.get_logger("tribes")


class NewsTeller:
    """For all managers of one process."""

    def __init__(self) -> None:
        self._waiting: dict[SessionManager, None] = {}
        self._bell = Bell()

    def waker(self, manager: SessionManager) -> Callable[[], None]:
        """Return what a manager calls when it has news."""

        def wake() -> None:
            self._waiting[manager] = None
            self._bell.ring()

        return wake

    async def run(self, limiter: trio.CapacityLimiter) -> None:
        """Tell, until cancelled."""

        async def tell() -> None:
            while self._waiting:
                manager, _ = self._waiting.popitem()
                await self._tell(manager, limiter)

        await self._bell.answer(tell)

    async def _tell(self, manager: SessionManager, limiter: trio.CapacityLimiter) -> None:
        # The boundary to the users' code: what it raises costs that call, not the channel.
        try:
            await trio.to_thread.run_sync(manager.news.tell, limiter=limiter)
        except Exception:
            log.exception("telling of other members' changes failed", context=manager.context)


def report_session(context: str, level: str, event: str, fields: dict[str, object]) -> None:
    """Write a log line of a manager."""
    write = log.warning if level == "warning" else log.debug
    write(event, context=context, **fields)


def report_listener(context: str, error: Exception) -> None:
    """Write the log line of a listener that raised."""
    log.error("session listener failed", context=context, exc_info=error)
