"""A bell wakes its task from any thread, and the thread that rings goes on at once."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tribes.runtime import bell as bell_module
from tribes.runtime.bell import Bell

LIMIT_S = 10.0
RINGS = 500


@pytest.fixture(params=["counter", "entry"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bell:
    """A bell of either kind: systems without event counters have the other one."""
    if request.param == "entry":
        monkeypatch.setattr(bell_module, "_Counter", _missing)
    elif not hasattr(os, "eventfd"):
        pytest.skip("not here: no event counters")
    return Bell()


def _missing() -> None:
    raise AttributeError("eventfd")


async def test_what_was_left_before_anybody_answered_is_found(bell: Bell) -> None:
    answered = 0

    async def work() -> None:
        nonlocal answered
        answered += 1

    bell.ring()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.answer, work)
        await wait_all_tasks_blocked()
        assert answered == 1
        nursery.cancel_scope.cancel()


async def test_a_ring_while_it_works_makes_it_work_again(bell: Bell) -> None:
    answered = 0
    hold, again = trio.Event(), trio.Event()

    async def work() -> None:
        nonlocal answered
        answered += 1
        await hold.wait()
        if answered == 2:
            again.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.answer, work)
        await wait_all_tasks_blocked()
        bell.ring()
        bell.ring()
        hold.set()
        with trio.fail_after(LIMIT_S):
            await again.wait()
        await wait_all_tasks_blocked(0.01)
        assert answered == 2, "two rings at once are one"
        nursery.cancel_scope.cancel()


async def test_nothing_that_threads_leave_is_overlooked(bell: Bell) -> None:
    """Each thread leaves something and rings, as commits do; all of it is found."""
    left: list[int] = []
    found: list[int] = []
    all_found = trio.Event()

    async def work() -> None:
        while left:
            found.append(left.pop())
        if len(found) == 4 * RINGS:
            all_found.set()

    def leave() -> None:
        for number in range(RINGS):
            left.append(number)
            bell.ring()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.answer, work)
        async with trio.open_nursery() as threads:
            for _ in range(4):
                threads.start_soon(trio.to_thread.run_sync, leave)
        with trio.fail_after(LIMIT_S):
            await all_found.wait()
        nursery.cancel_scope.cancel()
    assert sorted(found) == sorted(4 * list(range(RINGS)))


def test_a_ring_after_the_end_does_nothing(bell: Bell) -> None:
    async def begin_and_end() -> tuple[Callable[[], None], int]:
        async def work() -> None:
            return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.answer, work)
            await wait_all_tasks_blocked()
            knocker = bell._knocker
            assert knocker is not None
            number = getattr(knocker, "_fd", -1)
            nursery.cancel_scope.cancel()
        return knocker.knock, number

    knock, number = trio.run(begin_and_end)
    if number < 0:
        bell.ring()
        knock()
        return
    # Whatever has the counter's number by now is not written to.
    taken = [os.eventfd(0, os.EFD_NONBLOCK)]
    try:
        while taken[-1] < number:
            taken.append(os.eventfd(0, os.EFD_NONBLOCK))
        assert taken[-1] == number
        bell.ring()
        knock()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(number)
    finally:
        for each in taken:
            os.close(each)


def test_the_thread_that_rings_goes_on_before_the_one_that_answers() -> None:
    """The interpreter's lock is not given up by the ring, as any system call of Python would."""
    if not hasattr(os, "eventfd"):
        pytest.skip("not here: no event counters")
    bell = Bell()
    answers: list[int] = []
    with _answered_in_a_thread(bell, answers), _no_switch_of_threads():
        for round_ in range(20):
            before = len(answers)
            bell.ring()
            busy_until = time.perf_counter() + 0.002
            while time.perf_counter() < busy_until:
                pass
            assert len(answers) == before, f"round {round_}: it was answered first"
            end = time.monotonic() + LIMIT_S
            while len(answers) == before and time.monotonic() < end:
                time.sleep(0.0001)  # gives up the lock
            assert len(answers) > before


@contextmanager
def _no_switch_of_threads() -> Iterator[None]:
    """Threads change only when the running one waits."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5.0)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextmanager
def _answered_in_a_thread(bell: Bell, answers: list[int]) -> Iterator[None]:
    ready, stop = threading.Event(), threading.Event()

    async def work() -> None:
        answers.append(1)
        ready.set()

    thread = threading.Thread(target=trio.run, args=(_until_stopped, bell, work, stop))
    thread.start()
    try:
        assert ready.wait(LIMIT_S)
        time.sleep(0.01)  # it waits for the first ring by now
        yield
    finally:
        stop.set()
        bell.ring()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


async def _until_stopped(
    bell: Bell, work: Callable[[], Awaitable[None]], stop: threading.Event
) -> None:
    async with trio.open_nursery() as nursery:

        async def work_or_stop() -> None:
            if stop.is_set():
                nursery.cancel_scope.cancel()
            else:
                await work()

        nursery.start_soon(bell.answer, work_or_stop)
