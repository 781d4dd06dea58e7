"""The record of a run: appended, asked, written and read back."""

from __future__ import annotations

import time

import msgspec
import pytest

from tribes.testing.history import History, Op, plain


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
    history.tell(4.5, "a#1", "removed", "b#1", "crashed")
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
    assert again.told == history.told
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


@pytest.mark.parametrize(
    ("begin", "end"), [("disturb", "mend"), ("pause", "resume"), ("slow", "quick")]
)
def test_what_lasts_is_no_calm_until_it_ends(begin: str, end: str) -> None:
    """One of two that end leaves the other."""
    history = History()
    history.fault(100.0, begin, "a#1")
    history.fault(101.0, begin, "b#1")
    history.fault(102.0, end, "a#1")
    assert not history.is_calm(150, 151)
    history.fault(200.0, end, "b#1")
    assert not history.is_calm(207, 208)
    assert history.is_calm(209, 210)
    assert list(history.quiet_spans(300)) == [(200.0, 300)]


def test_a_heal_ends_disturbances_and_no_pause() -> None:
    """The network is well; a stopped process is still stopped, until it dies."""
    history = History()
    history.fault(100.0, "disturb")
    history.fault(101.0, "heal")
    assert history.is_calm(110, 111)
    history.fault(200.0, "pause", "a#1")
    history.fault(201.0, "heal")
    assert not history.is_calm(250, 251)
    history.fault(300.0, "crash", "a#1")
    assert history.is_calm(309, 310)


def test_who_was_slow_when_is_known() -> None:
    """Pauses are of an incarnation, throttles of a machine."""
    history = History()
    history.fault(10.0, "pause", "a#1")
    history.fault(12.0, "resume", "a#1")
    history.fault(20.0, "slow", "b")
    assert not history.was_slow("a#1", 0, 9)
    assert history.was_slow("a#1", 0, 10)
    assert history.was_slow("a#1", 11, 11.5)
    assert history.was_slow("a#1", 11, 13)
    assert not history.was_slow("a#1", 12.5, 13)
    assert not history.was_slow("a#3", 10, 12)
    assert history.was_slow("b#5", 30, 31)


def test_faults_of_a_time_are_found() -> None:
    """Both limits count; nodes that were there before are no faults."""
    history = History()
    history.fault(0.0, "present", "a#1")
    for second in (1.0, 2.0, 3.0):
        history.fault(second, "jolt")
    assert [fault.time for fault in history.faults_in(0, 2)] == [1.0, 2.0]


def test_long_values_are_shortened() -> None:
    """Two values of different lengths are told apart."""
    assert plain("x") == "x"
    assert plain({"b", "a"}) == ["a", "b"]
    assert len(plain("c0.1 ".ljust(50_000, "."))) < 50
    assert plain("c ".ljust(5000, ".")) != plain("c ".ljust(5001, "."))


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


def written_s(count: int) -> float:
    """Seconds of processor time to write, finish and show so many operations."""
    history = History()
    begin = time.process_time()
    for i in range(count):
        op: Op = history.op("c", "a#1", "write", "K", i / 100, name="w", value=f"c.{i}")
        history.settle(op, ("b#1",), {}, i / 100)
        history.finish(op, "ok", i / 100)
    assert len(history.to_json()) > count
    return time.process_time() - begin


def test_an_operation_costs_the_same_after_ten_thousand_others() -> None:
    """Ten times as many take about ten times as long; were each to look at all, a hundred times."""
    ratios = [written_s(10_000) / written_s(1_000) for _ in range(3)]
    assert min(ratios) < 30
