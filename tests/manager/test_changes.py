"""From what a request did to a new record and a delta, on whatever record is there by then."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.manager.changes import Built, Change, build_delta
from tribes.manager.merge import expired, merge
from tribes.manager.reading import Reading
from tribes.manager.record import (
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    equal_state,
    from_wire,
    header,
    pack,
    parse,
)
from tribes.manager.values import ValueCodec
from tribes.testing.manager_strategies import START_HLC, records

CODEC = ValueCodec()
CREATED, ACCESS, HLC, NOW = 1000, 1100, 1200, 50
ATTRIBUTE = int(Namespace.ATTRIBUTE)


def entry(name: str, value: Any, *, hlc: int = ACCESS, actor: int = 1) -> Entry:
    return Entry(ATTRIBUTE, Kind.LAST_WRITER, name.encode(), CODEC.encode(value), hlc, actor)


def record_of(*entries: Entry, access: int = ACCESS) -> Record:
    places = {(e.namespace, e.name): e for e in entries}
    return pack(Parsed(Life.LIVE, WHOLE, CREATED, access, 0, places))


class Wish(NamedTuple):
    """A change without the record that it is based on."""

    name: str
    kind: int
    value: bytes
    namespace: int


def change(name: str, value: Any, *, namespace: int = ATTRIBUTE) -> Wish:
    return Wish(name, Kind.LAST_WRITER, CODEC.encode(value), namespace)


def removal(name: str) -> Wish:
    return Wish(name, Kind.TOMBSTONE, b"", ATTRIBUTE)


def build(wishes: list[Wish], snapshot: Record | None, current: Record | None) -> Built | None:
    reading = None if snapshot is None else Reading(snapshot)
    return build_delta(
        [
            Change(wish.namespace, wish.name.encode(), wish.kind, wish.value, reading)
            for wish in wishes
        ],
        reading,
        current,
        created=CREATED,
        hlc=HLC,
        actor=7,
        now_ds=NOW,
        flags=WHOLE if snapshot is None else 0,
        codec=CODEC,
    )


def built(wishes: list[Wish], snapshot: Record | None, current: Record | None) -> Built:
    result = build(wishes, snapshot, current)
    assert result is not None
    if current is not None:
        assert equal_state(result.record, merge(current, from_wire(result.delta, NOW)))
    return result


def values(record: Record) -> dict[str, Any]:
    return {
        name.decode(): CODEC.decode(e.value)
        for (_, name), e in parse(record).entries.items()
        if e.kind != Kind.TOMBSTONE
    }


def entry_of(record: Record, name: str) -> Entry:
    return parse(record).entries[ATTRIBUTE, name.encode()]


def test_a_new_session_is_its_own_delta_and_whole() -> None:
    result = built([change("a", 1)], None, None)
    assert equal_state(from_wire(result.delta, NOW), result.record)
    known = header(result.record)
    assert (known.flags & WHOLE, known.created, known.access, known.last_seen) == (
        WHOLE,
        CREATED,
        HLC,
        NOW,
    )
    assert values(result.record) == {"a": 1}


def test_a_delta_has_what_changed_with_the_version_that_was_seen() -> None:
    seen = entry("a", 1)
    record = record_of(seen, entry("b", 2))
    result = built([change("a", 5)], record, record)
    delta = parse(from_wire(result.delta, NOW))
    assert list(delta.entries.values()) == [
        Entry(ATTRIBUTE, 0, b"a", CODEC.encode(5), HLC, 7, ACCESS)
    ]
    assert not delta.flags & WHOLE
    assert values(result.record) == {"a": 5, "b": 2}


def test_what_is_already_so_is_not_written() -> None:
    seen = entry("a", 1)
    record = record_of(seen)
    assert build([change("a", 1), removal("never")], record, record) is None
    assert build([], record, record) is None


def test_another_requests_change_survives() -> None:
    """The new record is built from the present one, not from the one that was read."""
    seen = entry("a", 1)
    snapshot = record_of(seen)
    current = record_of(seen, entry("b", 2, hlc=1150, actor=2), access=1150)
    result = built([change("a", 5)], snapshot, current)
    assert values(result.record) == {"a": 5, "b": 2}
    assert not result.conflicts


def test_two_changes_of_one_value_are_joined_if_that_is_clear() -> None:
    seen = entry("cart", ["x"])
    snapshot = record_of(seen)
    current = record_of(entry("cart", ["x", "theirs"], hlc=1150, actor=2), access=1150)
    result = built([change("cart", ["x", "mine"])], snapshot, current)
    assert values(result.record) == {"cart": ["x", "theirs", "mine"]}
    assert not result.conflicts
    assert result.joined == {(ATTRIBUTE, b"cart")}
    assert entry_of(result.record, "cart").base == 1150, "their version has been seen, then"


def test_otherwise_the_later_write_wins_and_is_counted() -> None:
    seen = entry("n", 1)
    snapshot = record_of(seen)
    current = record_of(entry("n", 2, hlc=1150, actor=2), access=1150)
    result = built([change("n", 3)], snapshot, current)
    assert values(result.record) == {"n": 3}
    assert len(result.conflicts) == 1
    assert result.joined == frozenset()
    assert entry_of(result.record, "n").base == ACCESS, "their version has not been seen"


def test_two_creations_of_one_dict_are_joined() -> None:
    snapshot = record_of()
    current = record_of(entry("d", {"a": 1}, hlc=1150, actor=2), access=1150)
    result = built([change("d", {"b": 2})], snapshot, current)
    assert values(result.record) == {"d": {"a": 1, "b": 2}}


def test_the_same_change_twice_is_written_once() -> None:
    snapshot = record_of()
    current = record_of(entry("d", {"a": 1}, hlc=1150, actor=2), access=1150)
    assert build([change("d", {"a": 1})], snapshot, current) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "expected", "conflicts"),
    [(None, 2, {}, 1), (2, None, {"n": 2}, 1), (None, None, {}, 0)],
)
def test_a_removal_against_a_change_is_a_conflict(
    mine: int | None, theirs: int | None, expected: dict[str, int], conflicts: int
) -> None:
    seen = entry("n", 1)
    other = (
        Entry(ATTRIBUTE, Kind.TOMBSTONE, b"n", b"", 1150, 2)
        if theirs is None
        else entry("n", theirs, hlc=1150, actor=2)
    )
    wish = removal("n") if mine is None else change("n", mine)
    result = build([wish], record_of(seen), record_of(other, access=1150))
    assert values(record_of(other, access=1150) if result is None else result.record) == expected
    assert (0 if result is None else len(result.conflicts)) == conflicts


def test_what_cannot_be_decoded_here_cannot_be_joined() -> None:
    seen = entry("d", {})
    other = Entry(ATTRIBUTE, Kind.LAST_WRITER, b"d", b"\xc1", 1150, 2)
    result = built([change("d", {"a": 1})], record_of(seen), record_of(other, access=1150))
    assert len(result.conflicts) == 1
    assert values(result.record) == {"d": {"a": 1}}
    newer = Entry(ATTRIBUTE, 3, b"d", b"", 1150, 2)
    result = built([change("d", {"a": 1})], record_of(seen), record_of(newer, access=1150))
    assert len(result.conflicts) == 1


def test_a_write_to_an_expired_session_revives_it() -> None:
    record = record_of(entry("a", 1))
    result = built([change("b", 2)], record, expired(record))
    assert header(result.record).life == Life.LIVE
    assert values(result.record) == {"a": 1, "b": 2}


def test_a_use_of_an_expired_session_revives_it_too() -> None:
    record = record_of(entry("a", 1))
    result = built([], record, expired(record))
    assert header(result.record).life == Life.LIVE
    assert parse(from_wire(result.delta, NOW)).entries == {}


def test_a_session_that_left_the_table_travels_whole() -> None:
    record = record_of(entry("a", 1))
    result = built([change("b", 2)], record, None)
    assert values(from_wire(result.delta, NOW)) == {"a": 1, "b": 2}
    assert header(from_wire(result.delta, NOW)).flags & WHOLE
    assert build([], record, None) is None


def test_many_and_large_changes_take_the_long_way_to_the_same_end() -> None:
    record = record_of(entry("a", 1))
    changes = [change(f"n{n}", bytes(9000) if n == 3 else n) for n in range(20)]
    result = built(changes, record, record)
    assert len(values(result.record)) == 21


@given(st.data())
def test_the_fast_way_gives_the_bytes_of_the_slow_way(data: st.DataObject) -> None:
    """A commit of attributes that nothing came between is spliced, every other one is merged."""
    snapshot = data.draw(records(created=START_HLC, lives=(Life.LIVE,)))
    names = [e.name for e in parse(snapshot).entries.values() if e.namespace == ATTRIBUTE]
    some_name = st.sampled_from([*names, b"new", b"a", b"zzz", b"n" * 200])
    some_value = st.binary(max_size=5) | st.sampled_from([b"v" * 200, b"v" * 9000])
    drawn = data.draw(st.dictionaries(some_name, st.none() | some_value, max_size=4))
    actor = data.draw(st.sampled_from([1, 2, 0x01010101, 2**32 - 1]))
    hlc = header(snapshot).access + data.draw(st.integers(1, 2**33))
    reading = Reading(snapshot)

    def run(seen_in: Reading) -> Built | None:
        changes = [
            Change(ATTRIBUTE, name, Kind.TOMBSTONE, b"", seen_in)
            if value is None
            else Change(ATTRIBUTE, name, Kind.LAST_WRITER, value, seen_in)
            for name, value in drawn.items()
        ]
        return build_delta(
            changes,
            reading,
            snapshot,
            created=0,
            hlc=hlc,
            actor=actor,
            now_ds=NOW,
            flags=0,
            codec=CODEC,
        )

    fast, slow = run(reading), run(Reading(snapshot))
    assert fast == slow
    if fast is not None:
        assert pack(parse(fast.record)) == fast.record
        assert equal_state(fast.record, merge(snapshot, from_wire(fast.delta, NOW)))
