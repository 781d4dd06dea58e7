"""A client reads its own writes on every node, however slowly changes travel."""

from __future__ import annotations

from typing import Any

import pytest

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.sim import SimNode, SimWaiter, World


def start(world: World, names: str, options: int = 8) -> list[SimNode]:
    config = NodeConfig(
        contexts=("app",), manager=ManagerConfig(channel_send_options=options, max_inactive_s=1800)
    )
    nodes = [world.start(name, config) for name in names]
    world.run(3)
    return nodes


class Client:
    """Asks node after node, each when the last one has answered; carries its token."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.session_id = ""
        self.token: tuple[int, int] | None = None
        self.waited: list[float] = []

    def ask(self, node: SimNode, *, carries: bool = True) -> Any:
        """One request: count up. Returns the count that it found."""
        manager, token = node.manager(), self.token if carries else None
        begin = self.world.now
        if self.session_id and manager.lacks(self.session_id, token):
            waiter = SimWaiter()
            if manager.ask(self.session_id, token, waiter):
                self.world.run_until(self.world.now + 2, lambda: waiter.is_done)
        self.waited.append(self.world.now - begin)
        session = manager.find(self.session_id) if self.session_id else manager.create()
        if session is None:
            return None
        count = session.get("count", 0)
        session["count"] = count + 1
        outcome = manager.commit(session)
        assert outcome.version is not None
        self.session_id, self.token = session.id, (outcome.version, manager.clock.actor)
        return count


def slow_down(world: World, seconds: float, *pairs: tuple[str, str]) -> None:
    for source, target in pairs:
        world.link(source, target).delay = seconds


@pytest.mark.parametrize("options", [8, 10, 2, 0])
def test_t56_client_over_all_nodes_reads_its_own_writes_without_waiting_for_members(
    options: int,
) -> None:
    """600 increments over three nodes are 600, where one link takes three seconds for a change."""
    world = World(1)
    nodes = start(world, "abc", options)
    client = Client(world)
    client.ask(nodes[0])
    world.run(1)
    slow_down(world, 3.0, ("a", "b"))
    for turn in range(1, 600):
        assert client.ask(nodes[turn % 3]) == turn
    assert max(client.waited) < 0.31
    arrived = sum(_counts(node).arrived for node in nodes)
    fetched = sum(_counts(node).fetched for node in nodes)
    assert arrived > 100
    assert fetched > 100


def _counts(node: SimNode) -> Any:
    return node.core.sessions.replicators["app"].fetches.statistics


def test_without_the_token_the_same_client_misses_writes() -> None:
    """So the test above can fail."""
    world = World(1)
    nodes = start(world, "abc")
    client = Client(world)
    client.ask(nodes[0])
    world.run(1)
    slow_down(world, 3.0, ("a", "b"))
    assert any(client.ask(nodes[turn % 3], carries=False) != turn for turn in range(1, 30))


@pytest.mark.parametrize("options", [8, 10, 2, 0])
def test_t103_a_session_that_was_just_made_is_found_on_a_node_that_has_not_heard_of_it(
    options: int,
) -> None:
    """Its client's token says that it was written: nobody makes a second one."""
    world = World(1)
    nodes = start(world, "abc", options)
    slow_down(world, 3.0, ("a", "b"))
    client = Client(world)
    client.ask(nodes[0])
    made = client.session_id
    assert client.ask(nodes[1]) == 1
    assert client.session_id == made
    assert client.waited[-1] < 0.31


def test_a_forged_token_for_no_session_costs_its_sender_a_bounded_wait_once() -> None:
    """As for a session that there is."""
    world = World(2)
    nodes = start(world, "abc")
    client = Client(world)
    for waits in (True, False):
        client.session_id, client.token = "0" * 32, (2**63, 12345)
        assert client.ask(nodes[1]) is None
        assert (0.04 < client.waited[-1] < 0.31) if waits else client.waited[-1] == 0
    other = Client(world)
    other.session_id = "1" * 32
    assert other.ask(nodes[1]) is None
    assert other.waited == [0], "who says nothing of a write waits for nothing"


def test_a_forged_token_costs_its_sender_a_bounded_wait_once() -> None:
    """300 ms at most, then nothing for some seconds; other clients wait for nothing."""
    world = World(2)
    nodes = start(world, "abc")
    client = Client(world)
    client.ask(nodes[0])
    world.run(1)
    client.token = 2**63, 12345
    assert client.ask(nodes[1]) == 1
    assert 0.04 < client.waited[-1] < 0.31
    client.token = 2**63, 12345
    assert client.ask(nodes[1]) == 2
    assert client.waited[-1] == 0
    other = Client(world)
    other.ask(nodes[2])
    world.run(0.1)
    other.ask(nodes[1])
    assert other.waited == [0, 0]


def test_a_token_whose_write_was_overwritten_is_asked_for_once() -> None:
    """The writer says that it had it, and the node remembers."""
    world = World(3)
    a, b = start(world, "ab")
    client, tab = Client(world), Client(world)
    client.ask(a)
    client.ask(a)
    world.run(0.2)
    tab.session_id, tab.token = client.session_id, client.token
    old = client.token
    tab.ask(a)
    world.run(0.2)
    client.token = old
    client.ask(b)
    assert client.waited[-1] > 0.04
    client.token = old
    client.ask(b)
    assert client.waited[-1] == 0


def test_questions_are_bounded_and_end_with_the_node() -> None:
    """Too many at once go on with what is here, and so does everybody when the node stops."""
    world = World(4)
    a, b = start(world, "ab")
    client = Client(world)
    client.ask(a)
    world.run(1)
    fetches = b.core.sessions.replicators["app"].fetches
    waiters = [SimWaiter() for _ in range(1100)]
    world.partition(["a"], ["b"])
    for number, waiter in enumerate(waiters):
        assert b.manager().ask(client.session_id, (2**63 + number, 1), waiter)
    world.run(0.01)
    assert sum(waiter.is_done for waiter in waiters) == 100
    assert fetches.statistics.refused == 100
    b.stop()
    assert all(waiter.is_done for waiter in waiters)
