"""Merging: one result whatever the order, the repetition and the grouping of what is merged."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import SessionLimitError
from tribes.manager.dots import has_dots
from tribes.manager.layout import walk
from tribes.manager.merge import (
    TOMBSTONE_AGE_MS,
    TOMBSTONES_MAX,
    destroyed,
    digest,
    expired,
    lost_updates,
    merge,
    prune,
)
from tribes.manager.merge import _merge_parsed as merge_slowly
from tribes.manager.record import (
    ENTRIES_MAX,
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    bare,
    equal_state,
    from_wire,
    header,
    main_of,
    pack,
    pack_delta,
    parse,
    to_wire,
    with_access,
)
from tribes.testing.manager_strategies import START_HLC, START_MS, entries, records

CREATED = START_HLC
LIVE = (Life.LIVE,)


def attribute(name: str, value: bytes, hlc: int, actor: int = 1, base: int = 0) -> Entry:
    return Entry(Namespace.ATTRIBUTE, Kind.LAST_WRITER, name.encode(), value, hlc, actor, base)


def tombstone(name: str, hlc: int, actor: int = 1) -> Entry:
    return Entry(Namespace.ATTRIBUTE, Kind.TOMBSTONE, name.encode(), b"", hlc, actor)


def live(*writes: Entry, access: int | None = None, flags: int = WHOLE, seen: int = 0) -> Record:
    latest = max([entry.hlc for entry in writes], default=CREATED) if access is None else access
    places = {(entry.namespace, entry.name): entry for entry in writes}
    return pack(Parsed(Life.LIVE, flags, CREATED, latest, seen, places))


# The laws.


@given(records(), records())
def test_merging_commutes(a: Record, b: Record) -> None:
    left, right = merge(a, b), merge(b, a)
    assert equal_state(left, right)
    if header(left).life != Life.DESTROYED:
        assert header(left).last_seen == header(right).last_seen


@given(records(), records(), records())
def test_merging_associates(a: Record, b: Record, c: Record) -> None:
    assert equal_state(merge(merge(a, b), c), merge(a, merge(b, c)))


@given(records(), records())
def test_merging_twice_is_merging_once_and_says_so(a: Record, b: Record) -> None:
    assert merge(a, a) is a
    merged = merge(a, b)
    assert merge(merged, a) is merged
    assert merge(merged, b) is merged


@given(st.lists(records(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_order_with_any_repetition_ends_in_the_same_state(
    deltas: list[Record], chance: random.Random
) -> None:
    shuffled = deltas + chance.choices(deltas, k=3)
    chance.shuffle(shuffled)
    assert equal_state(merge(None, *deltas), merge(None, *shuffled))


@given(
    st.lists(records(created=CREATED, lives=LIVE), min_size=2, max_size=12),
    st.randoms(use_true_random=False),
)
def test_shuffled_deltas_of_one_live_session_end_in_the_same_bytes(
    deltas: list[Record], chance: random.Random
) -> None:
    first = merge(None, *deltas)
    chance.shuffle(deltas)
    again = merge(None, *deltas)
    assert with_access(first, header(first).access, 0) == with_access(
        again, header(again).access, 0
    )


@given(records(created=CREATED, lives=LIVE), records(created=CREATED, lives=LIVE))
def test_the_fast_way_gives_the_bytes_of_the_slow_way(a: Record, b: Record) -> None:
    fast, slow = merge(a, b), merge_slowly(a, b)
    assert fast == slow
    assert (fast is a) == (slow is a)


@given(records(), records())
def test_a_merged_record_is_canonical(a: Record, b: Record) -> None:
    merged = merge(a, b)
    assert pack(parse(merged)) == merged


@given(st.data())
def test_applying_a_delta_makes_a_replica_equal(data: st.DataObject) -> None:
    """What a writer writes to its record arrives at another replica by the delta alone."""
    record = data.draw(records(created=CREATED, lives=LIVE))
    hlc = header(record).access + data.draw(st.integers(1, 1000))
    drawn = data.draw(st.lists(entries(created=hlc, access=hlc), max_size=10))
    actor = data.draw(st.sampled_from([1, 2, 0x01010101, 77]))
    writes = [
        Entry(e.namespace, e.kind, e.name, e.value, hlc, actor, 0)
        for e in drawn
        if not has_dots(e.kind)  # joined with what was there: see test_merged.py
    ]
    writes = list({(e.namespace, e.name): e for e in writes}.values())
    delta = pack_delta(CREATED, hlc, actor, 9, 0, writes)
    new = merge(record, delta)
    assert equal_state(merge(record, from_wire(to_wire(delta, 9), 9)), new)
    assert {place: parse(new).entries[place] for place in parse(delta).entries} == (
        parse(delta).entries
    )


# Entries.


def test_the_later_write_of_a_name_wins() -> None:
    a = live(attribute("x", b"old", CREATED + 1, actor=9), attribute("y", b"y", CREATED + 1))
    b = live(attribute("x", b"new", CREATED + 2, actor=1))
    merged = parse(merge(a, b)).entries
    assert {name: e.value for (_, name), e in merged.items()} == {b"x": b"new", b"y": b"y"}


def test_at_the_same_time_the_greater_actor_wins() -> None:
    a = live(attribute("x", b"1", CREATED + 1, actor=1))
    b = live(attribute("x", b"2", CREATED + 1, actor=2))
    assert merge(a, b) == b
    assert merge(b, a) is b


def test_one_version_with_two_contents_is_decided_by_the_content() -> None:
    """A broken writer must not split the replicas."""
    a, b = live(attribute("x", b"1", CREATED + 1)), live(attribute("x", b"2", CREATED + 1))
    assert merge(a, b) == merge(b, a) == b


def test_a_removal_is_a_write_like_any_other() -> None:
    a = live(attribute("x", b"1", CREATED + 1))
    gone = live(tombstone("x", CREATED + 2))
    late = live(attribute("x", b"late", CREATED + 1, actor=5))
    assert merge(a, gone, late) == merge(late, gone) == gone


def test_the_earliest_creation_is_kept_and_entries_keep_their_versions() -> None:
    later = pack(Parsed(Life.LIVE, 0, CREATED + 50, CREATED + 90, 0))
    a = live(attribute("x", b"1", CREATED + 60))
    assert header(merge(later, a)).created == CREATED
    assert parse(merge(later, a)).entries == parse(a).entries


def test_a_large_value_is_not_copied() -> None:
    big = bytes(100_000)
    a = live(attribute("big", big, CREATED + 1), attribute("x", b"1", CREATED + 1))
    for delta in (
        live(attribute("x", b"2", CREATED + 2)),
        live(attribute("y", b"2", CREATED + 2)),
        live(attribute("y", b"2", CREATED + 2, actor=3)),
    ):
        merged = merge(a, delta)
        assert isinstance(merged, tuple)
        assert merged[1][0] is big
    assert isinstance(merge(a, live(attribute("big", b"small", CREATED + 3))), bytes)


def test_a_use_without_entries_moves_the_header_only() -> None:
    a = live(attribute("x", b"1", CREATED + 1), seen=5)
    touch = bare(with_access(a, CREATED + 9, 8))
    merged = merge(a, touch)
    assert merged == with_access(a, CREATED + 9, 8)
    assert merge(merged, a) is merged


def test_the_union_may_not_have_too_many_entries() -> None:
    names = [f"{n}" for n in range(ENTRIES_MAX)]
    full = live(*(attribute(name, b"", CREATED) for name in names))
    with pytest.raises(SessionLimitError):
        merge(full, live(attribute("one more", b"", CREATED)))


def test_a_fragment_becomes_whole_by_merging() -> None:
    fragment = live(attribute("x", b"1", CREATED + 5), flags=0)
    assert not header(fragment).flags & WHOLE
    assert header(merge(fragment, live())).flags & WHOLE


# Life.


def test_an_expired_session_is_revived_by_a_later_use_only() -> None:
    a = live(attribute("x", b"1", CREATED + 10))
    dead = expired(a)
    assert header(dead).life == Life.EXPIRED
    assert merge(a, dead) == dead
    assert merge(dead, a) is dead
    later = live(attribute("y", b"2", CREATED + 11), flags=0)
    revived = merge(dead, later)
    assert header(revived).life == Life.LIVE
    assert {name for _, name in parse(revived).entries} == {b"x", b"y"}


def test_an_expired_header_without_entries_keeps_those_that_are_there() -> None:
    a = live(attribute("x", b"1", CREATED + 10))
    dead = merge(a, bare(expired(a)))
    assert equal_state(dead, expired(a))
    assert expired(a, CREATED + 99) != dead
    assert header(expired(a, CREATED + 99)).access == CREATED + 99


def test_logout_wins_over_any_late_write() -> None:
    a = live(attribute("x", b"1", CREATED + 10))
    end = destroyed(CREATED + 5, 0)
    assert merge(a, end) is end
    assert merge(end, a) is end
    assert merge(end, expired(a)) is end
    assert parse(end) == Parsed(Life.DESTROYED, 0, CREATED + 5, CREATED + 5, 0)


def test_of_two_ends_the_later_is_kept() -> None:
    first, second = destroyed(CREATED + 5, 0), destroyed(CREATED + 6, 0)
    assert merge(first, second) == second
    assert merge(second, first) is second


# Digests.


@given(records(), records())
def test_equal_state_has_equal_digests(a: Record, b: Record) -> None:
    assert digest("K", merge(a, b)) == digest("K", merge(b, a))


@given(records(), st.integers(-(2**20), 2**20))
def test_a_use_does_not_change_the_digest(record: Record, seen: int) -> None:
    access = header(record).access + 1
    if header(record).life == Life.LIVE:
        assert digest("K", with_access(record, access, seen)) == digest("K", record)


def test_two_expiries_differ_by_what_they_had_seen() -> None:
    """One that had not seen the last use would be undone by it. Seed 9939 showed it."""
    session = live(attribute("x", b"1", CREATED + 1))
    early, late = (expired(with_access(session, CREATED + n, 0)) for n in (2, 3))
    assert digest("K", early) != digest("K", late)
    assert digest("K", merge(early, late)) == digest("K", late)


@given(records(), st.integers(START_MS, START_MS + 10 * TOMBSTONE_AGE_MS))
def test_pruning_does_not_change_the_digest(record: Record, now_ms: int) -> None:
    pruned = prune(record, now_ms)
    assert digest("K", pruned) == digest("K", record)
    assert pack(parse(pruned)) == pruned


def test_a_digest_tells_sessions_apart() -> None:
    one = attribute("x", b"1", CREATED + 1)
    different = [
        digest("K", live(one)),
        digest("L", live(one)),
        digest("K", live(one, flags=0)),
        digest("K", live(attribute("x", b"1", CREATED + 2))),
        digest("K", live(attribute("x", b"1", CREATED + 1, actor=2))),
        digest("K", live(attribute("y", b"1", CREATED + 1))),
        digest("K", live(one, attribute("y", b"1", CREATED + 1))),
        digest("K", expired(live(one))),
        digest("K", destroyed(CREATED, 0)),
        digest("K", live(Entry(Namespace.NOTE, 0, b"x", b"1", CREATED + 1, 1))),
    ]
    assert len(set(different)) == len(different)
    assert all(0 <= number < 2**64 for number in different)
    end = CREATED + 9
    assert digest("K", expired(live(one), end)) == digest("K", expired(live(), end))
    assert digest("K", live(one, tombstone("z", CREATED + 3))) == digest("K", live(one))


# Pruning.


def test_a_removal_is_forgotten_after_an_hour() -> None:
    record = live(attribute("x", b"1", CREATED), tombstone("y", CREATED + 255))
    assert prune(record, START_MS + TOMBSTONE_AGE_MS) is record
    assert prune(record, START_MS + TOMBSTONE_AGE_MS + 1) == live(
        attribute("x", b"1", CREATED), access=CREATED + 255
    )


def test_at_most_64_removals_are_remembered_the_newest() -> None:
    removed = [tombstone(f"t{n:03}", CREATED + n) for n in range(TOMBSTONES_MAX + 10)]
    pruned = prune(live(*removed), START_MS)
    left = sorted(entry.hlc - CREATED for entry in parse(pruned).entries.values())
    assert left == list(range(10, TOMBSTONES_MAX + 10))
    assert prune(pruned, START_MS) is pruned


def test_pruning_the_last_container_entry_clears_the_flag() -> None:
    record = live(Entry(Namespace.CONTAINER, Kind.TOMBSTONE, b"id:X", b"R\0\0", CREATED, 1))
    pruned = prune(record, START_MS + 2 * TOMBSTONE_AGE_MS)
    assert pruned == live(access=CREATED)


# Lost updates.


def test_a_write_that_had_not_seen_mine_is_reported() -> None:
    mine = attribute("x", b"mine", CREATED + 5, actor=1)
    blind = attribute("x", b"theirs", CREATED + 6, actor=2, base=CREATED + 4)
    assert list(lost_updates(live(mine), live(blind), 1)) == [(mine, blind)]


@pytest.mark.parametrize(
    "incoming",
    [
        attribute("x", b"theirs", CREATED + 6, actor=2, base=CREATED + 5),
        attribute("x", b"theirs", CREATED + 4, actor=2),
        attribute("x", b"mine", CREATED + 6, actor=1),
        attribute("y", b"theirs", CREATED + 6, actor=2),
    ],
    ids=["it had seen mine", "it is older", "it is my own", "another name"],
)
def test_other_writes_are_not_reported(incoming: Entry) -> None:
    mine = attribute("x", b"mine", CREATED + 5, actor=1)
    assert list(lost_updates(live(mine), live(incoming), 1)) == []


def test_more_than_254_writers_merge_like_few() -> None:
    """The wide form joins and leaves like any other change."""
    many = live(*(attribute(f"{n}", b"", CREATED + n, actor=n) for n in range(300)))
    few = live(*(attribute(f"{n}", b"new", CREATED + 400, actor=5) for n in range(100)))
    assert merge(many, few) == merge(few, many)
    assert main_of(merge(many, few))[3] != main_of(many)[3]
    spans = walk(main_of(many))
    assert len(spans) == 300
    chance = random.Random(3)
    deltas: list[Any] = [live(attribute(f"{n}", b"x", CREATED + n, actor=n)) for n in range(300)]
    expected = merge(None, *deltas)
    chance.shuffle(deltas)
    assert merge(None, *deltas) == expected
