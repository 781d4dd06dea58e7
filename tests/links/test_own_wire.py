"""The opening frames of an own link say what they were given, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.links.own_pair import SENDER, side_of
from tribes.errors import RemoteProtocolError
from tribes.links.own_opening import OneFrame
from tribes.links.own_wire import (
    HELLO_BODY_MAX_BYTES,
    REASON_MAX_BYTES,
    OwnSide,
    Refusal,
    RefuseCode,
    Start,
    Welcome,
    choose_version,
    clip_reason,
    decode_hello,
    decode_refusal,
    decode_start,
    decode_welcome,
    encode_hello,
    encode_refusal,
    encode_start,
    encode_welcome,
    is_hello,
    proven,
)
from tribes.testing.strategies import channel_data, members, mutations, pieces
from tribes.wire.data import ChannelData, decode_body, encode_body, encode_data_frame
from tribes.wire.frame import encode_frame
from tribes.wire.member import Member, encode_member

U8 = st.integers(0, 255)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
ID = st.binary(min_size=16, max_size=16)
TEXT = st.text(st.characters(codec="utf-8"), max_size=50)

WELCOMES = st.builds(Welcome, U8, U32, U64, ID, ID, U8, U64, U32, ID)


def hello_of(member: Member = SENDER, **changes: int) -> bytes:
    side = OwnSide(encode_member(member), member.unique_id)
    fields = {"incarnation": 5, "attempt": 1, "key_id": 0, **changes}
    return encode_hello(side, target=b"r" * 16, nonce=b"n" * 16, **fields)


@given(members(), st.tuples(U8, U8).map(sorted), U32, U64, U64, ID, ID, U8, st.binary(max_size=9))
def test_hello_says_what_it_was_given(
    member: Member,
    versions: list[int],
    features: int,
    incarnation: int,
    attempt: int,
    target: bytes,
    nonce: bytes,
    key_id: int,
    later: bytes,
) -> None:
    """Every field comes back, and bytes that a later version puts behind them do no harm."""
    record = encode_member(member)
    side = OwnSide(record, member.unique_id, (versions[0], versions[1]), features)
    body = encode_hello(
        side, incarnation=incarnation, attempt=attempt, target=target, nonce=nonce, key_id=key_id
    )
    hello = decode_hello(body + later)
    assert (hello.versions, hello.features) == ((versions[0], versions[1]), features)
    assert (hello.incarnation, hello.attempt) == (incarnation, attempt)
    assert (hello.target, hello.nonce, hello.key_id) == (target, nonce, key_id)
    assert (hello.source, hello.record) == (member, record)
    assert is_hello(encode_frame(body))


@given(WELCOMES, st.binary(max_size=9))
def test_welcome_says_what_it_was_given(welcome: Welcome, later: bytes) -> None:
    """Every field comes back, whatever a later version adds."""
    assert decode_welcome(encode_welcome(welcome) + later) == welcome


@given(st.sampled_from(RefuseCode), TEXT)
def test_refusal_says_what_it_was_given(code: RefuseCode, text: str) -> None:
    """Code and text come back, the text cut to its bound."""
    refusal = decode_refusal(encode_refusal(Refusal(code, text)))
    assert refusal == Refusal(code, clip_reason(text).decode())


def test_unknown_refusal_counts_as_busy() -> None:
    """A later version's reason is no reason to give up."""
    body = bytearray(encode_refusal(Refusal(RefuseCode.KEY, "because")))
    body[4] = 99
    assert decode_refusal(bytes(body)) == Refusal(RefuseCode.BUSY, "because")


@given(st.integers(1, 2**64 - 1), ID)
def test_start_says_what_it_was_given(first: int, proof: bytes) -> None:
    """Position and proof come back."""
    assert decode_start(encode_start(Start(first, proof))) == Start(first, proof)


@given(st.data())
def test_damaged_openings_give_protocol_errors(data: st.DataObject) -> None:
    """Nothing else is ever raised, whatever arrives."""
    whole = st.one_of(
        st.just(hello_of()),
        WELCOMES.map(encode_welcome),
        st.just(encode_refusal(Refusal(RefuseCode.BUSY, "busy"))),
        st.just(encode_start(Start(1))),
    )
    body = data.draw(st.one_of(st.binary(max_size=120), whole.flatmap(mutations)))
    for decode in (decode_hello, decode_welcome, decode_refusal, decode_start):
        try:
            decode(body)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        hello_of()[:-1],
        hello_of().replace(SENDER.unique_id, b"", 1),
        hello_of()[:40] + b"\x02\x01" + hello_of()[42:],
    ],
)
def test_bad_hello_is_refused(body: bytes) -> None:
    """A record that is cut short or broken, and versions in the wrong order."""
    with pytest.raises(RemoteProtocolError):
        decode_hello(body)


def test_hello_to_a_plain_member_is_a_frame_without_source() -> None:
    """Which makes Tomcat close the connection, and us too; no length in it is negative."""
    body = hello_of()
    assert int.from_bytes(body[12:16], "big") == 16
    assert body[32:40] == bytes(8)
    with pytest.raises(RemoteProtocolError, match="source record of 0 bytes"):
        decode_body(body)


@given(channel_data(), st.binary(max_size=8))
def test_channel_data_is_never_taken_for_a_hello(data: ChannelData, tail: bytes) -> None:
    """Not even with the options and the time of one."""
    for options, timestamp in ((data.options, data.timestamp), (0x54505901, -1)):
        frame = encode_data_frame(
            options,
            timestamp,
            data.unique_id,
            encode_member(data.source),
            data.message,
            trailer=tail,
        )
        assert is_hello(frame) is False


def test_every_start_of_a_hello_asks_for_more() -> None:
    """Until it can be told, which is after 51 bytes at most."""
    frame = encode_frame(hello_of())
    answers = [is_hello(frame[:size]) for size in range(len(frame) + 1)]
    assert answers[:51] == [None] * 51
    assert set(answers[51:]) == {True}
    assert is_hello(b"FLT2002\0\0\0\x50\0\0\0\x07") is False


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [((1, 1), (1, 1), 1), ((1, 3), (2, 5), 3), ((2, 5), (1, 3), 3), ((1, 2), (3, 4), None)],
)
def test_highest_common_version_is_chosen(
    ours: tuple[int, int], theirs: tuple[int, int], expected: int | None
) -> None:
    """And none when the ranges don't meet."""
    assert choose_version(ours, theirs) == expected


def test_proofs_cover_every_byte_and_who_says_it() -> None:
    """No two transcripts are alike, also where a byte moves from one frame to the next."""
    hello = encode_body(1, 2, b"", b"r", b"")
    transcripts = {
        proven(b"server", hello, b"w"),
        proven(b"client", hello, b"w"),
        proven(b"client", hello[:-1], hello[-1:] + b"w"),
        proven(b"client", hello, b"w", b"s"),
    }
    assert len(transcripts) == 4


@given(st.data(), st.binary(max_size=60), st.binary(max_size=60))
def test_one_frame_is_read_and_the_rest_given_back(
    data: st.DataObject, body: bytes, rest: bytes
) -> None:
    """However the stream is cut, no byte after the frame is lost or read as part of it."""
    reader = OneFrame(100)
    left = b""
    found: bytes | None = None
    for piece in data.draw(pieces(encode_frame(body) + rest)):
        if found is not None:
            left += piece
        elif (whole := reader.feed(piece)) is not None:
            found, left = whole
    assert (found, left) == (body, rest)


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1",
        b"F" + b"X",
        b"FLT2002" + (HELLO_BODY_MAX_BYTES + 1).to_bytes(4, "big"),
        b"FLT2002\xff\xff\xff\xff",
        b"FLT2002\0\0\0\x01xTLF2004",
    ],
)
def test_what_is_no_frame_is_refused_at_once(stream: bytes) -> None:
    """From the first byte that cannot belong to one, before anything is awaited."""
    with pytest.raises(RemoteProtocolError):
        OneFrame(HELLO_BODY_MAX_BYTES).feed(stream)


@given(TEXT.map(lambda text: text * 9))
def test_reasons_are_cut_between_characters(text: str) -> None:
    """What is left is the start of the text, as long as it may be."""
    data = clip_reason(text)
    assert len(data) <= REASON_MAX_BYTES
    assert text.startswith(data.decode())
    if len(text.encode()) <= REASON_MAX_BYTES:
        assert data == text.encode()
    assert clip_reason("\ud800") == b"?"


def test_longest_record_fits_in_a_hello() -> None:
    """The bound before HELLO leaves room for any member."""
    member = replace(SENDER, payload=b"p" * 65_000)
    assert len(hello_of(member)) < HELLO_BODY_MAX_BYTES
    assert decode_hello(hello_of(member)).source.payload == member.payload
    assert side_of(SENDER).unique_id == SENDER.unique_id
