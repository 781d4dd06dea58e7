"""Faults of streams and connections: each test shows that the fault really happens."""

from __future__ import annotations

import pytest

from tests.sim.bare_nodes import start, texts, watch
from tribes.channel.outputs import LinkRejected
from tribes.config.model import NodeConfig
from tribes.testing.sim import World
from tribes.testing.sim.ends import ACCEPT_BACKLOG
from tribes.testing.sim.streams import RECEIVE_BUFFER, SEND_BUFFER

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
        lambda _, name, kind, what: (
            taken.append(what[1])  # type: ignore[index]
            if (name, kind) == ("a", "write")
            else None
        )
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


def test_half_open_while_an_answer_was_lost_is_found_out_by_the_next_bytes() -> None:
    """What the other one was about to send again went with the connection; its reset does not."""
    world = World(17)
    a, b = start(world, "ab")
    world.cut(b, a)
    a.send(b"x", [b], 2)
    world.run(0.5)  # the acknowledgement is on its way again and again
    assert texts(b) == [b"x"]
    world.half_open(a, b)
    world.heal()
    ticket = a.send(b"y", [b], 6)
    world.run(2)
    assert a.done[ticket] == {}
    assert texts(b)[-1] == b"y"


@pytest.mark.parametrize("how", ["flip", "truncate", "oversize"])
def test_spoilt_piece_differs_and_does_no_harm(how: str) -> None:
    """It arrives spoilt; the next message arrives whole."""
    world = World(18)
    a, b = start(world, "ab")
    seen = watch(world)
    a.send(b"opens the connection", [b], 6)
    world.run(0.1)
    seen.clear()
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
    world.run(0.4)
    probes = [s[3][1] for s in seen if s[1:3] == ("a", "probe")]
    assert any(isinstance(error, ConnectionRefusedError) for error in probes)
    # It asked c about that, in vain.
    assert a.names() == ["a", "c"]
    world.partition([a], [b, c])
    world.run(8)
    late = [s for s in seen if s[1:3] == ("a", "probe") and isinstance(s[3][1], TimeoutError)]
    assert late
    assert a.names() == ["a"]


def test_a_lost_connection_request_is_sent_again() -> None:
    world = World(20)
    # Without a failure detector, which would give up after one request.
    a, b = (world.start(name, NodeConfig(), interceptors=list) for name in "ab")
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
    c = world.start("c", NodeConfig())
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
