"""What a simulated machine and its process can suffer, and that it really happens."""

from __future__ import annotations

import errno
from collections import Counter
from typing import Any

import pytest

from tests.sim.bare_nodes import start, texts, watch
from tribes.channel.outputs import MemberRemoved
from tribes.testing.sim import SimNode, World
from tribes.testing.sim.driver import DATAGRAM_QUEUE, INPUT_COST_S


def reasons(node: SimNode) -> list[str]:
    return [str(e.reason) for _, e in node.events if isinstance(e, MemberRemoved)]


# The end of a process.


def test_crash_loses_memory_and_keeps_the_disk() -> None:
    world = World(1)
    a = world.start("a")
    b = world.start("b")
    world.run(2.2)
    session = a.manager().create()
    a.disk["sessions"] = b"saved"
    before = a.core
    a.crash()
    world.run(0.5)
    assert b.names() == ["b"]
    assert reasons(b) == ["crashed"]
    a.restart()
    assert a.core is not before
    assert a.manager().find(session.id) is None
    assert a.disk == {"sessions": b"saved"}
    world.run(2)
    assert b.names() == ["a", "b"]


@pytest.mark.parametrize("same_id", [False, True])
def test_restart_with_a_new_or_the_same_id(same_id: bool) -> None:
    world = World(2)
    a, b = start(world, "ab")
    unique_id = a.core.local.unique_id
    a.crash()
    world.run(1)
    a.restart(same_id=same_id)
    world.run(2)
    assert (a.core.local.unique_id == unique_id) is same_id
    assert b.core.view.members[0].unique_id == a.core.local.unique_id
    a.send(b"x", [b], 6)
    b.send(b"y", [a], 6)
    world.run(1)
    assert (texts(a), texts(b)) == ([b"y"], [b"x"])


def test_restart_of_a_running_node_leaves_first() -> None:
    world = World(3, jitter=0.0)
    a, b = start(world, "ab")
    a.restart()
    world.run(2)
    assert reasons(b) == ["left"]
    assert b.names() == ["a", "b"]


def test_crash_during_send_hands_over_a_part() -> None:
    """Over many seeds: some members got the frame, some a part of it, some nothing."""
    got: set[str] = set()
    for seed in range(30):
        world = World(seed)
        a, b, c = start(world, "abc")
        seen = watch(world)
        a.crash(during_send=True)
        assert a.is_alive
        a.send(bytes(1000), [b, c], 0)
        assert not a.is_alive
        world.run(0.01)
        # What b and c ask each other about a is not counted.
        got_bytes = [s for s in seen if s[2] == "bytes" and b"TPY" not in s[3][1]]
        sizes = {n: sum(len(s[3][1]) for s in got_bytes if s[1] == n) for n in "bc"}
        whole = [n.name for n in (b, c) if n.messages]
        partly = [n for n in "bc" if sizes[n] and n not in whole]
        got.add(f"{len(whole)} whole, {len(partly)} partly")
        world.run(1)
        assert b.names() == c.names() == ["b", "c"]
    assert {"0 whole, 1 partly", "1 whole, 1 partly"} <= got


def test_crash_during_send_comes_without_a_send_too() -> None:
    world = World(4)
    a, _ = start(world, "ab")
    a.crash(during_send=True)
    world.run(0.9)
    assert a.is_alive
    world.run(0.2)
    assert not a.is_alive


def test_a_childs_sockets_hide_the_crash() -> None:
    """No connection closes and new ones are made; only silence tells. The port stays taken."""
    world = World(5)
    a, b = start(world, "ab")
    seen = watch(world)
    a.crash(keep_sockets=True)
    ticket = b.send(b"x", [a], 0)
    world.run(1)
    assert b.names() == ["a", "b"]
    assert b.done[ticket] == {}
    assert not [s for s in seen if s[1:3] == ("b", "closed")]
    world.run(5)
    assert b.names() == ["b"]
    assert reasons(b) == ["silent"]
    port = a.port
    a.restart()
    assert a.port != port
    world.run(2)
    assert b.names() == ["a", "b"]
    stranger = world.inject_stream(a, b"")
    a.sockets.release()
    world.run(1)
    assert stranger.is_connected


def test_a_child_that_ends_closes_the_sockets() -> None:
    world = World(6)
    a, b = start(world, "ab")
    a.crash(keep_sockets=True)
    world.run(0.5)
    assert b.names() == ["a", "b"]
    a.sockets.release()
    world.run(0.5)
    assert b.names() == ["b"]
    assert reasons(b) == ["crashed"]


def test_stop_says_so() -> None:
    world = World(7)
    a, b = start(world, "ab")
    a.stop()
    a.stop()
    world.run(0.1)
    assert reasons(b) == ["left"]


def test_drain_waits_for_what_was_sent() -> None:
    world = World(8)
    a, b = start(world, "ab")
    world.link(a, b).delay = 0.2
    a.send(b"late", [b], 6)
    a.stop(drain=5)
    assert a.is_alive
    assert world.run_until(world.now + 1, lambda: not a.is_alive)
    world.run(1)
    assert texts(b) == [b"late"]
    assert reasons(b) == ["left"]


def test_drain_gives_up_in_the_end() -> None:
    world = World(9)
    a, b = start(world, "ab")
    world.clog(a, b)
    a.send(b"never", [b], 6)
    begin = world.now
    a.stop(drain=1.5)
    assert world.run_until(world.now + 5, lambda: not a.is_alive)
    assert world.now - begin == pytest.approx(1.5)
    assert texts(b) == []


def test_mass_restart() -> None:
    world = World(10)
    nodes = start(world, "abcde")
    ids = [node.core.local.unique_id for node in nodes]
    world.mass_restart(nodes[1:], 0.5)
    assert [node.is_alive for node in nodes] == [True] + [False] * 4
    world.run(5)
    assert {tuple(node.names()) for node in nodes} == {tuple("abcde")}
    changed = [n.core.local.unique_id != i for n, i in zip(nodes, ids, strict=True)]
    assert changed == [False] + [True] * 4


# A process that is stopped or slow.


def test_a_stopped_process_does_nothing_and_catches_up() -> None:
    world = World(11)
    a, b = start(world, "ab")
    seen = watch(world)
    b.pause()
    ticket = a.send(b"x", [b], 6)
    world.run(0.8)
    assert not [s for s in seen if s[1] == "b" and s[2] != "pause"]
    assert ticket not in a.done
    b.resume()
    world.run(0.1)
    assert a.done[ticket] == {}
    assert texts(b) == [b"x"]
    assert [s[2] for s in seen if s[1] == "b"][:2] == ["pause", "resume"]


def test_a_stopped_process_hears_no_more_than_its_kernel_keeps() -> None:
    world = World(12)
    a, b = start(world, "ab")
    b.pause()
    for _ in range(DATAGRAM_QUEUE + 50):
        world.inject_datagram(b"junk", b)
    world.run(0.1)
    assert b.datagrams_dropped == 50
    b.resume()
    world.run(1)
    assert b.core.channel.membership.statistics.ignored == DATAGRAM_QUEUE
    assert a.names() == b.names() == ["a", "b"]


def test_throttle_makes_each_input_cost_time() -> None:
    world = World(13, jitter=0.0)
    a, b = start(world, "ab")
    b.throttle = 1000.0
    begin = world.now
    tickets = []
    for i in range(4):
        # One after the other: what is sent at once arrives as one input.
        tickets.append(a.send(b"%d" % i, [b], 6))
        world.run(0.001)
    assert world.run_until(world.now + 5, lambda: a.done.keys() >= set(tickets))
    cost = 1000 * INPUT_COST_S
    # What arrives while it works is read as one input afterwards.
    assert cost <= world.now - begin <= 8 * cost
    b.throttle = 1.0
    a.send(b"quick", [b], 6)
    world.run(0.1)
    assert texts(b)[-1] == b"quick"


def test_slow_listeners_delay_the_acknowledgement() -> None:
    world = World(14)
    a, b = start(world, "ab")
    b.delivery_s = 0.5
    ticket = a.send(b"x", [b], 6)
    world.run(0.4)
    assert ticket not in a.done
    world.run(0.2)
    assert a.done[ticket] == {}


def test_a_listener_that_ends_its_own_process() -> None:
    world = World(15)
    a, b = start(world, "ab")
    b.on_message = lambda _: b.crash()
    ticket = a.send(b"x", [b], 6)
    world.run(2)
    assert a.done[ticket] != {}
    assert not b.is_alive


# Disk and clock.


def test_full_disk() -> None:
    world = World(16)
    a, _ = start(world, "ab")
    a.disk["x"] = b"1"
    a.disk_full = True
    writes: list[Any] = [
        lambda: a.disk.__setitem__("y", b"2"),
        lambda: a.disk.update(y=b"2"),
        lambda: a.disk.setdefault("y", b"2"),
    ]
    for write in writes:
        with pytest.raises(OSError, match="No space left") as error:
            write()
        assert error.value.errno == errno.ENOSPC
    assert a.disk.refused == 3
    assert a.disk.setdefault("x") == b"1"
    del a.disk["x"]
    a.disk_full = False
    a.disk |= {"y": b"2"}
    assert a.disk == {"y": b"2"}


def test_clock_offset_as_keyword_and_attribute() -> None:
    world = World(17)
    a = world.start("a", clock_offset_ms=5000)
    b = world.start("b")
    assert a.wall_ms() - b.wall_ms() == a.clock_offset_ms == a.clock.offset_ms == 5000
    b.clock_offset_ms = 7000
    b.clock.step(1)
    assert b.wall_ms() - a.wall_ms() == 2001


def test_a_process_is_woken_for_what_is_due_and_for_little_else() -> None:
    """A timer that an earlier one has replaced is not set again beside it."""
    world = World(7)
    nodes = [world.start(name) for name in "abcd"]
    world.run(60.2)
    waiting = Counter(getattr(event, "__self__", None) for _, _, event, _ in world._heap)
    assert [waiting[node] for node in nodes] == [1, 1, 1, 1]
