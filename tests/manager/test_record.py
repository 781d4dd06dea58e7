"""The packed record: what it holds, its canonical form, its two forms in memory and on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError, SessionLimitError
from tribes.manager.layout import ACTORS_AT, WIDE, walk
from tribes.manager.reading import Reading
from tribes.manager.record import (
    ENTRIES_MAX,
    HAS_CONTAINER,
    LARGE_VALUE_BYTES,
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    bare,
    deciseconds,
    equal_state,
    from_wire,
    header,
    main_of,
    pack,
    pack_delta,
    parse,
    read_entry,
    size,
    to_wire,
    with_access,
)
from tribes.testing.manager_strategies import records

NOW = 5_000


def parsed_of(*entries: Entry, life: Life = Life.LIVE, flags: int = WHOLE) -> Parsed:
    parsed = Parsed(life, flags, 100, 1_000_000, NOW)
    for entry in entries:
        parsed.put(entry)
    return parsed


def attribute(name: bytes, value: bytes = b"v", *, hlc: int = 200, actor: int = 1) -> Entry:
    return Entry(Namespace.ATTRIBUTE, Kind.LAST_WRITER, name, value, hlc, actor)


@given(records())
def test_packing_what_was_parsed_gives_the_same_bytes(record: Record) -> None:
    assert pack(parse(record)) == record


@given(records(), st.integers(-(2**20), 2**20))
def test_the_wire_form_carries_the_state_and_the_age(record: Record, now_ds: int) -> None:
    received = from_wire(to_wire(record, now_ds), 7_000_000)
    assert equal_state(received, record)
    idle = max(now_ds - header(record).last_seen, 0)
    assert header(received).last_seen == 7_000_000 - idle


@given(records())
def test_a_received_record_is_what_packing_makes(record: Record) -> None:
    received = from_wire(to_wire(record, NOW), NOW)
    assert pack(parse(received)) == received


@given(records())
def test_the_header_and_the_entries_can_be_read_alone(record: Record) -> None:
    parsed = parse(record)
    known = header(record)
    assert (known.life, known.flags, known.created, known.access, known.last_seen) == (
        parsed.life,
        parsed.flags,
        parsed.created,
        parsed.access,
        parsed.last_seen,
    )
    assert known.entries == len(parsed.entries)
    spans = Reading(record).spans
    assert [read_entry(record, span) for span in spans] == list(parsed.entries.values())


@given(records(), st.integers(0, 2**64 - 1), st.integers(-(2**29), 2**31))
def test_another_access_leaves_everything_else(record: Record, access: int, seen: int) -> None:
    touched = with_access(record, access, seen)
    assert header(touched).access == access
    assert header(touched).last_seen == seen
    known = header(record)
    assert with_access(touched, known.access, known.last_seen) == record


@given(records(), records())
def test_equal_state_ignores_last_seen_only(a: Record, b: Record) -> None:
    assert equal_state(a, with_access(a, header(a).access, 77))
    left, right = parse(a), parse(b)
    left.last_seen = right.last_seen = 0
    assert equal_state(a, b) == (left == right)


def test_the_layout_is_this() -> None:
    """The bytes are a stored format: a change here needs a new layout number."""
    record = pack(
        parsed_of(
            Entry(Namespace.CONTAINER, Kind.LAST_WRITER, b"idle", b"\x00\x00\x07\x08", 100, 0xA),
            Entry(Namespace.ATTRIBUTE, Kind.TOMBSTONE, b"old", b"", 100 + 0x1234, 0xB, 0x34 + 100),
        )
    )
    assert isinstance(record, bytes)
    assert record.hex(" ") == (
        "01 00 03 02 00 02"  # layout, life, flags, actors, entries
        " 00 00 00 00 00 00 00 64 00 00 00 00 00 0f 42 40"  # created, access
        " 40 00 13 88"  # last seen, biased
        " 00 00 00 0a 00 00 00 0b"
        " 0f 01 22 12 34 12 00 03 00 6f 6c 64"
        " 10 00 00 04 04 69 64 6c 65 00 00 07 08"
    )
    assert to_wire(record, NOW + 9)[22:26] == b"\x00\x00\x00\x09"


def test_entries_and_actors_are_sorted_whatever_the_order_of_writing() -> None:
    writes = [attribute(b"b", actor=9), attribute(b"a", actor=3), attribute(b"c", actor=3)]
    assert pack(parsed_of(*writes)) == pack(parsed_of(*reversed(writes)))


def test_large_values_stand_beside_the_record_and_are_never_copied() -> None:
    large = bytes(LARGE_VALUE_BYTES + 1)
    record = pack(parsed_of(attribute(b"a", large), attribute(b"b", large[1:])))
    assert isinstance(record, tuple)
    main, beside = record
    assert len(beside) == 1
    assert beside[0] is large
    assert len(main) < LARGE_VALUE_BYTES + 200
    again = pack(parse(record))
    assert again[1][0] is large  # type: ignore[index]
    touched = with_access(record, 5, 5)
    assert touched[1] is beside
    assert size(record) == len(main) + len(large) == len(to_wire(record, NOW))


@pytest.mark.parametrize("actors", [1, 2, WIDE - 1, WIDE, WIDE + 1, 400])
def test_any_number_of_writers_keeps_each_writer(actors: int) -> None:
    """Above 254 the entries name their actors themselves; nothing is folded."""
    writes = [attribute(b"%d" % n, actor=n * 7919 % 2**32) for n in range(actors)]
    record = pack(parsed_of(*writes))
    assert main_of(record)[3] == min(actors, WIDE)
    assert sorted(e.actor for e in parse(record).entries.values()) == sorted(
        e.actor for e in writes
    )
    assert from_wire(to_wire(record, NOW), NOW) == record
    entries = [read_entry(record, span) for span in walk(main_of(record))]
    assert entries == list(parse(record).entries.values())


def test_the_container_flag_follows_the_entries() -> None:
    with_container = parsed_of(Entry(Namespace.CONTAINER, 0, b"idle", b"", 100, 1), flags=0)
    assert header(pack(with_container)).flags == HAS_CONTAINER
    assert header(pack(parsed_of(flags=HAS_CONTAINER | 0x80))).flags == 0x80


def test_a_bare_record_has_life_and_access_only() -> None:
    record = pack(parsed_of(attribute(b"a", bytes(9000))))
    assert parse(bare(record)) == Parsed(Life.LIVE, 0, 100, 1_000_000, NOW)


def test_the_short_way_packs_the_same_delta() -> None:
    writes = [
        Entry(Namespace.NOTE, 0, b"n", b"1", 500, 7, 200),
        Entry(Namespace.ATTRIBUTE, 15, b"gone", b"", 500, 7, 300),
        Entry(Namespace.ATTRIBUTE, 0, b"big", bytes(9000), 500, 7),
        Entry(Namespace.CONTAINER, 0, b"idle", b"", 500, 7),
    ]
    slow = Parsed(Life.LIVE, WHOLE, 100, 500, NOW, {(e.namespace, e.name): e for e in writes})
    assert pack_delta(100, 500, 7, NOW, WHOLE, writes) == pack(slow)
    assert pack_delta(100, 500, 7, NOW, 0, []) == pack(Parsed(Life.LIVE, 0, 100, 500, NOW))


@pytest.mark.parametrize(
    "parsed",
    [
        parsed_of(attribute(b"a", hlc=99)),
        parsed_of(attribute(b"a", hlc=1_000_001)),
        parsed_of(Entry(0, 0, b"a", b"", 200, 1, 200)),
        parsed_of(attribute(b"")),
        parsed_of(attribute(b"n" * 1025)),
        Parsed(Life.DESTROYED, 0, 1, 2, 0),
        Parsed(Life.DESTROYED, 0, 2, 2, 0, {(0, b"a"): attribute(b"a")}),
    ],
)
def test_what_breaks_an_invariant_is_not_packed(parsed: Parsed) -> None:
    with pytest.raises(LocalProtocolError):
        pack(parsed)


def test_too_many_entries_are_refused() -> None:
    parsed = parsed_of(*(attribute(b"%d" % n) for n in range(ENTRIES_MAX + 1)))
    with pytest.raises(SessionLimitError):
        pack(parsed)


def test_last_seen_may_lie_before_the_start_of_the_monotonic_clock() -> None:
    """A machine that just booted learns of sessions that have been idle for longer."""
    record = from_wire(to_wire(pack(Parsed(0, 0, 1, 1, 0)), 40_000), 600)
    assert header(record).last_seen == 600 - 40_000
    assert deciseconds(123.46) == 1234


def test_an_absurd_age_is_the_greatest_that_fits() -> None:
    wire = bytearray(to_wire(pack(Parsed(0, 0, 1, 1, 0)), 0))
    wire[22:26] = b"\xff\xff\xff\xff"
    assert header(from_wire(bytes(wire), 10)).last_seen == -(2**30)


@pytest.mark.parametrize("cut", [1, ACTORS_AT - 1, ACTORS_AT + 1, -1])
def test_a_cut_record_is_refused(cut: int) -> None:
    wire = to_wire(pack(parsed_of(attribute(b"a", bytes(9000)), attribute(b"b"))), NOW)
    with pytest.raises(RemoteProtocolError):
        from_wire(wire[:cut], NOW)
    with pytest.raises(RemoteProtocolError):
        from_wire(wire + b"\x00", NOW)
