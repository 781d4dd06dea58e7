"""How a request waits for its commit, in each kind of host: asyncio, trio, a plain thread.

``resolve`` is called in the channel's thread. An event loop costs a system call and a switch of
threads to wake, so however many of its tasks' commits end together, it is woken once: results
gather in the loop's box, and the first one returns the wake-up, which the channel performs when all
that one input caused is done (:class:`tribes.manager.inbox.Wakes`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary, ref

import sniffio
import trio

from tribes.errors import LocalProtocolError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tribes.manager.inbox import CommitResult

__all__ = [
    "AsyncioWaiter",
    "ThreadWaiter",
    "TrioWaiter",
    "async_waiter",
    "in_thread",
    "refuse_in_event_loop",
    "result_of",
    "running_loop",
]

_T = TypeVar("_T")


class _Box:
    """Results on their way to one event loop.

    Args:
        call_soon: Makes the loop call a function, from any thread; raises RuntimeError when the
            loop is closed. Must not keep the loop alive: the box lives as long as the loop.
    """

    __slots__ = ("__weakref__", "_call_soon", "_is_armed", "_results", "wake_ups")

    def __init__(self, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._call_soon = call_soon
        self._results: deque[tuple[Callable[[CommitResult], None], CommitResult]] = deque()
        self._is_armed = False
        self.wake_ups = 0
        """How often the loop was woken."""

    def put(
        self, tell: Callable[[CommitResult], None], result: CommitResult
    ) -> Callable[[], None] | None:
        """Leave a result for ``tell``; returns what the caller must call when it has put all."""
        self._results.append((tell, result))
        if self._is_armed:
            return None
        self._is_armed = True
        return self._wake

    def _wake(self) -> None:
        self.wake_ups += 1
        try:
            self._call_soon(self._flush)
        except RuntimeError:
            # The loop was closed: nobody waits there any more.
            self._is_armed = False
            self._results.clear()

    def _flush(self) -> None:
        # Disarmed first: what is put from here on finds us disarmed or is taken below.
        self._is_armed = False
        while self._results:
            tell, result = self._results.popleft()
            tell(result)


_boxes: WeakKeyDictionary[object, _Box] = WeakKeyDictionary()
"""By asyncio loop or trio token."""


def _box_of_loop(loop: asyncio.AbstractEventLoop) -> _Box:
    box = _boxes.get(loop)
    if box is None:
        weak = ref(loop)

        def call_soon(flush: Callable[[], None]) -> None:
            alive = weak()
            if alive is not None:
                alive.call_soon_threadsafe(flush)

        box = _boxes[loop] = _Box(call_soon)
    return box


def _box_of_run(token: trio.lowlevel.TrioToken) -> _Box:
    box = _boxes.get(token)
    if box is None:
        weak = ref(token)

        def call_soon(flush: Callable[[], None]) -> None:
            alive = weak()
            if alive is not None:
                # Its RunFinishedError is a RuntimeError.
                alive.run_sync_soon(flush)

        box = _boxes[token] = _Box(call_soon)
    return box


if hasattr(os, "register_at_fork"):
    # A box that was armed in the parent would never wake anybody here.
    os.register_at_fork(after_in_child=_boxes.clear)


class AsyncioWaiter:
    """Waits in a task of an asyncio loop. Made in that loop."""

    __slots__ = ("_box", "_future")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._box = _box_of_loop(loop)
        self._future: asyncio.Future[CommitResult] = loop.create_future()

    def resolve(self, result: CommitResult) -> Callable[[], None] | None:
        """Called in the channel's thread, once; returns the wake-up that must follow."""
        return self._box.put(self._tell, result)

    def _tell(self, result: CommitResult) -> None:
        if not self._future.done():
            self._future.set_result(result)

    async def wait(self, timeout: float) -> CommitResult | None:
        """The result, or None when it took longer than ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._future
        except TimeoutError:
            return None


class TrioWaiter:
    """Waits in a task of a trio run, this channel's or another one. Made in that run."""

    __slots__ = ("_box", "_event", "_result", "_thread")

    def __init__(self) -> None:
        self._box = _box_of_run(trio.lowlevel.current_trio_token())
        self._thread = threading.get_ident()
        self._event = trio.Event()
        self._result: CommitResult | None = None

    def resolve(self, result: CommitResult) -> Callable[[], None] | None:
        """Called in the channel's thread, once; returns the wake-up that must follow.

        A task of the channel's own run is made runnable at once, and nothing has to be woken.
        """
        if threading.get_ident() == self._thread and trio.lowlevel.in_trio_run():
            self._tell(result)
            return None
        return self._box.put(self._tell, result)

    def _tell(self, result: CommitResult) -> None:
        self._result = result
        self._event.set()

    async def wait(self, timeout: float) -> CommitResult | None:
        """The result, or None when it took longer than ``timeout`` seconds."""
        with trio.move_on_after(timeout):
            await self._event.wait()
        return self._result


class ThreadWaiter:
    """Blocks a plain thread. Must not be used in a thread that runs an event loop.

    Args:
        instead: What the caller should write in an event loop, for the error.

    Raises:
        LocalProtocolError: This thread runs an event loop.
    """

    __slots__ = ("_lock", "_result")

    def __init__(self, instead: str = "await async_waiter().wait(timeout)") -> None:
        refuse_in_event_loop(instead)
        # A bare lock, released by the result, is the cheapest thing that a thread can wait for.
        self._lock = threading.Lock()
        self._lock.acquire()
        self._result: CommitResult | None = None

    def resolve(self, result: CommitResult) -> Callable[[], None]:
        """Called in the channel's thread, once; returns the wake-up that must follow.

        A thread that is woken takes the interpreter's lock as soon as it may: what the channel has
        still to send goes first.
        """
        self._result = result
        return self._lock.release

    def wait(self, timeout: float) -> CommitResult | None:
        """The result, or None when it took longer than ``timeout`` seconds."""
        if self._result is None:
            self._lock.acquire(timeout=timeout)
        return self._result


def running_loop() -> str | None:
    """Which event loop this thread is running at this moment: ``"asyncio"``, ``"trio"`` or None.

    Unlike sniffio's, the answer also holds in callbacks, which no task runs.
    """
    if trio.lowlevel.in_trio_run():
        return "trio"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return "asyncio"


def refuse_in_event_loop(instead: str) -> None:
    """Refuse to block where an event loop runs.

    Args:
        instead: What to write there, such as ``await node.acommit(session)``.

    Raises:
        LocalProtocolError: This thread runs an event loop.
    """
    library = running_loop()
    if library is not None:
        raise LocalProtocolError(
            f"a blocking wait would stop the {library} event loop of this thread, with every "
            f"other request in it; write instead: {instead}"
        )


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


async def result_of(future: Future[_T], timeout: float = inf) -> _T:
    """Await what another thread does, in whichever event loop runs this task.

    Cancelling is safe: the other thread goes on, and others may wait for the same.

    Args:
        future: Set by the other thread.
        timeout: Seconds.

    Raises:
        TimeoutError: It took longer.
    """
    # Not asyncio.wrap_future: cancelling that would cancel the future for everybody.
    call_soon: Callable[[Callable[[], object]], object]
    done: trio.Event | asyncio.Event
    if sniffio.current_async_library() == "trio":
        done, call_soon = trio.Event(), trio.lowlevel.current_trio_token().run_sync_soon
    else:
        done, call_soon = asyncio.Event(), asyncio.get_running_loop().call_soon_threadsafe

    def tell(_: Future[_T]) -> None:
        try:
            call_soon(done.set)
        except RuntimeError:
            # The loop was closed: nobody waits there any more.
            return

    future.add_done_callback(tell)
    if isinstance(done, trio.Event):
        with trio.move_on_after(timeout):
            await done.wait()
    else:
        try:
            async with asyncio.timeout(None if timeout == inf else timeout):
                await done.wait()
        except TimeoutError:
            pass
    if not future.done():
        raise TimeoutError
    return future.result()
