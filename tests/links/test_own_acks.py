"""Acknowledgements of an own link come back as they were, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.links.own_acks import (
    ACK_BODY_MAX_BYTES,
    FAILURES_PER_ACK_MAX,
    RUNS_PER_ACK_MAX,
    Ack,
    decode_ack,
    decode_seen,
    encode_ack,
    encode_seen,
    escape_data,
)
from tribes.testing.strategies import mutations
from tribes.wire.frame import encode_frame

U64_MAX = 2**64 - 1


@st.composite
def acks(draw: st.DrawFn) -> Ack:
    """Return an acknowledgement that does not contradict itself."""
    floor = draw(st.integers(0, 2**40))
    steps = draw(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 2**20)), max_size=6))
    early = []
    last = floor
    for gap, length in steps:
        early.append((last + gap + 1, last + gap + length))
        last += gap + length
    received = last + draw(st.integers(0, 1000))
    failures: list[tuple[int, str]] = []
    if received:
        reason = st.text(st.characters(codec="utf-8"), max_size=60).filter(
            lambda text: len(text.encode()) <= 200
        )
        failures = draw(st.lists(st.tuples(st.integers(1, received), reason), max_size=4))
    serial = draw(st.integers(0, U64_MAX)) if failures else 0
    return Ack(received, floor, tuple(early), tuple(failures), serial)


@given(acks())
def test_acknowledgement_comes_back(ack: Ack) -> None:
    """Every field, for any state of a receiver."""
    assert decode_ack(encode_ack(ack)) == ack


@given(st.integers(0, U64_MAX))
def test_confirmation_comes_back(serial: int) -> None:
    """Any number of 64 bits."""
    assert decode_seen(encode_seen(serial)) == serial


@given(st.one_of(st.binary(max_size=80), acks().map(encode_ack).flatmap(mutations)))
def test_damaged_acknowledgements_give_protocol_errors(body: bytes) -> None:
    """Nothing else is raised, and what is taken would be written the same way again."""
    try:
        ack = decode_ack(body)
    except RemoteProtocolError:
        pass
    else:
        assert encode_ack(ack) == body
    try:
        serial = decode_seen(body)
    except RemoteProtocolError:
        pass
    else:
        assert encode_seen(serial) == body


def ack_body(tail: bytes, *, received: int = 10, floor: int = 2) -> bytes:
    return b"TPY\x05" + received.to_bytes(8, "big") + floor.to_bytes(8, "big") + tail


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"TPY\x05" + bytes(15), "not an acknowledgement"),
        (ack_body(b"\0\0", received=1), "acknowledges 2 as done"),
        (ack_body(b"\x01\0\x01\0"), "empty run or gap"),
        (ack_body(b"\x01\x01\0\0"), "empty run or gap"),
        (ack_body(b"\x01\x01\x08\0"), "acknowledges 11 as done"),
        (ack_body(b"\0\0\0"), "ends after"),
        (ack_body(b"\0\x01\x01\x0b\x00"), "position 11 failed"),
        (ack_body(b"\0\x01\x01\x00\x00"), "position 0 failed"),
        (ack_body(b"\0\x01\x01\x01\x02a"), "a text of 2 bytes"),
        (ack_body(b"\0\x01\x01\x01\x01\xff"), "not UTF-8"),
        (ack_body(b"\0\x01\x01\x01"), "a text of 201 bytes"),
        (ack_body(b"\0\x80\0"), "shortest form"),
        (ack_body(b"\0" + b"\xff" * 10), "too large"),
        (ack_body(b"\0\x80"), "cut short"),
        (ack_body(b"\x81\x08"), "1025 runs"),
        (ack_body(b"\0\x81\x02"), "257 failures"),
    ],
)
def test_what_contradicts_itself_is_refused(body: bytes, why: str) -> None:
    """Before anything is allocated by a number that the peer claims."""
    with pytest.raises(RemoteProtocolError, match=why):
        decode_ack(body)


def test_largest_acknowledgement_fits_its_bound() -> None:
    """All runs and failures there may be, with the largest numbers."""
    top = U64_MAX
    runs = tuple((top - 3000 + 2 * i, top - 3000 + 2 * i) for i in range(RUNS_PER_ACK_MAX))
    failures = ((top, "r" * 200),) * FAILURES_PER_ACK_MAX
    body = encode_ack(Ack(top, 1, runs, failures, top))
    assert len(body) <= ACK_BODY_MAX_BYTES
    assert decode_ack(body) == Ack(top, 1, runs, failures, top)


def test_only_unsigned_numbers_of_64_bits_are_written() -> None:
    """Anything else is our own mistake."""
    for number in (-1, 2**64):
        with pytest.raises(LocalProtocolError):
            encode_seen(number)


def test_only_data_that_looks_like_a_control_frame_is_wrapped() -> None:
    """Its options are 0x545059..; the usual frame travels as it is."""
    usual = encode_frame(b"\0\0\0\x07rest")
    assert escape_data(usual) is usual
    assert escape_data(encode_frame(b"TPY\x07")) == encode_frame(b"TPY\x09TPY\x07")
    assert escape_data(encode_frame(b"TPYx" * 9)) == encode_frame(b"TPY\x09" + b"TPYx" * 9)
