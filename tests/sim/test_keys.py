"""The simulated cluster with a group key: the same promises, under the same faults."""

from __future__ import annotations

import msgspec
import pytest

from tribes.config.model import ChannelConfig, ManagerConfig, NodeConfig, TlsConfig
from tribes.errors import ConfigError
from tribes.security.keys import GroupKey, KeyRing
from tribes.testing import execute
from tribes.testing.generator import draw_plan
from tribes.testing.invariants import check_converged
from tribes.testing.plan import ACTIONS, Plan
from tribes.testing.plan_nodes import node_config
from tribes.testing.sim import SimNode, SimWaiter, World

ONE, TWO = (GroupKey(number, bytes([number]) * 32) for number in (1, 2))


def config(keys: str = ONE.to_text(), **channel: object) -> NodeConfig:
    return NodeConfig(
        contexts=("app",),
        channel=ChannelConfig(keys=keys, **channel),  # type: ignore[arg-type]
        manager=ManagerConfig(channel_send_options=6),
    )


def start(world: World, names: str) -> list[SimNode]:
    nodes = [world.start(name, config()) for name in names]
    world.run(2)
    return nodes


def names(node: SimNode) -> str:
    return "".join(node.names())


def write(node: SimNode, value: object, session_id: str | None = None) -> str:
    manager = node.manager()
    session = manager.create() if session_id is None else manager.find(session_id)
    assert session is not None
    session["value"] = value
    waiter = SimWaiter()
    manager.commit(session, waiter)
    node.world.run(0.05)
    return session.id


def value(node: SimNode, session_id: str) -> object:
    session = node.manager().find(session_id)
    return None if session is None else session["value"]


def test_sessions_are_shared_by_who_has_the_key() -> None:
    """Also with one that joins later; and with nobody else."""
    world = World(1)
    a, b, c = start(world, "abc")
    key = write(a, 1)
    write(b, 2, key)
    strangers = [
        world.start("x", config("")),
        world.start("y", config(TWO.to_text())),
        world.start("z", config(GroupKey(1, bytes(32)).to_text())),
    ]
    d = world.start("d", config())
    world.run(5)
    assert [names(node) for node in (a, b, c, d)] == ["abcd"] * 4
    assert [names(node) for node in strangers] == ["x", "y", "z"]
    assert [value(node, key) for node in (a, b, c, d)] == [2] * 4
    assert [value(node, key) for node in strangers] == [None] * 3
    assert d.core.is_joined


def test_crash_restart_and_suspicion_are_as_without_a_key() -> None:
    """A crash is noticed at once, a pause is a suspicion, who comes back has all sessions."""
    world = World(2)
    a, b, c = nodes = start(world, "abc")
    key = write(a, 1)
    c.crash()
    world.run(0.5)
    assert names(a) == names(b) == "ab"
    c.start()
    world.run(1.5)
    assert names(a) == names(b) == names(c) == "abc"
    assert value(c, key) == 1
    c.pause()
    world.run(2.0)
    assert [m.label for m in a.core.view.suspected] == ["c"]
    c.resume()
    world.run(1.0)
    assert a.core.view.suspected == frozenset()
    b.stop()
    world.run(0.1)
    assert names(a) == names(c) == "ac"
    b.start()
    world.run(2.0)
    assert check_converged(world, nodes, world.now - 2, 2.0) == []


def test_replayed_datagrams_change_nothing() -> None:
    """Of the living, of the dead, and of one that hangs, which they do not keep in the view."""
    world = World(3)
    a, b, c = start(world, "abc")
    c.crash()
    world.run(0.5)
    c.start(same_id=True)
    world.run(1.5)
    views = [node.core.view.number for node in (a, b, c)]
    for _ in range(100):
        world.replay(50)
        world.run(0.5)
    assert [node.core.view.number for node in (a, b, c)] == views
    assert [names(node) for node in (a, b, c)] == ["abc"] * 3
    b.pause()
    for _ in range(50):
        world.replay(50)
        world.run(0.1)
    assert names(a) == names(c) == "ac", "a heartbeat that was heard before kept a member"


def test_keys_are_replaced_under_load() -> None:
    """Three steps, each node at a time of its own; no commit misses a member. Afterwards the new
    key opens the group to a newcomer, and the old one does not.
    """
    world = World(4)
    nodes = start(world, "abc")
    waiters: list[SimWaiter] = []
    for text in (KeyRing([ONE, TWO]), KeyRing([TWO, ONE]), KeyRing([TWO])):
        for node in nodes:
            for other in nodes:
                session = other.manager().create()
                session["n"] = len(waiters)
                waiters.append(SimWaiter())
                other.manager().commit(session, waiters[-1])
            node.core.channel.set_keys(text, node.clock.monotonic())
            node.pump()
            world.run(0.2)
        world.run(0.5)
    world.run(1.0)
    assert [waiter.result.missing for waiter in waiters if waiter.result] == [{}] * len(waiters)
    for node in nodes:
        assert [e.name for _, e in node.events if e.name in ("member removed",)] == []
        assert len(node.manager().table) == len(waiters)
    for name, key in (("d", TWO), ("e", ONE)):
        world.start(name, config(key.to_text()))
    world.run(2)
    assert [names(world.nodes[name]) for name in "abcde"] == ["abcd"] * 4 + ["e"]


CORRUPTION = {"corrupt", "truncate"}
"""TLS ends a connection whose bytes were changed; the simulator has no TLS to do so."""


@pytest.mark.parametrize("seed", [3, 11, 29, 31])
def test_plans_of_faults_hold_with_tls(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with TLS and no key: heartbeats prove nothing there, forged ones least of all."""
    without = node_config

    def with_tls(plan: Plan, number: int) -> NodeConfig:
        made = without(plan, number)
        tls = TlsConfig(certificate="not read", authorities="not read")
        return msgspec.structs.replace(made, channel=msgspec.structs.replace(made.channel, tls=tls))

    monkeypatch.setattr(execute, "node_config", with_tls)
    faults = tuple(action for action in ACTIONS if action not in CORRUPTION)
    plan = draw_plan(seed, members=3 + seed % 2, faults=faults)
    outcome = execute.run_plan(msgspec.structs.replace(plan, links="own", suspect_after=1000))
    assert outcome.violations == []


def test_with_tls_a_member_that_hangs_is_removed_whatever_is_heard_of_it() -> None:
    """Its heartbeats are sent again and again by somebody else; and it comes back by itself."""
    world = World(6)
    tls = TlsConfig(certificate="not read", authorities="not read")
    a, b, c = (world.start(name, config("", tls=tls)) for name in "abc")
    world.run(2)
    key = write(a, 1)
    c.pause()
    for _ in range(80):
        world.replay(50)
        world.run(0.1)
    assert names(a) == names(b) == "ab"
    c.resume()
    world.run(3)
    assert names(a) == names(b) == names(c) == "abc"
    assert value(c, key) == 1


def test_a_core_does_not_go_on_without_the_key_that_it_should_have() -> None:
    """It reads no files; whoever builds it hands over what is in them."""
    with pytest.raises(ConfigError, match="found no key"):
        World(1).start("a", NodeConfig(channel=ChannelConfig(key_file="group.key")))


@pytest.mark.parametrize("seed", [3, 11, 29])
def test_plans_of_faults_hold_with_a_key(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged and replayed packets, corruption, crashes, cuts, pauses: no promise is broken."""
    without = node_config

    def with_key(plan: Plan, number: int) -> NodeConfig:
        made = without(plan, number)
        keyed = msgspec.structs.replace(made.channel, keys=ONE.to_text())
        return msgspec.structs.replace(made, channel=keyed)

    monkeypatch.setattr(execute, "node_config", with_key)
    plan = draw_plan(seed, members=3 + seed % 2, faults=tuple(ACTIONS))
    outcome = execute.run_plan(msgspec.structs.replace(plan, links="own"))
    assert outcome.violations == []
    assert outcome.digest == execute.run_plan(msgspec.structs.replace(plan, links="own")).digest


def test_heartbeats_that_count_for_nothing_are_told_once_a_minute() -> None:
    """Why, and from where; how many more there were the next time."""
    world = World(1)
    a = world.start("a", config())
    world.start("b", config(TWO.to_text()))
    world.run(5)

    def told() -> list[dict[str, object]]:
        return [event.fields() for _, event in a.events if event.name == "heartbeat refused"]

    [first] = told()
    assert "key 2, which is not here" in str(first["why"])
    assert "repeats" not in first
    world.run(60)
    [_, second] = told()
    assert 100 <= int(str(second["repeats"])) <= 130
