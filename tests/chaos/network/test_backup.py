"""Real nodes with a Backup manager in a network that is cut in two, and becomes one again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.chaos.backup.cluster import FIVE, Answer, Cluster

LEFT, RIGHT = FIVE[:3], FIVE[3:]
SESSIONS = 40
EQUAL_S = 25.0
"""Copies of a part are compared at once when a member comes back, and every 16 s."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def lan(make_lan: Any) -> Any:
    """Five nodes' namespaces on a bridge."""
    return make_lan(*FIVE)


@pytest.fixture
def five(lan: Any, make_nodes: Any) -> Iterator[Cluster]:
    """A node in each; they end before the network is removed."""
    nodes = make_nodes(lan)
    with closing(nodes), closing(Cluster(nodes)) as cluster:
        cluster.start(*FIVE)
        nodes.wait_members(FIVE, within=10)
        cluster.wait_whole(*FIVE)
        yield cluster


def test_a_split_with_writes_on_both_sides_heals_and_nothing_is_silent(
    lan: Any, five: Cluster, rounds: int, figure: Any
) -> None:
    """Three and two of five. Afterwards every node shows the same: each side's own writes, and of
    two writes of one attribute the later one. The other one is counted, on whichever node it was
    made, also if that does not hold the session.
    """
    for _ in range(rounds):
        made = five.make(FIVE, SESSIONS)
        counted = five.total("overwritten", FIVE)
        with lan.fault(*lan.partition(LEFT, RIGHT)):
            five.nodes.wait_members(LEFT, within=8)
            five.nodes.wait_members(RIGHT, within=2)
            five.wait_whole(*LEFT)
            five.wait_whole(*RIGHT)
            written = [_write_apart(five, i, each) for i, each in enumerate(made)]
        five.nodes.wait_members(FIVE, within=10)
        healed = time.monotonic()
        five.wait_whole(*FIVE)
        twice = sum(len(sides) == 2 for sides in written)
        assert twice > SESSIONS // 4
        wanted = {
            each.cookie: {"n": str(i), **{side: str(i) for side in sides}, "both": sides[-1]}
            for i, (each, sides) in enumerate(zip(made, written, strict=True))
        }
        while True:
            try:
                five.expect(FIVE, wanted)
                break
            except AssertionError:
                if time.monotonic() - healed > EQUAL_S:
                    raise
                time.sleep(0.2)
        figure(f"equal on all nodes {time.monotonic() - healed:.1f} s after the network healed")
        while (count := five.total("overwritten", FIVE) - counted) < twice:
            assert time.monotonic() - healed < EQUAL_S, f"{count} of {twice} are counted"
            time.sleep(0.2)
        assert count == twice
        figure(f"{twice} of {SESSIONS} sessions were written on both sides: merged, and counted")


def _write_apart(five: Cluster, number: int, session: Answer) -> list[str]:
    """Write to a session on each side that has it; the sides, in the order of the writes."""
    sides = []
    for side, names in (("left", LEFT), ("right", RIGHT)):
        name = names[number % len(names)]
        shown = five.ask(name, "/show", session.cookie)
        if shown.values:
            path = f"/write?{side}={number}&both={side}"
            assert five.ask(name, path, session.cookie).id == session.id
            sides.append(side)
    return sides
