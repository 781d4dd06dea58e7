"""Real nodes with a Backup manager are killed, as many at once as there are copies."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from tests.chaos.backup.cluster import FIVE, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize("copies", [1, 2])
def test_as_many_nodes_are_killed_at_once_as_there_are_copies(
    copies: int, nodes: Any, make_load: Any, rounds: int, figure: Any, describe: Any
) -> None:
    """Under load: no answered write is lost, the copies are whole again in seconds, and every
    session has one owner.
    """
    with closing(Cluster(nodes, copies)) as cluster:
        cluster.start(*FIVE)
        nodes.wait_members(FIVE, within=10)
        load = make_load(nodes, 40, FIVE)
        load.warm_up()
        cluster.wait_whole(*FIVE)
        for turn in range(rounds):
            killed = [FIVE[(turn + i) % len(FIVE)] for i in range(copies)]
            left = [name for name in FIVE if name not in killed]
            began = time.monotonic()
            nodes.kill(*killed)
            nodes.wait_members(left, within=5)
            cluster.wait_whole(*left)
            figure(f"k = {copies}: whole {time.monotonic() - began:.1f} s after the kill")
            assert cluster.total("sessions_lost", left) == 0
            cluster.start(*killed)
            nodes.wait_members(FIVE, within=10)
            cluster.wait_whole(*FIVE)
        load.end()
        figure(f"{describe(load.ops())}, {len(load.unanswered())} without answer")
        figure(f"all nodes serve all sessions after {load.check(*FIVE):.1f} s")
        owned = cluster.total("owned", FIVE)
        assert cluster.total("with_replicas", FIVE) == (1 + copies) * owned
        assert owned >= len(load.users)
