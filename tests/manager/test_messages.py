"""Managers' messages: what is sent is what arrives; everything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.manager.messages import (
    MAGIC,
    Confirm,
    Deltas,
    Digests,
    Draining,
    ExpireAnswer,
    ExpireAsk,
    Fetch,
    Fetched,
    Hello,
    Lack,
    Lock,
    Receipt,
    Records,
    Summary,
    Want,
    decode_message,
    is_manager_message,
)
from tribes.manager.placed_messages import (
    Answer,
    Loss,
    Lost,
    Places,
    PlaceState,
    Seek,
    Sought,
    Stale,
    part_context,
    split_context,
)
from tribes.manager.placement import PARTS, WEIGHT_MAX
from tribes.testing.strategies import control_values
from tribes.wire.codec import pack, unpack

NAMES = st.text(max_size=20)
PAIRS = st.lists(st.tuples(NAMES, st.binary(max_size=20)), max_size=5)
NUMBERS = st.integers(0, 2**63)
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
PARTITION = st.integers(0, 4095)


def of_each_part(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=PARTS, max_size=PARTS)


MESSAGES = st.one_of(
    st.builds(Hello, NAMES, st.lists(NAMES, max_size=5), st.booleans()),
    st.builds(Deltas, NAMES, PAIRS, U32),
    st.builds(
        Digests,
        NAMES,
        NUMBERS,
        NUMBERS,
        st.lists(st.integers(0, 63), max_size=5),
        st.dictionaries(PARTITION, U64, max_size=5),
    ),
    st.builds(Summary, NAMES, NUMBERS, st.lists(U64, min_size=64, max_size=64)),
    st.builds(
        Want,
        NAMES,
        NUMBERS,
        st.booleans(),
        st.dictionaries(PARTITION, st.lists(U64, max_size=3), max_size=5),
    ),
    st.builds(Lack, NAMES, NUMBERS, st.lists(U64, max_size=5)),
    st.builds(Fetch, NAMES, NUMBERS, NAMES, U64, U32),
    st.builds(Fetched, NAMES, NUMBERS, PAIRS.map(lambda pairs: pairs[:1]), st.booleans()),
    st.builds(Records, NAMES, NUMBERS, PAIRS, st.booleans(), st.booleans()),
    st.builds(ExpireAsk, NAMES, NUMBERS, st.lists(st.tuples(NAMES, U64), max_size=5)),
    st.builds(Lock, NAMES, st.integers(0, 255), NUMBERS, NUMBERS, NAMES),
    st.builds(ExpireAnswer, NAMES, NUMBERS, PAIRS),
    st.just(Draining()),
    st.builds(Confirm, NAMES, NUMBERS, st.dictionaries(PARTITION, U64, max_size=5)),
    st.builds(Receipt, NAMES, NUMBERS, st.lists(PARTITION, max_size=5)),
    st.builds(
        Places,
        NAMES,
        NUMBERS,
        st.integers(0, WEIGHT_MAX),
        NAMES,
        st.booleans(),
        of_each_part(st.sampled_from(PlaceState)),
        of_each_part(U32),
        of_each_part(U32),
    ),
    st.builds(
        Stale,
        NAMES,
        st.integers(0, PARTS - 1),
        U32,
        st.lists(st.binary(min_size=16, max_size=16), max_size=3),
        st.lists(NAMES, max_size=5),
    ),
    st.builds(Seek, NAMES, NUMBERS, NAMES, NAMES, U64),
    st.builds(Sought, NAMES, NUMBERS, st.just(Answer.FOUND), NAMES, st.binary(min_size=1)),
    st.builds(Sought, NAMES, NUMBERS, st.sampled_from([Answer.NOT_HERE, Answer.NONE]), NAMES),
    st.builds(
        Lost,
        NAMES,
        st.lists(
            st.builds(Loss, NAMES, st.binary(max_size=20), st.binary(max_size=20)), max_size=3
        ),
    ),
)


@given(MESSAGES)
def test_decoding_gives_back_what_was_encoded(message: Any) -> None:
    """Every kind, every field."""
    payload = message.encode()
    assert is_manager_message(payload)
    assert decode_message(payload) == message


@given(MESSAGES, st.lists(control_values(), max_size=3))
def test_fields_of_a_later_release_are_left_alone(message: Any, more: list[Any]) -> None:
    """They stand behind those that this one knows."""
    payload = message.encode()
    fields = unpack(payload[len(MAGIC) + 1 :])
    assert isinstance(fields, list)
    assert decode_message(payload[: len(MAGIC) + 1] + pack([*fields, *more])) == message


def test_a_kind_of_a_later_release_is_no_error() -> None:
    """Who gets it answers as if it had been for somebody else."""
    assert decode_message(MAGIC + b"\x01" + pack([99])) is None
    assert decode_message(MAGIC + b"\x01" + pack([99, "app", {}])) is None


@given(st.binary(max_size=200))
def test_random_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Nothing else is ever raised."""
    for payload in (data, MAGIC + data, MAGIC + b"\x01" + data):
        try:
            decode_message(payload)
        except RemoteProtocolError:
            pass


@given(st.lists(control_values(), max_size=7))
def test_fields_of_the_wrong_kind_are_refused(fields: list[Any]) -> None:
    """A well-formed array with anything in it is a message or refused."""
    for kind in (*range(15), *range(20, 26), 32):
        try:
            decode_message(MAGIC + b"\x01" + pack([kind, *fields]))
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        MAGIC,
        MAGIC + b"\x02" + pack([0, "n", [], True]),
        MAGIC + b"\x01" + pack([]),
        MAGIC + b"\x01" + pack([[0]]),
        MAGIC + b"\x01" + pack([True, "n", [], True]),
        MAGIC + b"\x01" + pack([0, "n", []]),
        MAGIC + b"\x01" + pack([1, "app", ["key"]]),
        MAGIC + b"\x01" + pack([1, "app", ["k" * 300, b""]]),
        MAGIC + b"\x01" + pack([2, "app", 0, 0, b"", b"123"]),
        MAGIC + b"\x01" + pack([2, "app", 0, 0, b"", b"\xff" * 10]),
        MAGIC + b"\x01" + pack([2, "app", 0, 0, b"\x40", b""]),
        MAGIC + b"\x01" + pack([9, "app", 0, bytes(8 * 63)]),
        MAGIC + b"\x01" + pack([10, "app", 0, True, bytes(5)]),
        MAGIC + b"\x01" + pack([10, "app", 0, True, b"\0\0\0\0\0\x02" + bytes(8)]),
        MAGIC + b"\x01" + pack([11, "app", 0, bytes(7)]),
        MAGIC + b"\x01" + pack([12, "app", 0, "id", 0, 2**32]),
        MAGIC + b"\x01" + pack([13, "app", 0, ["a", b"", "b", b""], True]),
        MAGIC + b"\x01" + pack([4, "app", 1, ["key", -1]]),
        MAGIC + b"\x01" + pack([4, "app", True, []]),
        MAGIC + b"\x01" + pack([7, "app", 1, b"\xff" * 10]),
        MAGIC + b"\x01" + pack([8, "app", 1, b"\xff\xff"]),
        MAGIC + b"\x01" + pack([8, "app", 1, b"123"]),
        MAGIC + b"\x01" + pack([1, "app", [], 2**32]),
        MAGIC + b"\x01" + pack([32, "app", 256, 1, 1, "key"]),
        MAGIC + b"\x01" + pack([20, "app", 1, 1, "", True, bytes(9 * PARTS - 9)]),
        MAGIC + b"\x01" + pack([20, "app", 1, 1, "", True, b"\x04" + bytes(9 * PARTS - 1)]),
        MAGIC + b"\x01" + pack([20, "app", 1, 1, "", 1, bytes(9 * PARTS)]),
        MAGIC + b"\x01" + pack([20, "app", 1, WEIGHT_MAX + 1, "", True, bytes(9 * PARTS)]),
        MAGIC + b"\x01" + pack([20, "app", 1, 1, "z" * 65, True, bytes(9 * PARTS)]),
        MAGIC + b"\x01" + pack([21, "app", PARTS, 1, [], []]),
        MAGIC + b"\x01" + pack([21, "app", 0, 2**32, [], []]),
        MAGIC + b"\x01" + pack([21, "app", 0, 1, [bytes(15)], []]),
        MAGIC + b"\x01" + pack([21, "app", 0, 1, [bytes(16)] * 65, []]),
        MAGIC + b"\x01" + pack([21, "app", 0, 1, [], ["key"] * 1025]),
        MAGIC + b"\x01" + pack([21, "app", 0, 1, [], [b"key"]]),
        MAGIC + b"\x01" + pack([22, "app", 1, "id", "key", -1]),
        MAGIC + b"\x01" + pack([23, "app", 1, 3, "key", b""]),
        MAGIC + b"\x01" + pack([23, "app", 1, Answer.FOUND, "key", b""]),
        MAGIC + b"\x01" + pack([23, "app", 1, Answer.NONE, "key", b"record"]),
        MAGIC + b"\x01" + pack([24, "app", [["key", b""]]]),
        MAGIC + b"\x01" + pack([24, "app", [["key", b"", "text"]]]),
        MAGIC + b"\x01" + pack([24, "app", [["key", b"", b""]] * 1025]),
    ],
)
def test_malformed_messages_are_refused(payload: bytes) -> None:
    """Wrong version, kind, number, length or type of fields."""
    with pytest.raises(RemoteProtocolError):
        decode_message(payload)


@given(NAMES, st.integers(0, PARTS - 1))
def test_the_context_of_a_part_is_split_again(context: str, part: int) -> None:
    assert split_context(part_context(context, part)) == (context, part)


@pytest.mark.parametrize("end", ["", "\x1f", "\x1fx", "\x1f-1", f"\x1f{PARTS}", "\x1f100000000"])
def test_other_contexts_are_of_no_part(end: str) -> None:
    """What a peer makes up is one that nobody runs."""
    assert split_context(f"app{end}") is None
