"""The lock of what many request threads change: exclusive, and without a convoy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tribes.config.model import NodeConfig
from tribes.runtime.background import BackgroundNode
from tribes.runtime.locks import ShortLock

MakeConfig = Callable[..., NodeConfig]

THREADS = 4
SECONDS = 0.4


def in_threads(work: Callable[[], int], count: int = THREADS) -> int:
    """Do work in threads at once, and add up what they return."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def test_one_at_a_time_is_inside() -> None:
    """Also where the interpreter changes threads amid the block."""
    lock = ShortLock()
    inside = count = 0

    def work() -> int:
        nonlocal inside, count
        for number in range(300):
            with lock:
                assert inside == 0
                inside += 1
                if number % 50 == 0:
                    time.sleep(0.0002)
                count += 1
                inside -= 1
        return 300

    assert in_threads(work) == count == 300 * THREADS


def test_it_is_released_when_the_block_fails() -> None:
    """And it can be taken without a block."""
    lock = ShortLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    lock.acquire()
    lock.release()


def test_a_commit_of_four_threads_costs_what_one_of_one_thread_does(
    make_config: MakeConfig,
) -> None:
    """With locks that are handed to sleepers it cost two to three times the processor time: each
    commit waited for a change of threads.
    """
    node = BackgroundNode(make_config("a", contexts=("app",), send_options=8))
    node.start()
    try:

        def work() -> int:
            session = node.manager("app").create()
            end, count = time.monotonic() + SECONDS, 0
            while time.monotonic() < end:
                session["n"] = count
                node.commit(session)
                count += 1
            return count

        def cost(threads: int) -> float:
            begin = time.process_time()
            count = in_threads(work, threads)
            return (time.process_time() - begin) / count

        cost(1)
        ratios = [cost(THREADS) / cost(1) for _ in range(3)]
        assert min(ratios) < 1.6, ratios
    finally:
        node.stop()
