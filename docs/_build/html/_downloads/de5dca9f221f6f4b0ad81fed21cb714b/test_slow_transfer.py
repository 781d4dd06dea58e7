"""Joining when a donor or the joiner is merely slow: stopped again and again, it is no member less.

An overloaded machine looks like this: a process runs for a moment and then not for seconds. What
has arrived is kept, nothing is sent twice, and the join takes as long as they are stopped.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.manager.cluster import are_equal, config, fill, replicator, start
from tribes.manager import donor
from tribes.testing.sim import SimNode, World

SESSIONS = 3000


@pytest.fixture(autouse=True)
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty sessions in a message, eighty on their way."""
    monkeypatch.setattr(donor, "RECORDS_MAX_BYTES", 20_000)
    monkeypatch.setattr(donor, "OUTSTANDING_MAX_BYTES", 80_000)


def join(world: World, **manager: Any) -> tuple[SimNode, SimNode]:
    """A donor with all sessions, and a joiner that has begun to get them."""
    [a] = start(world, "a")
    fill(a, SESSIONS, "x" * 1000)
    b = world.start("b", config(**manager))
    assert world.run_until(
        world.now + 3, lambda: replicator(b).transfer.statistics.records_received > 100
    )
    return a, b


def crawl(world: World, node: SimNode, until: SimNode, stop: float, run: float, most: float) -> int:
    """Stop a node again and again until another has joined; returns how often."""
    end = world.now + most
    stops = 0
    while not until.core.is_joined and world.now < end:
        node.pause()
        world.run(stop)
        node.resume()
        world.run(run)
        stops += 1
    assert until.core.is_joined
    return stops


def check(a: SimNode, b: SimNode) -> None:
    """Complete, at the first attempt, and no session was sent twice."""
    transfer = replicator(b).transfer
    assert transfer.is_complete
    assert are_equal(a, b)
    assert transfer.statistics.pulls_failed == 0
    assert replicator(a).transfer.statistics.records_sent == SESSIONS
    assert "member removed" not in {event.name for node in (a, b) for _, event in node.events}


def test_a_node_hashes_what_changed_a_little_at_a_time_also_when_it_is_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it compares: no pause for its requests, and nothing is remembered for ever."""
    world = World(30)
    [a] = start(world, "a")
    fill(a, SESSIONS)
    digests: Any = a.manager().table._digests
    left: list[int] = []
    settle = type(digests).settle

    def noting(self: Any, limit: int) -> bool:
        some = bool(settle(self, limit))
        left.append(self.unsettled)
        return some

    monkeypatch.setattr(type(digests), "settle", noting)
    world.run(6)
    steps = [SESSIONS, *left]
    assert all(0 <= early - late < 1100 for early, late in pairwise(steps)), steps
    assert left[-1] == 0


@pytest.mark.parametrize(("stop", "run"), [(1.5, 0.02), (3.2, 0.2)])
def test_a_donor_that_is_merely_slow_is_not_given_up(stop: float, run: float) -> None:
    """It runs for an instant in one and a half seconds, or beyond the time of a message."""
    world = World(31, latency=0.002)
    a, b = join(world)
    crawl(world, a, b, stop, run, 60)
    check(a, b)


@pytest.mark.parametrize(("stop", "run"), [(1.5, 0.02), (3.2, 0.2)])
def test_a_joiner_that_is_merely_slow_gets_the_rest_when_it_listens(
    stop: float, run: float
) -> None:
    """Its donor hears no acknowledgement in time: it says so when it can, and is asked again."""
    world = World(32, latency=0.002)
    a, b = join(world)
    stops = crawl(world, b, b, stop, run, 60)
    check(a, b)
    assert replicator(a).transfer.statistics.messages_unanswered >= 1
    assert stops <= 20


def test_t48_a_join_whose_time_is_over_goes_on_while_sessions_come() -> None:
    """After three seconds it is not over: the donor is slow, and gives more all the time."""
    world = World(33, latency=0.002)
    begin = world.now
    a, b = join(world, state_transfer_timeout_s=3)
    crawl(world, a, b, 1.5, 0.02, 60)
    assert world.now - begin > 8
    check(a, b)
    assert replicator(b).transfer.statistics.no_state_transferred == 0


def test_t48_a_join_ends_after_ten_times_its_time_whatever_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session now and then does not keep a node from serving for ever."""
    world = World(34, latency=0.002)
    a, b = join(world, state_transfer_timeout_s=1)
    monkeypatch.setattr(donor, "RECORDS_MAX_BYTES", 1000)
    monkeypatch.setattr(donor, "OUTSTANDING_MAX_BYTES", 1000)
    serving: Any = replicator(a).transfer.donor
    serving._may_send = lambda target: False
    monkeypatch.setattr("tribes.manager.serving_budget.TRICKLE_S", 0.5)
    begin = world.now
    assert world.run_until(begin + 30, lambda: b.core.is_joined)
    assert 6 < world.now - begin < 10.1
    assert not replicator(b).transfer.is_complete
    assert replicator(b).transfer.statistics.no_state_transferred == 1


def test_who_asks_again_gets_what_is_missing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A donor that is silent for longer than it is waited for: the question that was given up is
    not answered beside the new one, and the next time it is waited for twice as long.
    """
    world = World(35, latency=0.002)
    a, b = join(world)
    serving: Any = replicator(a).transfer.donor
    serving._may_send = lambda target: False
    monkeypatch.setattr(type(serving._budget), "may_trickle", lambda *_: False)
    world.run(7)
    statistics = replicator(b).transfer.statistics
    assert (statistics.pulls_failed, statistics.pulls_started) == (1, 2)
    world.run(8)
    assert statistics.pulls_failed == 1
    del serving._may_send
    assert world.run_until(world.now + 5, lambda: b.core.is_joined)
    assert are_equal(a, b)
    # What was on its way when the second question came has arrived; a message of each request.
    assert replicator(a).transfer.statistics.records_sent <= SESSIONS + 200
