"""Waiting for a commit, from every kind of host, with one wake-up per loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import trio

from tribes.errors import LocalProtocolError
from tribes.manager.inbox import Commit, CommitResult, resolve_all
from tribes.runtime.waiters import (
    AsyncioWaiter,
    ThreadWaiter,
    TrioWaiter,
    async_waiter,
    in_thread,
    result_of,
    running_loop,
)

RESULT = CommitResult(7, ("b",), {})


def resolve(*waiters: Any) -> None:
    """Tell them all, as the channel does when the members have acknowledged."""
    resolve_all([Commit("app", "k", 7, b"", waiter) for waiter in waiters], ("b",), {})


def resolve_in_thread(*waiters: Any) -> None:
    thread = threading.Thread(target=resolve, args=waiters)
    thread.start()
    thread.join()


def count_wake_ups(loop: asyncio.AbstractEventLoop) -> list[object]:
    calls: list[object] = []
    original = loop.call_soon_threadsafe

    def counted(callback: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(callback)
        return original(callback, *args, **kwargs)

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
    return calls


def test_asyncio_tasks_get_their_results_by_one_wake_up() -> None:
    """However many commits end together, the loop is woken once."""

    async def main() -> None:
        calls = count_wake_ups(asyncio.get_running_loop())
        waiters = [AsyncioWaiter() for _ in range(50)]
        resolve_in_thread(*waiters)
        assert len(calls) == 1
        assert [await waiter.wait(5) for waiter in waiters] == [RESULT] * 50
        late = AsyncioWaiter()
        resolve_in_thread(late)
        assert await late.wait(5) == RESULT
        assert len(calls) == 2

    asyncio.run(main())


def test_one_wake_up_also_when_the_loop_is_awake_meanwhile() -> None:
    """The results of one message are complete before the loop hears of the first one.

    A waiter among them lets the loop run between any two of them.
    """

    class Slow:
        def __init__(self, call_soon: Callable[..., object]) -> None:
            self._call_soon = call_soon

        def resolve(self, result: CommitResult) -> None:
            turned = threading.Event()
            self._call_soon(turned.set)
            assert turned.wait(5)

    async def main() -> None:
        uncounted = asyncio.get_running_loop().call_soon_threadsafe
        calls = count_wake_ups(asyncio.get_running_loop())
        waiters = [AsyncioWaiter() for _ in range(10)]
        mixed = [each for waiter in waiters for each in (waiter, Slow(uncounted))]
        thread = threading.Thread(target=resolve, args=mixed)
        thread.start()
        assert await asyncio.gather(*(waiter.wait(5) for waiter in waiters)) == [RESULT] * 10
        thread.join()
        assert len(calls) == 1

    asyncio.run(main())


def test_waiter_that_fails_does_not_keep_the_others_asleep() -> None:
    """The loops whose results are in are woken although a later waiter raised."""

    class Broken:
        def resolve(self, result: CommitResult) -> None:
            raise RuntimeError("no")

    async def main() -> None:
        waiter = AsyncioWaiter()
        with pytest.raises(RuntimeError, match="no"):
            resolve(waiter, Broken())
        assert await waiter.wait(5) == RESULT

    asyncio.run(main())


def test_waiting_in_asyncio_ends_after_its_time() -> None:
    """None instead of a result, and the late result harms nobody."""

    async def main() -> None:
        faults: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        late, other = AsyncioWaiter(), AsyncioWaiter()
        assert await late.wait(0.001) is None
        resolve_in_thread(late, other)
        assert await other.wait(5) == RESULT
        assert faults == []

    asyncio.run(main())


def test_result_for_a_loop_that_was_closed_is_dropped() -> None:
    """The server has gone; the channel goes on, and nothing keeps the loop in memory."""

    async def main() -> AsyncioWaiter:
        return AsyncioWaiter()

    waiter = asyncio.run(main())
    resolve_in_thread(waiter)
    resolve_in_thread(asyncio.run(main()))
    loop = weakref.ref(waiter._future.get_loop())
    del waiter
    gc.collect()
    assert loop() is None


async def test_trio_task_gets_its_result(autojump_clock: trio.testing.MockClock) -> None:
    """From another thread; and None after its time."""
    waiter = async_waiter()
    assert isinstance(waiter, TrioWaiter)
    assert await waiter.wait(1) is None
    resolve_in_thread(waiter)
    assert await waiter.wait(1) == RESULT
    assert await in_thread(lambda: threading.current_thread() is threading.main_thread()) is False


async def test_trio_tasks_of_another_run_get_their_results_by_one_wake_up() -> None:
    """As in asyncio: a BackgroundNode in a program that runs trio."""
    waiters = [TrioWaiter() for _ in range(50)]
    box = waiters[0]._box
    resolve_in_thread(*waiters)
    assert [await waiter.wait(5) for waiter in waiters] == [RESULT] * 50
    assert box.wake_ups == 1


async def test_task_of_the_channels_own_run_needs_no_wake_up() -> None:
    """Native trio: the result makes the task runnable, nothing goes through the kernel."""
    waiter = TrioWaiter()
    assert waiter.resolve(RESULT) is None
    assert waiter._box.wake_ups == 0
    with trio.fail_after(1):
        assert await waiter.wait(1) == RESULT


def test_thread_gets_its_result() -> None:
    """A WSGI worker blocks; after its time it goes on without."""
    waiter = ThreadWaiter()
    assert waiter.wait(0.001) is None
    resolve_in_thread(waiter)
    assert waiter.wait(1) == RESULT
    assert waiter.wait(1) == RESULT, "asked twice"
    early = ThreadWaiter()
    resolve(early)
    assert early.wait(1) == RESULT


def test_blocking_wait_in_an_event_loop_is_refused() -> None:
    """It would stop the loop; the error says what to await. Callbacks are no exception."""
    told: Future[BaseException | None] = Future()

    def callback() -> None:
        try:
            ThreadWaiter("await node.acommit(session)")
        except LocalProtocolError as error:
            told.set_exception(error)
        else:
            told.set_result(None)

    async def main() -> None:
        with pytest.raises(LocalProtocolError, match=r"asyncio event loop.*await node\.acommit"):
            ThreadWaiter("await node.acommit(session)")
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)
        assert await asyncio.to_thread(running_loop) is None

    asyncio.run(main())
    with pytest.raises(LocalProtocolError, match="asyncio event loop"):
        told.result(0)

    async def trio_main() -> None:
        with pytest.raises(LocalProtocolError, match="trio event loop"):
            ThreadWaiter()
        assert await trio.to_thread.run_sync(running_loop) is None

    trio.run(trio_main)


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)])
def test_future_of_another_thread_can_be_awaited(run: Any) -> None:
    """By several, each with a time of its own; giving up disturbs nobody."""
    future: Future[int] = Future()

    async def main() -> int:
        with pytest.raises(TimeoutError):
            await result_of(future, 0.01)
        assert not future.cancelled()
        thread = threading.Timer(0.01, future.set_result, (5,))
        thread.start()
        found = await result_of(future, 5)
        thread.join()
        return found + await result_of(future)

    assert run(main()) == 10
