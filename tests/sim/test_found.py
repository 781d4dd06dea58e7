"""What the simulator has found in the core, each with the smallest world that shows it."""

from __future__ import annotations

from tribes.config.model import NodeConfig
from tribes.testing.sim import World


def test_one_lost_packet_of_a_probe_removes_nobody() -> None:
    """TCP repeats a lost connection request after a second; the failure detector waits longer."""
    world = World(1)
    a, b = (world.start(name, NodeConfig()) for name in "ab")
    world.run(2.2)
    world.tcp_blocked.add(frozenset("ab"))
    world.reset(a, b)
    world.run(0.2)
    world.tcp_blocked.clear()
    world.run(2)
    removed = [e.name for node in (a, b) for _, e in node.events if e.name == "member removed"]
    assert removed == []
