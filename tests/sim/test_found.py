"""What the simulator has found in the core, each with the smallest world that shows it."""

from __future__ import annotations

from tribes.config.model import NodeConfig
from tribes.testing.sim import World
from tribes.wire.member import encode_member


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


def test_late_heartbeat_of_a_dead_incarnation_disturbs_nobody() -> None:
    """Its port answers, but as somebody else. Seed 1708 showed it: the two replaced each other."""
    world = World(3)
    a, b = (world.start(name, NodeConfig()) for name in "ab")
    world.run(2.2)
    old = encode_member(b.core.local.replace(alive=1000))
    b.crash()
    world.run(0.5)
    b.start()
    world.run(1.2)
    a.events.clear()
    for _ in range(10):
        world.inject_datagram(old)
        world.run(0.4)
    assert [member.unique_id for member in a.core.view.members] == [b.core.local.unique_id]
    assert [e.name for _, e in a.events if e.name.startswith("member")] == []
    assert b.core.channel.statistics.links_rejected >= 10


def test_frames_for_a_dead_incarnation_are_not_taken_by_its_successor() -> None:
    """A sender that has not noticed the restart gets an error, and nobody hears its message."""
    world = World(4)
    a, b = (world.start(name, NodeConfig()) for name in "ab")
    world.run(2.2)
    dead = b.core.local
    b.crash()
    world.run(0.5)
    b.start()
    ticket, _ = a.core.send([dead], b"for the one before", 6, a.clock.monotonic())
    a.pump()
    world.run(3)
    assert list(a.done[ticket]) == [dead]
    assert [m for m in b.messages if m.message == b"for the one before"] == []
