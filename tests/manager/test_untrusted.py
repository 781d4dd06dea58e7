"""Bytes from a peer become a canonical record or a RemoteProtocolError, and nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.manager.layout import WIDE
from tribes.manager.record import Entry, Life, Parsed, Record, from_wire, pack, parse, to_wire
from tribes.manager.untrusted import check
from tribes.testing.manager_strategies import records


def raw(
    *entries: bytes,
    actors: tuple[int, ...] = (7,),
    count: int | None = None,
    layout: int = 1,
    life: int = 0,
    flags: int = 0,
    created: int = 1000,
    access: int = 2000,
    wide: bool = False,
) -> bytes:
    """Build a record by hand, right or wrong."""
    number = len(entries) if count is None else count
    fixed = struct.pack(
        ">BBBBHQQI",
        layout,
        life,
        flags,
        WIDE if wide else len(actors),
        number,
        created,
        access,
        3,
    )
    table = b"" if wide else struct.pack(f">{len(actors)}I", *actors)
    return fixed + table + b"".join(entries)


GOOD = b"\x00\x00\x11\x05\x02\x01\x01av"


def test_the_form_that_is_right_passes() -> None:
    record = from_wire(raw(GOOD), 10)
    assert parse(record).entries == {(0, b"a"): Entry(0, 0, b"a", b"v", 1005, 7, 1003)}
    assert check(raw(GOOD)) == (len(raw(GOOD)), [])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends early"),
        (raw(GOOD, layout=2), "layout 2"),
        (raw(GOOD, life=3), "life 3"),
        (raw(GOOD, created=3000), "created"),
        (raw(GOOD, life=2, created=2000), "destroyed"),
        (raw(life=2, actors=()), "destroyed"),
        (raw(life=2, actors=(), created=2000, flags=2), "destroyed"),
        (raw(GOOD, actors=(9, 7)), "unsorted actor"),
        (raw(GOOD, actors=(7, 7)), "unsorted actor"),
        (raw(GOOD, actors=(7, 9)), "does not fit"),
        (raw(GOOD, actors=()), "does not fit"),
        (raw(b"\x00\x01" + GOOD[2:]), "does not fit"),
        (raw(GOOD, count=2), "ends early"),
        (raw(GOOD, count=0), "does not fit"),
        (raw(GOOD, GOOD), "unsorted name"),
        (raw(GOOD.replace(b"a", b"b"), GOOD), "unsorted name"),
        (raw(b"\x00\x00\x11\x05\x02\x00\x01v"), "bad or unsorted name"),
        (raw(b"\x00\x00\x11\x05\x02\x81\x08\x01" + b"n" * 1025 + b"v"), "bad or unsorted name"),
        (raw(b"\x00\x00\x11\x05\x02\x01\x01\xffv"), "no text"),
        (raw(b"\x00\x00\x11\x05\x02\x01\x09av"), "overruns"),
        (raw(b"\x00\x00\x11\x05\x02\x81\x00\x01av"), "shortest form"),
        (raw(b"\x00\x00\x11\x05\x02\x01\x81\x00av"), "shortest form"),
        (raw(b"\x00\x00\x11\x05\x02\x01" + b"\xff" * 9 + b"\x7fav"), "too great"),
        (raw(b"\x00\x00\x11\x05\x02\x01" + b"\x80" * 11 + b"\x01av"), "too long"),
        (raw(b"\x00\x00\x21\x00\x05\x02\x01\x01av"), "long form"),
        (raw(b"\x00\x00\x12\x05\x00\x02\x01\x01av"), "long form"),
        (raw(b"\x00\x00\x91" + b"\x01" * 9 + b"\x02\x01\x01av"), "long form"),
        (raw(b"\x00\x00\x20\x07\xd0\x01\x01av"), "out of range"),
        (raw(b"\x00\x00\x82" + b"\xff" * 8 + b"\x02\x02\x01\x01av"), "out of range"),
        (raw(b"\x00\x00\x12\x05\x03\xed\x01\x01av"), "out of range"),
        (raw(GOOD, flags=1), "contradict"),
        (raw(b"\x10" + GOOD[1:]), "contradict"),
        (raw(GOOD[:1] + b"\x00\x00\x00\x07" + GOOD[2:], wide=True), "does not fit"),
        (raw(GOOD) + b"x", "bytes in"),
    ],
)
def test_what_is_wrong_is_refused_and_named(data: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        from_wire(data, 10)


def test_a_claimed_length_costs_nothing() -> None:
    """A value that says it has 2**60 bytes is refused by arithmetic."""
    entry = b"\x00\x00\x11\x05\x02\x01" + b"\x80" * 8 + b"\x10" + b"a"
    with pytest.raises(RemoteProtocolError):
        from_wire(raw(entry), 10)


def test_unknown_namespaces_kinds_and_flags_are_carried() -> None:
    """An older node passes on what a newer one wrote, bit by bit."""
    data = raw(b"\xe5" + GOOD[1:], flags=0xFC)
    record = from_wire(data, 10)
    assert to_wire(record, 10)[26:] == data[26:]
    assert parse(record).flags == 0xFC
    assert pack(parse(record)) == record


@given(st.binary(max_size=200))
@example(raw(GOOD))
def test_random_bytes_give_a_record_or_the_error(data: bytes) -> None:
    accepts_only_canonical(data)


@given(st.data(), records())
def test_damaged_records_give_a_record_or_the_error(data: st.DataObject, record: Record) -> None:
    wire = bytearray(to_wire(record, 0))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(wire), 400) - 1))
        wire[at] = data.draw(st.integers(0, 255))
    accepts_only_canonical(bytes(wire))


@given(st.binary(max_size=60), st.integers(0, 3), st.booleans())
def test_random_entries_give_a_record_or_the_error(tail: bytes, count: int, wide: bool) -> None:
    accepts_only_canonical(raw(tail, count=count, wide=wide, access=2**63))


def accepts_only_canonical(data: bytes) -> None:
    try:
        record = from_wire(data, 100)
    except RemoteProtocolError:
        return
    assert pack(parse(record)) == record
    assert to_wire(record, 100)[26:] == data[26:]


def test_a_destroyed_record_is_a_bare_header() -> None:
    record = pack(Parsed(Life.DESTROYED, 0x40, 5, 5, 0))
    assert from_wire(to_wire(record, 0), 0) == record
