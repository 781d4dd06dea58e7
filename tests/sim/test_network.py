"""Faults of datagrams and streams: each test shows that the fault really happens."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from tests.sim.bare_nodes import Seen, start, texts, watch
from tribes.channel.outputs import LinkRejected
from tribes.testing.sim import SimNode, World, network
from tribes.testing.sim.streams import SEND_BUFFER
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.member import MEMBER_BEGIN, decode_member


def heard(seen: Seen, by: str, source: SimNode) -> list[tuple[float, int]]:
    """When a node heard another one's heartbeats, and the alive times in them."""
    found = []
    for when, name, kind, detail in seen:
        if name == by and kind == "datagram":
            member = decode_member(detail)
            if member == source.core.local:
                found.append((when, member.alive))
    return found


# Datagrams.


def test_lost_datagrams_do_not_arrive() -> None:
    world = World(1)
    a, b, _ = start(world, "abc")
    seen = watch(world)
    world.link(a, b).loss = 1.0
    world.run(2)
    assert not heard(seen, "b", a)
    assert len(heard(seen, "c", a)) == len(heard(seen, "a", b)) == 4
    world.link("a", "b").loss = 0.5
    world.run(100)
    assert 70 < len(heard(seen, "b", a)) < 130


def test_duplicated_datagrams_arrive_twice() -> None:
    world = World(2)
    a, b = start(world, "ab")
    seen = watch(world)
    world.link(a, b).duplicate = 1.0
    world.run(5)
    counts = Counter(alive for _, alive in heard(seen, "b", a))
    assert set(counts.values()) == {2}
    assert set(Counter(alive for _, alive in heard(seen, "a", b)).values()) == {1}


def test_reordered_datagrams_are_overtaken_by_later_ones() -> None:
    world = World(3)
    a, b = start(world, "ab")
    seen = watch(world)
    world.link(a, b).reorder = 0.3
    world.run(60)
    alive = [alive for _, alive in heard(seen, "b", a)]
    assert alive != sorted(alive)
    assert len(alive) == len(set(alive)) >= 115
    alive = [alive for _, alive in heard(seen, "a", b)]
    assert alive == sorted(alive)


def test_a_held_datagram_arrives_although_nothing_overtakes_it() -> None:
    world = World(4)
    a, b = start(world, "ab")
    seen = watch(world)
    world.link(a, b).reorder = 1.0
    world.run(0.6)
    a.crash()
    world.run(3)
    assert len(heard(seen, "b", a)) >= 1


def test_delay_and_jitter_of_one_direction() -> None:
    world = World(5, latency=0.001, jitter=0.0)
    a, b = start(world, "ab")
    seen = watch(world)
    world.link(a, b).delay = 0.1
    a.send(b"x", [b], 6)
    sent = world.now
    world.run(1)
    arrived = [t for t, name, kind, _ in seen if name == "b" and kind == "bytes"]
    acked = [t for t, name, kind, _ in seen if name == "a" and kind == "bytes"]
    assert arrived[0] - sent == pytest.approx(0.101)
    assert acked[0] - sent == pytest.approx(0.102)
    world.link(a, b).jitter = 0.4
    world.run(20)
    gaps = [y[0] - x[0] for x, y in pairwise(heard(seen, "b", a)[3:])]
    assert max(gaps) > 0.6
    assert min(gaps) < 0.4


def test_every_link_gives_each_ordered_pair_once() -> None:
    world = World(6)
    start(world, "abc")
    pairs = [(link.source.name, link.target.name) for link in world.every_link()]
    assert sorted(pairs) == [(x, y) for x in "abc" for y in "abc" if x != y]


# Who reaches whom.


def test_a_one_way_cut_lets_the_other_direction_pass() -> None:
    world = World(7)
    a, b = start(world, "ab")
    seen = watch(world)
    world.cut(a, b)
    a.send(b"stays", [b], 0)
    b.send(b"passes", [a], 0)
    world.run(1)
    assert not heard(seen, "b", a)
    assert heard(seen, "a", b)
    assert (texts(a), texts(b)) == ([b"passes"], [])
    world.uncut(a, b)
    world.run(0.1)
    assert texts(b) == [b"stays"]


def test_what_is_not_acknowledged_fills_the_senders_buffer() -> None:
    """Data passes one way, but no acknowledgement comes back: after a buffer full it stops."""
    world = World(8)
    a, b = start(world, "ab")
    world.cut(b, a)
    for _ in range(12):
        a.send(bytes(50_000), [b], 0)
    world.run(0.5)
    assert 0 < sum(map(len, texts(b))) <= SEND_BUFFER
    world.heal()
    world.run(2)
    assert sum(map(len, texts(b))) == 600_000


def test_partition_and_bridge() -> None:
    world = World(9)
    a, b, c = nodes = start(world, "abc")
    world.partition([a], [b, c])
    world.run(8)
    assert [n.names() for n in nodes] == [["a"], ["b", "c"], ["b", "c"]]
    world.heal()
    world.run(4)
    assert [n.names() for n in nodes] == [["a", "b", "c"]] * 3
    world.bridge(b, [a], [c])
    world.run(8)
    # The one in the middle has answers from both, so for a while nobody is removed.
    assert [n.names() for n in nodes] == [["a", "b", "c"]] * 3
    world.run(10)
    assert [n.names() for n in nodes] == [["a", "b"], ["a", "b", "c"], ["b", "c"]]


def test_flapping_link_comes_and_goes() -> None:
    world = World(10)
    a, b = start(world, "ab")
    seen = watch(world)
    world.flap(a, b, 0.7, 7.0)
    world.run(7)
    times = [when for when, _ in heard(seen, "b", a)]
    assert 2 <= len(times) <= 10
    world.run(5)
    assert a.names() == ["a", "b"]
    assert len([t for t, _ in heard(seen, "b", a) if t > world.now - 2]) == 4


def test_multicast_lost_while_tcp_works() -> None:
    world = World(11)
    a, b = start(world, "ab")
    seen = watch(world)
    world.multicast_blocked.add("b")
    a.send(b"x", [b], 6)
    world.run(2)
    assert not heard(seen, "b", a)
    assert not heard(seen, "a", b)
    assert not heard(seen, "b", b)
    assert texts(b) == [b"x"]


@pytest.mark.parametrize("pair", [frozenset("ab"), ("a", "b"), ("b", "a")])
def test_tcp_lost_while_multicast_works(pair: Any) -> None:
    world = World(12)
    a, b = start(world, "ab")
    seen = watch(world)
    world.tcp_blocked.add(pair)
    a.send(b"x", [b], 0)
    world.run(1)
    assert heard(seen, "b", a)
    assert texts(b) == ([b"x"] if pair == ("b", "a") else [])
    world.tcp_blocked.clear()
    world.run(1.1)
    assert texts(b) == [b"x"]


# What comes from outside.


def test_replayed_and_forged_datagrams_arrive_and_change_nothing() -> None:
    world = World(24)
    a, b = start(world, "ab")
    old = list(world.recorded_datagrams)
    before = a.core.channel.membership.statistics.heartbeats_received
    for data in old:
        world.inject_datagram(data, a)
    world.inject_datagram(MEMBER_BEGIN + b"\x7f" * 40)
    world.inject_datagram(bytes(DATAGRAM_MAX_BYTES), [a, "b"])
    world.replay(10)
    world.run(0.1)
    statistics = a.core.channel.membership.statistics
    assert statistics.heartbeats_received >= before + len(old) // 2
    assert (statistics.malformed, statistics.ignored) == (1, 1)
    world.run(5)
    assert a.names() == b.names() == ["a", "b"]


def test_a_stranger_talks_to_a_node_and_is_thrown_out() -> None:
    world = World(25)
    a, b = start(world, "ab")
    stranger = world.inject_stream(a, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    world.run(1)
    assert stranger.error is not None
    assert not stranger.is_connected
    assert any(isinstance(event, LinkRejected) for _, event in a.events)
    assert a.names() == b.names() == ["a", "b"]
    b.crash()
    late = world.inject_stream(b, b"x")
    assert late.error is None
    world.run(0.1)
    assert isinstance(late.error, ConnectionRefusedError)


def test_calm_takes_everything_back() -> None:
    world = World(26)
    a, b = nodes = start(world, "ab")
    world.loss = 0.5
    world.link(a, b).delay = 3.0
    world.cut(b, a)
    world.clog(a, b)
    world.multicast_blocked.add("a")
    world.tcp_blocked.add(frozenset("ab"))
    world.corrupt_next(a, b, "flip")
    world.run(10)
    world.calm()
    world.run(5)
    assert [node.names() for node in nodes] == [["a", "b"]] * 2
    a.send(b"x", [b], 6)
    world.run(0.1)
    assert texts(b) == [b"x"]
    # What waits for the next piece of a stream is not there any more when that comes.
    world.corrupt_next(a, b, "oversize")
    world.reset(a, b, mid_frame=True)
    world.calm()
    seen = watch(world)
    a.send(b"y", [b], 6)
    world.run(10)
    assert texts(b) == [b"x", b"y"]
    assert not [s for s in seen if s[2] == "closed"]
    assert len(heard(seen, "b", a)) == len(heard(seen, "a", b)) == 20


def test_the_same_member_record_is_decoded_once() -> None:
    """And what is wrong stays wrong for each who hears it."""
    world = World(27)
    start(world, "abc")
    data = world.recorded_datagrams[-1]
    assert world.read_heartbeat(data) is world.read_heartbeat(bytes(bytearray(data)))
    for _ in range(2):
        assert world.read_heartbeat(data[:50]) is None


# A large group, in which many machines hear a datagram in one event.


def large(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[World, list[SimNode]]:
    """A small group that the network takes for a large one."""
    monkeypatch.setattr(network, "TOGETHER_FROM", 2)
    world = World(seed)
    return world, start(world, "abcdefgh")


def test_in_a_large_group_every_machine_hears_each_datagram_once_and_few_at_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, nodes = large(1, monkeypatch)
    seen = watch(world)
    world.run(5)
    moments = set()
    for source in nodes:
        for node in nodes:
            arrivals = heard(seen, node.name, source)
            assert len({alive for _, alive in arrivals}) == len(arrivals) == 10
            moments.add(arrivals[0][0])
    assert len(nodes) < len(moments) <= network.GROUPS * len(nodes)


def test_in_a_large_group_who_is_next_to_whom_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hears all datagrams of a member before somebody else does."""
    world, (a, *_) = large(2, monkeypatch)
    seen = watch(world)
    world.run(20)
    b, c = ([when for when, _ in heard(seen, name, a)] for name in "bc")
    assert any(x < y for x, y in zip(b, c, strict=True))
    assert any(x > y for x, y in zip(b, c, strict=True))


def test_in_a_large_group_each_link_keeps_its_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    world, (a, b, c, d, e, f, g, _) = large(3, monkeypatch)
    seen = watch(world)
    world.link(a, b).loss = 1.0
    world.link(a, c).delay = 0.1
    world.link(a, d).duplicate = 1.0
    world.cut(a, e)
    f.pause()
    g.crash()
    begin = world.now
    world.run(1)
    assert not heard(seen, "b", a)
    assert not heard(seen, "e", a)
    assert not heard(seen, "f", a)
    assert not heard(seen, "g", a)
    usual = heard(seen, "h", a)
    late = heard(seen, "c", a)
    assert len(heard(seen, "d", a)) == 2 * len(usual) == 4
    assert all(0.09 < x - y < 0.11 for (x, _), (y, _) in zip(late, usual, strict=True))
    f.resume()
    world.run(0.001)
    assert len(heard(seen, "f", a)) == 2
    assert all(when >= begin + 1 for when, _ in heard(seen, "f", a))


def test_in_a_large_group_a_new_process_hears_nothing_that_was_sent_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, (a, b, *_) = large(4, monkeypatch)
    seen = watch(world)
    world.network.multicast(a, world.recorded_datagrams[-1])
    b.crash()
    b.start()
    world.run(0.01)
    hearers = Counter(name for _, name, kind, _ in seen if kind == "datagram")
    # What the new one hears is its own first heartbeat.
    assert hearers["b"] == 1
    assert hearers["c"] == 2


def test_a_large_world_is_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(seed: int) -> str:
        world, (a, *_) = large(seed, monkeypatch)
        world.loss = 0.1
        world.run(5)
        a.restart()
        world.run(5)
        return world.digest

    assert run(5) == run(5) != run(6)
