"""Time, log, observers and speed of the simulated world."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.sim import SimWaiter, World

ROOT = Path(__file__).parents[2]


def storm(seed: int) -> World:
    """A run that takes every path through the simulator, with traffic all the time."""
    world = World(seed)
    world.log = []
    config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=6))
    nodes = a, b, c, d = [world.start(name, config) for name in "abcd"]
    session_ids: list[str] = []

    def traffic(i: int) -> None:
        node = nodes[i % 4]
        if node.is_alive and not node.is_paused:
            session = node.manager().create()
            session["n"] = i
            node.manager().commit(session, SimWaiter())
            session_ids.append(session.id)
            node.send(b"%d" % i, [n for n in nodes if n is not node], (0, 2, 6, 8)[i % 4])

    faults = [
        lambda: world.cut(a, b),
        lambda: world.partition([a, b], [c, d]),
        world.heal,
        lambda: setattr(world.link(a, b), "loss", 0.3),
        lambda: setattr(world.link(b, a), "reorder", 0.5),
        lambda: setattr(world.link(c, a), "duplicate", 0.5),
        lambda: setattr(world.link(c, d), "jitter", 0.2),
        lambda: world.multicast_blocked.update("ab"),
        lambda: world.tcp_blocked.update((frozenset("ab"), frozenset("cd"), ("a", "c"))),
        world.calm,
        lambda: world.clog(a, b),
        lambda: world.reset(a, b, mid_frame=True),
        lambda: world.half_open(c, d),
        lambda: world.corrupt_next(b, c, "flip"),
        lambda: world.replay(5),
        lambda: world.inject_stream(d, b"junk"),
        world.calm,
        b.pause,
        lambda: setattr(c, "throttle", 50.0),
        lambda: a.crash(during_send=True),
        b.resume,
        lambda: d.crash(keep_sockets=True),
        lambda: a.restart(same_id=True),
        lambda: world.mass_restart([c, d]),
        lambda: setattr(a.clock, "monotonic_drift", 1.01),
        lambda: b.clock.step(5000),
        lambda: b.stop(drain=1),
        world.calm,
    ]
    for i, fault in enumerate(faults):
        world.at(2 + i, fault)
    for i in range(400):
        world.at(2 + i * 0.08, lambda i=i: traffic(i))  # type: ignore[misc]
    world.run(35)
    return world


def test_same_seed_same_log_in_any_process() -> None:
    """Twice here, and in two processes that hash differently: byte for byte the same log."""
    first = storm(7)
    assert storm(7).log == first.log
    assert storm(8).digest != first.digest
    assert first.log is not None
    assert len(first.log) > 5_000
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, __file__],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [first.digest, _hash(first)]


def _hash(world: World) -> str:
    return hashlib.sha256("\n".join(world.log or ()).encode()).hexdigest()


def test_after_the_storm_there_is_one_view() -> None:
    world = storm(9)
    world.run(10)
    alive = [node for node in world.nodes.values() if node.is_alive]
    assert [node.names() for node in alive] == [[n.name for n in alive]] * len(alive)


def test_time_and_ties() -> None:
    """Events run in the order of their times, equal ones in the order in which they were set."""
    world = World(0)
    ran: list[tuple[float, int]] = []
    for i, delay in enumerate((2.0, 1.0, 1.0, 0.0)):
        world.at(delay, lambda i=i: ran.append((world.now, i)))  # type: ignore[misc]
    assert world.run_until(1.5, lambda: len(ran) == 2)
    assert ran == [(0.0, 3), (1.0, 1)]
    assert world.now == 1.0
    assert not world.run_until(1.5, lambda: False)
    assert ran[2:] == [(1.0, 2)]
    assert world.now == 1.5
    world.run(1)
    assert (world.now, world.events) == (2.5, 4)


def test_observers_are_told_every_kind() -> None:
    world = World(1)
    kinds: Counter[str] = Counter()
    world.observers.append(lambda when, name, kind, detail: kinds.update((kind,)))
    a, b, _ = (world.start(name) for name in "abc")
    world.run(2)
    a.send(b"x", [b], 6)
    world.run(1)
    b.crash()
    a.send(b"y", [b], 6)
    a.pause()
    a.resume()
    world.heal()
    world.run(2)
    wanted = "start crash pause resume datagram bytes write connect connected closed refused probe"
    assert set(kinds) == {*wanted.split(), "deliver", "event", "fault"}


def test_a_node_gets_new_settings_at_its_next_start() -> None:
    world = World(2)
    a = world.start("a")
    a.crash()
    assert world.start("a", NodeConfig(contexts=("other",))) is a
    assert a.core.sessions.replicators.keys() == {"other"}
    assert a.config.name == "a"


def test_partition_of_a_node_in_no_group() -> None:
    world = World(3)
    nodes = [world.start(name) for name in "abc"]
    world.run(2)
    world.partition([nodes[0], "b"])
    world.run(8)
    assert [node.names() for node in nodes] == [["a", "b"], ["a", "b"], ["c"]]


@pytest.mark.slow
def test_speed() -> None:
    """A machine that is busy with other things must still do a quarter of what is wanted."""
    world = World(4)
    for name in "abcde":
        world.start(name)
    world.run(5)
    events, begin = world.events, time.process_time()
    world.run(100)
    assert (world.events - events) / (time.process_time() - begin) > 10_000


if __name__ == "__main__":
    the_world = storm(7)
    print(the_world.digest, _hash(the_world))
