"""One request at a time per session: in threads, in tasks of both loops, and in a group."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tests.web.nodes import make_node
from tribes.errors import LocalProtocolError, SessionLockTimeoutError
from tribes.runtime.session_locks import SessionLocks
from tribes.runtime.waiters import ThreadWaiter
from tribes.testing.manager_strategies import make_manager

if TYPE_CHECKING:
    from tribes.runtime.background import BackgroundNode


def make_locks(timeout_s: float = 20.0) -> SessionLocks:
    return SessionLocks(make_manager(), "local", timeout_s)


def run_threads(*calls: Any) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def test_threads_run_one_at_a_time_in_the_order_in_which_they_asked() -> None:
    locks = make_locks()
    manager = locks._manager
    log: list[int] = []
    first = locks.acquire("k")
    threads = []
    for number in range(8):

        def request(number: int = number) -> None:
            lock = locks.acquire("k")
            log.append(number)
            lock.release()

        threads += run_threads(request)
        wait_until(lambda n=number: manager.locks_waited == n + 1)  # type: ignore[misc]
    assert not log
    first.release()
    for thread in threads:
        thread.join(20)
    assert log == list(range(8))
    assert locks.keys == 0


def test_other_sessions_do_not_wait() -> None:
    locks = make_locks()
    held = [locks.acquire("a"), locks.acquire("b")]
    assert locks.keys == 2
    for lock in held:
        lock.release()
        lock.release()
    assert locks.keys == 0


def test_adapters_of_one_manager_share_its_locks() -> None:
    one = make_locks()
    other = SessionLocks(one._manager, "local", 0.01)
    lock = one.acquire("k")
    with pytest.raises(SessionLockTimeoutError, match=r"manager\.lock_timeout"):
        other.acquire("k")
    assert one._manager.statistics().locks_timed_out == 1
    assert one._manager.statistics().locks_waited == 1
    lock.release()
    other.acquire("k").release()


def test_who_gave_up_waiting_is_passed_over() -> None:
    locks = make_locks()
    hasty = SessionLocks(locks._manager, "local", 0.01)
    first = locks.acquire("k")
    with pytest.raises(SessionLockTimeoutError):
        hasty.acquire("k")
    first.release()
    assert locks.keys == 0


def test_a_lock_whose_request_was_forgotten_is_given_back() -> None:
    locks = make_locks(timeout_s=0.01)
    lock = locks.acquire("k")
    del lock
    gc.collect()
    locks.acquire("k").release()


def test_a_forgotten_lock_may_be_collected_while_another_is_taken() -> None:
    """The collector runs wherever it likes, also amid the queues: nobody stands still."""
    locks = make_locks()
    forgotten: list[Any] = [locks.acquire("a"), locks.acquire("b")]
    held = locks.acquire("c")

    def made_while_it_waits() -> ThreadWaiter:
        forgotten.clear()
        return ThreadWaiter()

    done = threading.Event()

    def request() -> None:
        locks._queues.enter("c", made_while_it_waits)
        done.set()

    threading.Thread(target=request, daemon=True).start()
    assert done.wait(10)
    assert locks.keys == 1
    held.release()
    locks.acquire("a").release()


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_tasks_wait_without_blocking_their_loop(run: Any) -> None:
    locks = make_locks()
    log: list[str] = []

    async def main() -> None:
        first = await locks.aacquire("k")
        if run is trio.run:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second)
                await trio.testing.wait_all_tasks_blocked()
                log.append("first")
                first.release()
        else:
            task = asyncio.create_task(second())
            await asyncio.sleep(0)
            assert locks._manager.locks_waited == 1
            log.append("first")
            first.release()
            await task

    async def second() -> None:
        lock = await locks.aacquire("k")
        log.append("second")
        lock.release()

    run(main if run is trio.run else main())
    assert log == ["first", "second"]
    assert locks.keys == 0


def test_a_cancelled_task_leaves_its_place_to_the_next() -> None:
    locks = make_locks()

    async def main() -> None:
        first = await locks.aacquire("k")
        with trio.move_on_after(0.01):
            await locks.aacquire("k")
        first.release()
        (await locks.aacquire("k")).release()

    trio.run(main)
    assert locks.keys == 0


def test_a_task_cancelled_in_the_moment_of_its_turn_hands_it_on() -> None:
    locks = make_locks()

    async def main() -> None:
        first = locks.acquire("k")
        task = asyncio.create_task(locks.aacquire("k"))
        await asyncio.sleep(0)
        assert locks._manager.locks_waited == 1
        first.release()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Nobody holds it now, or the cancelled one would for ever.
        (await locks.aacquire("k")).release()

    asyncio.run(main())
    assert locks.keys == 0


def test_a_thread_and_tasks_of_two_loops_take_turns() -> None:
    locks = make_locks()
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)

    def leave() -> None:
        nonlocal inside
        inside -= 1

    def in_threads() -> None:
        for _ in range(50):
            lock = locks.acquire("k")
            enter()
            leave()
            lock.release()

    async def in_tasks(sleep: Any) -> None:
        for _ in range(50):
            lock = await locks.aacquire("k")
            enter()
            await sleep(0)
            leave()
            lock.release()

    threads = run_threads(
        in_threads,
        in_threads,
        lambda: trio.run(in_tasks, trio.sleep),
        lambda: asyncio.run(in_tasks(asyncio.sleep)),
    )
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert (most, locks.keys) == (1, 0)


def test_blocking_an_event_loop_is_refused() -> None:
    locks = make_locks()

    async def main() -> None:
        lock = locks.acquire("k")
        with pytest.raises(LocalProtocolError):
            locks.acquire("k")
        lock.release()

    trio.run(main)
    assert locks.keys == 0


def test_a_forked_child_holds_nothing_of_its_parents() -> None:
    locks = make_locks(timeout_s=0.2)
    lock = locks.acquire("k")
    child = os.fork()
    if child == 0:
        try:
            locks.acquire("k").release()
            lock.release()
        except BaseException:  # noqa: BLE001 - a child of a test must end in any case
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    lock.release()


@pytest.fixture
def group() -> Iterator[list[BackgroundNode]]:
    port = free_udp_port()
    nodes = [make_node(name, port, lock="cluster") for name in ("n1", "n2")]
    for node in nodes:
        node.start()
    try:
        for node in nodes:
            assert node.wait_joined(20)
            wait_until(lambda node=node: node.manager("app").copies_on)  # type: ignore[misc]
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def cluster_locks(node: BackgroundNode, timeout_s: float = 20.0) -> SessionLocks:
    return SessionLocks(node.manager("app"), "cluster", timeout_s, lambda: node.channel)


KEY = "ABC" + "0" * 29


def test_two_members_take_turns_and_no_increment_is_lost(group: list[BackgroundNode]) -> None:
    """Read, add, write with two threads on each of two nodes: without the lock some would go."""
    session = group[0].manager("app").create()
    session["n"] = 0
    group[0].commit(session)

    def work(node: BackgroundNode) -> None:
        locks = cluster_locks(node)
        for _ in range(15):
            lock = locks.acquire(session.key)
            found = node.manager("app").find(session.id)
            assert found is not None
            found["n"] += 1
            assert not node.commit(found).missing
            lock.release()

    threads = run_threads(*(lambda node=node: work(node) for node in group * 2))
    for thread in threads:
        thread.join(50)
        assert not thread.is_alive()
    for node in group:
        found = node.manager("app").find(session.id)
        assert found is not None
        assert found["n"] == 60


def test_a_wait_for_another_member_is_bounded(group: list[BackgroundNode]) -> None:
    lock = cluster_locks(group[0]).acquire(KEY)
    with pytest.raises(SessionLockTimeoutError, match="another member"):
        cluster_locks(group[1], 0.2).acquire(KEY)
    lock.release()

    async def main() -> None:
        (await cluster_locks(group[1]).aacquire(KEY)).release()

    trio.run(main)


def test_a_node_that_is_stopped_still_locks_in_its_process(group: list[BackgroundNode]) -> None:
    node = group[0]
    node.stop()
    lock = cluster_locks(node).acquire(KEY)
    with pytest.raises(SessionLockTimeoutError, match="runs here"):
        cluster_locks(node, 0.01).acquire(KEY)
    lock.release()
