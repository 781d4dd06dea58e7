from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.testing.strategies import frame_bodies, mutations, pieces
from tribes.wire.frame import (
    ACK_BODY,
    ACK_FRAME,
    FAIL_ACK_BODY,
    FAIL_ACK_FRAME,
    FRAME_END,
    FRAME_OVERHEAD,
    FRAME_START,
    FrameDecoder,
    encode_frame,
)


def stream_of(bodies: list[bytes]) -> bytes:
    return b"".join(map(encode_frame, bodies))


def feed_all(decoder: FrameDecoder, chunks: list[bytes]) -> list[bytes]:
    """Return all bodies; stop, as a caller does, as soon as the stream is broken."""
    bodies: list[bytes] = []
    for chunk in chunks:
        bodies += decoder.feed(chunk)
        if decoder.broken:
            break
    return bodies


def test_the_acknowledgements_are_tomcats() -> None:
    """Both frames are the constants of tribes-wire §3.3."""
    assert ACK_FRAME.hex() == "464c543230303200000003060203544c4632303033"
    assert FAIL_ACK_FRAME.hex() == "464c5432303032000000030b0005544c4632303033"
    assert FrameDecoder().feed(ACK_FRAME + FAIL_ACK_FRAME) == [ACK_BODY, FAIL_ACK_BODY]


@given(frame_bodies(), st.data())
@settings(max_examples=200)
def test_any_split_gives_the_same_frames(bodies: list[bytes], data: st.DataObject) -> None:
    """The bodies come out, in order, however the stream is cut."""
    decoder = FrameDecoder()
    assert feed_all(decoder, data.draw(pieces(stream_of(bodies)))) == bodies
    assert decoder.broken is None
    assert decoder.buffered_bytes == 0


@given(frame_bodies())
@settings(max_examples=50)
def test_a_stream_can_come_byte_by_byte(bodies: list[bytes]) -> None:
    """Each body comes out with the last byte of its frame, not before and not after."""
    decoder = FrameDecoder()
    for body in bodies:
        frame = encode_frame(body)
        for at in range(len(frame) - 1):
            assert decoder.feed(frame[at : at + 1]) == []
            assert decoder.buffered_bytes == at + 1
        assert decoder.feed(frame[-1:]) == [body]
        assert decoder.buffered_bytes == 0


@given(st.binary(max_size=100) | frame_bodies().map(stream_of).flatmap(mutations), st.data())
@settings(max_examples=300)
def test_any_bytes_give_frames_or_a_broken_stream(stream: bytes, data: st.DataObject) -> None:
    """Damage never raises anything else, and how the stream is cut decides nothing."""
    whole, cut = FrameDecoder(), FrameDecoder()
    bodies = whole.feed(stream)
    assert feed_all(cut, data.draw(pieces(stream))) == bodies
    assert (cut.broken is None) == (whole.broken is None)
    if not whole.broken:
        assert stream_of(bodies) == stream[: len(stream) - whole.buffered_bytes]
        assert cut.buffered_bytes == whole.buffered_bytes


@given(frame_bodies(), st.binary(min_size=1, max_size=20), st.data())
def test_frames_before_the_break_are_not_lost(
    bodies: list[bytes], junk: bytes, data: st.DataObject
) -> None:
    """What was complete before the first bad byte is returned, even from the same read."""
    decoder = FrameDecoder()
    stream = stream_of(bodies) + b"\0" + junk
    assert feed_all(decoder, data.draw(pieces(stream))) == bodies
    assert isinstance(decoder.broken, RemoteProtocolError)


@pytest.mark.parametrize("lead", [b"", encode_frame(b"good")], ids=["alone", "after a frame"])
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"x", id="first byte"),
        pytest.param(b"FLT2003", id="last byte of the start marker"),
        pytest.param(b"FLTx", id="start marker, before all of it is there"),
        pytest.param(b"FLT2002\xff\xff\xff\xff", id="negative length"),
        pytest.param(b"FLT2002\0\0\0\x65", id="length above the maximum"),
        pytest.param(b"FLT2002\x7f\xff\xff\xff", id="length of 2 GiB"),
        pytest.param(b"FLT2002\0\0\0\x01xTLF2002", id="end marker"),
        pytest.param(b"FLT2002\0\0\0\x01xxTLF2003", id="body longer than its length"),
    ],
)
def test_a_stream_breaks_at_its_first_wrong_byte(lead: bytes, bad: bytes) -> None:
    """The break is seen with the byte that proves it, in one read and in many."""
    in_one = FrameDecoder(body_max_bytes=100)
    in_one.feed(lead + bad)
    assert in_one.broken
    assert in_one.buffered_bytes == 0

    in_many = FrameDecoder(body_max_bytes=100)
    in_many.feed(lead)
    for at in range(len(bad)):
        assert in_many.broken is None or bad.startswith(b"FLT2002\0\0\0\x01")
        if not in_many.broken:
            in_many.feed(bad[at : at + 1])
    assert in_many.broken


def test_a_broken_stream_stays_broken() -> None:
    """Every later feed raises, whatever it is given, and says what happened first."""
    decoder = FrameDecoder()
    assert decoder.feed(ACK_FRAME + b"junk") == [ACK_BODY]
    for data in (ACK_FRAME, b"", b"junk"):
        with pytest.raises(RemoteProtocolError, match="starts with 6a756e6b") as caught:
            decoder.feed(data)
        assert caught.value.__cause__ is decoder.broken


def test_a_decoder_shows_its_state() -> None:
    """The repr says what is buffered and whether the stream is broken."""
    decoder = FrameDecoder()
    decoder.feed(b"FLT")
    assert repr(decoder) == "<FrameDecoder buffered_bytes=3 broken=None>"


def test_the_longest_body_is_taken() -> None:
    """The maximum is the longest body, and does not count the markers."""
    decoder = FrameDecoder(body_max_bytes=10)
    assert decoder.feed(encode_frame(bytes(10))) == [bytes(10)]
    assert decoder.feed(encode_frame(bytes(11))) == []
    assert "11 bytes, at most 10" in str(decoder.broken)


def test_a_claimed_length_costs_nothing() -> None:
    """What is held grows with the bytes received and not with what the length field promises."""
    decoder = FrameDecoder()
    decoder.feed(FRAME_START + (16 * 1024 * 1024).to_bytes(4, "big") + b"abc")
    assert decoder.buffered_bytes == 14
    assert decoder._unfinished.__sizeof__() < 200


def test_many_small_reads_of_a_large_frame_are_linear() -> None:
    """A frame of 4 MiB in reads of 64 bytes is done at once: nothing is scanned or moved twice."""
    body = bytes(4 * 1024 * 1024)
    frame = encode_frame(body)
    decoder = FrameDecoder()
    begin = time.process_time()
    found = [done for at in range(0, len(frame), 64) for done in decoder.feed(frame[at : at + 64])]
    assert found == [body]
    # It takes some hundredths; with a copy of what is there for each read it takes a minute.
    assert time.process_time() - begin < 5


def test_bodies_are_bytes() -> None:
    """Bodies do not change when the decoder goes on, whichever way they came."""
    decoder = FrameDecoder()
    frame = encode_frame(b"body")
    for body in [*decoder.feed(frame + frame[:5]), *decoder.feed(frame[5:])]:
        assert type(body) is bytes
    assert FRAME_OVERHEAD == len(FRAME_START) + 4 + len(FRAME_END) == len(encode_frame(b""))
