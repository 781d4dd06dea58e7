"""The network between nodes is cut, one way or both, loses packets, or carries one protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

NODES = ("n1", "n2", "n3", "n4")
HEAL_S = 10.0
ANSWER_S = 2.0  # the commit timeout and as much again

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def lan(make_lan: Any) -> Any:
    """Four nodes' namespaces on a bridge."""
    return make_lan(*NODES)


@pytest.fixture
def nodes(lan: Any, make_nodes: Any) -> Iterator[Any]:
    """A node in each; they end before the network is removed."""
    made = make_nodes(lan)
    try:
        made.start(*NODES)
        made.wait_members(NODES, within=10)
        yield made
    finally:
        made.close()


@pytest.fixture
def load(nodes: Any, make_load: Any) -> Iterator[Any]:
    """Users at work."""
    made = make_load(nodes, 60, NODES)
    try:
        made.warm_up()
        yield made
    finally:
        made.end()


def _heal(nodes: Any, load: Any, figure: Any) -> None:
    rejoined = nodes.wait_members(NODES, within=HEAL_S)
    load.end()
    complete = load.check(*NODES)
    figure(f"all members again after {rejoined:.1f} s, equal {complete:.1f} s later")


def _longest(ops: Any) -> float:
    longest: float = max(op.waited_s for op in ops)
    return longest


def test_t65_w11_two_halves_go_on_apart_and_become_one(
    lan: Any, nodes: Any, load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """Each half serves its users; afterwards every node has what both have written."""
    left, right = NODES[:2], NODES[2:]
    for _ in range(rounds):
        load.direct(*left, users=load.users[::2])
        load.direct(*right, users=load.users[1::2])
        begin = time.monotonic()
        with lan.fault(*lan.partition(left, right)):
            apart = nodes.wait_members(left, within=8) + nodes.wait_members(right, within=2)
            settled = time.monotonic()
            time.sleep(2)
            healed = time.monotonic()
        assert load.unanswered(begin, healed) == []
        assert _longest(load.ops(begin, healed)) < ANSWER_S
        figure(f"apart after {apart:.1f} s: {describe(load.ops(begin, settled))}")
        figure(f"once apart: {describe(load.ops(settled, healed))}")
        nodes.wait_members(NODES, within=HEAL_S)
    _heal(nodes, load, figure)


def test_one_way_cut(
    lan: Any, nodes: Any, load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """One node hears another that can't hear it: nobody waits long, and nothing is lost."""
    for _ in range(rounds):
        # A session is written where all others are reached, so that its answers are on every node.
        load.direct("n2", "n3")
        begin = time.monotonic()
        with lan.fault(lan.one_way("n1", "n4")):
            time.sleep(7)
            seen = {name: nodes.members(name) for name in NODES}
            healed = time.monotonic()
        assert load.unanswered(begin, healed) == []
        assert _longest(load.ops(begin, healed)) < ANSWER_S
        figure(f"members {seen}, {describe(load.ops(begin, healed))}")
        nodes.wait_members(NODES, within=HEAL_S)
    _heal(nodes, load, figure)


@pytest.mark.parametrize("percent", [5, 20])
def test_random_loss_costs_time_and_no_answer(
    lan: Any, nodes: Any, load: Any, rounds: int, figure: Any, describe: Any, percent: int
) -> None:
    """TCP repeats what is lost; what was answered stays, whoever was taken for gone meanwhile."""
    # Sticky, as balancers are: a user that moves while acknowledgements are late meets an old copy.
    for i, user in enumerate(load.users):
        load.direct(NODES[i % 4], users=[user])
    begin = time.monotonic()
    with lan.fault(lan.between_nodes(f"numgen random mod 100 < {percent}")):
        time.sleep(10 * rounds)
        end = time.monotonic()
    assert load.unanswered(begin, end) == []
    assert _longest(load.ops(begin, end)) < ANSWER_S
    figure(f"{percent} % lost: {describe(load.ops(begin, end))}")
    _heal(nodes, load, figure)


def test_without_multicast_nobody_is_removed(
    lan: Any, nodes: Any, load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """No heartbeat arrives, but each member answers when it is asked."""
    begin = time.monotonic()
    with lan.fault(lan.between_nodes("ip daddr 224.0.0.0/4")):
        while time.monotonic() < begin + 8 * rounds:
            for name in NODES:
                assert nodes.members(name) == list(NODES)
            time.sleep(0.1)
    assert load.unanswered(begin) == []
    assert _longest(load.ops(begin)) < ANSWER_S / 2
    figure(describe(load.ops(begin)))
    _heal(nodes, load, figure)


def test_multicast_alone_keeps_nobody(
    lan: Any, nodes: Any, load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """Heartbeats arrive, but no member answers: it is not waited for until it can."""
    for _ in range(rounds):
        for i, user in enumerate(load.users):
            load.direct(NODES[i % 4], users=[user])
        begin = time.monotonic()
        with lan.fault(lan.between_nodes("ip protocol tcp")):
            alone = max(nodes.wait_members([name], within=8, at=[name]) for name in NODES)
            settled = time.monotonic()
            time.sleep(2)
            healed = time.monotonic()
        assert load.unanswered(begin, healed) == []
        assert _longest(load.ops(begin, healed)) < ANSWER_S
        figure(f"alone after {alone:.1f} s: {describe(load.ops(begin, settled))}")
        figure(f"once alone: {describe(load.ops(settled, healed))}")
        nodes.wait_members(NODES, within=HEAL_S)
    _heal(nodes, load, figure)
