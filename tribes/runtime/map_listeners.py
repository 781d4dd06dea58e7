"""Who is told what happens to replicated maps: users' functions, outside the core.

Changes are told one after the other, in the order in which they happened on this member, and never
hold up an acknowledgement.
"""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

import structlog
import trio

from tribes.maps.changes import EntryChange, MapChange, MapMemberChange

from .bell import Bell

if TYPE_CHECKING:
    from tribes.maps.manager import MapManager

__all__ = ["MapListener", "MapListeners"]

log = structlog.get_logger("tribes")

MapListener: TypeAlias = Callable[[MapChange | MapMemberChange], Any]
"""Gets one change. Awaited when it is a coroutine function, else called in a worker thread."""

CHANGES_MAX = 10_000
"""Changes that wait for slow listeners; beyond, the oldest are dropped and counted."""


class MapListeners:
    """The listeners of all maps of one process.

    Attributes:
        dropped: Changes that nobody was told of, because listeners were too slow.
    """

    def __init__(self) -> None:
        self._start_over()
        _all.add(self)

    def _start_over(self) -> None:
        """Also in a forked child: what happened before is for the parent to tell."""
        self.dropped = 0
        self._changes: deque[tuple[MapManager, MapListener, EntryChange | MapMemberChange]] = (
            deque()
        )
        self._bell = Bell()

    def add(self, manager: MapManager, listener: MapListener) -> None:
        """Tell a listener what happens to a map. One listener per map."""

        def note(change: EntryChange | MapMemberChange) -> None:
            self._changes.append((manager, listener, change))
            if len(self._changes) > CHANGES_MAX:
                self._changes.popleft()
                self.dropped += 1
            self._bell.ring()

        manager.on_change = note

    async def run(self, limiter: trio.CapacityLimiter) -> None:
        """Tell, until cancelled."""

        async def tell() -> None:
            while self._changes:
                await self._tell(*self._changes.popleft(), limiter)

        await self._bell.answer(tell)

    async def _tell(
        self,
        manager: MapManager,
        listener: MapListener,
        change: EntryChange | MapMemberChange,
        limiter: trio.CapacityLimiter,
    ) -> None:
        # The boundary to the users' code: what it raises costs that call, not the channel.
        try:
            if inspect.iscoroutinefunction(listener):
                await listener(_read(manager, change))
            else:
                await trio.to_thread.run_sync(
                    lambda: listener(_read(manager, change)), limiter=limiter
                )
        except Exception:
            log.exception("map listener failed", map=manager.context)


def _read(manager: MapManager, change: EntryChange | MapMemberChange) -> Any:
    return change.read(manager.codec) if isinstance(change, EntryChange) else change


_all: WeakSet[MapListeners] = WeakSet()


def _after_fork_in_child() -> None:
    for listeners in list(_all):
        listeners._start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
