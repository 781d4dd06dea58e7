"""Messages of Tomcat's maps and static membership: they come back, and spoiled ones are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.vectors import vector
from tribes.errors import RemoteProtocolError
from tribes.wire.java import STREAM_HEADER, encode_java
from tribes.wire.map_message import (
    MapMessage,
    MapMessageKind,
    MapState,
    decode_map_message,
    decode_map_state,
    encode_map_message,
    encode_map_state,
    is_map_message,
)
from tribes.wire.member import Member, host_octets
from tribes.wire.member_message import (
    MemberMessage,
    MemberMessageKind,
    decode_member_message,
    encode_member_message,
    is_member_message,
    static_membership_id,
)
from tribes.wire.rpc import decode_envelope, encode_rpc

BLOBS = st.none() | st.binary(max_size=40)
MEMBERS = st.builds(
    Member,
    st.just(host_octets("127.0.0.1")),
    st.integers(1, 65535),
    st.binary(min_size=16, max_size=16),
    payload=st.binary(max_size=1500),
)
MAP_MESSAGES = st.builds(
    MapMessage,
    st.sampled_from(MapMessageKind),
    *[BLOBS] * 4,
    st.booleans(),
    st.none() | MEMBERS,
    st.none() | st.lists(st.none() | MEMBERS, max_size=4).map(tuple),
)
MEMBER_MESSAGES = st.builds(
    MemberMessage, st.sampled_from(MemberMessageKind), MEMBERS, st.binary(max_size=40)
)


@given(MAP_MESSAGES)
def test_a_map_message_comes_back(message: MapMessage) -> None:
    """Plainly and as the body of a request, where references count from another number."""
    stream = STREAM_HEADER + encode_map_message(message)
    assert is_map_message(stream)
    assert decode_map_message(stream) == message
    request = encode_rpc(b"map", bytes(16), message, is_reply=False)
    assert decode_envelope(request).map_body() == message


@given(MEMBER_MESSAGES)
def test_a_membership_message_comes_back(message: MemberMessage) -> None:
    """Plainly, as STOP travels, and as the body of a request."""
    stream = STREAM_HEADER + encode_member_message(message)
    assert is_member_message(stream)
    assert decode_member_message(stream) == message
    reply = encode_rpc(b"id", bytes(16), message, is_reply=True)
    assert decode_envelope(reply).membership_body() == message


def test_the_rpc_body_of_a_map_counts_references_behind_the_envelope() -> None:
    """A reference of Tomcat's to the type of the field before is two higher there."""
    plain = bytes.fromhex(vector("map-state-request")["hex"])
    message = decode_map_message(plain)
    wrapped = encode_rpc(b"MyMap", bytes(16), message, is_reply=False)
    body = plain[4:]
    for number in (5, 1):
        one, other = (b"\x71\0\x7e" + each.to_bytes(2, "big") for each in (number, number + 2))
        body = body.replace(one, other)
    assert body in wrapped


@given(MAP_MESSAGES | MEMBER_MESSAGES, st.data())
def test_a_spoiled_message_is_refused_or_read(
    message: MapMessage | MemberMessage, data: st.DataObject
) -> None:
    """Cut, or with a byte changed: a message or a RemoteProtocolError, nothing else."""
    decode: Callable[[bytes], object]
    if isinstance(message, MapMessage):
        encoded, decode = encode_map_message(message), decode_map_message
    else:
        encoded, decode = encode_member_message(message), decode_member_message
    stream = STREAM_HEADER + encoded
    at = data.draw(st.integers(0, len(stream) - 1))
    changed = bytearray(stream)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        decode(stream[:at])
    try:
        decode(bytes(changed))
    except RemoteProtocolError:
        pass


def test_other_objects_are_refused_by_their_class() -> None:
    """Neither message is taken for the other, nor a text for either."""
    member = Member(host_octets("127.0.0.1"), 4000, bytes(16))
    ours = STREAM_HEADER + encode_member_message(
        MemberMessage(MemberMessageKind.PING, member, b"id")
    )
    theirs = STREAM_HEADER + encode_map_message(MapMessage(MapMessageKind.PING, b"id"))
    with pytest.raises(RemoteProtocolError, match="MapMessage"):
        decode_member_message(theirs)
    with pytest.raises(RemoteProtocolError, match="MemberMessage"):
        decode_map_message(ours)
    assert not is_map_message(ours)
    assert not is_member_message(theirs)
    for decode in (decode_map_message, decode_member_message):
        with pytest.raises(RemoteProtocolError):
            decode(encode_java("text"))


@pytest.mark.parametrize("state", MapState)
def test_states_of_maps(state: MapState) -> None:
    """The value of a reply to PING; any other constant is refused."""
    stream = encode_map_state(state)
    assert decode_map_state(stream) is state
    with pytest.raises(RemoteProtocolError):
        decode_map_state(stream[:-1] + b"?")


def test_the_id_of_a_static_membership() -> None:
    """Tomcat's, where the cluster is called catalina."""
    assert static_membership_id("catalina-Channel") == b"catalina-Channel-StaticMembership"
