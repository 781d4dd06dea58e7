"""The record of a run: appended, asked, written and read back."""

from __future__ import annotations

import time

import msgspec
import pytest

from tribes.testing.history import History, Op


def full() -> History:
    history = History()
    history.fault(0.0, "present", "a#1")
    op = history.op("c0", "a#1", "write", "K", 1.0, name="w1", value="c0.1", version=(5, 7))
    history.settle(op, ("b#1",), {"c": "late"}, 1.1)
    history.finish(op, "ok", 1.2)
    history.op("c1", "a#1", "append", "K", 2.0, name="list0", seen=["x"], seen_version=(1, 2))
    send = history.send("a#1", 1, ("b#1", "c#1"), 6, 2.0, ("c",))
    send.end, send.faulty = 2.5, {"c#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "c#1", 2.4, failed=True)
    history.fault(3.0, "crash", "b#1")
    history.equal_copies(4.0, "a#1", "c#1")
    return history


def test_json_brings_everything_back() -> None:
    """What is read back is equal, and answers questions equally."""
    history = full()
    again = History.from_json(history.to_json())
    assert (again.ops, again.sends, again.deliveries) == (
        history.ops,
        history.sends,
        history.deliveries,
    )
    assert (again.faults, again.copies) == (history.faults, history.copies)
    assert again.deaths == history.deaths == {"b#1": 3.0}
    assert again.is_calm(0, 2) == history.is_calm(0, 2) is True
    assert again.to_json() == history.to_json()


def test_foreign_json_is_refused() -> None:
    """A file that is no history is told apart from an empty one."""
    with pytest.raises(msgspec.ValidationError):
        History.from_json("[]")


def test_calm_is_neither_faults_nor_their_consequences() -> None:
    """Seconds before and all of the interval count; a partition counts until the heal."""
    history = History()
    history.fault(100.0, "crash", "a#1")
    assert history.is_calm(50, 99.9)
    assert not history.is_calm(99, 101)
    assert not history.is_calm(107, 110)
    assert history.is_calm(109, 110)
    history.fault(200.0, "partition")
    assert not history.is_calm(250, 251)
    history.fault(300.0, "heal")
    assert not history.is_calm(302, 303)
    assert history.is_calm(309, 400)


def test_a_node_that_was_there_is_no_disturbance() -> None:
    """The history may begin with a whole cluster."""
    history = History()
    history.fault(0.0, "present", "a#1")
    assert history.is_calm(0, 1)


def test_only_the_first_end_of_an_operation_counts() -> None:
    """An answer after the client gave up changes nothing for the client."""
    history = History()
    op = history.op("c", "a#1", "touch", "K", 0.0)
    history.finish(op, "unknown", 3.0)
    history.finish(op, "ok", 4.0)
    assert (op.outcome, op.end) == ("unknown", 3.0)


def test_thousands_of_operations_cost_milliseconds() -> None:
    """10,000 operations are written and finished in well under a second."""
    history = History()
    begin = time.perf_counter()
    for i in range(10_000):
        op: Op = history.op("c", "a#1", "write", "K", i / 100, name="w", value=f"c.{i}")
        history.settle(op, ("b#1",), {}, i / 100)
        history.finish(op, "ok", i / 100)
    assert len(history.to_json()) > 10_000
    assert time.perf_counter() - begin < 1.0
