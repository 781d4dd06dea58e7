"""What Tribes' own tests assert of values: bytes, messages, members, views."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fuzz.stand import FRIEND
from tribes.membership.view import ViewBuilder
from tribes.wire.data import ChannelData, decode_body, encode_body
from tribes.wire.java import encode_java
from tribes.wire.java_reader import decode_java
from tribes.wire.member import Member, decode_member, encode_member, host_octets, patch_alive
from tribes.wire.options import format_send_options, parse_send_options

LOCALHOST = host_octets("127.0.0.1")
UNIQUE_ID = bytes(range(16))


def test_a_text_survives_as_a_java_object() -> None:
    """TestXByteBuffer: this text, serialised and back."""
    text = "This is as test."
    assert decode_java(encode_java(text)) == text


def test_a_copy_of_a_message_is_equal_to_it() -> None:
    """TestChannelData: another object, and equal; a decoded one too."""
    data = ChannelData(7, 1000, UNIQUE_ID, FRIEND, b"message")
    copy = dataclasses.replace(data)
    assert copy is not data
    assert copy == data
    record = encode_member(FRIEND)
    assert decode_body(encode_body(7, 1000, UNIQUE_ID, record, b"message")) == data


@pytest.mark.parametrize("payload", [b"", bytes(333)])
def test_a_member_is_equal_with_any_payload(payload: bytes) -> None:
    """TestMemberImplSerialization: with and without 333 bytes, made of a text or of octets; and
    another port is another member.
    """
    member = Member(LOCALHOST, 3333, UNIQUE_ID)
    other = Member(bytes((127, 0, 0, 1)), 3333, UNIQUE_ID, payload=payload)
    assert decode_member(encode_member(other)) == member
    assert hash(other) == hash(member)
    assert Member(LOCALHOST, 3331, UNIQUE_ID) != member


def test_fields_of_a_member_survive() -> None:
    """TestMemberImplSerialization: UDP port 3445, domain 01 to 09, a command of eight bytes."""
    member = Member(
        LOCALHOST, 3333, UNIQUE_ID, udp_port=3445, domain=bytes(range(1, 10)), command=b"command!"
    )
    back = decode_member(encode_member(member))
    assert (back.udp_port, back.domain, back.command) == (3445, bytes(range(1, 10)), b"command!")


def test_a_refreshed_record_is_another_and_its_member_the_same() -> None:
    """TestMemberImplSerialization: without a refresh the same bytes, after it others."""
    record = encode_member(Member(LOCALHOST, 3333, UNIQUE_ID, alive=100))
    assert encode_member(Member(LOCALHOST, 3333, UNIQUE_ID, alive=100)) == record
    refreshed = patch_alive(record, 150)
    assert refreshed != record
    assert decode_member(refreshed) == decode_member(record)
    assert decode_member(refreshed).alive == 150


def test_a_view_is_a_copy_of_its_own() -> None:
    """TestMembership: it shares the three members, and does not change with the membership."""
    builder = ViewBuilder()
    members = [Member(LOCALHOST, port, UNIQUE_ID) for port in (1, 2, 3)]
    for member in members:
        builder.add(member, 0.0)
    view = builder.current
    builder.remove(members[0])
    assert list(view.members) == members
    assert all(one is other for one, other in zip(view.members, members, strict=True))
    assert list(builder.current.members) == members[1:]


@pytest.mark.parametrize(
    ("text", "value"), [("72", 72), ("multicast", 64), ("async, multicast", 72)]
)
def test_options_by_number_and_by_name(text: str, value: int) -> None:
    """TestChannelConfig: of a channel and of a map, which are read by the same function."""
    assert parse_send_options(text) == value
    assert format_send_options(72) == "multicast, async"
