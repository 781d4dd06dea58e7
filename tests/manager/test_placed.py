"""Parts that are given, taken and visited: states that must be left again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.sim.backup_nodes import (
    bystanders,
    config,
    core,
    find,
    holders,
    manager,
    put,
    start,
    write,
)
from tests.sim.test_lazy_maps import Client
from tribes.config.model import NodeConfig
from tribes.manager.placed_messages import PlaceState, Stale
from tribes.manager.placement import PARTS, part_of
from tribes.testing.sim import World

if TYPE_CHECKING:
    import pytest


def test_a_part_that_was_given_away_and_visited_is_not_served_before_it_is_here_again() -> None:
    """A member gives all it has, its requests still use the sessions, and it is to have them back:
    until everybody has heard of that, it holds nothing yet, and asks those who do.
    """
    world = World(72)
    nodes = start(world, "abcd")
    giver, hung = nodes[0], nodes[3]
    keys = [put(nodes[i % 4], n=i) for i in range(60)]
    core(giver).placed.book.set_weight(0)
    for turn in range(40):
        world.run(0.2)
        for key in keys:
            write(giver, key, turn=turn)
    assert not core(giver).placed.held
    mine = [key for key in keys if part_of(key) in core(giver).placed.parts]
    assert mine
    placed = core(giver).placed
    taken: set[int] = set()
    placed.book.set_weight(1)
    for _ in range(600):
        if len(taken) == 1:
            hung.pause()
        for number in placed._announced:
            taken.add(number)
            assert placed.book.states[number] == PlaceState.PULL, "it has not even asked for it"
            assert all(
                manager(giver).is_elsewhere(key) for key in mine if part_of(key) == number
            ), "its requests are told that there is no session"
        world.run(0.02)
    assert taken & {part_of(key) for key in mine}


def test_a_drain_that_ends_too_soon_names_what_was_changed_on_visits() -> None:
    """It has given its parts away; of a session that lies elsewhere it has made the last change,
    and those that hold it cannot be reached.
    """
    world = World(73)
    nodes = start(world, "abc")
    keys = [put(nodes[i % 3], n=i) for i in range(30)]
    visitor = nodes[2]
    core(visitor).placed.book.set_weight(0)
    world.run(10)
    assert not core(visitor).placed.held
    session = find(visitor, keys[0])
    assert session is not None
    for holder in nodes[:2]:
        world.cut(visitor, holder)
    session["n"] = 100
    manager(visitor).commit(session)
    visitor.drain()
    world.run(3.5)  # as long as the first attempt may take
    assert not visitor.core.is_drained
    [lacking] = visitor.core.sessions.drain_report().lacking
    assert (lacking.context, lacking.member, lacking.sessions) == ("app", "*", 1)
    world.heal()
    assert world.run_until(world.now + 10, lambda: visitor.core.is_drained)
    assert visitor.core.sessions.drain_report().is_complete


def test_a_visitor_pays_a_holder_whatever_it_owes() -> None:
    """More sessions than are remembered of a member with all of them: who visits compares nothing,
    so the holder gets what was changed, and the visitor has nothing left to bring.
    """
    world = World(72)
    nodes = start(world, "abcd", dirty_max=1)
    keys = [put(nodes[i % 4], n=i) for i in range(300)]
    visitor = bystanders(nodes, keys[0])[0]
    part = part_of(keys[0])
    mine = [key for key in keys if part_of(key) == part]
    assert len(mine) > 1
    hung = holders(nodes, keys[0])[1]
    hung.pause()
    assert world.run_until(world.now + 2, lambda: hung.core.local in visitor.core.view.suspected)
    for key in mine:
        write(visitor, key, visited=True)
    hung.resume()
    world.run(12)
    assert hung in holders(nodes, keys[0])
    assert core(visitor).is_quiet
    assert all(dict(manager(hung).find(key) or {}).get("visited") for key in mine)


def test_a_part_that_is_taken_back_owes_nobody_a_comparison_for_ever() -> None:
    """Everything was being compared with a holder when the comparison was begun anew."""
    world = World(73)
    nodes = start(world, "abc")
    key = put(nodes[0], n=0)
    first, second = holders(nodes, key)
    placed, number = core(first).placed, part_of(key)
    part = placed.parts[number]
    world.clog(second, first)
    part.repair.compare(second.core.local, first.clock.monotonic())
    world.run(0.7)
    placed._closing[number] = 0, first.clock.monotonic()
    placed._reopen(number, part)
    world.unclog(second, first)
    world.run(8)
    assert placed.book.states[number] == PlaceState.HOLD
    assert part.is_quiet


def test_an_epoch_that_cannot_grow_any_more_stops_no_node() -> None:
    """A member says the greatest one that there is of a part that is owned here."""
    world = World(74)
    first, second = start(world, "ab")
    placed = core(first).placed
    number = next(part for part, claim in enumerate(placed.book.claims) if claim)
    told = Stale("app", number, 2**32 - 1, [], [])
    placed.on_stale(second.core.local, told, first.clock.monotonic())
    key = put(first, n=0)
    world.run(3)
    assert placed.book.claims[number] == 2**32 - 1
    assert find(second, key) is not None


def test_a_session_that_a_request_has_just_got_is_there_when_it_looks() -> None:
    """The part that it is of was told to be gone, and is forgotten before the request's thread has
    its turn: on a real node a user was given a new session.
    """
    world = World(76)
    nodes = start(world, "abcd")
    giver = nodes[0]
    keys = [put(nodes[i % 4], n=i) for i in range(60)]
    placed = core(giver).placed
    placed.book.set_weight(0)
    got: list[str] = []
    for _ in range(1000):
        closing = [key for key in keys if part_of(key) in placed._closing and key not in got]
        for key in closing:
            assert find(giver, key) is not None
            got.append(key)
        world.run(0.005)
    assert not placed.held
    assert len(got) > 5
    assert [key for key in got if manager(giver).find(key) is None] == []


def test_a_holder_that_was_about_to_ask_is_asked_when_it_has() -> None:
    """It may have had what nobody else has: who was told that it is to get a part does not ask it
    (seed 840584).
    """
    world = World(75)
    one, other = start(world, "ab")
    key = put(one, n=1)
    part = part_of(key)
    record = manager(one).table.get(key)
    assert record is not None
    assert manager(one).table.drop(key, record)
    said = core(one).placed.book.peers[other.core.local].places
    for number, state in enumerate((PlaceState.PULL, PlaceState.HOLD), 1):
        states = [state if each == part else said.states[each] for each in range(PARTS)]
        told = replace(said, number=said.number + number, states=states)
        core(one).placed.on_places(other.core.local, told, one.clock.monotonic())
        one.pump()
    world.run(0.05)  # the next regular comparison is later
    assert manager(one).table.get(key) == manager(other).table.get(key)


def test_a_part_that_is_held_again_and_again_looks_no_more_often() -> None:
    """Each taking begins what goes on from time to time; what an earlier one began is over."""
    world = World(75)
    clients = [Client(world.start(name, NodeConfig())) for name in "ab"]
    world.run(8)
    placed = clients[0].map.placed
    part: Any = placed.parts[placed.held[0]]
    for _ in range(4):
        part.release()
        part.hold(clients[0].node.clock.monotonic())
    looks, touches = [0], [0]
    look, take = part.expiry._look_once, part.manager.take_touches

    def looked(now: float) -> None:
        looks[0] += 1
        look(now)

    def taken(now_ds: int) -> Any:
        touches[0] += 1
        return take(now_ds)

    part.expiry._look_once = looked
    part.manager.take_touches = taken
    world.run(20.5)
    assert -1 <= looks[0] - 20 / part.expiry._interval <= 1
    assert touches[0] in (20, 21)


def test_who_went_on_without_a_member_is_complete_when_that_has_spoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It hangs until the other one's ``rpc_timeout`` is over, and says then what it holds."""
    world = World(77)
    [first] = start(world, "a", rpc_timeout=500)
    with monkeypatch.context() as patch:
        patch.setattr(core(first).placed._teller, "tell", lambda *args, **more: None)
        joiner = world.start("b", config(rpc_timeout=500))
        assert world.run_until(world.now + 9, lambda: core(joiner).transfer.is_joined)
        assert not core(joiner).transfer.is_complete
    world.run(4)
    assert core(joiner).transfer.is_complete


def test_a_part_is_taken_as_soon_as_everybody_has_heard_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several members each acknowledges what it was told, and nothing has to be told again."""
    monkeypatch.setattr("tribes.manager.place_teller._SOON_S", 30.0)
    world = World(78)
    start(world, "abc")
    joiner = world.start("d", config())
    placed = core(joiner).placed
    assert world.run_until(world.now + 9, lambda: bool(placed._announced))
    assert world.run_until(world.now + 0.5, lambda: not placed._announced)
