"""What members of a lazy map say to each other comes back; anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.manager.inbox import CommitResult
from tribes.maps.keys import encode_key
from tribes.maps.lazy_messages import Get, MapReply, Put, decode_reply, decode_request
from tribes.maps.manager import VALUE_MAX_BYTES
from tribes.wire.codec import pack

NAMES = st.text(max_size=50).map(encode_key)
RESULTS = st.builds(
    CommitResult,
    st.integers(0, 2**63),
    st.lists(st.text(max_size=9), max_size=4).map(tuple),
    st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=4),
)
REPLIES = st.one_of(
    st.just(MapReply(is_here=False)),
    st.just(MapReply(is_full=True)),
    st.just(MapReply()),
    st.builds(MapReply, value=st.binary(max_size=99)),
    st.builds(MapReply, result=RESULTS),
)


@given(NAMES, st.none() | st.binary(max_size=99))
def test_requests_come_back(name: str, value: bytes | None) -> None:
    """A question for a value, a value to set, a removal."""
    assert decode_request(Get(name).encode()) == Get(name)
    assert decode_request(Put(name, value).encode()) == Put(name, value)


@given(REPLIES)
def test_replies_come_back(reply: MapReply) -> None:
    """Not here, none, full, a value, a result."""
    assert decode_reply(reply.encode()) == reply


@pytest.mark.parametrize(
    "fields",
    [
        *(None, [], 5, [9], [0], [0, 5], [0, "no key"], [0, "s:" + "x" * 300], [1, "s:x"]),
        [1, "s:x", "text"],
        [1, "s:x", bytes(VALUE_MAX_BYTES + 1)],
        [3, 1, [5], {}],
        [3, 1, [], {"a": 5}],
        [3, 1, ["a"] * 2000, {}],
    ],
)
def test_malformed_ones_are_refused(fields: object) -> None:
    """Neither read as something else nor with another error."""
    data = pack(fields)
    with pytest.raises(RemoteProtocolError):
        decode_request(data)
    if fields != [0]:
        with pytest.raises(RemoteProtocolError):
            decode_reply(data)


@given(st.binary(max_size=60) | st.none() | st.text() | st.integers())
def test_random_bodies_are_refused_or_read(body: object) -> None:
    """No other exception leaves the readers."""
    for read in (decode_request, decode_reply):
        try:
            read(body)
        except RemoteProtocolError:
            pass
