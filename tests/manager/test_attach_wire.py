"""Messages between a worker and its node: what is accepted, however it arrives, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.manager import attach_wire as wire
from tribes.manager.attach_wire import FrameReader, Message, decode, encode
from tribes.testing.strategies import control_values, mutations, pieces
from tribes.wire.codec import pack

MESSAGES: list[tuple[int, tuple[Any, ...]]] = [
    (wire.HELLO, (1, 1, ["app"])),
    (wire.WELCOME, (1, 7, 2**63, "n1")),
    (wire.REFUSED, ("why",)),
    (wire.BYE, ()),
    (wire.FIND, ("app", "AB12", 0, 0)),
    (wire.FOUND, (3, "AB12", b"record")),
    (wire.LOST, ("why",)),
    (wire.COMMIT, ("app", "AB12", None, b"delta", wire.MERGE, True)),
    (wire.COMMIT, ("app", "AB12", 2**64 - 1, b"delta", wire.SWAP, False)),
    (wire.DONE, (0, ["n2"], {"n3": "why"}, [b"record"])),
    (wire.STALE, (b"",)),
    (wire.GONE, ()),
    (wire.UNDONE, ("limit", "why")),
    (wire.TOUCH, ("app", "AB12")),
    (wire.LOCK, ("app", "AB12", "local", 10_000)),
    (wire.LOCKED, ()),
    (wire.BUSY, (False, "why")),
    (wire.UNLOCK, ()),
    (wire.ALIVE, ("app", ["AB12"])),
    (wire.DEAD, (["AB12"],)),
]


def bodies_of(reader: FrameReader) -> list[bytes]:
    found = []
    while (body := reader.next()) is not None:
        found.append(body)
    return found


@given(st.data())
def test_any_split_gives_the_same_messages(data: st.DataObject) -> None:
    """Whole messages come out, in order, however the stream is cut."""
    sent = data.draw(st.lists(st.sampled_from(MESSAGES), max_size=6))
    stream = b"".join(encode(kind, n, *fields) for n, (kind, fields) in enumerate(sent))
    reader, found = FrameReader(), []
    for piece in data.draw(pieces(stream)):
        reader.feed(piece)
        found += [decode(body) for body in bodies_of(reader)]
    assert found == [Message(kind, n, fields) for n, (kind, fields) in enumerate(sent)]


@given(st.sampled_from(MESSAGES), st.data())
def test_damaged_bytes_are_refused_or_read_as_another_message(
    message: tuple[int, tuple[Any, ...]], data: st.DataObject
) -> None:
    """Nothing else is raised, and what comes out has fields of the right types."""
    kind, fields = message
    try:
        found = decode(data.draw(mutations(encode(kind, 1, *fields)[4:])))
    except RemoteProtocolError:
        return
    assert encode(found.kind, found.number, *found.fields)


@given(control_values())
def test_any_other_value_is_refused(value: Any) -> None:
    """A control message that is none of ours."""
    try:
        decode(pack(value))
    except RemoteProtocolError:
        return
    assert isinstance(value, list)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        [wire.BYE],
        [99, 1],
        [True, 1],
        [wire.BYE, -1],
        [wire.BYE, True],
        [wire.TOUCH, 1, "app"],
        [wire.TOUCH, 1, "app", b"AB12"],
        [wire.COMMIT, 1, "app", "AB12", -1, b"", 0, True],
        [wire.COMMIT, 1, "app", "AB12", 1, b"", 0, 1],
        [wire.HELLO, 0, 1, 1, [1]],
        [wire.HELLO, 0, 1, 1, ["app"] * 10_001],
        [wire.DONE, 1, 0, [], {"n3": 1}, []],
        [wire.DONE, 1, 0, [], {}, ["text", b"bytes"]],
    ],
)
def test_wrong_field_is_refused(value: Any) -> None:
    """By kind, number, count, type or size."""
    with pytest.raises(RemoteProtocolError):
        decode(pack(value))


def test_fields_of_a_later_release_are_not_looked_at() -> None:
    """A node may be newer than its workers."""
    assert decode(pack([wire.STALE, 7, b"", "more"])) == Message(wire.STALE, 7, (b"",))


@pytest.mark.parametrize("length", [0, 65, 2**32 - 1])
def test_frame_of_a_wrong_length_is_refused_before_it_has_come(length: int) -> None:
    """Four bytes are enough to know."""
    reader = FrameReader(max_bytes=64)
    reader.feed(length.to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError, match=f"{length} bytes"):
        reader.next()


def test_message_that_is_too_large_is_not_sent() -> None:
    """Its sender is told, and not the other side."""
    with pytest.raises(RemoteProtocolError, match="the most is"):
        encode(wire.STALE, 1, bytes(wire.FRAME_MAX_BYTES))
