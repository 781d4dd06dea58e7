"""What a keeper of locks does with words that it does not know; the rest is in tests/sim."""

from __future__ import annotations

from tests.manager.cluster import replicator, start
from tribes.manager.messages import Lock, LockVerb
from tribes.testing.sim import World

KEY = "ABC" + "0" * 29


def test_a_word_of_a_later_release_is_no_wish_for_the_lock() -> None:
    """It is not looked at."""
    world = World(1)
    a, b = start(world, "ab")
    world.run(5)
    keeper_id = replicator(a).locks._keeper_of(KEY)
    keeper, other = (a, b) if keeper_id == a.core.local.unique_id else (b, a)
    replicator(keeper).locks.message(
        other.core.local, Lock("app", len(LockVerb), 1, 1, KEY), keeper.clock.monotonic()
    )
    assert replicator(keeper).locks.is_idle
