"""The inbox: in order, bounded, nothing lost, one wake-up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tribes.manager.inbox import COMMIT_OVERHEAD_BYTES, Commit, CommitResult, Inbox


class Waiter:
    def __init__(self) -> None:
        self.result: CommitResult | None = None

    def resolve(self, result: CommitResult) -> None:
        self.result = result


def make_inbox(*, commits: int = 3) -> tuple[Inbox, list[int]]:
    """Make an inbox with room for so many commits of 10 bytes, and the list of its wake-ups."""
    inbox = Inbox(threading.Lock(), max_bytes=commits * (10 + COMMIT_OVERHEAD_BYTES))
    woken: list[int] = []
    inbox.wake = lambda: woken.append(len(inbox))
    return inbox, woken


def commit(
    key: str, *, size: int = 10, context: str = "shop", waiter: Waiter | None = None
) -> Commit:
    return Commit(context, key, 1, bytes(size), waiter)


def test_commits_come_out_in_the_order_they_went_in() -> None:
    inbox, _ = make_inbox()
    sent = [commit("a"), commit("b"), commit("a")]
    for one in sent:
        inbox.append(one)
    assert len(inbox) == 3
    assert inbox.drain(2) == sent[:2]
    assert inbox.drain(2) == sent[2:]
    assert inbox.drain(2) == []
    assert inbox.bytes == 0
    assert inbox.peak_bytes == inbox.max_bytes
    assert inbox.appended == 3


def test_it_wakes_once_until_it_is_drained() -> None:
    inbox, woken = make_inbox()
    inbox.append(commit("a"))
    inbox.append(commit("b"))
    assert woken == [1]
    inbox.drain(1)
    inbox.append(commit("c"))
    assert woken == [1], "something was left, so the core still has to come back"
    inbox.drain(10)
    inbox.append(commit("d"))
    assert woken == [1, 1]


def test_before_somebody_listens_it_only_collects() -> None:
    inbox = Inbox(threading.Lock())
    inbox.append(commit("a"))
    woken: list[int] = []
    inbox.wake = lambda: woken.append(1)
    assert inbox.wake is not None
    inbox.append(commit("b"))
    assert woken == [1]
    assert [one.key for one in inbox.drain(9)] == ["a", "b"]


def test_a_new_listener_is_woken_although_the_old_one_was() -> None:
    inbox, woken = make_inbox()
    inbox.append(commit("a"))
    again: list[int] = []
    inbox.wake = lambda: again.append(1)
    inbox.append(commit("b"))
    assert (woken, again) == ([1], [1])


def test_what_finds_no_room_leaves_its_key() -> None:
    inbox, woken = make_inbox(commits=1)
    waiter = Waiter()
    inbox.append(commit("a"))
    inbox.append(commit("b"))
    inbox.append(commit("b"))
    inbox.append(commit("c", context="admin", waiter=waiter))
    assert len(inbox) == 1
    assert inbox.overflowed == 3
    assert inbox.dirty == {("shop", "b"), ("admin", "c")}
    assert woken == [1]
    assert inbox.take_dirty() == {"shop": ["b"], "admin": ["c"]}
    assert inbox.take_dirty() == {}
    waiting = inbox.take_overflowed()
    assert [(one.key, one.delta, one.waiter) for one in waiting] == [("c", b"", waiter)]
    assert inbox.take_overflowed() == []


def test_a_delta_greater_than_the_inbox_also_wakes() -> None:
    inbox, woken = make_inbox(commits=1)
    inbox.append(commit("huge", size=10_000))
    assert woken == [0]
    assert inbox.drain(10) == []
    assert inbox.take_dirty() == {"shop": ["huge"]}
    inbox.append(commit("huge", size=10_000))
    assert woken == [0, 0]


def test_room_comes_back_as_commits_leave() -> None:
    inbox, _ = make_inbox(commits=2)
    inbox.append(commit("a"))
    inbox.append(commit("b"))
    inbox.drain(1)
    inbox.append(commit("c"))
    assert inbox.overflowed == 0


def test_a_result_is_replicated_when_nobody_is_missing() -> None:
    assert CommitResult(1, ("n2",), {}).replicated
    assert not CommitResult(1, ("n2",), {"n3": "late"}).replicated


def test_threads_lose_nothing() -> None:
    inbox = Inbox(threading.Lock(), max_bytes=20_000)
    wake = threading.Event()
    inbox.wake = wake.set
    got: list[Commit] = []
    dirty: set[str] = set()
    done = threading.Event()

    def core() -> None:
        while True:
            stop = done.is_set()
            while batch := inbox.drain(7):
                got.extend(batch)
            for keys in inbox.take_dirty().values():
                dirty.update(keys)
            if stop:
                return
            wake.wait(1)
            wake.clear()

    thread = threading.Thread(target=core)
    thread.start()

    def send(number: int) -> None:
        for n in range(3000):
            inbox.append(commit(f"{number}:{n}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    done.set()
    wake.set()
    thread.join()
    assert len({one.key for one in got} | dirty) == 12_000
    assert inbox.appended + inbox.overflowed == 12_000
    assert inbox.peak_bytes <= 20_000


def test_an_inbox_without_room_for_another_commit_like_these_is_full() -> None:
    """Once its last bytes were too few for a change and too many to be full: nobody was held back,
    and every further change was left as a key.
    """
    inbox = Inbox(threading.Lock(), max_bytes=100_000)
    while not inbox.is_full:
        inbox.append(Commit("app", "K", 1, bytes(1000)))
    assert inbox.overflowed == 0
    assert inbox.bytes > 90_000
