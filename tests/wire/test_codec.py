from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.testing.strategies import control_values, mutations
from tribes.wire.codec import pack, unpack
from tribes.wire.limits import CONTROL_MESSAGE_MAX_BYTES, CONTROL_NESTING_MAX


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@given(control_values())
def test_an_unpacked_message_is_what_was_packed(value: Any) -> None:
    """Values and their types come back, bytes as bytes and text as text."""
    assert repr(unpack(pack(value))) == repr(value)


@given(st.binary(max_size=100) | control_values().map(pack).flatmap(mutations))
@settings(max_examples=300)
def test_damaged_messages_are_refused_or_read(data: bytes) -> None:
    """Whatever the bytes, there is a value that can be packed, or RemoteProtocolError."""
    try:
        value = unpack(data)
    except RemoteProtocolError:
        return
    assert isinstance(pack(value), bytes)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x92\x01", id="cut short"),
        pytest.param(b"\x01\x02", id="two values"),
        pytest.param(b"\xc1", id="code that is never used"),
        pytest.param(b"\xa2\xff\xff", id="text that is not UTF-8"),
        pytest.param(b"\x81\x90\x01", id="list as a key"),
        pytest.param(b"\x81\x80\x01", id="map as a key"),
        pytest.param(b"\xd4\x05x", id="extension of 1 byte"),
        pytest.param(b"\xc7\x00\x05", id="empty extension"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x01", id="timestamp of 32 bits"),
        pytest.param(b"\xd7\xff" + bytes(8), id="timestamp of 64 bits"),
        pytest.param(b"\xc7\x0c\xff" + bytes(12), id="timestamp of 96 bits"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="list of 4 G elements"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 4 G entries"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="4 GiB of bytes"),
        pytest.param(b"\x91" * 100_000, id="nesting without an end"),
    ],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    """All that msgpack rejects, and what we do not use of it, is the peer's error."""
    with pytest.raises(RemoteProtocolError):
        unpack(data)


def test_keys_need_not_be_text() -> None:
    """Any scalar can be a key."""
    value = {1: "a", b"k": "b", "k": "c", None: "d", -2.5: "e"}
    assert unpack(pack(value)) == value


def test_nesting_is_bounded_on_both_sides() -> None:
    """The deepest allowed value passes, lists and maps alike; one level more does not."""
    deepest = nested(CONTROL_NESTING_MAX)
    assert unpack(pack(deepest)) == deepest
    for deeper in (nested(CONTROL_NESTING_MAX + 1), {"key": deepest}, [1, (deepest,)]):
        with pytest.raises(LocalProtocolError, match="nests"):
            pack(deeper)
    for start in (b"\x91", b"\x81\xc0"):
        with pytest.raises(RemoteProtocolError, match="nests"):
            unpack(start * CONTROL_NESTING_MAX + b"\x90")
        unpack(start * CONTROL_NESTING_MAX + b"\xc0")
        with pytest.raises(RemoteProtocolError):
            unpack(start * 1000 + b"\xc0")


def test_claimed_lengths_allocate_nothing() -> None:
    """Nested headers of large lists cost no more than the message's own size."""
    claims = (b"\xdd" + struct.pack(">I", 60_000)) * 500
    message = claims + bytes(60_000)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            unpack(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(message)


def test_long_messages_are_refused_unread() -> None:
    """The size is checked before anything else."""
    with pytest.raises(RemoteProtocolError, match="16777217 bytes"):
        unpack(bytes(CONTROL_MESSAGE_MAX_BYTES + 1))


@pytest.mark.parametrize(
    "value", [object, {1, 2}, 2**64, -(2**63) - 1, "\ud800", 1j, [{"a": object}]], ids=repr
)
def test_what_cannot_be_sent_is_our_error(value: object) -> None:
    """Types and numbers that msgpack lacks are LocalProtocolError."""
    with pytest.raises(LocalProtocolError):
        pack(value)


def test_a_list_that_holds_itself_is_our_error() -> None:
    """Such a value has no end, and is refused like any that is too deep."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(LocalProtocolError, match="nests"):
        pack(endless)
