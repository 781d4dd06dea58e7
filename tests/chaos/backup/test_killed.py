"""Real nodes with a Backup manager are killed, as many at once as there are copies."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

NODES = ("n1", "n2", "n3", "n4", "n5")
WHOLE_S = 20.0
PARTS = 64
PROGRAM = Path(__file__).parent / "program.py"

pytestmark = [pytest.mark.timeout(180)]


def _places(nodes: Any, name: str) -> Any:
    return nodes.get(nodes.url(name) + "/places").json()


def _wait_whole(nodes: Any, *names: str) -> float:
    """Seconds until each node holds what it should, and each part has one owner."""
    begin = time.monotonic()
    while True:
        seen = [_places(nodes, name) for name in names]
        owned = Counter(part for each in seen for part in each["claims"])
        is_whole = all(each["settled"] and not each["under_replicated"] for each in seen)
        if is_whole and owned == dict.fromkeys(range(PARTS), 1):
            return time.monotonic() - begin
        assert time.monotonic() - begin < WHOLE_S, seen
        time.sleep(0.05)


@pytest.mark.parametrize("copies", [1, 2])
def test_as_many_nodes_are_killed_at_once_as_there_are_copies(
    copies: int, nodes: Any, make_load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """Under load: no answered write is lost, the copies are whole again in seconds, and every
    session has one owner.
    """
    nodes.command = (str(PROGRAM), "--copies", str(copies))
    nodes.start(*NODES)
    nodes.wait_members(NODES, within=10)
    load = make_load(nodes, 40, NODES)
    load.warm_up()
    _wait_whole(nodes, *NODES)
    for turn in range(rounds):
        killed = [NODES[(turn + i) % len(NODES)] for i in range(copies)]
        left = [name for name in NODES if name not in killed]
        began = time.monotonic()
        nodes.kill(*killed)
        nodes.wait_members(left, within=5)
        _wait_whole(nodes, *left)
        figure(f"k = {copies}: whole {time.monotonic() - began:.1f} s after the kill")
        assert [_places(nodes, name)["sessions_lost"] for name in left] == [0] * len(left)
        nodes.start(*killed)
        nodes.wait_members(NODES, within=10)
        _wait_whole(nodes, *NODES)
    load.end()
    figure(f"{describe(load.ops())}, {len(load.unanswered())} without answer")
    figure(f"all nodes serve all sessions after {load.check(*NODES):.1f} s")
    held = sum(_places(nodes, name)["with_replicas"] for name in NODES)
    owned = sum(_places(nodes, name)["owned"] for name in NODES)
    assert held == (1 + copies) * owned
    assert owned >= len(load.users)
