"""What is told of maps, apart from the maps."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tribes.runtime.map_listeners import MapListeners


async def tell(listeners: MapListeners) -> None:
    """All that waits, and until nothing does."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listeners.run, trio.CapacityLimiter(1))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: no fork")
def test_a_forked_child_tells_its_own_changes_only() -> None:
    """The parent tells its own, once, when its listener has time."""
    told: list[Any] = []

    async def listener(change: Any) -> None:
        told.append(change)

    a_map: Any = SimpleNamespace()
    listeners = MapListeners()
    listeners.add(a_map, listener)
    a_map.on_change("parent's")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            a_map.on_change("child's")
            trio.run(tell, listeners)
            os.write(writing, repr(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == repr(["child's"]).encode()
    os.waitpid(child, 0)
    trio.run(tell, listeners)
    assert told == ["parent's"]
