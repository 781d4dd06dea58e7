"""Parts that change hands twice, and holders that somebody has not heard of yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim.backup_nodes import (
    bystanders,
    config,
    core,
    find,
    holders,
    manager,
    owners,
    put,
    start,
    write,
)
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import part_of
from tribes.testing.sim import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.testing.sim import SimNode


def _closing(nodes: Iterable[SimNode], hung: SimNode, keys: list[str]) -> tuple[SimNode, str]:
    """Who has told that it holds a session no more, and waits until the hung node has heard it."""
    for node in nodes:
        placed = core(node).placed
        for key in keys:
            part = part_of(key)
            if part in placed._closing and hung.core.local not in placed.book.placed(part):
                return node, key
    raise LookupError


def test_a_member_that_holds_a_part_again_serves_nothing_old() -> None:
    """It had told the others that it holds the part no more, so they acknowledged a write without
    it. Then the one that was to have the part dies, and it is to keep its copy after all.
    """
    world = World(90)
    nodes = start(world, "abcdf", backup_count=2)
    hung = nodes[4]
    keys = [put(nodes[i % 5], n=0) for i in range(100)]
    joiner = world.start("e", config(backup_count=2))
    assert world.run_until(world.now + 10, lambda: joiner.core.is_joined)
    hung.pause()

    def is_one_closing() -> bool:
        try:
            _closing(nodes[:4], hung, keys)
        except LookupError:
            return False
        return True

    assert world.run_until(world.now + 4, is_one_closing)
    former, key = _closing(nodes[:4], hung, keys)
    part = part_of(key)
    world.run(0.05)
    assert core(former).placed.book.states[part] == PlaceState.NONE
    writer = next(node for node in holders(nodes[:4], key) if node is not former)
    written = write(writer, key, n=1)
    assert set(written.acked) >= {node.name for node in holders(nodes[:4], key)} - {writer.name}
    assert former.name not in written.acked
    joiner.crash()
    states = core(former).placed.book.states
    assert world.run_until(world.now + 3, lambda: states[part] != PlaceState.NONE)
    # Whether it says at once that it holds the part, or takes it first.
    for _ in range(40):
        session = find(former, key, wait=6)
        assert session is not None
        assert session["n"] == 1
        world.run(0.05)
    assert states[part] == PlaceState.HOLD


def _takers(nodes: list[SimNode], keys: list[str]) -> list[tuple[SimNode, str]]:
    """Who is taking which session's part just now."""
    return [
        (node, key)
        for node in nodes
        for key in keys
        if core(node).placed.book.states[part_of(key)] == PlaceState.PULL
    ]


def test_a_holder_that_a_visitor_hears_of_late_gets_what_it_changed() -> None:
    """The new holder has asked the others when the visitor changes the session: it goes to those
    that the visitor knows. The new one gets it when the visitor hears of it.
    """
    world = World(91)
    nodes = start(world, "abcde")
    visitor, *others, victim = nodes
    keys = [put(nodes[i % 5], n=0) for i in range(100)]
    # The next background comparison of a part comes 8 to 16 s after the one before.
    world.run(17)
    mine = [key for key in keys if visitor in bystanders(nodes, key)]
    # Not those whose owner dies: everybody hears of a new epoch from the one that follows.
    mine = [key for key in mine if owners(nodes, key) != [victim]]
    for key in mine:
        assert find(visitor, key) is not None
    for node in others:
        world.clog(node, visitor)
    victim.crash()
    assert world.run_until(world.now + 2, lambda: bool(_takers(others, mine)))
    [(taker, key), *_] = _takers(others, mine)
    book = core(taker).placed.book
    assert world.run_until(world.now + 1.5, lambda: book.states[part_of(key)] == PlaceState.HOLD), (
        "it waits for the visitor for ever"
    )
    for node in others:
        if node is not taker:
            world.unclog(node, visitor)
    [first] = [node for node in holders(others, key) if node is not taker]
    written = write(visitor, key, n=1)
    assert (written.acked, written.missing) == ((first.name,), {})
    world.unclog(taker, visitor)
    world.run(0.5)
    session = find(taker, key)
    assert session is not None
    assert session["n"] == 1


@pytest.mark.parametrize("seed", [200, 201, *range(209, 213)])
def test_lost_sessions_are_counted_once_whoever_finds_it_first(seed: int) -> None:
    """Two of five die at once. Their parts are taken by two others each, one a moment before the
    other; who is to own it in the end may know it as empty only.
    """
    world = World(seed)
    nodes = start(world, "abcde")
    keys = [put(nodes[i % 5], n=i) for i in range(150)]
    world.run(3)
    gone = [key for key in keys if set(holders(nodes, key)) == set(nodes[3:])]
    assert gone
    for node in nodes[3:]:
        node.crash()
    world.run(12)
    lost = [manager(node).backup_statistics().sessions_lost for node in nodes[:3]]
    assert sum(lost) == len(gone)


def test_who_has_heard_of_an_epoch_that_an_owner_missed_knows_its_counts() -> None:
    """A node that owned parts for a moment had told only some: they count what the owner tells all
    the same, and what it loses later.
    """
    world = World(94)
    nodes = start(world, "abcd")
    book = core(nodes[1]).placed.book
    book.epochs = [epoch + 1 for epoch in book.epochs]
    for i in range(60):
        put(nodes[i % 4], n=i)
    world.run(5)
    assert [manager(node).backup_statistics().all_known for node in nodes] == [60] * 4
    nodes[0].crash()
    world.run(6)
    for node in nodes[1:]:
        placed = core(node).placed
        assert all(
            claim in (0, placed.book.epochs[p]) for p, claim in enumerate(placed.book.claims)
        )


def _overwritten(nodes: list[SimNode]) -> dict[str, int]:
    counts = {node.name: manager(node).statistics().overwritten for node in nodes}
    return {name: count for name, count in counts.items() if count}


def test_a_write_of_a_visitor_that_is_replaced_unseen_is_counted() -> None:
    """Two nodes that do not hold a session write the same attribute at once: the one whose write
    was lost counts it, once, although only the holders saw both.
    """
    nodes = start(World(92), "abcde", backup_count=2)
    key = put(nodes[0], x=0)
    for _ in range(5):
        first, second = bystanders(nodes, key)
        for node in (first, second):
            session = find(node, key)
            assert session is not None
            session["x"] = node.name
        sessions = [find(node, key) for node in (first, second)]
        for session, node in zip(sessions, (first, second), strict=True):
            assert session is not None
            session["x"] = f"{node.name} {node.world.now}"
        before = sum(_overwritten(nodes).values())
        for session, node in zip(sessions, (first, second), strict=True):
            assert session is not None
            manager(node).commit(session)
            node.pump()
        nodes[0].world.run(0.5)
        assert sum(_overwritten(nodes).values()) == before + 1
    assert _overwritten(nodes).keys() <= {first.name, second.name}


def test_writes_on_both_sides_of_a_split_are_kept_or_counted() -> None:
    """Also those of nodes that hold none of the sessions, and of a visit more than a minute ago,
    of which they have nothing any more.
    """
    world = World(93)
    nodes = start(world, "abcde")
    left, right = nodes[:3], nodes[3:]
    keys = [put(nodes[i % 5], both=0) for i in range(40)]
    world.partition("abc", "de")
    world.run(16)
    twice = 0
    for i, key in enumerate(keys):
        sides = ([*bystanders(side, key), *holders(side, key)] for side in (left, right))
        # Where all holders are on the other side, there is no session on this one.
        first = (next((n for n in side if find(n, key) is not None), None) for side in sides)
        writers = [node for node in first if node is not None]
        for node in writers:
            assert not write(node, key, both=f"{node.name} {i}").missing
        twice += len(writers) == 2
    assert twice > 10
    world.run(70)
    world.heal()
    world.run(25)
    values = {key: {find(node, key)["both"] for node in nodes} for key in keys}  # type: ignore[index]
    assert all(len(each) == 1 for each in values.values())
    assert sum(_overwritten(nodes).values()) == twice
