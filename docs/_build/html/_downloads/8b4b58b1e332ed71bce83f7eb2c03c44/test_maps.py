"""Replicated maps on simulated nodes: they converge, through joins, crashes, splits and leaves."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tribes.config.model import ChannelConfig, NodeConfig
from tribes.maps.changes import MapMemberChange
from tribes.testing.sim import SimNode, SimWaiter, World

if TYPE_CHECKING:
    from tribes.maps.manager import MapManager


def start(world: World, names: str) -> list[SimNode]:
    nodes = [world.start(name, NodeConfig()) for name in names]
    world.run(2)
    return nodes


def opened(world: World, names: str, **options: Any) -> tuple[list[SimNode], list[MapManager]]:
    nodes = start(world, names)
    maps = [node.open_map(**options) for node in nodes]
    world.run(2)
    return nodes, maps


def state(manager: MapManager) -> dict[Any, Any]:
    return {key: manager.value_of(key) for key in manager.entry_keys()}


def alike(maps: list[MapManager]) -> bool:
    return all(state(each) == state(maps[0]) for each in maps)


@pytest.mark.parametrize("options", [2, 6, 8])
def test_every_member_has_every_entry(options: int) -> None:
    """Writes of all members are on all members at once, and their writers know by whom."""
    world = World(1)
    _, maps = opened(world, "abc", options=options)
    waiters = []
    for number, manager in enumerate(maps):
        waiter = SimWaiter()
        manager.put(number, {"from": number}, waiter)
        waiters.append(waiter)
    world.run(0.1)
    assert state(maps[0]) == {n: {"from": n} for n in range(3)}
    assert alike(maps)
    if options != 8:
        assert waiters[0].result is not None
        assert sorted(waiters[0].result.acked) == ["b", "c"]


def test_t87_every_member_has_every_value_and_who_leaves_takes_none_away() -> None:
    """Put on one, read on all, also on one that joins later, and when the first one has left."""
    world = World(30)
    nodes, maps = opened(world, "ab")
    maps[0].put("k", {"n": 1})
    world.run(0.2)
    assert [state(each) for each in maps] == [{"k": {"n": 1}}] * 2
    joiner = world.start("c", NodeConfig())
    world.run(1)
    late = joiner.open_map()
    world.run(2)
    assert state(late) == {"k": {"n": 1}}
    nodes[0].stop(drain=5)
    world.run(3)
    assert not nodes[0].is_alive
    assert [state(each) for each in (maps[1], late)] == [{"k": {"n": 1}}] * 2


def test_members_without_the_map_get_nothing_of_it() -> None:
    """Only who opens a map holds it, and other maps are other maps."""
    world = World(2)
    a, b, c = start(world, "abc")
    first, second = a.open_map("one"), b.open_map("one")
    other = c.open_map("two")
    world.run(1)
    first.put("k", 1)
    world.run(1)
    assert state(second) == {"k": 1}
    assert state(other) == {}
    assert first.copies_on == ("b",)


def test_a_member_that_opens_the_map_later_gets_all_of_it() -> None:
    """State transfer by digests, while others write on: nothing falls between."""
    world = World(3)
    _, maps = opened(world, "ab")
    for number in range(500):
        maps[0].put(number, "x" * 200)
    world.run(1)
    joiner = world.start("c", NodeConfig())
    world.run(1)
    late = joiner.open_map()
    for number in range(500, 600):
        maps[number % 2].put(number, "y")
        world.run(0.001)
    world.run(2)
    assert late.is_joined
    assert late.entry_count() == 600
    assert alike([*maps, late])


def test_a_write_while_the_map_is_being_opened_is_not_missed() -> None:
    """A joiner is a target of changes before it asks for what was changed before.

    Between plain members each message waits for the one before it, so their order can be seen.
    """
    plain = NodeConfig(channel=ChannelConfig(own_link=False))
    for seed in range(30):
        world = World(seed, jitter=0.004)
        nodes = [world.start(name, plain) for name in "abc"]
        world.run(2)
        maps = [node.open_map() for node in nodes[:2]]
        world.run(2)
        joiner = nodes[2]
        late = joiner.open_map()
        for number in range(30):
            world.run(0.0005)
            maps[0].put(number, number)
        world.run(0.5)
        assert late.entry_count() == 30, f"seed {seed}"


def test_a_split_heals_to_one_state() -> None:
    """Both sides write and remove; afterwards the later of each key's writes is everywhere."""
    world = World(4)
    _, maps = opened(world, "abcd")
    for number in range(40):
        maps[0].put(number, "old")
    world.run(1)
    world.partition("ab", "cd")
    world.run(5)
    random = Random(4)
    for _ in range(200):
        manager, key = random.choice(maps), random.randrange(60)
        if random.random() < 0.3 and manager.has(key):
            manager.remove(key)
        else:
            manager.put(key, random.random())
        world.run(0.01)
    maps[1].put("both", "first")
    world.run(0.1)
    maps[2].put("both", "second")
    assert not alike(maps)
    world.heal()
    world.run(12)
    assert alike(maps)
    assert maps[0].value_of("both") == "second"
    assert len({each.table.root_digest() for each in maps}) == 1


def test_a_crash_loses_no_acknowledged_entry() -> None:
    """What a member had acknowledged is there after the writer is gone, and for its successor."""
    world = World(5)
    nodes, maps = opened(world, "abc", options=6)
    waiters = []
    for number in range(100):
        waiter = SimWaiter()
        maps[0].put(number, number, waiter)
        waiters.append(waiter)
    world.run(0.02)
    nodes[0].crash()
    acked = [n for n, w in enumerate(waiters) if w.result is not None and w.result.acked]
    assert acked
    world.run(3)
    for number in acked:
        assert maps[1].value_of(number) == maps[2].value_of(number) == number
    again = world.start("a")
    world.run(2)
    reopened = again.open_map()
    world.run(2)
    assert alike([maps[1], maps[2], reopened])


def test_a_hung_member_gets_what_it_missed() -> None:
    """Nobody waits for it, the result names it, and it has all when it answers again."""
    world = World(6)
    nodes, maps = opened(world, "abc", options=6)
    nodes[2].pause()
    world.run(1.5)
    waiter = SimWaiter()
    maps[0].put("k", 1, waiter)
    world.run(0.5)
    assert waiter.result is not None
    assert waiter.result.acked == ("b",)
    assert set(waiter.result.missing) == {"c"}
    nodes[2].resume()
    world.run(3)
    assert state(maps[2]) == {"k": 1}


def test_who_has_the_map_is_told() -> None:
    """Opening, closing and dying are member changes of the map (Tomcat: mapMemberAdded)."""
    world = World(7)
    nodes = start(world, "abc")
    told: list[tuple[str, bool]] = []
    first = nodes[0].open_map()

    def note(change: object) -> None:
        if isinstance(change, MapMemberChange):
            told.append((change.member.label, change.is_added))

    first.on_change = note
    second = nodes[1].open_map()
    world.run(1)
    nodes[2].open_map()
    world.run(1)
    nodes[1].core.close_map(second, nodes[1].clock.monotonic())
    nodes[1].pump()
    world.run(1)
    assert first.copies_on == ("c",)
    nodes[2].crash()
    world.run(2)
    assert told == [("b", True), ("c", True), ("b", False), ("c", False)]
    first.put("k", 1)
    world.run(1)
    assert state(second) == {}


def test_a_closed_map_can_be_opened_again() -> None:
    """It begins empty and gets what the others have."""
    world = World(8)
    nodes, maps = opened(world, "ab")
    maps[0].put("k", 1)
    world.run(0.5)
    nodes[1].core.close_map(maps[1], nodes[1].clock.monotonic())
    nodes[1].pump()
    world.run(0.5)
    again = nodes[1].open_map()
    world.run(1)
    assert state(again) == {"k": 1}


def test_a_node_that_holds_all_keeps_a_map_alive() -> None:
    """``hold_all`` takes copies of maps too, never lets them expire, and gives them back."""
    world = World(9)
    keeper = world.start("k", NodeConfig(hold_all=True))
    (a,) = start(world, "a")
    manager = a.open_map()
    world.run(1)
    manager.put("x", [1, 2])
    world.run(1)
    a.crash()
    world.run(4000)
    assert len(keeper.manager("map:map").table) == 1
    b = world.start("b", NodeConfig())
    world.run(2)
    reopened = b.open_map()
    world.run(2)
    assert state(reopened) == {"x": [1, 2]}
