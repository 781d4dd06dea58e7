"""Partition digests: lazily right, whatever happened between two questions."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.manager.digests import PartitionDigests
from tribes.manager.merge import digest
from tribes.manager.record import Life, Parsed, Record, header, pack, with_access
from tribes.manager.session_ids import PARTITIONS, partition_of
from tribes.testing.manager_strategies import records

KEYS = ["0010", "0011", "FFF0", "FFF1", "other"]


class Store:
    """A dictionary whose changes the digests hear of, as the table does it."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.digests = PartitionDigests(threading.Lock(), self.records.get)

    def set(self, key: str, record: Record | None) -> None:
        self.digests.changed(key, self.records.get(key))
        if record is None:
            self.records.pop(key, None)
        else:
            self.records[key] = record

    def expected(self, partition: int) -> int:
        present = {k: r for k, r in self.records.items() if partition_of(k) == partition}
        return sum(digest(key, record) for key, record in present.items()) % 2**64


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.none() | records(), st.booleans()), max_size=20),
)
def test_a_digest_is_the_sum_of_what_is_there(
    steps: list[tuple[str, Record | None, bool]],
) -> None:
    store = Store()
    for key, record, ask in steps:
        store.set(key, record)
        if ask:
            assert store.digests.of(partition_of(key)) == store.expected(partition_of(key))
    partitions = sorted({partition_of(key) for key in KEYS})
    wanted = {p: d for p in partitions if (d := store.expected(p))}
    for first, last in ((0, PARTITIONS - 1), (1, 1), (0xFF0, 0xFFF)):
        found = store.digests.between(first, last)
        assert list(found.items()) == [(p, d) for p, d in wanted.items() if first <= p <= last]
    for key in KEYS:
        assert store.digests.of(partition_of(key)) == store.expected(partition_of(key))
    assert store.digests.unsettled == 0
    total = sum(store.expected(p) for p in {partition_of(key) for key in KEYS})
    assert store.digests.total() == total % 2**64


def test_a_use_settles_without_hashing_and_changes_nothing() -> None:
    store = Store()
    record = _record()
    store.set("0010", record)
    before = store.digests.of(1)
    store.set("0010", with_access(record, header(record).access, 9))
    assert store.digests.unsettled == 1
    assert store.digests.of(1) == before != 0
    assert store.digests.total() == before
    store.set("0010", None)
    assert store.digests.of(1) == 0


def _record() -> Record:
    return pack(Parsed(Life.LIVE, 0, 1, 2, 0))


class LockWithAVisitor:
    """A lock before whose n-th taking another thread comes in between."""

    def __init__(self, visits: dict[int, Callable[[], None]]) -> None:
        self.visits = visits
        self.taken = 0

    def __enter__(self) -> None:
        self.taken += 1
        self.visits.pop(self.taken, lambda: None)()

    def __exit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("taking", [1, 2, 3, 4])
def test_a_change_at_any_moment_of_the_computing_is_counted_once(taking: int) -> None:
    store = Store()
    one = _record()
    other = pack(Parsed(Life.EXPIRED, 0, 1, 2, 0))
    store.set("0010", one)

    def visit() -> None:
        store.set("0010", None)
        store.set("0010", other)
        store.set("0011", one)

    visits = {taking: visit}
    store.digests = PartitionDigests(LockWithAVisitor(visits), store.records.get)
    store.digests.changed("0010", None)
    for turn in range(3):
        store.set("0012", None if turn % 2 else one)
        store.digests.of(1)
    assert not visits
    assert store.digests.of(1) == store.expected(1)


def test_changes_while_a_digest_is_computed_are_counted_once() -> None:
    """Request threads go on writing while the core asks."""
    store = Store()
    lock = threading.Lock()
    store.digests = PartitionDigests(lock, store.records.get)
    chance = random.Random(1)
    variants = [pack(Parsed(life, 0, 2, 2, 0)) for life in Life]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            key = f"00{chance.randrange(4)}{chance.randrange(9)}"
            with lock:
                store.set(key, chance.choice([None, *variants]))

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(300):
        store.digests.of(chance.randrange(4))
    stop.set()
    thread.join()
    for partition in range(4):
        assert store.digests.of(partition) == store.expected(partition)
    assert store.digests.of(PARTITIONS - 1) == 0
