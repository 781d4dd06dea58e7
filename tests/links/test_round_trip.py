"""Round trips are measured on what travels anyway, and lag is the age of what has not arrived."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.links.own_pair import Pair
from tests.links.test_plain import connected
from tests.sim.test_suspicion import cluster
from tribes.links.round_trip import PING, RoundTrip
from tribes.wire.frame import ACK_FRAME

if TYPE_CHECKING:
    from tribes.testing.sim import World


def _later(pair: Pair, seconds: float) -> None:
    """What the sender wrote is read after so long, and its answer at once."""
    pair.sleep(seconds)
    pair.settle_down()


def test_one_question_is_timed_at_a_time() -> None:
    """The answer to another one ends nothing."""
    trip = RoundTrip()
    trip.asked(3, 1.0)
    trip.asked(4, 1.4)
    trip.ponged(1.5)
    trip.acknowledged(2, 1.5)
    assert trip.seconds is None
    trip.acknowledged(7, 1.5)
    assert trip.seconds == pytest.approx(0.5)
    trip.acknowledged(8, 9.0)
    assert trip.seconds == pytest.approx(0.5)


def test_new_measurements_move_the_mean_by_an_eighth() -> None:
    """One slow answer does not hide the others, and a clock that steps back gives no negative."""
    trip = RoundTrip()
    for taken in (0.8, 1.6):
        trip.asked(PING, 10.0)
        trip.ponged(10.0 + taken)
    assert trip.seconds == pytest.approx(0.9)
    trip.asked(PING, 10.0)
    trip.ponged(9.0)
    assert trip.seconds == pytest.approx(0.9 * 7 / 8)


def test_own_link_measures_its_opening_frames_and_pings() -> None:
    """And writes nothing for it."""
    pair = Pair()
    pair.up()
    assert pair.sender.round_trip.seconds == 0.0
    pair.sender.round_trip.seconds = None
    pair.put()
    _later(pair, 0.25)
    assert pair.sender.round_trip.seconds == pytest.approx(0.25)
    pair.sender.round_trip.seconds = None
    assert pair.sender.idle_ping(pair.now)
    pair.perform()
    _later(pair, 0.5)
    assert pair.sender.round_trip.seconds == pytest.approx(0.5)
    written = len(pair.live.sent)
    pair.sleep(60)
    assert len(pair.live.sent) == written


def test_what_is_written_again_is_not_timed() -> None:
    """Its acknowledgement says nothing of how long the new connection takes."""
    pair = Pair()
    pair.up()
    pair.put()
    pair.cut(pair.live)
    pair.sleep(2.0)
    pair.connect()
    pair.settle_down()
    assert pair.outcomes() == [(1, "ok")]
    assert pair.sender.round_trip.seconds == 0.0


def test_plain_link_measures_acknowledged_frames_only() -> None:
    """A frame that the kernel took was answered by nobody."""
    peer = connected()
    peer.put("a")
    peer.sender.writable(1000, 0.3)
    assert peer.sender.round_trip.seconds is None
    peer.put("b", ack=True, now=1.0)
    peer.sender.received(ACK_FRAME, 1.2)
    assert peer.sender.round_trip.seconds == pytest.approx(0.2)


def _peer(world: World, one: Any, other: Any) -> Any:
    [peer] = [
        each
        for each in one.core.gauges(one.process.inbox, world.now).peers
        if each.member == other.core.local
    ]
    return peer


def test_gauges_of_a_group_say_how_long_and_how_late() -> None:
    """A round trip is twice the network's delay and at most twice its jitter more; nothing lags
    until a member hangs, and then as long as it does.
    """
    world, (a, _, c) = cluster(6)
    session = a.manager().create()
    a.manager().commit(session, SimpleNamespace(resolve=lambda result: None))
    world.run(0.5)
    peer = _peer(world, a, c)
    least = 2 * world.latency
    assert least <= peer.round_trip_s <= least + 2 * world.jitter + 0.001
    assert peer.lag_s == 0
    c.pause()
    a.send(b"x", [c], 8)
    world.run(0.7)
    assert _peer(world, a, c).lag_s == pytest.approx(0.7, abs=0.05)
    c.resume()
    world.run(2)
    assert _peer(world, a, c).lag_s == 0
