"""Waiting for a commit, from every kind of host, with one wake-up per loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import trio

from tribes.errors import LocalProtocolError
from tribes.manager.inbox import CommitResult
from tribes.runtime.waiters import AsyncioWaiter, ThreadWaiter, TrioWaiter, async_waiter, in_thread

RESULT = CommitResult(7, ("b",), {})


def resolve_in_thread(*waiters: Any) -> None:
    def run() -> None:
        for waiter in waiters:
            waiter.resolve(RESULT)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_asyncio_tasks_get_their_results_by_one_wake_up() -> None:
    """However many commits end together, the loop is woken once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiters = [AsyncioWaiter() for _ in range(50)]
        calls = []
        original = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(callback)
            return original(callback, *args, **kwargs)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
        resolve_in_thread(*waiters)
        assert len(calls) == 1
        assert [await waiter.wait(5) for waiter in waiters] == [RESULT] * 50
        late = AsyncioWaiter()
        resolve_in_thread(late)
        assert await late.wait(5) == RESULT
        assert len(calls) == 2

    asyncio.run(main())


def test_waiting_in_asyncio_ends_after_its_time() -> None:
    """None instead of a result, and the late result harms nobody."""

    async def main() -> None:
        waiter = AsyncioWaiter()
        assert await waiter.wait(0.001) is None
        resolve_in_thread(waiter)
        await asyncio.sleep(0)

    asyncio.run(main())


def test_result_for_a_loop_that_was_closed_is_dropped() -> None:
    """The server has gone; the channel goes on."""

    async def main() -> AsyncioWaiter:
        return AsyncioWaiter()

    resolve_in_thread(asyncio.run(main()))


async def test_trio_task_gets_its_result(autojump_clock: trio.testing.MockClock) -> None:
    """From another thread; and None after its time."""
    waiter = async_waiter()
    assert isinstance(waiter, TrioWaiter)
    assert await waiter.wait(1) is None
    resolve_in_thread(waiter)
    assert await waiter.wait(1) == RESULT
    assert await in_thread(lambda: threading.current_thread() is threading.main_thread()) is False


def test_thread_gets_its_result() -> None:
    """A WSGI worker blocks; after its time it goes on without."""
    waiter = ThreadWaiter()
    assert waiter.wait(0.001) is None
    resolve_in_thread(waiter)
    assert waiter.wait(1) == RESULT


def test_blocking_wait_in_an_event_loop_is_refused() -> None:
    """It would stop the loop; the error says to await."""

    async def main() -> None:
        with pytest.raises(LocalProtocolError, match="asyncio event loop"):
            ThreadWaiter()

    asyncio.run(main())

    async def trio_main() -> None:
        with pytest.raises(LocalProtocolError, match="trio event loop"):
            ThreadWaiter()

    trio.run(trio_main)
