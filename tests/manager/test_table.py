"""The table: identity swaps, what it keeps beside the records, and what threads do to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.ids import SessionKey
from tribes.manager.container import (
    ID_ACTIVE,
    MAX_INACTIVE,
    encode_idle,
    id_entry_name,
    retired_value,
)
from tribes.manager.inbox import Commit, Inbox
from tribes.manager.merge import destroyed, digest, expired, merge
from tribes.manager.record import (
    ENTRIES_MAX,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    bare,
    equal_state,
    header,
    pack,
    size,
    to_wire,
    with_access,
)
from tribes.manager.table import EXPIRED_KEPT_S, SessionTable, partition_of
from tribes.testing.manager_strategies import records

if TYPE_CHECKING:
    import random

NOW = 100_000
KEYS = ["0010", "0011", "FFF0"]


def make_table() -> tuple[SessionTable, Inbox]:
    inbox = Inbox(threading.Lock())
    return SessionTable(threading.Lock(), inbox), inbox


def record_of(*entries: Entry, access: int = 500, seen: int = NOW) -> Record:
    places = {(entry.namespace, entry.name): entry for entry in entries}
    return pack(Parsed(Life.LIVE, 0, 100, access, seen, places))


def container(name: bytes, value: bytes, hlc: int, kind: int = Kind.LAST_WRITER) -> Entry:
    return Entry(Namespace.CONTAINER, kind, name, value, hlc, 1)


def commit_of(key: str, delta: Record) -> Commit:
    return Commit("shop", key, 1, to_wire(delta, NOW))


# Swapping.


def test_a_swap_stores_the_record_and_leaves_the_commit() -> None:
    table, inbox = make_table()
    record = record_of()
    commit = commit_of("0010", record)
    assert table.swap("0010", None, record, commit)
    assert table.get("0010") is record
    assert inbox.drain(9) == [commit]


def test_a_swap_from_another_record_does_nothing() -> None:
    """Equal is not enough: the very object that the new one was computed from."""
    table, inbox = make_table()
    record = record_of()
    table.swap("0010", None, record)
    twin = pack(Parsed(Life.LIVE, 0, 100, 500, NOW))
    assert twin == record
    for expected in (None, twin):
        assert not table.swap("0010", expected, twin, commit_of("0010", twin))
    assert table.get("0010") is record
    assert inbox.drain(9) == []
    assert not table.drop("0010", twin)


def test_the_core_is_woken_outside_the_lock() -> None:
    inbox = Inbox(threading.Lock())
    lock = threading.Lock()
    table = SessionTable(lock, inbox)
    free: list[bool] = []

    def wake() -> None:
        free.append(lock.acquire(blocking=False))
        lock.release()

    inbox.wake = wake
    record = record_of()
    table.swap("0010", None, record, commit_of("0010", record))
    assert free == [True]


def test_a_use_moves_the_header_and_never_back() -> None:
    table, _ = make_table()
    table.swap("0010", None, record_of(Entry(0, 0, b"a", b"1", 200, 1), access=500, seen=50))
    assert table.touch("0010", 600, 60)
    assert table.touch("0010", 550, 55)
    record = table.get("0010")
    assert record is not None
    assert (header(record).access, header(record).last_seen) == (600, 60)
    assert not table.touch("nobody", 600, 60)
    table.merge_in("0010", destroyed(700, 0))
    assert not table.touch("0010", 800, 80)


def test_a_remote_delta_between_read_and_swap_is_not_lost() -> None:
    """The loop of every writer: a failed swap is computed again from the present record."""
    table, _ = make_table()
    table.swap("0010", None, record_of())
    current = table.get("0010")
    mine = record_of(Entry(0, 0, b"mine", b"1", 300, 1))
    theirs = record_of(Entry(0, 0, b"theirs", b"1", 400, 2))
    table.merge_in("0010", theirs)
    assert not table.swap("0010", current, merge(current, mine))
    current = table.get("0010")
    assert table.swap("0010", current, merge(current, mine))
    assert table.get("0010") == merge(record_of(), mine, theirs)


# Merging in.


@given(st.lists(st.tuples(st.sampled_from(KEYS), records()), max_size=12), st.randoms())
def test_tables_that_got_the_same_are_equal_whatever_the_order(
    incoming: list[tuple[str, Record]], chance: random.Random
) -> None:
    one, other = make_table()[0], make_table()[0]
    for key, record in incoming:
        before, after, changed = one.merge_in(key, record)
        assert changed is (before is not after)
        assert one.get(key) is after
    chance.shuffle(incoming)
    for key, record in incoming * 2:
        other.merge_in(key, record)
    assert set(one.keys()) == set(other.keys())
    for key in one.keys():  # noqa: SIM118
        assert equal_state(one.get(key) or b"", other.get(key) or b"")
    assert one.root_digest() == other.root_digest()
    for table in (one, other):
        check_books(table)


def check_books(table: SessionTable) -> None:
    """Compare what the table keeps beside the records with the records."""
    present = {key: record for key in table.keys() if (record := table.get(key))}  # noqa: SIM118
    assert len(table) == len(present)
    assert table.bytes == sum(map(size, present.values()))
    for life in Life:
        number = sum(header(record).life == life for record in present.values())
        assert table.count(life) == number
    assert table.live == table.count(Life.LIVE)
    assert table.live_peak >= table.live
    for partition in {partition_of(key) for key in KEYS}:
        mine = {key for key in present if partition_of(key) == partition}
        assert sorted(table.keys_of(partition)) == sorted(mine)
        assert table.partition_digest(partition) == (
            sum(digest(key, present[key]) for key in mine) % 2**64
        )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYS), records(), st.sampled_from(["merge", "swap", "drop", "touch"])
        ),
        max_size=15,
    )
)
def test_the_books_are_right_after_any_history(steps: list[tuple[str, Record, str]]) -> None:
    table, _ = make_table()
    for number, (key, record, step) in enumerate(steps):
        current = table.get(key)
        if step == "merge":
            table.merge_in(key, record)
        elif step == "swap":
            assert table.swap(key, current, record)
        elif step == "drop":
            assert current is None or table.drop(key, current)
        else:
            table.touch(key, 10**15, NOW)
        if number % 4 == 3:
            check_books(table)
    check_books(table)


def test_nothing_new_changes_nothing() -> None:
    table, _ = make_table()
    record = record_of(Entry(0, 0, b"a", b"1", 200, 1))
    assert table.merge_in("0010", record) == (None, record, True)
    again = record_of(Entry(0, 0, b"a", b"1", 200, 1))
    assert table.merge_in("0010", again) == (record, record, False)
    assert table.get("0010") is record
    assert table.created == 1


def test_a_peer_cannot_make_a_session_grow_without_bound() -> None:
    table, _ = make_table()
    places = {(0, b"%d" % n): Entry(0, 0, b"%d" % n, b"", 100, 1) for n in range(ENTRIES_MAX)}
    full = pack(Parsed(Life.LIVE, 0, 100, 100, 0, places))
    table.merge_in("0010", full)
    with pytest.raises(RemoteProtocolError, match="65535"):
        table.merge_in("0010", record_of(Entry(0, 0, b"one more", b"", 200, 1)))
    assert table.get("0010") is full


def test_what_is_forgotten_does_not_come_back_from_a_slower_node() -> None:
    table, _ = make_table()
    table.destroyed_horizon = 1000
    old, young = destroyed(999, NOW), destroyed(1000, NOW)
    assert table.merge_in("0010", old, NOW) == (None, old, False)
    assert table.merge_in("0010", young, NOW) == (None, young, True)
    idle_ds = 10 * (1800 + EXPIRED_KEPT_S)
    dead = expired(record_of(seen=NOW - idle_ds))
    assert table.merge_in("0011", dead, NOW)[2] is False
    assert table.merge_in("0011", dead, NOW - 1)[2] is True
    assert table.merge_in("0011", expired(record_of(seen=NOW - idle_ds)), NOW)[2] is False
    own_limit = container(MAX_INACTIVE, encode_idle(10_000), 200)
    assert table.merge_in("FFF0", expired(record_of(own_limit, seen=NOW - idle_ds)), NOW)[2]


def test_an_end_for_a_session_that_is_there_is_taken_however_old() -> None:
    table, _ = make_table()
    table.merge_in("0010", record_of())
    table.destroyed_horizon = 10**6
    assert table.merge_in("0010", destroyed(999, NOW), NOW)[2]
    assert table.count(Life.DESTROYED) == 1


# Ids and limits.


def test_ids_are_learned_with_the_record_that_tells_them() -> None:
    table, _ = make_table()
    table.merge_in("0010", record_of())
    rotated = record_of(
        container(id_entry_name("001B"), ID_ACTIVE, 300),
        container(id_entry_name("0010"), retired_value(30), 300),
    )
    table.merge_in("0010", rotated, NOW)
    assert table.resolve("001B", NOW) == SessionKey("0010")
    assert table.resolve("0010", NOW + 299) == "0010"
    assert table.resolve("0010", NOW + 300) is None
    assert table.resolve("", NOW) is None
    again = record_of(
        container(id_entry_name("001B"), retired_value(0), 400, Kind.TOMBSTONE),
        container(id_entry_name("001C"), ID_ACTIVE, 400),
    )
    table.merge_in("0010", again, NOW + 500)
    assert table.resolve("001B", NOW + 500) is None
    assert table.resolve("0010", NOW + 500) is None, "no second grace"
    assert table.resolve("001C", NOW + 500) == "0010"
    table.sweep_ids(NOW + 501)
    assert table.resolve("001C", NOW + 501) == "0010"


@pytest.mark.parametrize("end", ["destroyed", "dropped"])
def test_an_ended_session_has_no_ids_and_no_limit(end: str) -> None:
    table, _ = make_table()
    record = record_of(
        container(id_entry_name("001B"), ID_ACTIVE, 300),
        container(MAX_INACTIVE, encode_idle(60), 300),
    )
    table.merge_in("0010", record, NOW)
    assert table.limit_of("0010") == 60
    if end == "destroyed":
        table.merge_in("0010", destroyed(600, NOW), NOW)
    else:
        assert table.drop("0010", record)
        assert "0010" not in table
        assert table.resolve("0010", NOW) is None
    assert table.resolve("001B", NOW) is None
    assert table.limit_of("0010") == 1800


def test_a_limit_that_is_the_default_is_not_kept_twice() -> None:
    table, _ = make_table()
    table.merge_in("0010", record_of(container(MAX_INACTIVE, encode_idle(60), 200)), NOW)
    table.merge_in("0010", record_of(container(MAX_INACTIVE, encode_idle(1800), 300)), NOW)
    assert table.limit_of("0010") == 1800
    assert table.limit_of("nobody") == 1800


def test_a_large_session_is_counted_and_swapped_like_others() -> None:
    table, _ = make_table()
    big = record_of(Entry(0, 0, b"big", bytes(20_000), 200, 1))
    table.merge_in("0010", big, NOW)
    assert table.bytes == size(big) > 20_000
    table.merge_in("0010", bare(with_access(big, 900, NOW)), NOW)
    table.merge_in("0010", record_of(Entry(0, 0, b"big", b"", 400, 1)), NOW)
    check_books(table)
    assert table.bytes < 100


def test_dead_sessions_are_listed_in_the_order_of_their_deaths() -> None:
    table, _ = make_table()
    for key in ("0012", "0010", "0011"):
        table.merge_in(key, destroyed(500, NOW), NOW)
    assert table.dead_keys(Life.DESTROYED, 2) == ["0012", "0010"]
    assert table.dead_keys(Life.EXPIRED, 2) == []
