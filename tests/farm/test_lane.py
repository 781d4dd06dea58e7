"""What waits for one member: bounded, and of states only the newest."""

from __future__ import annotations

from tribes.farm.lane import LANE_MAX, Lane
from tribes.farm.messages import Lack, State
from tribes.farm.outputs import ReadChunk

KEY = bytes(33)


def state(*, ask: bool, keys: frozenset[bytes] = frozenset()) -> State:
    return State(ask, (), keys, ())


def test_of_states_the_newest_is_sent() -> None:
    """And it asks if any of them did."""
    lane = Lane()
    for each in (state(ask=True), Lack(KEY), state(ask=False, keys=frozenset({KEY}))):
        lane.put(each)
    assert list(lane.waiting) == [Lack(KEY), state(ask=True, keys=frozenset({KEY}))]


def test_what_finds_no_room_is_given_back() -> None:
    """Who counts the pieces that are under way must know of those that never will be."""
    lane = Lane()
    first = ReadChunk(b"m", KEY, 10, 0)
    assert lane.put(first) is None
    for _ in range(LANE_MAX - 1):
        assert lane.put(Lack(KEY)) is None
    assert lane.put(Lack(KEY)) is first
    assert lane.put(Lack(KEY)) is None
    assert (len(lane.waiting), lane.dropped) == (LANE_MAX, 2)
