"""The bytes of this release stay what they are: see `tests.manager.golden`."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from tests.manager.golden import (
    FILE,
    MESSAGES,
    NOW_DS,
    RECORDS,
    VALUES,
    encoded,
    restore,
)
from tribes.manager.messages import ManagerMessage, decode_message
from tribes.manager.record import Kind, Life, Namespace, from_wire, parse, to_wire
from tribes.manager.values import ValueCodec

GOLDEN: dict[str, dict[str, str]] = json.loads(FILE.read_text())


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, samples in encoded().items() for name in samples]
)
def test_what_is_written_now_is_what_this_release_has_always_written(kind: str, name: str) -> None:
    assert encoded()[kind][name] == restore(GOLDEN[kind][name]).hex()


@pytest.mark.parametrize("name", GOLDEN["records"])
def test_a_record_of_this_release_is_read_and_written_again(name: str) -> None:
    data = restore(GOLDEN["records"][name])
    record = from_wire(data, NOW_DS)
    assert record == RECORDS[name]
    assert to_wire(record, NOW_DS) == data


@pytest.mark.parametrize("name", GOLDEN["messages"])
def test_a_message_of_this_release_is_read_and_written_again(name: str) -> None:
    data = restore(GOLDEN["messages"][name])
    message = decode_message(data)
    assert message == MESSAGES[name]
    assert message is not None
    assert message.encode() == data


@pytest.mark.parametrize("name", GOLDEN["values"])
def test_a_value_of_this_release_is_read_and_written_again(name: str) -> None:
    data, codec = restore(GOLDEN["values"][name]), ValueCodec()
    value = codec.decode(data)
    assert value == VALUES[name]
    assert codec.encode(value) == data


def test_there_is_a_sample_of_everything() -> None:
    """Who adds a message, a life, a namespace or a kind adds a sample."""
    assert {type(message) for message in MESSAGES.values()} == set(get_args(ManagerMessage))
    parsed = [parse(record) for record in RECORDS.values()]
    assert {record.life for record in parsed} == set(Life)
    entries = [entry for record in parsed for entry in record.entries.values()]
    assert {entry.namespace for entry in entries} > set(Namespace)
    assert {entry.kind for entry in entries} > set(Kind)
