"""Every check sees what it is for, with the shortest witness, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tribes.manager.record import Life
from tribes.testing.history import History, Op
from tribes.testing.invariants import (
    SessionState,
    Violation,
    WorldState,
    check_converged,
    check_history,
    check_now,
)
from tribes.testing.sim import World
from tribes.testing.workload import Workload

LATE = 100.0
Fill = Callable[[History], None]


def name_of(parameter: object) -> str:
    return getattr(parameter, "__name__", str(parameter))


def healthy() -> History:
    history = History()
    for node in ("a#1", "b#1", "c#1"):
        history.fault(0.0, "present", node)
    return history


def do(history: History, kind: str, begin: float, node: str = "a#1", **fields: Any) -> Op:
    """One finished operation; written ones are acknowledged unless ``acked`` says otherwise."""
    acked, client = fields.pop("acked", ()), fields.pop("client", "c0")
    op = history.op(client, node, kind, "K", begin, **fields)
    if op.version is not None:
        history.settle(op, acked, {}, begin + 0.01)
    history.finish(op, "failed" if kind == "lost" else "ok", begin + 0.01)
    return op


def say(history: History, option: int, *, end: float | None = 11.0, **fields: Any) -> None:
    """One message of a to b at 10.0, which is sequence 1 unless there were others."""
    send = history.send("a#1", len(history.sends) + 1, ("b#1",), option, 10.0, **fields)
    send.end = end


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
]


@pytest.mark.parametrize(("fill", "invariant", "witness"), READS, ids=name_of)
def test_what_a_client_must_not_see(fill: Fill, invariant: str, witness: tuple[str, ...]) -> None:
    """Each broken history has its violation, shown by one or two operations."""
    history = healthy()
    fill(history)
    found = check_history(history, WorldState(LATE, {}))
    assert (invariant, witness) in [(v.invariant, v.witness) for v in found]


@pytest.mark.parametrize("fill", [stale_in_calm, lost_tag])
def test_a_fault_excuses_what_only_calm_promises(fill: Fill) -> None:
    """The node that was cut off cannot know."""
    history = healthy()
    history.fault(0.5, "partition")
    fill(history)
    assert check_history(history, WorldState(LATE, {})) == []


def test_concurrent_writes_may_take_each_others_place() -> None:
    """Neither node had the other's write; the greater version wins everywhere."""
    history = healthy()
    history.fault(0.5, "partition")
    do(history, "append", 1.0, name="list0", value=["x"], version=(1, 1))
    do(history, "append", 1.0, "b#1", name="list0", value=["y"], version=(1, 2), client="c1")
    do(history, "read", 2, "b#1", name="list0", seen=["y"], seen_version=(1, 2))
    state = SessionState(entries={"list0": ((1, 2), ["y"])})
    assert check_history(history, WorldState(LATE, {n: {"K": state} for n in ("a#1", "b#1")})) == []


def test_an_idle_session_may_be_gone() -> None:
    """Its limit was over."""
    history = healthy()
    do(history, "create", 1, version=(1, 1), acked=("b#1",), limit=5)
    do(history, "lost", 7, "b#1", limit=5)
    assert check_history(history, WorldState(LATE, {})) == []


def end(history: History, state: SessionState | None) -> list[Violation]:
    held = {} if state is None else {"K": state}
    return check_history(history, WorldState(LATE, {"b#1": held}))


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


def idle(history: History) -> None:
    do(history, "create", 1, version=(1, 1), acked=("b#1",), limit=5)


STATES = [
    (written, SessionState(), "lost write", ("op 1", "b#1")),
    (written, SessionState(entries={"w": ((2, 1), "?")}), "invented value", ("op 0", "b#1")),
    (handed_on, SessionState(), "lost write", ("op 1", "b#1")),
    (created, None, "lost session", ("op 0", "b#1")),
    (created, SessionState(Life.EXPIRED), "lost session", ("op 0", "b#1")),
    (created, SessionState(Life.DESTROYED), "ended by nobody", ("op 0", "b#1")),
    (ended, SessionState(), "logged out", ("op 1", "b#1")),
    (idle, SessionState(), "not expired", ("op 0", "b#1")),
]


@pytest.mark.parametrize(("fill", "state", "invariant", "witness"), STATES, ids=name_of)
def test_what_must_not_be_left(
    fill: Fill, state: SessionState | None, invariant: str, witness: tuple[str, ...]
) -> None:
    """Each wrong end has its violation, shown by one operation and one node."""
    history = healthy()
    fill(history)
    found = end(history, state)
    assert (invariant, witness) in [(v.invariant, v.witness) for v in found]


@pytest.mark.parametrize(
    ("fill", "state"),
    [
        (written, SessionState(entries={"w": ((2, 1), "x")})),
        (handed_on, SessionState(entries={"w": ((2, 1), "x")})),
        (created, SessionState()),
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
    assert end(history, state) == []


def test_a_write_whose_copies_all_crashed_may_be_lost() -> None:
    """Nobody promised more than its holders."""
    history = healthy()
    do(history, "create", 1, "c#1", version=(1, 1))
    history.fault(2, "crash", "c#1")
    assert end(history, None) == []


def not_processed(history: History) -> None:
    say(history, 6)


def processed_late(history: History) -> None:
    say(history, 6)
    history.deliver("a#1", 1, "b#1", 11.5)


def not_received(history: History) -> None:
    history.fault(9, "resume", "c#1")
    say(history, 2)


def failure_not_told(history: History) -> None:
    say(history, 6, failing=("b",))
    history.deliver("a#1", 1, "b#1", 10.5, failed=True)


def failure_invented(history: History) -> None:
    say(history, 6)
    history.sends[0].faulty = {"b#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "b#1", 10.5)


def failure_told_to_nobody(history: History) -> None:
    say(history, 2)
    history.sends[0].faulty = {"b#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "b#1", 10.5, failed=True)


def faulty_for_nothing(history: History) -> None:
    say(history, 2)
    history.sends[0].faulty = {"b#1": "SendTimeoutError"}


def lost_message(history: History) -> None:
    say(history, 8)


def blocked_send(history: History) -> None:
    say(history, 6, end=None)


def twice(history: History) -> None:
    say(history, 0)
    history.deliver("a#1", 1, "b#1", 10.5)
    history.deliver("a#1", 1, "b#1", 10.6)


def swapped(history: History) -> None:
    say(history, 0)
    say(history, 0)
    history.deliver("a#1", 2, "b#1", 10.5)
    history.deliver("a#1", 1, "b#1", 10.6)


def to_another(history: History) -> None:
    say(history, 0)
    history.deliver("a#1", 1, "b#1", 10.5)
    history.deliver("a#1", 1, "c#1", 10.5)


def never_sent(history: History) -> None:
    history.deliver("a#1", 9, "b#1", 10.5)


SENDS = [
    (not_processed, "acknowledged", ("send 0", "b#1")),
    (processed_late, "acknowledged", ("send 0", "b#1")),
    (not_received, "acknowledged", ("send 0", "b#1")),
    (failure_not_told, "faulty list", ("send 0", "b#1")),
    (failure_invented, "faulty list", ("send 0", "b#1")),
    (failure_told_to_nobody, "faulty list", ("send 0", "b#1")),
    (faulty_for_nothing, "faulty without cause", ("send 0", "b#1")),
    (lost_message, "lost in calm", ("send 0", "b#1")),
    (blocked_send, "blocked", ("send 0",)),
    (twice, "no duplicate", ("send 0", "b#1")),
    (swapped, "order", ("send 0", "send 1", "b#1")),
    (to_another, "nothing invented", ("message 1 of a#1", "c#1")),
    (never_sent, "nothing invented", ("message 9 of a#1", "b#1")),
]


@pytest.mark.parametrize(("fill", "invariant", "witness"), SENDS, ids=name_of)
def test_what_the_channel_must_not_do(fill: Fill, invariant: str, witness: tuple[str, ...]) -> None:
    """One violation each, with the message that shows it."""
    history = healthy()
    fill(history)
    found = check_history(history, WorldState(LATE, {}))
    assert [(v.invariant, v.witness) for v in found] == [(invariant, witness)]


@pytest.mark.parametrize("option", [0, 2, 6, 8, 10])
def test_good_messages_are_good(option: int) -> None:
    """Delivered in order, the failed one named where the option says so."""
    history = healthy()
    say(history, option)
    say(history, option, failing=("b",))
    history.deliver("a#1", 1, "b#1", 10.5)
    history.deliver("a#1", 2, "b#1", 10.6, failed=True)
    if option == 6:
        history.sends[1].faulty = {"b#1": "RemoteProcessError"}
    assert check_history(history, WorldState(LATE, {})) == []


@pytest.mark.parametrize("option", [0, 8])
def test_a_fault_may_cost_unacknowledged_messages(option: int) -> None:
    """Nothing beyond the queue was promised."""
    history = healthy()
    say(history, option)
    history.fault(10.1, "crash", "b#1")
    assert check_history(history, WorldState(LATE, {})) == []


# While the run goes on.


def test_online_checks_report_each_violation_once() -> None:
    """Deliveries are looked at when they are new."""
    world, history = World(1), healthy()
    swapped(history)
    assert [v.invariant for v in check_now(world, history)] == ["order"]
    assert check_now(world, history) == []
    twice(history)
    assert [v.invariant for v in check_now(world, history)] == ["no duplicate"] * 2


def test_a_bound_that_is_passed_is_seen_once() -> None:
    """Here the inbox claims to have held more than it may."""
    world = World(1)
    node = world.start("a")
    world.run(2)
    history = History()
    assert check_now(world, history) == []
    node.manager().inbox.peak_bytes = node.manager().inbox.max_bytes + 1
    (seen,) = check_now(world, history)
    assert (seen.invariant, seen.witness) == ("bound", ("a#1", "bytes in the inbox"))
    assert check_now(world, history) == []


def test_a_session_that_comes_back_is_seen() -> None:
    """The table is tampered with: the live record takes the place of the destroyed one."""
    world = World(1)
    node = world.start("a")
    world.run(2)
    manager, history = node.manager(), History()
    session = manager.create()
    manager.commit(session)
    before = manager.table.get(session.key)
    assert before is not None
    outcome = manager.invalidate(session)
    assert outcome.version is not None
    history.op("c", "a#1", "invalidate", session.key, world.now, version=(outcome.version, 1))
    assert check_now(world, history) == []
    manager.table._records[session.key] = before
    (seen,) = check_now(world, history)
    assert (seen.invariant, seen.witness) == ("logged out", ("op 0", "a#1"))


# Afterwards.


def test_converged_is_what_the_name_says() -> None:
    """A split cluster is not: two views, different copies, sessions missing."""
    world = World(2)
    nodes = [world.start(name) for name in "ab"]
    world.run(3)
    assert check_converged(world, nodes, 0.0, 3.0) == []
    world.partition(nodes[:1], nodes[1:])
    world.run(6)
    session = nodes[0].manager().create()
    nodes[0].manager().commit(session)
    found = check_converged(world, nodes, 0.0, 3.0)
    assert sorted((v.invariant, v.witness[0]) for v in found) == [
        ("equal copies", found[2].witness[0]),
        ("one view", "a"),
        ("one view", "b"),
        ("required copies", "b"),
    ]


def test_a_request_that_waits_for_ever_is_seen() -> None:
    """Nobody resolved its waiter, and its node runs."""
    world = World(3)
    node = world.start("a")
    world.run(5)
    history = History()
    op = history.op("c", "a#1", "write", "K", 1.0)
    history.waiting[op.number] = op
    (seen,) = check_converged(world, [node], 0.0, 3.0, history=history)
    assert (seen.invariant, seen.witness) == ("blocked", ("op 0",))


def test_demanding_too_early_is_an_error() -> None:
    """A check that could not fail would look like one that passed."""
    with pytest.raises(ValueError, match="less than 5 s"):
        check_converged(World(1), [], 0.0, 5.0)


def test_a_broken_product_is_caught() -> None:
    """A node that drops what it acknowledges, in a real run: the checks say so."""
    world = World(4)
    nodes = [world.start(name) for name in "abc"]
    world.run(3)
    load = Workload(world, clients=6, seed=4, routing="random", messages_per_s=0)
    replicator = nodes[1].core.sessions.replicators["app"]
    replicator.transfer.merge = lambda pairs, now: None  # type: ignore[method-assign]
    load.start()
    world.run(10)
    load.stop()
    world.run(3)
    found = check_history(load.history, WorldState.of(world))
    assert "lost session" in {v.invariant for v in found}
