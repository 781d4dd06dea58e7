"""Faults of datagrams and streams: each test shows that the fault really happens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tribes.channel.outputs import LinkRejected
from tribes.errors import RemoteProtocolError
from tribes.testing.sim import SimNode, World
from tribes.testing.sim.ends import ACCEPT_BACKLOG
from tribes.testing.sim.streams import RECEIVE_BUFFER, SEND_BUFFER
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.member import MEMBER_BEGIN, decode_member

Seen = list[tuple[float, str, str, Any]]


def start(world: World, names: str) -> list[SimNode]:
    nodes = [world.start(name) for name in names]
    world.run(2.2)  # between two heartbeats
    return nodes


def watch(world: World) -> Seen:
    seen: Seen = []
    world.observers.append(lambda *what: seen.append(what))
    return seen


def heard(seen: Seen, by: str, source: SimNode) -> list[tuple[float, int]]:
    """When a node heard another one's heartbeats, and the alive times in them."""
    found = []
    for when, name, kind, detail in seen:
        if name == by and kind == "datagram":
            member = decode_member(detail)
            if member == source.core.local:
                found.append((when, member.alive))
    return found


def texts(node: SimNode) -> list[bytes]:
    return [message.message for message in node.messages]


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
    gaps = [x[0] - y[0] for x, y in zip(heard(seen, "b", a)[4:], heard(seen, "b", a)[3:])]
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


# Streams.


def test_a_clogged_stream_keeps_its_bytes_at_the_sender() -> None:
    world = World(13)
    a, b = start(world, "ab")
    seen = watch(world)
    world.clog(a, b)
    ticket = a.send(b"x", [b], 0)
    b.send(b"y", [a], 0)
    world.run(1)
    assert not [s for s in seen if s[1] == "a" and s[2] == "write"]
    assert ticket not in a.done
    assert (texts(a), texts(b)) == ([b"y"], [])
    assert a.core.channel.queued_bytes[b.core.local] > 0
    world.unclog(a, b)
    world.run(0.01)
    assert a.done[ticket] == {}
    assert texts(b) == [b"x"]


def test_a_process_that_does_not_read_fills_both_buffers_and_no_more() -> None:
    world = World(14)
    a, b = start(world, "ab")
    taken: list[int] = []
    world.observers.append(
        lambda _, name, kind, what: taken.append(what[1])  # type: ignore[index]
        if (name, kind) == ("a", "write")
        else None
    )
    b.pause()
    for _ in range(20):
        a.send(bytes(50_000), [b], 0)
    world.run(0.5)
    assert RECEIVE_BUFFER <= sum(taken) <= RECEIVE_BUFFER + SEND_BUFFER
    b.resume()
    world.run(2)
    assert sum(map(len, texts(b))) == 1_000_000


def test_reset_is_seen_by_both_sides() -> None:
    world = World(15)
    a, b = start(world, "ab")
    seen = watch(world)
    world.reset(a, b)
    world.run(0.01)
    ends = [(name, detail[1]) for _, name, kind, detail in seen if kind == "closed"]
    assert {name for name, error in ends if isinstance(error, ConnectionResetError)} == {"a", "b"}
    a.send(b"x", [b], 6)
    world.run(1)
    assert texts(b) == [b"x"]
    assert a.names() == b.names() == ["a", "b"]


def test_reset_in_the_middle_of_a_frame() -> None:
    """Half of the frame arrives, then the reset; the sender tries again."""
    world = World(16)
    a, b = start(world, "ab")
    seen = watch(world)
    world.reset(a, b, mid_frame=True)
    ticket = a.send(b"whole", [b], 6)
    world.run(0.01)
    sent = next(s[3][1] for s in seen if s[1:3] == ("a", "write"))
    got = next(s[3][1] for s in seen if s[1:3] == ("b", "bytes"))
    assert 0 < len(got) < sent
    closed = next(s for s in seen if s[1:3] == ("b", "closed"))
    assert isinstance(closed[3][1], ConnectionResetError)
    world.run(2)
    assert a.done[ticket] == {}
    assert texts(b) == [b"whole"]


def test_half_open_is_found_out_by_the_next_bytes() -> None:
    world = World(17)
    a, b = start(world, "ab")
    seen = watch(world)
    world.half_open(a, b)
    assert {s[1] for s in seen if s[2] == "closed"} == {"b"}
    ticket = a.send(b"x", [b], 6)
    world.run(2)
    closed_at_a = [s for s in seen if s[1:3] == ("a", "closed")]
    assert any(isinstance(s[3][1], ConnectionResetError) for s in closed_at_a)
    assert len([s for s in seen if s[1:3] == ("a", "write")]) > 1
    assert a.done[ticket] == {}
    assert texts(b) == [b"x"]


@pytest.mark.parametrize("how", ["flip", "truncate", "oversize"])
def test_spoilt_piece_differs_and_does_no_harm(how: str) -> None:
    """It arrives spoilt; the next message arrives whole."""
    world = World(18)
    a, b = start(world, "ab")
    seen = watch(world)
    a.send(b"first", [b], 6)
    world.run(0.1)
    whole = next(s[3][1] for s in seen if s[1:3] == ("b", "bytes"))
    seen.clear()
    world.corrupt_next(a, b, how)
    a.send(b"first", [b], 6)
    world.run(0.01)
    spoilt = next(s[3][1] for s in seen if s[1:3] == ("b", "bytes"))
    if how == "truncate":
        assert len(spoilt) < len(whole)
    else:
        assert len(spoilt) == len(whole)
    if how == "oversize":
        assert spoilt.startswith(b"FLT2002\x7f\xff\xff\xff")
        assert any(isinstance(event, LinkRejected) for _, event in b.events)
    world.run(10)
    a.send(b"last", [b], 6)
    world.run(5)
    assert texts(b)[-1] == b"last"


def test_unknown_corruption_is_an_error() -> None:
    world = World(0)
    start(world, "ab")
    with pytest.raises(ValueError, match="flip, truncate, oversize"):
        world.corrupt_next("a", "b", "eat")


# Connections.


def test_refused_by_a_dead_process_timed_out_by_the_network() -> None:
    world = World(19)
    a, b, c = start(world, "abc")
    seen = watch(world)
    b.crash()
    world.cut(a, c)
    world.run(0.2)
    probes = [s[3][1] for s in seen if s[1:3] == ("a", "probe")]
    assert any(isinstance(error, ConnectionRefusedError) for error in probes)
    assert a.names() == ["a", "c"]
    world.partition([a], [b, c])
    world.run(8)
    late = [s for s in seen if s[1:3] == ("a", "probe") and isinstance(s[3][1], TimeoutError)]
    assert late
    assert a.names() == ["a"]


def test_a_lost_connection_request_is_sent_again() -> None:
    world = World(20)
    # Without a failure detector, which would give up after one request.
    a, b = (world.start(name, interceptors=list) for name in "ab")
    world.run(2.2)
    world.cut(a, b, both=True)
    world.reset(a, b)
    a.send(b"x", [b], 0)
    world.run(0.5)
    world.uncut(a, b)
    world.run(0.3)
    assert texts(b) == []
    world.run(0.7)
    assert texts(b) == [b"x"]


def test_a_stopped_process_is_connected_to_up_to_its_backlog() -> None:
    world = World(21)
    a, _ = start(world, "ab")
    a.pause()
    strangers = [world.inject_stream(a, b"") for _ in range(ACCEPT_BACKLOG + 20)]
    world.run(0.5)
    assert sum(s.is_connected for s in strangers) == ACCEPT_BACKLOG
    a.resume()
    world.run(2)
    assert sum(s.is_connected for s in strangers) == ACCEPT_BACKLOG + 20


def test_probes_are_connections_that_the_target_core_answers() -> None:
    """Bytes of a probe are in the target's core; a stopped target connects and stays silent."""
    world = World(22)
    a, b = start(world, "ab")
    refused = b.core.channel.statistics.bytes_received
    seen = watch(world)
    c = world.start("c")
    world.run(1)
    assert ("c", "probe") in {s[1:3] for s in seen}
    assert b.core.channel.statistics.bytes_received > refused
    seen.clear()
    b.pause()
    assert world.run_until(world.now + 8, lambda: a.names() == c.names() == ["a", "c"])
    errors = [s[3][1] for s in seen if s[1:3] == ("a", "probe")]
    assert any(isinstance(e, TimeoutError) and "no answer" in str(e) for e in errors)


def test_an_idle_cluster_does_not_probe_for_ever() -> None:
    """The end of a probe's connection must not be a reason for the next probe."""
    world = World(23)
    start(world, "abcd")
    world.run(3)
    seen = watch(world)
    world.run(60)
    assert not [s for s in seen if s[2] in ("probe", "connected", "closed")]


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
    assert world.inject_stream(b, b"x").error is None
    world.run(0.1)


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


def test_the_same_member_record_is_decoded_once() -> None:
    """And what is wrong stays wrong for each who hears it."""
    world = World(27)
    start(world, "abc")
    data = world.recorded_datagrams[-1]
    assert world.decode(data) is world.decode(bytes(bytearray(data)))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            world.decode(data[:-1])
