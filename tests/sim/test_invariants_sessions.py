"""What the checks of the sessions see: each broken history, and no good one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim.histories import Fill, do, facts_of, healthy, judge, name_of
from tribes.manager.record import Life
from tribes.testing.invariants import SessionState

if TYPE_CHECKING:
    from tribes.testing.history import History


def stale(history: History) -> None:
    do(history, "write", 1, name="w", value="x", version=(1, 1), acked=("b#1",))
    do(history, "write", 2, "b#1", name="w", value="y", version=(2, 2))


def stale_in_calm(history: History) -> None:
    do(history, "write", 1, name="w", value="x", version=(1, 1), acked=("b#1",))
    do(history, "read", 2, "c#1", name="w")


def invented(history: History) -> None:
    do(history, "read", 1, name="w", seen="z", seen_version=(1, 1))


def foreign_tag(history: History) -> None:
    do(history, "append", 1, name="list0", value=["x", "z"], version=(1, 1), seen=["x"])
    do(history, "read", 2, name="list0", seen=["x", "z"], seen_version=(1, 1))


def lost_tag(history: History) -> None:
    do(history, "append", 1, name="list0", value=["x"], version=(1, 1), acked=("b#1",))
    do(history, "append", 2, "c#1", name="list0", value=["y"], version=(2, 3))
    do(history, "read", 3, "c#1", name="list0", seen=["y"], seen_version=(2, 3))


def lost_session(history: History) -> None:
    do(history, "create", 1, version=(1, 1), acked=("b#1",))
    do(history, "lost", 2, "b#1")


def removed(history: History) -> None:
    do(history, "write", 1, name="w", value="x", version=(1, 1), acked=("b#1",))
    do(history, "remove", 2, name="w", version=(2, 1), acked=("b#1",))
    do(history, "read", 3, "b#1", name="w", seen="x", seen_version=(1, 1))


def logged_out(history: History) -> None:
    do(history, "invalidate", 1, version=(1, 1), acked=("b#1",))
    do(history, "touch", 2, "b#1")


READS = [
    (stale, "stale read", ("op 0", "op 1")),
    (stale_in_calm, "stale read", ("op 0", "op 1")),
    (invented, "invented value", ("op 0",)),
    (foreign_tag, "foreign tag", ("op 0",)),
    (lost_tag, "lost tag", ("op 0", "op 1")),
    (lost_session, "lost session", ("op 0", "op 1")),
    (logged_out, "logged out", ("op 0", "op 1")),
    (removed, "removed attribute", ("op 1", "op 2")),
]


@pytest.mark.parametrize(("fill", "invariant", "witness"), READS, ids=name_of)
def test_what_a_client_must_not_see(fill: Fill, invariant: str, witness: tuple[str, ...]) -> None:
    """Each broken history has its violation, shown by one or two operations."""
    history = healthy()
    fill(history)
    assert (invariant, witness) in facts_of(judge(history))


@pytest.mark.parametrize("fill", [stale_in_calm, lost_tag])
def test_a_fault_excuses_what_only_calm_promises(fill: Fill) -> None:
    """The node that was cut off cannot know."""
    history = healthy()
    history.fault(0.5, "partition")
    fill(history)
    assert judge(history) == []


def test_concurrent_writes_may_take_each_others_place() -> None:
    """Neither node had the other's write; the greater version wins everywhere."""
    history = healthy()
    history.fault(0.5, "partition")
    do(history, "append", 1.0, name="list0", value=["x"], version=(1, 1))
    do(history, "append", 1.0, "b#1", name="list0", value=["y"], version=(1, 2), client="c1")
    do(history, "read", 2, "b#1", name="list0", seen=["y"], seen_version=(1, 2))
    state = SessionState(entries={"list0": ((1, 2), ["y"])})
    assert judge(history, state, "a#1") == []


def test_a_removal_that_nobody_acknowledged_may_have_arrived() -> None:
    """And may be forgotten already: then nothing is left of the attribute."""
    history = healthy()
    do(history, "write", 1, name="w", value="x", version=(1, 1), acked=("b#1",))
    op = do(history, "remove", 2, "c#1", name="w", version=(2, 3))
    op.seen, op.seen_version = "x", (1, 1)
    history.fault(3, "crash", "c#1")
    assert judge(history, SessionState(), "b#1") == []


def test_an_idle_session_may_be_gone() -> None:
    """Its limit was over."""
    history = healthy()
    do(history, "create", 1, version=(1, 1), acked=("b#1",), limit=5)
    do(history, "lost", 7, "b#1", limit=5)
    assert judge(history) == []


def created(history: History) -> None:
    do(history, "create", 1, version=(1, 1), acked=("b#1",))


def written(history: History) -> None:
    created(history)
    do(history, "write", 2, name="w", value="x", version=(2, 1), acked=("b#1",))
    history.fault(3, "crash", "a#1")


def handed_on(history: History) -> None:
    """Only c had it; all were equal; c crashed; b, which started later, has it from there."""
    history.fault(1, "start", "b#1")
    do(history, "create", 1, "c#1", version=(1, 1))
    do(history, "write", 2, "c#1", name="w", value="x", version=(2, 1))
    history.equal_copies(3, "b#1", "c#1")
    history.fault(4, "crash", "c#1")


def ended(history: History) -> None:
    created(history)
    do(history, "invalidate", 2, version=(2, 1), acked=("b#1",))


def removed_for_good(history: History) -> None:
    created(history)
    do(history, "write", 2, name="w", value="x", version=(2, 1), acked=("b#1",))
    op = do(history, "remove", 3, name="w", version=(3, 1), acked=("b#1",))
    op.seen, op.seen_version = "x", (2, 1)


def removed_twice(history: History) -> None:
    removed_for_good(history)
    op = do(history, "remove", 4, name="w", version=(4, 1), acked=("b#1",))
    op.seen_version = (3, 1)


def idle(history: History) -> None:
    do(history, "create", 1, version=(1, 1), acked=("b#1",), limit=5)
    history.tell(7.0, "b#1", "expired", "K")


STATES = [
    (written, SessionState(), "lost write", ("op 1", "b#1")),
    (written, SessionState(entries={"w": ((2, 1), "?")}), "invented value", ("op 0", "b#1")),
    (handed_on, SessionState(), "lost write", ("op 1", "b#1")),
    (created, None, "lost session", ("op 0", "b#1")),
    (created, SessionState(Life.EXPIRED), "lost session", ("op 0", "b#1")),
    (created, SessionState(Life.DESTROYED), "ended by nobody", ("op 0", "b#1")),
    (ended, SessionState(), "logged out", ("op 1", "b#1")),
    (idle, SessionState(), "not expired", ("op 0", "b#1")),
    (
        removed_for_good,
        SessionState(entries={"w": ((2, 1), "x")}),
        "removed attribute",
        ("op 2", "b#1"),
    ),
]


@pytest.mark.parametrize(("fill", "state", "invariant", "witness"), STATES, ids=name_of)
def test_what_must_not_be_left(
    fill: Fill, state: SessionState | None, invariant: str, witness: tuple[str, ...]
) -> None:
    """Each wrong end has its violation, shown by one operation and one node."""
    history = healthy()
    fill(history)
    assert (invariant, witness) in facts_of(judge(history, state, "b#1"))


@pytest.mark.parametrize(
    ("fill", "state"),
    [
        (written, SessionState(entries={"w": ((2, 1), "x")})),
        (removed_twice, SessionState(entries={"w": ((3, 1), None)})),
        (handed_on, SessionState(entries={"w": ((2, 1), "x")})),
        (created, SessionState()),
        (removed_for_good, SessionState()),
        (removed_for_good, SessionState(entries={"w": ((3, 1), None)})),
        (ended, SessionState(Life.DESTROYED)),
        (ended, None),
        (idle, SessionState(Life.EXPIRED)),
    ],
    ids=name_of,
)
def test_good_ends_are_good(fill: Fill, state: SessionState | None) -> None:
    """The same histories with the right end."""
    history = healthy()
    fill(history)
    assert judge(history, state, "b#1") == []


def test_a_write_whose_copies_all_crashed_may_be_lost() -> None:
    """Nobody promised more than its holders."""
    history = healthy()
    do(history, "create", 1, "c#1", version=(1, 1))
    history.fault(2, "crash", "c#1")
    assert judge(history, None, "b#1") == []


# Values that merge by element.

COUNT, SET, LIST = "merged count", "merged set", "merged list"
MERGED = [
    (COUNT, "merged_add", 2, 1, "lost addition"),
    (COUNT, "merged_add", 2, 3, "invented addition"),
    (SET, "merged_put", "x", [], "lost element"),
    (SET, "merged_put", "x", ["x", "z"], "foreign element"),
    (SET, "merged_take", "y", ["y"], "removed element"),
    (LIST, "merged_append", "x", [], "lost element"),
    (LIST, "merged_append", "x", ["x", "z"], "foreign element"),
    (LIST, "merged_append", "x", ["x", "x"], "element twice"),
]


def merged(name: str, kind: str, value: object) -> History:
    """A session whose set had one member; the write is known on two nodes."""
    history = healthy()
    do(history, "create", 1, version=(1, 1), acked=("b#1",))
    put = do(history, "merged_put", 2, name=SET, value="y", version=(2, 1))
    if kind != "merged_take":
        # Nobody has heard of it but who has gone since.
        put.node = "c#1"
        history.fault(2.5, "crash", "c#1")
    write = do(history, kind, 20, name=name, value=value, version=(3, 1), acked=("b#1",))
    if kind == "merged_take":
        write.seen, write.seen_version = ["y"], (2, 1)
    return history


@pytest.mark.parametrize(("name", "kind", "value", "seen", "invariant"), MERGED)
def test_merged_values_that_are_wrong_are_seen(
    name: str, kind: str, value: object, seen: object, invariant: str
) -> None:
    """By a client that reads them, and at the end."""
    history = merged(name, kind, value)
    do(history, "merged_read", 21, "b#1", name=name, seen=seen, seen_version=(3, 1))
    assert facts_of(judge(history)) == [(invariant, ("op 3",))]
    history = merged(name, kind, value)
    state = SessionState(entries={name: ((3, 1), seen)})
    assert facts_of(judge(history, state, "b#1")) == [(invariant, ("b#1",))]


def test_merged_values_that_are_right_are_good() -> None:
    """Also the part of a write that nobody is known to have heard of."""
    for name, kind, value, shown in (
        (COUNT, "merged_add", 2, 2),
        (SET, "merged_put", "x", ["x"]),
        (SET, "merged_put", "x", ["x", "y"]),
        (LIST, "merged_append", "x", ["x"]),
    ):
        history = merged(name, kind, value)
        do(history, "merged_read", 21, "b#1", name=name, seen=shown, seen_version=(3, 1))
        state = SessionState(entries={name: ((3, 1), shown)})
        assert judge(history, state, "b#1") == []
