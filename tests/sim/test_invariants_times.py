"""What the checks of time, views, suspicion and expiry see: each broken history, no good one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim.histories import LATE, Fill, do, facts_of, healthy, judge, name_of, say
from tribes.manager.record import Life
from tribes.testing.invariants import SessionState, check_soon

if TYPE_CHECKING:
    from tribes.testing.history import History
    from tribes.testing.violation import Violation


def late_after_its_timeout(history: History) -> None:
    history.fault(9, "disturb")
    say(history, 2, end=13.6)
    history.deliver("a#1", 1, "b#1", 13.0)


def late_in_calm(history: History) -> None:
    say(history, 2, end=10.6)
    history.deliver("a#1", 1, "b#1", 10.2)


def late_commit(history: History) -> None:
    history.fault(9, "disturb")
    do(history, "write", 10, name="w", value="x", version=(1, 1), took=1.4)


def late_commit_in_calm(history: History) -> None:
    do(history, "write", 10, name="w", value="x", version=(1, 1), acked=("b#1",), took=0.6)


def commit_never_settled(history: History) -> None:
    op = do(history, "write", 10, name="w", value="x", version=(1, 1))
    op.settled = None


def missing_for_nothing(history: History) -> None:
    missing = {"c": "SendTimeoutError"}
    do(history, "write", 10, name="w", value="x", version=(1, 1), missing=missing)


TIMES = [
    (late_after_its_timeout, "late send", ("send 0",)),
    (late_in_calm, "late send", ("send 0",)),
    (late_commit, "late commit", ("op 0",)),
    (late_commit_in_calm, "late commit", ("op 0",)),
    (commit_never_settled, "late commit", ("op 0",)),
    (missing_for_nothing, "missing without cause", ("op 0",)),
]


def invented_member(history: History) -> None:
    history.tell(10, "a#1", "added", "forged#?")


def two_on_one_port(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1", "4001")
    history.fault(29, "partition")
    history.tell(30, "a#1", "added", "b#3", "4001")


def removed_for_nothing(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1")
    history.tell(30, "a#1", "removed", "b#1", "silent")


def dead_and_kept(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1")
    history.fault(30, "crash", "b#1")
    history.tell(31.5, "a#1", "removed", "b#1", "silent")


def left_and_called_dead(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1")
    history.fault(30, "stop", "b#1")
    history.tell(30.1, "a#1", "removed", "b#1", "crashed")


VIEWS = [
    (invented_member, "invented member", ("a#1", "forged#?")),
    (two_on_one_port, "one owner", ("a#1", "b#1", "b#3")),
    (removed_for_nothing, "removed without cause", ("a#1", "b#1")),
    (dead_and_kept, "dead member kept", ("a#1", "b#1")),
    (left_and_called_dead, "farewell", ("a#1", "b#1")),
]


def fired_in_use(history: History) -> None:
    do(history, "create", 10, version=(1, 1), limit=5)
    do(history, "touch", 13, "b#1")
    history.tell(16, "a#1", "expired", "K")


def fired_twice(history: History) -> None:
    do(history, "create", 10, version=(1, 1), limit=5)
    history.tell(16, "a#1", "expired", "K")
    history.tell(16.001, "b#1", "expired", "K")


EXPIRIES = [
    (fired_in_use, "fired in use", ("a#1", "K")),
    (fired_twice, "fired twice", ("a#1", "b#1", "K")),
]


@pytest.mark.parametrize(("fill", "invariant", "witness"), [*TIMES, *VIEWS, *EXPIRIES], ids=name_of)
def test_each_broken_history_is_seen(fill: Fill, invariant: str, witness: tuple[str, ...]) -> None:
    """One violation each, with the fewest facts that show it."""
    history = healthy()
    fill(history)
    assert facts_of(judge(history)) == [(invariant, witness)]


def test_an_end_that_nobody_told_is_seen() -> None:
    """Expired at the end, and no destroyed event anywhere."""
    history = healthy()
    do(history, "create", 10, version=(1, 1), limit=5)
    found = judge(history, SessionState(Life.EXPIRED), "b#1")
    assert facts_of(found) == [("never fired", ("K",))]


def slow_sender(history: History) -> None:
    history.fault(9, "slow", "a")
    late_in_calm(history)


def stopped_sender(history: History) -> None:
    history.fault(11, "pause", "a#1")
    history.fault(14, "resume", "a#1")
    say(history, 2, end=14.1)
    history.deliver("a#1", 1, "b#1", 10.2)


def dead_sender(history: History) -> None:
    history.fault(11, "crash", "a#1")
    say(history, 2, end=None)
    do(history, "write", 10, name="w", value="x", version=(1, 1), took=0.1).settled = None


def full_inbox(history: History) -> None:
    missing = {"c": "the inbox was full; the session is sent later"}
    do(history, "write", 10, name="w", value="x", version=(1, 1), missing=missing)


def missing_after_a_fault(history: History) -> None:
    history.fault(5, "jolt")
    missing_for_nothing(history)


def replaced(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1")
    history.fault(30, "stop", "b#1")
    history.fault(30, "start", "b#3")
    history.tell(30.001, "a#1", "removed", "b#1", "replaced")


def one_after_the_other(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1", "4001")
    history.fault(29, "partition")
    history.tell(30, "a#1", "removed", "b#1", "replaced")
    history.tell(30, "a#1", "added", "b#3", "4001")


def told_that_it_left(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1")
    history.fault(30, "stop", "b#1")
    history.tell(30.001, "a#1", "removed", "b#1", "left")


def crash_among_other_faults(history: History) -> None:
    history.tell(20, "a#1", "added", "b#1")
    history.fault(29.5, "jolt")
    history.fault(30, "crash", "b#1")


def removed_while_stopped(history: History) -> None:
    history.tell(1, "a#1", "added", "b#1")
    history.fault(10, "pause", "b#1")
    history.tell(30, "a#1", "removed", "b#1", "silent")


def used_again(history: History) -> None:
    do(history, "create", 10, version=(1, 1), limit=5)
    history.tell(16, "a#1", "expired", "K")
    do(history, "touch", 16.1, "b#1")
    history.tell(22, "b#1", "expired", "K")


def fired_on_both_sides(history: History) -> None:
    history.fault(9, "partition")
    fired_twice(history)


@pytest.mark.parametrize(
    "fill",
    [
        slow_sender,
        stopped_sender,
        dead_sender,
        full_inbox,
        missing_after_a_fault,
        replaced,
        one_after_the_other,
        told_that_it_left,
        crash_among_other_faults,
        removed_while_stopped,
        used_again,
        fired_on_both_sides,
    ],
)
def test_what_a_fault_excuses_is_excused(fill: Fill) -> None:
    """The same and the like, with a cause."""
    history = healthy()
    fill(history)
    assert judge(history) == []


def soon(history: History) -> list[Violation]:
    return check_soon(history, LATE, 8.0)


def test_copies_that_stay_different_are_seen() -> None:
    """Nothing lasts after the second fault, and the copies are found equal much too late."""
    history = healthy()
    history.fault(10, "disturb")
    history.fault(40, "mend")
    assert facts_of(soon(history)) == [("equal soon", ("40.000 s",))]
    for time in (41, 49, 57.5, 66, 74.5, 83, 91.5, 99):
        history.equal_copies(time, "a#1", "b#1")
    assert soon(history) == []
    del history.copies[1:3]
    assert facts_of(soon(history)) == [("equal soon", ("41.000 s",))]


def test_while_something_lasts_copies_may_differ() -> None:
    """A partition that nobody heals."""
    history = healthy()
    history.fault(10, "partition")
    assert soon(history) == []


# Suspicion, and patience with who does not answer.


def member(history: History) -> None:
    history.tell(1, "a#1", "added", "b#1")


def stopped(history: History) -> None:
    member(history)
    history.fault(30, "pause", "b#1")
    history.fault(33, "resume", "b#1")


def suspected_for_nothing(history: History) -> None:
    member(history)
    history.tell(30, "a#1", "suspected", "b#1")


def never_suspected(history: History) -> None:
    stopped(history)


def never_refuted(history: History) -> None:
    stopped(history)
    history.tell(31.5, "a#1", "suspected", "b#1")


@pytest.mark.parametrize(
    ("fill", "invariant"),
    [
        (suspected_for_nothing, "suspected without cause"),
        (never_suspected, "suspected late"),
        (never_refuted, "refuted late"),
    ],
    ids=name_of,
)
def test_wrong_suspicions_are_seen(fill: Fill, invariant: str) -> None:
    """Where all nodes suspect; where they do not, nothing is demanded."""
    history = healthy()
    fill(history)
    assert facts_of(judge(history, suspects=True)) == [(invariant, ("a#1", "b#1"))]
    assert judge(history) == []


def test_right_suspicions_are_right() -> None:
    """Of one that was stopped, until it goes on; and whatever another fault may cause."""
    history = healthy()
    stopped(history)
    history.tell(31.5, "a#1", "suspected", "b#1")
    history.tell(33.5, "a#1", "refuted", "b#1")
    assert judge(history, suspects=True, all_answer=True) == []
    history.fault(60, "jolt")
    history.tell(62, "a#1", "suspected", "b#1")
    history.tell(63, "a#1", "refuted", "b#1")
    assert judge(history, suspects=True) == []
    found = judge(history, suspects=True, all_answer=True)
    assert facts_of(found) == [("suspected without cause", ("a#1", "b#1"))]


def waiting_send(history: History) -> None:
    say(history, 2, end=11.2)
    history.deliver("a#1", 1, "b#1", 10.2)


def waiting_commit(history: History) -> None:
    do(history, "write", 10, name="w", value="x", version=(1, 1), took=1.0)


@pytest.mark.parametrize(
    ("fill", "witness"), [(waiting_send, "send 0"), (waiting_commit, "op 0")], ids=name_of
)
def test_who_waits_for_one_that_is_known_not_to_answer_is_seen(fill: Fill, witness: str) -> None:
    """What lasts has lasted for long enough; shortly after its beginning waiting is right."""
    for begin, expected in ((5.0, [("waited in vain", (witness, "a#1"))]), (8.5, [])):
        history = healthy()
        member(history)
        history.fault(begin, "disturb")
        fill(history)
        assert facts_of(judge(history, patience_s=2.5)) == expected
        assert judge(history) == []
