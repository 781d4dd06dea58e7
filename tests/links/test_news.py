"""News between the frames of an own link."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.links.news import (
    LEAVE_BODY,
    PEERS_MAX,
    decode_peers,
    decode_record,
    encode_peers,
    encode_record,
)
from tribes.wire.member import Member, encode_member

# The last 96 bits of an IPv6 address that holds an IPv4 one would make four octets of it.
HOSTS = st.ip_addresses(v=4).map(str) | st.integers(1 << 64, (1 << 128) - 1).map(
    lambda number: str(ipaddress.IPv6Address(number))
)
ADDRESSES = st.tuples(HOSTS, st.integers(1, 65535))


@given(st.lists(ADDRESSES, max_size=20))
def test_addresses_come_out_as_they_went_in(addresses: list[tuple[str, int]]) -> None:
    """Of both kinds, in order."""
    told = decode_peers(encode_peers(addresses))
    assert [Member(octets, port, bytes(16)).address for octets, port in told] == addresses


@given(st.binary(max_size=60), st.integers(0, 70))
def test_other_bytes_are_errors_or_addresses(data: bytes, cut: int) -> None:
    """Nothing else is raised."""
    for body in (b"TPY\x10" + data, encode_peers([("127.0.0.1", 4000)] * 9)[:cut]):
        try:
            told = decode_peers(body)
        except RemoteProtocolError:
            continue
        assert all(len(octets) in (4, 16) and port for octets, port in told)


def test_as_many_as_allowed_are_taken_and_no_more() -> None:
    """A frame is small, whatever it says."""
    full = encode_peers([("127.0.0.1", port) for port in range(1, PEERS_MAX + 1)])
    assert len(decode_peers(full)) == PEERS_MAX
    more = full[:4] + (PEERS_MAX + 1).to_bytes(2, "big") + full[6:] + full[6:13]
    with pytest.raises(RemoteProtocolError, match="at most"):
        decode_peers(more)


def test_addresses_where_nobody_can_be_are_errors() -> None:
    """Port 0, and octets that are no address."""
    with pytest.raises(RemoteProtocolError):
        decode_peers(b"TPY\x10\0\1\4\x7f\0\0\1\0\0")
    with pytest.raises(RemoteProtocolError):
        decode_peers(b"TPY\x10\0\1\3\x7f\0\0\0\1")
    with pytest.raises(RemoteProtocolError, match="behind"):
        decode_peers(encode_peers([("127.0.0.1", 1)]) + b"x")


def test_a_record_and_a_farewell() -> None:
    """The one holds a member record, the other nothing."""
    member = Member(b"\x7f\0\0\1", 4000, bytes(16), payload=b"p")
    told = decode_record(encode_record(encode_member(member)))
    assert (told, told.payload) == (member, b"p")
    with pytest.raises(RemoteProtocolError):
        decode_record(encode_record(b"TRIBES"))
    assert LEAVE_BODY == b"TPY\x11"
