"""Nodes are killed, frozen and started again while users count: no answer is taken back."""

from __future__ import annotations

import time
from typing import Any

import pytest

NODES = ("n1", "n2", "n3", "n4")
COMMIT_TIMEOUT_S = 1.0
FROZEN_S = 6.0
BACK_S = 5.0

pytestmark = [pytest.mark.timeout(180)]


def test_each_node_in_turn_is_killed_and_started_again(
    nodes: Any, make_load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    nodes.start(*NODES)
    load = make_load(nodes, 60, NODES)
    load.warm_up()
    for name in NODES * rounds:
        nodes.kill(name)
        nodes.wait_members([n for n in NODES if n != name], within=3)
        nodes.start(name)
        nodes.wait_members(NODES, within=10)
        time.sleep(0.2)
    load.end()
    figure(f"{describe(load.ops())}, {len(load.unanswered())} without answer")
    figure(f"equal after {load.check(*NODES):.1f} s")


def test_two_of_four_are_killed_at_once(
    nodes: Any, make_load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    nodes.start(*NODES)
    load = make_load(nodes, 60, NODES)
    load.warm_up()
    for _ in range(rounds):
        nodes.kill("n2", "n3")
        noticed = nodes.wait_members(["n1", "n4"], within=3)
        time.sleep(0.5)
        nodes.start("n2", "n3")
        nodes.wait_members(NODES, within=10)
        time.sleep(0.2)
    load.end()
    figure(f"noticed after {noticed:.2f} s, {describe(load.ops())}")
    figure(f"equal after {load.check(*NODES):.1f} s")


def test_all_but_one_are_restarted_together(
    nodes: Any, make_load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """The one that is left has every answered write, and gives it to the three that join."""
    nodes.start(*NODES)
    load = make_load(nodes, 60, NODES)
    load.warm_up()
    for survivor in (NODES * rounds)[:rounds]:
        others = [n for n in NODES if n != survivor]
        nodes.kill(*others)
        nodes.start(*others)
        nodes.wait_members(NODES, within=10)
        time.sleep(0.5)
    load.end()
    figure(f"{describe(load.ops())}, {len(load.unanswered())} without answer")
    figure(f"equal after {load.check(*NODES):.1f} s")


def test_frozen_node_delays_nobody_for_long_and_comes_back_with_everything(
    nodes: Any, make_load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """SIGSTOP: each request waits at most the commit timeout, and none once it is removed."""
    nodes.start(*NODES)
    nodes.wait_members(NODES, within=5)
    awake = [n for n in NODES if n != "n4"]
    load = make_load(nodes, 60, NODES)
    load.warm_up()
    for _ in range(rounds):
        # The balancer takes it out first: a node that wakes up answers from before its sleep.
        load.direct(*awake)
        before = time.monotonic()
        time.sleep(0.5)
        frozen = time.monotonic()
        nodes.pause("n4")
        nodes.wait_members(awake, within=FROZEN_S)
        removed = time.monotonic()
        time.sleep(max(0.5, frozen + FROZEN_S - removed))
        woken = time.monotonic()
        nodes.resume("n4")
        rejoined = nodes.wait_members(NODES, within=BACK_S)
        load.direct()
        complete = load.check(*NODES)
        figure(f"before: {describe(load.ops(before, frozen))}")
        figure(f"while it hangs ({removed - frozen:.1f} s): {describe(load.ops(frozen, removed))}")
        figure(f"once removed: {describe(load.ops(removed, woken))}")
        figure(f"member again after {rejoined:.2f} s, complete {complete:.2f} s later")
        assert load.unanswered(frozen) == []
        slow = [op for op in load.ops(frozen, removed) if op.waited_s > COMMIT_TIMEOUT_S + 0.5]
        assert slow == []
        # A request that began just before the removal has still waited; those after it do not.
        assert max(op.waited_s for op in load.ops(removed, woken)) < COMMIT_TIMEOUT_S / 2
        load.direct(*NODES)
        time.sleep(0.5)
    load.end()
    load.check(*NODES)


def test_the_checker_sees_what_is_wrong(history_check: Any, make_user: Any, make_op: Any) -> None:
    """A lost answer, a second session and an invented count are each found."""

    def user(*answers: tuple[int | None, str]) -> Any:
        made = make_user(["n1"])
        made.history = [make_op("n1", i, i + 0.5, *answer) for i, answer in enumerate(answers)]
        return made

    history_check(user())
    history_check(user((1, "A.n1"), (None, ""), (3, "A.n2")))
    for wrong in (
        user((1, "A"), (2, "A"), (2, "A")),
        user((1, "A"), (2, "B")),
        user((1, "A"), (3, "A")),
    ):
        with pytest.raises(AssertionError):
            history_check(wrong)
