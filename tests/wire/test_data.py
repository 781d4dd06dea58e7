from __future__ import annotations

import struct
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.testing.strategies import channel_data, mutations
from tribes.wire.data import ChannelData, decode_body, encode_body, encode_data_frame
from tribes.wire.frame import FrameDecoder, encode_frame
from tribes.wire.limits import RECORD_CACHE_RECORD_MAX_BYTES, UNIQUE_ID_MAX_BYTES
from tribes.wire.member import Member, encode_member

ID = bytes(range(16))
MEMBER = Member(b"\x7f\0\0\1", 4000, ID, alive=1001)
RECORD = encode_member(MEMBER)


def arguments(data: ChannelData) -> dict[str, Any]:
    """Return what the encoders take for this message."""
    values = {f.name: getattr(data, f.name) for f in fields(data) if f.name != "source"}
    return values | {"source_record": encode_member(data.source)}


@given(channel_data())
def test_a_decoded_body_is_what_was_encoded(data: ChannelData) -> None:
    """Encoding and decoding give the same message, with every field of its source."""
    decoded = decode_body(encode_body(**arguments(data)))
    assert decoded == data
    assert encode_member(decoded.source) == encode_member(data.source)


@given(channel_data())
def test_the_frame_is_that_of_the_body(data: ChannelData) -> None:
    """The fast way and the two steps make the same bytes."""
    frame = encode_data_frame(**arguments(data))
    assert frame == encode_frame(encode_body(**arguments(data)))
    assert FrameDecoder().feed(frame) == [encode_body(**arguments(data))]


@given(
    st.binary(max_size=200)
    | channel_data().map(lambda data: encode_body(**arguments(data))).flatmap(mutations)
)
@settings(max_examples=300)
def test_damaged_bodies_are_refused_or_read(body: bytes) -> None:
    """Whatever the bytes, there is a message or RemoteProtocolError, and no other error."""
    try:
        data = decode_body(body)
    except RemoteProtocolError:
        return
    assert body.endswith(data.message + data.trailer)


@given(channel_data(), st.data())
def test_a_short_body_is_refused(data: ChannelData, draw: st.DataObject) -> None:
    """Nothing is made up for missing bytes: only a trailer can be shorter unnoticed."""
    body = encode_body(**arguments(data))
    needed = len(body) - len(data.trailer)
    with pytest.raises(RemoteProtocolError):
        decode_body(body[: draw.draw(st.integers(0, needed - 1))])


def body_with(*, id_bytes: int = 16, source_bytes: int = 77, message_bytes: int = 3) -> bytes:
    """Return a good body, but for the lengths that it claims."""
    return b"".join(
        [
            struct.pack(">iqi", 1, 2, id_bytes),
            ID,
            struct.pack(">i", source_bytes),
            RECORD,
            struct.pack(">i", message_bytes),
            b"abc",
        ]
    )


def test_the_layout() -> None:
    """The body is options, timestamp, id, source and message; its frame has 135 bytes more."""
    body = body_with()
    assert body == encode_body(1, 2, ID, RECORD, b"abc")
    assert decode_body(body) == ChannelData(1, 2, ID, MEMBER, b"abc", b"")
    assert len(encode_data_frame(1, 2, ID, RECORD, b"abc")) == 135 + 3


@pytest.mark.parametrize("wrong", [-1, -(2**31), 2**31 - 1, 1000])
@pytest.mark.parametrize("field", ["id_bytes", "source_bytes", "message_bytes"])
def test_every_length_is_checked(field: str, wrong: int) -> None:
    """A negative length, and one beyond the body, is refused before it is used."""
    with pytest.raises(RemoteProtocolError, match=f" of {wrong} bytes"):
        decode_body(body_with(**{field: wrong}))


def test_a_message_needs_a_source() -> None:
    """An empty source record is refused on both sides."""
    empty = struct.pack(">iqi", 1, 2, 16) + ID + struct.pack(">i", 0) + struct.pack(">i", 0)
    with pytest.raises(RemoteProtocolError, match="a source record of 0 bytes"):
        decode_body(empty)
    with pytest.raises(LocalProtocolError):
        encode_body(1, 2, ID, b"", b"abc")
    with pytest.raises(LocalProtocolError):
        encode_data_frame(1, 2, ID, b"", b"abc")


def test_a_malformed_source_is_refused() -> None:
    """The source is checked like any member record, each time it comes."""
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="member record"):
            decode_body(encode_body(1, 2, ID, b"x" * 77, b"abc"))


def test_long_ids_are_refused() -> None:
    """An id has its maximum on both sides."""
    longest = bytes(UNIQUE_ID_MAX_BYTES)
    assert decode_body(encode_body(1, 2, longest, RECORD, b"")).unique_id == longest
    with pytest.raises(LocalProtocolError):
        encode_body(1, 2, longest + b"\0", RECORD, b"")
    size = struct.pack(">iqi", 1, 2, len(longest) + 1)
    with pytest.raises(RemoteProtocolError, match="an id of 65 bytes"):
        decode_body(size + longest + b"\0" + body_with()[32:])


def test_bytes_after_the_message_are_the_trailer() -> None:
    """They are kept apart from the message, as plain Tribes ignores them."""
    data = decode_body(body_with() + b"more")
    assert (data.message, data.trailer) == (b"abc", b"more")
    assert encode_body(1, 2, ID, RECORD, b"abc", trailer=b"more") == body_with() + b"more"


@pytest.mark.parametrize(
    "numbers", [(2**31, 0), (-(2**31) - 1, 0), (0, 2**63), (0x8000_0001, 0)], ids=str
)
def test_numbers_that_do_not_fit_are_our_error(numbers: tuple[int, int]) -> None:
    """Options are signed 32 bits and the timestamp is signed 64, or LocalProtocolError."""
    with pytest.raises(LocalProtocolError):
        encode_body(*numbers, ID, RECORD, b"")
    with pytest.raises(LocalProtocolError):
        encode_data_frame(*numbers, ID, RECORD, b"")


def test_the_same_record_gives_the_same_member() -> None:
    """A record is parsed once for many messages, and large ones are not kept."""
    body = encode_body(1, 2, ID, RECORD, b"abc")
    assert decode_body(body).source is decode_body(bytes(bytearray(body))).source
    large = encode_member(MEMBER.replace(payload=bytes(RECORD_CACHE_RECORD_MAX_BYTES)))
    body = encode_body(1, 2, ID, large, b"abc")
    first, second = decode_body(body).source, decode_body(body).source
    assert first == second
    assert first is not second
