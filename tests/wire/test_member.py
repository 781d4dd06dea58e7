from __future__ import annotations

import struct
from dataclasses import fields
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.testing.strategies import hosts, i64, members, mutations
from tribes.wire.limits import MEMBER_RECORD_MAX_BYTES
from tribes.wire.member import (
    MEMBER_BEGIN,
    MEMBER_END,
    SHUTDOWN_COMMAND,
    Member,
    decode_member,
    decode_member_with_length,
    encode_member,
    host_octets,
    listing_order,
    patch_alive,
)

ID = bytes(range(1, 17))
MINIMAL = Member(b"\x7f\0\0\1", 4000, ID)


def every_field(member: Member) -> dict[str, Any]:
    """Return all that a record holds: ``==`` looks at the identity only."""
    return {f.name: getattr(member, f.name) for f in fields(member) if f.init}


@given(members())
def test_a_decoded_record_has_every_field_of_its_member(member: Member) -> None:
    """Encoding and decoding give the same member."""
    record = encode_member(member)
    decoded, length = decode_member_with_length(record)
    assert every_field(decoded) == every_field(member)
    assert length == len(record)


@given(members(), st.binary(max_size=20), st.binary(max_size=20))
def test_a_record_is_found_at_its_offset(member: Member, before: bytes, after: bytes) -> None:
    """Bytes around the record have no effect, and its length tells where a trailer starts."""
    record = encode_member(member)
    decoded, length = decode_member_with_length(before + record + after, len(before))
    assert every_field(decoded) == every_field(member)
    assert length == len(record)
    end = len(before) + len(record)
    assert decode_member(before + record + after, len(before), end) == member


@given(st.binary(max_size=200) | members().map(encode_member).flatmap(mutations))
@settings(max_examples=300)
def test_damaged_records_are_refused_or_read(data: bytes) -> None:
    """Whatever the bytes, there is a member or RemoteProtocolError, and no other error."""
    try:
        member, length = decode_member_with_length(data)
    except RemoteProtocolError:
        return
    assert length <= len(data)
    assert len(member.unique_id) == 16
    assert isinstance(member.name + member.host_text + member.label, str)


@given(members(), st.data())
def test_a_record_cut_short_is_refused(member: Member, data: st.DataObject) -> None:
    """No proper beginning of a record is a record, though it may lie in a longer buffer."""
    record = encode_member(member)
    cut = data.draw(st.integers(0, len(record) - 1))
    with pytest.raises(RemoteProtocolError):
        decode_member(record[:cut])
    with pytest.raises(RemoteProtocolError):
        decode_member(record, 0, cut)


def test_slack_after_the_payload_is_ignored() -> None:
    """A body that is longer than its fields is read as Tomcat reads it."""
    record = bytearray(encode_member(MINIMAL))
    record[10:14] = (53 + 3).to_bytes(4, "big")
    record[-10:-10] = b"xyz"
    decoded, length = decode_member_with_length(bytes(record))
    assert every_field(decoded) == every_field(MINIMAL)
    assert length == 80


@pytest.mark.parametrize(
    ("at", "new"),
    [
        pytest.param(0, b"X", id="begin marker"),
        pytest.param(76, b"X", id="end marker"),
        pytest.param(10, b"\xff\xff\xff\xff", id="negative body length"),
        pytest.param(10, b"\0\0\0\x30", id="body length below the least"),
        pytest.param(10, b"\x7f\xff\xff\xff", id="body length above what is there"),
        pytest.param(34, b"\x84", id="host length with its sign bit"),
        pytest.param(34, b"\x7f", id="host length above the body"),
        pytest.param(39, b"\xff\xff\xff\xff", id="negative command length"),
        pytest.param(39, b"\0\0\0\x09", id="command length into the end marker"),
        pytest.param(39, b"\0\0\0\x16", id="command that leaves no room for a length"),
        pytest.param(43, b"\x7f\xff\xff\xff", id="domain length above the body"),
        pytest.param(63, b"\0\0\0\x01", id="payload length above the body"),
    ],
)
def test_lengths_and_markers_are_checked(at: int, new: bytes) -> None:
    """Each length that overruns and each wrong marker is refused."""
    record = bytearray(encode_member(MINIMAL))
    record[at : at + len(new)] = new
    with pytest.raises(RemoteProtocolError):
        decode_member(bytes(record))


def test_a_record_above_the_limit_is_refused() -> None:
    """The limit holds for peers as it does for us."""
    size = MEMBER_RECORD_MAX_BYTES - 77
    largest = encode_member(MINIMAL.replace(payload=bytes(size)))
    assert len(largest) == MEMBER_RECORD_MAX_BYTES
    assert decode_member(largest).payload == bytes(size)
    with pytest.raises(LocalProtocolError, match="shorten the payload"):
        encode_member(MINIMAL.replace(payload=bytes(size + 1)))
    body_size = struct.pack(">i", MEMBER_RECORD_MAX_BYTES - 24 + 1)
    larger = MEMBER_BEGIN + body_size + largest[14:-10] + b"\0" + MEMBER_END
    with pytest.raises(RemoteProtocolError):
        decode_member(larger)


@pytest.mark.parametrize(
    "changes",
    [
        {"unique_id": ID[:15]},
        {"unique_id": ID + b"\0"},
        {"host": bytes(128)},
        {"port": 2**31},
        {"secure_port": -(2**31) - 1},
        {"udp_port": 2**31},
        {"alive": 2**63},
    ],
    ids=str,
)
def test_what_does_not_fit_a_record_is_our_error(changes: dict[str, Any]) -> None:
    """Values out of range are LocalProtocolError, not struct.error or a wrong record."""
    with pytest.raises(LocalProtocolError):
        encode_member(MINIMAL.replace(**changes))


@pytest.mark.parametrize(("offset", "end"), [(-1, None), (5, 4), (0, 1000), (1000, None)])
def test_positions_outside_of_the_bytes_are_our_error(offset: int, end: int | None) -> None:
    """A wrong range is a bug here and not the peer's fault."""
    with pytest.raises(LocalProtocolError):
        decode_member(encode_member(MINIMAL), offset, end)


@given(members(), members())
def test_identity_is_host_port_and_unique_id(one: Member, other: Member) -> None:
    """Nothing else decides whether two descriptions are of the same member."""
    same = other.replace(host=one.host, port=one.port, unique_id=one.unique_id)
    assert same == one
    assert hash(same) == hash(one)
    assert {one: "found"}[same] == "found"
    assert one != one.replace(port=one.port ^ 1)
    assert one != one.replace(host=one.host + b"\0")
    assert one != one.replace(unique_id=bytes(b ^ 1 for b in one.unique_id))


def test_a_member_equals_no_other_thing() -> None:
    """Comparison with another type is False, not an error."""
    assert MINIMAL.name != MINIMAL
    assert (MINIMAL.host, MINIMAL.port, MINIMAL.unique_id) != MINIMAL


def test_absolute_order() -> None:
    """Shorter hosts come first, then unsigned octets, signed port, unsigned unique id."""
    low, high = bytes(16), b"\x80" + bytes(15)
    ordered = [
        Member(b"", 9, high),
        Member(b"\x0a\0\0\2", -1, high),
        Member(b"\x0a\0\0\2", 3999, high),
        Member(b"\x0a\0\0\2", 4000, low),
        Member(b"\x0a\0\0\2", 4000, high),
        Member(b"\xc8\0\0\1", 1, low),
        Member(bytes(16), 1, low),
    ]
    shuffled = ordered[3:] + ordered[:3]
    assert sorted(shuffled, key=lambda member: member.sort_key) == ordered


def test_listing_order() -> None:
    """The member that has been alive longest is first; ties keep their order."""
    given = [MINIMAL.replace(port=port, alive=alive) for port, alive in [(1, 5), (2, 9), (3, 5)]]
    assert [member.port for member in listing_order(given)] == [2, 1, 3]


@pytest.mark.parametrize(
    ("host", "name", "text"),
    [
        (b"\x7f\0\0\1", "tcp://{127, 0, 0, 1}:4000", "127.0.0.1"),
        (b"\xff\xff\xff\xfe", "tcp://{255, 255, 255, 254}:4000", "255.255.255.254"),
        (
            bytes.fromhex("20010db8000000000000000000000001"),
            "tcp://{32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}:4000",
            "2001:db8::1",
        ),
        (b"", "tcp://{}:4000", ""),
        (b"\1\2\3\4\5", "tcp://{1, 2, 3, 4, 5}:4000", ""),
    ],
)
def test_name_and_host_text(host: bytes, name: str, text: str) -> None:
    """The name is Tomcat's; the host text is an IP literal, or empty for other octets."""
    member = MINIMAL.replace(host=host)
    assert member.name == name
    assert member.host_text == text
    assert member.address == (text, 4000)


@pytest.mark.parametrize(
    ("payload", "label"),
    [
        (b"node-a", "node-a"),
        ("Köln 1".encode(), "Köln 1"),
        (b"x" * 64, "x" * 64),
        (b"x" * 65, MINIMAL.name),
        (b"", MINIMAL.name),
        (b"  ", MINIMAL.name),
        (b"two\nlines", MINIMAL.name),
        (b"\x1b[31mred", MINIMAL.name),
        (b"\xff\xfe", MINIMAL.name),
    ],
)
def test_label_is_a_payload_that_can_be_shown(payload: bytes, label: str) -> None:
    """Short printable text is the label; anything else leaves the name."""
    assert MINIMAL.replace(payload=payload).label == label


def test_shutdown_command() -> None:
    """Only the one command says that a member leaves."""
    assert not MINIMAL.is_shutdown
    assert MINIMAL.replace(command=SHUTDOWN_COMMAND).is_shutdown
    assert not MINIMAL.replace(command=SHUTDOWN_COMMAND + b"!").is_shutdown


@given(members(), i64())
def test_patching_changes_the_alive_time_only(member: Member, alive: int) -> None:
    """A patched record is the record of the member with that alive time."""
    record = encode_member(member)
    assert patch_alive(record, alive) == encode_member(member.replace(alive=alive))


def test_only_records_and_64_bits_can_be_patched() -> None:
    """Other bytes and larger numbers are our error."""
    record = encode_member(MINIMAL)
    with pytest.raises(LocalProtocolError):
        patch_alive(record, 2**63)
    with pytest.raises(LocalProtocolError):
        patch_alive(record[1:], 0)
    with pytest.raises(LocalProtocolError):
        patch_alive(MEMBER_BEGIN, 0)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("127.0.0.1", "7f000001"),
        ("::1", "00000000000000000000000000000001"),
        ("::ffff:198.51.100.7", "c6336407"),
        ("::FFFF:C633:6407", "c6336407"),
        ("fe80::1%eth0", "fe800000000000000000000000000001"),
    ],
)
def test_host_octets(text: str, octets: str) -> None:
    """Literals become octets; mapped ones become 4, and scope ids are lost."""
    assert host_octets(text).hex() == octets


@given(hosts().filter(lambda host: len(host) in (4, 16)))
def test_host_text_and_octets_agree(host: bytes) -> None:
    """The text of a host gives its octets again, or the IPv4 address that is mapped in them."""
    text = MINIMAL.replace(host=host).host_text
    mapped = getattr(ip_address(text), "ipv4_mapped", None)
    assert host_octets(text) == (mapped.packed if mapped else host)


@pytest.mark.parametrize("text", ["localhost", "", "127.0.0.1:4000", "[::1]", "1.2.3", "1.2.3.256"])
def test_names_are_not_resolved(text: str) -> None:
    """What is not an IP literal is a ValueError."""
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        host_octets(text)
