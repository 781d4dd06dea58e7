"""Marks: signed trailers that plain members don't see and nobody can change."""

from __future__ import annotations

import hmac
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.security.keys import GroupKey, KeyRing, hkdf_sha256
from tribes.security.mark import (
    IN_FIRST_FRAME,
    MARK_BYTES,
    Mark,
    Marker,
    Verdict,
    decode_mark,
    encode_mark,
    split,
    verify,
)
from tribes.testing.strategies import members, mutations
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.member import (
    SHUTDOWN_COMMAND,
    Member,
    decode_member,
    encode_member,
    patch_alive,
)

SECRET = bytes(range(32))
KEY = GroupKey(9, SECRET)
RING = KeyRing([KEY])
LOCAL = Member(b"\x7f\0\0\1", 4000, bytes(range(1, 17)), payload=b"node-1")
RECORD = encode_member(LOCAL)
SIGNED = Marker(0x0123456789ABCDEF, features=0x01020304, keys=RING).mark(RECORD)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


def judge(datagram: bytes, keys: KeyRing = RING) -> Verdict:
    return verify(*split(datagram), keys)


def test_layout_of_a_mark() -> None:
    """Byte for byte, with a tag made by other code than ours."""
    fields = bytes.fromhex("545059 01 01020304 0123456789abcdef 0000000000000001 09")
    key = hkdf_sha256(SECRET, info=b"tribes v1 heartbeat", length=32)
    covered = b"tribes v1 mark of a heartbeat\0" + RECORD + fields
    tag = hmac.new(key, covered, "sha256").digest()[:16]
    assert RECORD + fields + tag == SIGNED
    assert len(SIGNED) - len(RECORD) == MARK_BYTES == 41
    assert SIGNED[-16:].hex() == "c75f4c7324cae736688601fea476765d"


def test_layout_without_a_key() -> None:
    """Key 0 and a tag of zeros."""
    marker = Marker(2)
    marker.counter = 255
    fields = bytes.fromhex("545059 01 00000000 0000000000000002 0000000000000100 00")
    assert marker.mark(RECORD) == RECORD + fields + bytes(16)
    assert judge(RECORD + fields + bytes(16)) is Verdict.UNSIGNED


@given(members(), u32, u64, u64, st.booleans(), st.binary(max_size=60))
def test_a_datagram_is_split_as_it_was_made(
    member: Member, features: int, incarnation: int, counter: int, has_key: bool, after: bytes
) -> None:
    """Record and mark come back, whatever follows; with the key it is valid."""
    record = encode_member(member)
    key = KEY if has_key else None
    mark = encode_mark(record, features=features, incarnation=incarnation, counter=counter, key=key)
    datagram = record + mark + after
    again, found = split(datagram)
    assert again == record
    assert found is not None
    assert (found.features, found.incarnation, found.counter) == (features, incarnation, counter)
    assert found.fields() + found.tag == mark
    assert judge(datagram) is (Verdict.VALID if has_key else Verdict.UNSIGNED)
    assert decode_member(datagram) == member


@given(members(), st.binary(max_size=60).filter(lambda data: not data.startswith(b"TPY")))
def test_what_is_no_mark_is_ignored(member: Member, after: bytes) -> None:
    """As plain Tribes does with anything that follows a record."""
    record = encode_member(member)
    assert split(record + after) == (record, None)


@pytest.mark.parametrize("size", range(MARK_BYTES))
def test_a_mark_cut_short_is_no_mark(size: int) -> None:
    """No beginning of a mark is one."""
    mark = SIGNED[len(RECORD) :]
    assert decode_mark(mark[:size]) is None
    assert split(RECORD + mark[:size]) == (RECORD, None)
    assert judge(RECORD + mark[:size]) is Verdict.UNSIGNED


def test_versions() -> None:
    """0 is none; later ones keep these fields and may add others behind them."""
    assert decode_mark(b"TPY\0" + bytes(37)) is None
    later = replace(Mark(1, 2, 3, key_id=9), version=2)
    tag = KEY.heartbeat_tag(b"tribes v1 mark of a heartbeat\0" + RECORD + later.fields())
    assert judge(RECORD + later.fields() + tag + b"more") is Verdict.VALID


@given(st.binary(max_size=200) | members().map(encode_member).flatmap(mutations))
@settings(max_examples=300)
def test_damaged_datagrams_are_split_or_refused(data: bytes) -> None:
    """What `decode_member` reads can be split; the rest is RemoteProtocolError or unread."""
    try:
        record, _ = split(data)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            decode_member(data)
        return
    assert data.startswith(record)


@pytest.mark.parametrize("body", [-1, -24, -(2**31), 2**31 - 1, 1000, 60])
def test_wrong_lengths_are_refused(body: int) -> None:
    """Negative, above what is there, and not up to the end marker."""
    with pytest.raises(RemoteProtocolError):
        split(RECORD[:10] + body.to_bytes(4, "big", signed=True) + RECORD[14:])


@pytest.mark.parametrize("size", range(25))
def test_no_room_for_a_record_is_refused(size: int) -> None:
    """Not an error of any other kind."""
    with pytest.raises(RemoteProtocolError):
        split(RECORD[:size])


# Forgery ----------------------------------------------------------------------------------------


def test_every_bit_counts() -> None:
    """No bit of a signed heartbeat can be flipped: it is then no heartbeat, or not valid."""
    for bit in range(len(SIGNED) * 8):
        forged = bytearray(SIGNED)
        forged[bit // 8] ^= 1 << bit % 8
        try:
            verdict = judge(bytes(forged))
        except RemoteProtocolError:
            continue
        assert verdict is not Verdict.VALID, bit


@given(members(), u64, st.data())
def test_any_change_is_noticed(member: Member, counter: int, data: st.DataObject) -> None:
    """Flipped bits, lost and added bytes anywhere in record or mark."""
    record = encode_member(member)
    mark = encode_mark(record, features=0, incarnation=1, counter=counter, key=KEY)
    changed = data.draw(mutations(record + mark))
    if changed.startswith(record + mark):
        return
    try:
        assert judge(changed) is not Verdict.VALID
    except RemoteProtocolError:
        return


def test_a_mark_fits_its_record_only() -> None:
    """Not that of another member, another moment, another command, or another place."""
    mark = SIGNED[len(RECORD) :]
    others = [
        patch_alive(RECORD, 1),
        encode_member(LOCAL.replace(command=SHUTDOWN_COMMAND)),
        encode_member(LOCAL.replace(port=4001)),
        encode_member(LOCAL.replace(payload=b"node-2")),
    ]
    for record in others:
        assert judge(record + mark) is Verdict.FORGED
    assert verify(*split(SIGNED), RING, place=IN_FIRST_FRAME) is Verdict.FORGED
    framed = encode_mark(
        RECORD, features=0, incarnation=1, counter=1, key=KEY, place=IN_FIRST_FRAME
    )
    assert judge(RECORD + framed) is Verdict.FORGED
    assert verify(RECORD, decode_mark(framed), RING, place=IN_FIRST_FRAME) is Verdict.VALID


def test_keys_are_told_apart() -> None:
    """Another group's, one we don't have, and none."""
    assert judge(SIGNED, KeyRing([GroupKey(9, bytes(32))])) is Verdict.FORGED
    assert judge(SIGNED, KeyRing([GroupKey(1, SECRET)])) is Verdict.UNKNOWN_KEY
    assert judge(RECORD) is Verdict.UNSIGNED
    record, mark = split(SIGNED)
    assert mark is not None
    assert verify(record, replace(mark, key_id=0), RING) is Verdict.UNSIGNED


def test_a_key_is_rotated_without_a_gap() -> None:
    """In each of the three steps every member understands every other one."""
    new = GroupKey(10, bytes(range(50, 82)))
    steps = [KeyRing([KEY]), KeyRing([KEY, new]), KeyRing([new, KEY]), KeyRing([new])]
    for before, after in pairwise(steps):
        for speaker, hearer in ((before, after), (after, before)):
            assert judge(Marker(1, keys=speaker).mark(RECORD), hearer) is Verdict.VALID
    marker = Marker(1, keys=steps[1])
    assert judge(marker.mark(RECORD), steps[0]) is Verdict.VALID
    marker.keys = steps[2]
    assert judge(marker.mark(RECORD), steps[3]) is Verdict.VALID
    assert marker.counter == 2


@pytest.mark.timeout(120)
def test_a_hundred_thousand_forgeries() -> None:
    """None is valid: flipped bits, cut, mixed from two genuine ones, random tags."""
    chance = random.Random(20)
    marker = Marker(1, keys=RING)
    genuine = [marker.mark(patch_alive(RECORD, beat)) for beat in range(50)]
    known = set(genuine)
    for number in range(100_000):
        one, other = chance.sample(genuine, 2)
        match number % 4:
            case 0:
                forged = bytearray(one)
                for _ in range(chance.randrange(1, 4)):
                    forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
            case 1:
                forged = bytearray(one[: chance.randrange(len(one))])
            case 2:
                at = chance.randrange(len(one))
                forged = bytearray(one[:at] + other[at:])
            case _:
                forged = bytearray(one[:-16] + chance.randbytes(16))
        datagram = bytes(forged)
        if datagram in known:
            continue
        try:
            assert judge(datagram) is not Verdict.VALID
        except RemoteProtocolError:
            pass


# Marker -----------------------------------------------------------------------------------------


def test_a_marker_counts() -> None:
    """From 1, one more each time, heartbeats and farewells alike."""
    marker = Marker(5, features=3, keys=RING)
    farewell = encode_member(LOCAL.replace(command=SHUTDOWN_COMMAND))
    marks = [split(marker.mark(record))[1] for record in (RECORD, RECORD, farewell)]
    assert [mark.counter for mark in marks if mark] == [1, 2, 3]
    assert {(mark.incarnation, mark.features, mark.key_id) for mark in marks if mark} == {(5, 3, 9)}


def test_a_record_without_room_for_its_mark_is_refused() -> None:
    """Before it is counted; a datagram has a largest size."""
    room = DATAGRAM_MAX_BYTES - MARK_BYTES - len(encode_member(LOCAL.replace(payload=b"")))
    marker = Marker(5)
    assert len(marker.mark(encode_member(LOCAL.replace(payload=bytes(room))))) == DATAGRAM_MAX_BYTES
    with pytest.raises(LocalProtocolError, match="shorten the payload"):
        marker.mark(encode_member(LOCAL.replace(payload=bytes(room + 1))))
    assert marker.counter == 1


@pytest.mark.parametrize("incarnation", [0, -1, 2**64])
def test_incarnations_out_of_range_are_refused(incarnation: int) -> None:
    """0 stands for members without a mark."""
    with pytest.raises(LocalProtocolError):
        Marker(incarnation)


def test_numbers_that_do_not_fit_are_refused() -> None:
    """Our mistake, not the peer's."""
    for wrong in (Mark(2**32, 1, 1), Mark(0, 2**64, 1), Mark(0, 1, -1)):
        with pytest.raises(LocalProtocolError, match="does not fit its field"):
            wrong.fields()
