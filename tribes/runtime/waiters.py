"""How a request waits for its commit, in each kind of host: asyncio, trio, a plain thread.

``resolve`` is called in the channel's thread. However many commits end together, an asyncio loop is
woken once for all of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import sniffio
import trio

from tribes.errors import LocalProtocolError

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult

__all__ = ["AsyncioWaiter", "ThreadWaiter", "TrioWaiter", "async_waiter", "in_thread"]

_T = TypeVar("_T")


class _LoopBox:
    """Results on their way to one asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._results: deque[tuple[asyncio.Future[CommitResult], CommitResult]] = deque()
        self._is_armed = False

    def put(self, future: asyncio.Future[CommitResult], result: CommitResult) -> None:
        self._results.append((future, result))
        if not self._is_armed:
            self._is_armed = True
            try:
                self._loop.call_soon_threadsafe(self._flush)
            except RuntimeError:
                # The loop was closed: nobody waits there any more.
                self._results.clear()

    def _flush(self) -> None:
        # Disarmed first: what is put from here on finds us disarmed or is taken below.
        self._is_armed = False
        while self._results:
            future, result = self._results.popleft()
            if not future.done():
                future.set_result(result)


_boxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopBox] = WeakKeyDictionary()


class AsyncioWaiter:
    """Waits in a task of an asyncio loop. Made in that loop."""

    __slots__ = ("_box", "_future")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        box = _boxes.get(loop)
        if box is None:
            box = _boxes[loop] = _LoopBox(loop)
        self._box = box
        self._future: asyncio.Future[CommitResult] = loop.create_future()

    def resolve(self, result: CommitResult) -> None:
        """Called in the channel's thread, once."""
        self._box.put(self._future, result)

    async def wait(self, timeout: float) -> CommitResult | None:
        """The result, or None when it took longer than ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._future
        except TimeoutError:
            return None


class TrioWaiter:
    """Waits in a task of a trio run, this channel's or another one. Made in that run."""

    __slots__ = ("_event", "_result", "_token")

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()
        self._result: CommitResult | None = None

    def resolve(self, result: CommitResult) -> None:
        """Called in the channel's thread, once."""
        self._result = result
        try:
            self._token.run_sync_soon(self._event.set)
        except trio.RunFinishedError:
            return

    async def wait(self, timeout: float) -> CommitResult | None:
        """The result, or None when it took longer than ``timeout`` seconds."""
        with trio.move_on_after(timeout):
            await self._event.wait()
        return self._result


class ThreadWaiter:
    """Blocks a plain thread. Must not be used in a thread that runs an event loop."""

    __slots__ = ("_event", "_result")

    def __init__(self) -> None:
        try:
            library = sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            pass
        else:
            raise LocalProtocolError(
                f"a blocking wait would stop the {library} event loop of this thread; await instead"
            )
        self._event = threading.Event()
        self._result: CommitResult | None = None

    def resolve(self, result: CommitResult) -> None:
        """Called in the channel's thread, once."""
        self._result = result
        self._event.set()

    def wait(self, timeout: float) -> CommitResult | None:
        """The result, or None when it took longer than ``timeout`` seconds."""
        self._event.wait(timeout)
        return self._result


def async_waiter() -> AsyncioWaiter | TrioWaiter:
    """The waiter for the event loop that runs the calling task."""
    if sniffio.current_async_library() == "trio":
        return TrioWaiter()
    return AsyncioWaiter()


async def in_thread(call: Callable[[], _T]) -> _T:
    """Run a blocking function in a worker thread of whichever event loop runs this task."""
    if sniffio.current_async_library() == "trio":
        return await trio.to_thread.run_sync(call)
    return await asyncio.to_thread(call)
