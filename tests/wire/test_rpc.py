"""The RPC envelope: any ids and bodies, back again; foreign and spoiled ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.wire.rpc import (
    RPC_ID_MAX_BYTES,
    RpcKind,
    check_rpc_id,
    decode_envelope,
    encode_no_channel,
    encode_rpc,
    is_rpc,
)

IDS = st.binary(min_size=1, max_size=600)
CORRELATIONS = st.binary(min_size=16, max_size=16)


@given(IDS, CORRELATIONS, st.none() | st.binary(max_size=3000) | st.text(), st.booleans())
def test_an_envelope_comes_back(
    rpc_id: bytes, correlation: bytes, body: bytes | str | None, is_reply: bool
) -> None:
    """Kind, ids and body, whatever blocks Java's form cuts them into."""
    stream = encode_rpc(rpc_id, correlation, body, is_reply=is_reply)
    assert is_rpc(stream)
    envelope = decode_envelope(stream)
    assert envelope.kind is (RpcKind.REPLY if is_reply else RpcKind.REQUEST)
    assert (envelope.rpc_id, envelope.correlation, envelope.body()) == (rpc_id, correlation, body)


@given(IDS, CORRELATIONS)
def test_a_refusal_comes_back(rpc_id: bytes, correlation: bytes) -> None:
    """It carries the ids, and nothing else."""
    stream = encode_no_channel(rpc_id, correlation)
    assert is_rpc(stream)
    envelope = decode_envelope(stream)
    assert (envelope.kind, envelope.rpc_id, envelope.correlation) == (
        RpcKind.NO_CHANNEL,
        rpc_id,
        correlation,
    )


def test_the_envelope_is_read_where_the_body_cannot_be() -> None:
    """A request with any Java object can be answered; its body stays unread."""
    stream = encode_rpc(b"map", bytes(16), None, is_reply=False)[:-2]
    stream += bytes.fromhex("7372") + b"\x00\x0ejava.util.Date" + bytes(8) + b"\x03\0\0xpx"
    envelope = decode_envelope(stream)
    assert envelope.rpc_id == b"map"
    with pytest.raises(RemoteProtocolError):
        envelope.body()


@given(IDS, CORRELATIONS, st.data())
def test_a_spoiled_envelope_is_refused_or_read(
    rpc_id: bytes, correlation: bytes, data: st.DataObject
) -> None:
    """Cut or with a byte changed: a value or a RemoteProtocolError, nothing else."""
    stream = encode_rpc(rpc_id, correlation, "body", is_reply=False)
    at = data.draw(st.integers(0, len(stream) - 1))
    changed = bytearray(stream)
    changed[at] ^= data.draw(st.integers(1, 255))
    for spoiled in (stream[:at], bytes(changed)):
        try:
            decode_envelope(spoiled).body()
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize("rpc_id", [b"", bytes(RPC_ID_MAX_BYTES + 1)])
def test_ids_have_bounds(rpc_id: bytes) -> None:
    """Neither nothing nor more than 4,096 bytes can name a channel, here or at a peer."""
    with pytest.raises(LocalProtocolError, match="rpc id"):
        check_rpc_id(rpc_id)
    if rpc_id:
        with pytest.raises(RemoteProtocolError):
            decode_envelope(encode_rpc(rpc_id, bytes(16), None, is_reply=False))
