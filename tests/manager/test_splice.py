"""The fast path of merging: when it applies, and that it declines where it must."""

from __future__ import annotations

import pytest

from tribes.manager.changes import Change
from tribes.manager.layout import walk
from tribes.manager.merge import merge
from tribes.manager.reading import Reading
from tribes.manager.record import (
    Entry,
    Kind,
    Life,
    Parsed,
    from_wire,
    main_of,
    pack,
    slot_of,
    with_access,
)
from tribes.manager.splice import actor_index, patches_of, rewrite, splice

CREATED = 1000


def record_of(*entries: Entry) -> bytes:
    places = {(entry.namespace, entry.name): entry for entry in entries}
    return main_of(pack(Parsed(Life.LIVE, 0, CREATED, 2000, 0, places)))


def entry(name: bytes, value: bytes = b"v", *, hlc: int = 1500, actor: int = 1) -> Entry:
    return Entry(0, Kind.LAST_WRITER, name, value, hlc, actor)


def join(main: bytes, delta: bytes) -> bytes | None:
    patches = patches_of(main, delta)
    if patches is None:
        return None
    return splice(main, walk(main), patches, delta[2], delta[14:22], delta[22:26])


def test_entries_are_replaced_and_inserted_in_their_places() -> None:
    main = record_of(entry(b"b"), entry(b"d"), entry(b"f"))
    news = [entry(n, b"new", hlc=1600) for n in (b"a", b"d", b"e", b"g")]
    assert join(main, record_of(*news)) == record_of(entry(b"b"), entry(b"f"), *news)


def test_nothing_new_gives_the_very_same_record() -> None:
    main = record_of(entry(b"b"), entry(b"d"))
    assert join(main, record_of(entry(b"b"))) is main
    assert join(main, record_of(entry(b"b", hlc=1400))) is main


def test_a_namespace_sorts_before_a_name() -> None:
    main = record_of(entry(b"z"), Entry(2, 0, b"a", b"", 1500, 1))
    note = Entry(1, 0, b"q", b"", 1600, 1)
    assert join(main, record_of(note)) == record_of(
        entry(b"z"), note, Entry(2, 0, b"a", b"", 1500, 1)
    )


def test_a_new_actor_is_left_to_the_full_merge() -> None:
    assert join(record_of(entry(b"b")), record_of(entry(b"c", actor=2))) is None


def test_an_actor_that_would_leave_is_left_to_the_full_merge() -> None:
    main = record_of(entry(b"a", actor=1), entry(b"b", actor=2))
    assert join(main, record_of(entry(b"b", hlc=1600, actor=1))) is None
    main = record_of(entry(b"a", actor=1), entry(b"b", actor=2), entry(b"c", actor=2))
    assert join(main, record_of(entry(b"b", hlc=1600, actor=1))) is not None


def test_a_large_value_that_goes_is_left_to_the_full_merge() -> None:
    main = record_of(entry(b"a", bytes(9000)))
    assert join(main, record_of(entry(b"a", b"small", hlc=1600))) is None
    assert join(main, record_of(entry(b"b", b"small", hlc=1600))) is not None


def test_one_version_with_two_contents_is_left_to_the_full_merge() -> None:
    assert join(record_of(entry(b"a", b"1")), record_of(entry(b"a", b"2"))) is None


def test_an_actor_is_found_at_its_place_only() -> None:
    """Four bytes that straddle two actors are no actor."""
    main = record_of(entry(b"a", actor=0x01020304), entry(b"b", actor=0x05060708))
    assert actor_index(main, b"\x05\x06\x07\x08") == 1
    assert actor_index(main, b"\x03\x04\x05\x06") == -1
    both = record_of(entry(b"a", actor=0x01010101), entry(b"b", actor=0x01010102))
    assert actor_index(both, b"\x01\x01\x01\x02") == 1


# A commit's way.


def rewritten(main: bytes, *wishes: tuple[bytes, bytes | None], actor: int = 1) -> bytes | None:
    """Apply changes and check that record and delta tell the same."""
    reading = Reading(main)
    changes = [
        Change(0, name, Kind.TOMBSTONE if value is None else 0, value or b"", reading)
        for name, value in wishes
    ]
    result = rewrite(reading, changes, 3000, actor.to_bytes(4, "big"), slot_of(9))
    if result is None:
        return None
    record, delta = result
    if delta:
        assert merge(main, from_wire(delta, 9)) == record
    return record


@pytest.mark.parametrize("name", [b"a", b"b", b"c", b"d", b"e"])
def test_a_commit_finds_the_place_of_its_attribute(name: bytes) -> None:
    note = Entry(2, 0, b"a", b"note", 1500, 1)
    others = [entry(b"b"), entry(b"d"), note]
    new = Entry(0, 0, name, b"new", 3000, 1, 1500 if name in (b"b", b"d") else 0)
    places = {(e.namespace, e.name): e for e in [*others, new]}
    assert rewritten(record_of(*others), (name, b"new")) == pack(
        Parsed(Life.LIVE, 0, CREATED, 3000, 9, places)
    )


def test_a_commit_of_nothing_new_gives_the_very_same_record() -> None:
    main = record_of(entry(b"a"), Entry(0, Kind.TOMBSTONE, b"gone", b"", 1500, 1))
    assert rewritten(main, (b"a", b"v"), (b"gone", None), (b"never", None)) is main


def test_a_commit_never_moves_last_seen_back() -> None:
    main = record_of(entry(b"a"))
    late = main_of(with_access(main, 2000, 100))
    expected = Parsed(Life.LIVE, 0, CREATED, 3000, 100)
    expected.put(Entry(0, 0, b"a", b"new", 3000, 1, 1500))
    assert rewritten(late, (b"a", b"new")) == pack(expected)


def test_a_commit_declines_what_is_not_simple() -> None:
    big = bytes(9000)
    assert rewritten(record_of(entry(b"a")), (b"a", b"new"), actor=2) is None
    assert rewritten(record_of(entry(b"a"), entry(b"b", actor=2)), (b"b", b"new")) is None
    assert rewritten(record_of(entry(b"a")), (b"a", big)) is None
    assert rewritten(record_of(entry(b"a", big)), (b"a", b"new")) is None
    dead = main_of(pack(Parsed(Life.EXPIRED, 0, CREATED, 2000, 0)))
    assert rewritten(dead, (b"a", b"new")) is None
    many = record_of(*(entry(b"%d" % n, actor=n) for n in range(300)))
    assert rewritten(many, (b"1", b"new")) is None
