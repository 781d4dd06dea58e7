"""What members of a lazy map ask each other, when the answer cannot be given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.maps.test_manager import Side
from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.manager.merge import destroyed
from tribes.maps.keys import encode_key
from tribes.maps.lazy_messages import Put
from tribes.maps.placement import partition_of_entry
from tribes.maps.questions import LazyParts, Questions

NAME = encode_key("k")


@pytest.fixture
def questions() -> Questions:
    """Of a member that holds a record which no map can have made: another one sent it."""
    side = Side(1, [1000.0])
    side.map.table.merge_in(NAME, destroyed(2, 0), 0)
    side.map.replicator = SimpleNamespace(transfer=SimpleNamespace(is_joined=True))  # type: ignore[assignment]
    held = {partition_of_entry(NAME): side.map}
    parts = LazyParts(side.map, 1, lambda number: side.map, held)
    channel: Any = SimpleNamespace(local=None, now=0.0)
    return Questions(parts, lambda number: [], channel=channel, rpc=SimpleNamespace())  # type: ignore[arg-type]


def test_a_write_of_another_member_that_cannot_be_done_is_refused(questions: Questions) -> None:
    """The one error that the core expects of a request: any other one would end this node."""
    envelope: Any = SimpleNamespace(body=Put(NAME, b"\x01").encode)
    with pytest.raises(RemoteProtocolError, match="no map"):
        questions.handle(None, envelope, 0.0)  # type: ignore[arg-type]


def test_a_write_of_this_member_that_cannot_be_done_is_told_to_it(questions: Questions) -> None:
    """In whatever call of the core it is tried: often by a timer."""
    told: list[Any] = []
    questions.ask(Put(NAME, b"\x01"), 5.0, 0.0, told.append)
    [error] = told
    assert isinstance(error, LocalProtocolError)
