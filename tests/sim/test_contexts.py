"""Several contexts in one group: members that lack one, mixed kinds, joins that find all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tribes.config.managers import ContextConfig, ManagerConfig, StandardConfig
from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, StaticMemberConfig
from tribes.errors import ConfigError
from tribes.manager.transfer import Transfer
from tribes.testing.execute import run_plan
from tribes.testing.plan import Extra, Plan, Step
from tribes.testing.sim import SimNode, World

if TYPE_CHECKING:
    from tribes.manager.messages import Pairs

WITH_CONTEXTS = Plan(
    seed=5,
    members=4,
    steps=(
        Step(at=2, action="crash", nodes=(1,), seconds=2),
        Step(at=5, action="partition", nodes=(0, 2), seconds=2),
    ),
    contexts=(Extra("blog", (0, 1, 3), clients=3), Extra("wiki", (2,), send_options=8)),
)


def put(node: SimNode, context: str, **values: object) -> str:
    manager = node.manager(context)
    session = manager.create()
    session.update(values)
    manager.commit(session)
    node.pump()
    return session.key


@pytest.mark.parametrize("seed", range(100))
def test_t11_a_join_never_skips_the_transfer_because_nobody_is_known_yet(seed: int) -> None:
    """Without multicast, by one static address that is looked up while the node starts: whoever
    says that it has joined has all, in each of a hundred joins.
    """
    world = World(seed)
    names = (StaticMemberConfig(host="127.0.0.1", port=4000),)
    config = NodeConfig(
        contexts=("shop", "blog"),
        channel=ChannelConfig(membership=MembershipConfig(multicast=False, static=names)),
    )
    a = world.start("a", config)
    world.run(4)
    keys = {(c, put(a, c, n=n)) for c in ("shop", "blog") for n in range(20)}
    world.run(seed / 100)
    b = world.start("b", config)
    world.run_until(world.now + 30, lambda: b.core.is_joined)
    assert b.core.is_joined
    assert {(c, k) for c in ("shop", "blog") for k in b.manager(c).table.keys()} == keys  # noqa: SIM118


def test_a_member_gets_only_the_contexts_that_it_has() -> None:
    """And those that are in no group go nowhere, though another member has them too."""
    world = World(7)
    alone = ContextConfig(manager=StandardConfig())
    queued = ContextConfig(manager=ManagerConfig(channel_send_options=8))
    both = NodeConfig(contexts=("shop",), context={"own": alone, "chat": queued})
    a, b = world.start("a", both), world.start("b", both)
    c = world.start("c", msgspec.structs.replace(NodeConfig(), contexts=("chat",)))
    world.run(3)
    shop, chat = put(a, "shop", n=1), put(a, "chat", n=1)
    put(a, "own", n=1)
    world.run(2)
    assert shop in b.manager("shop").table
    assert chat in b.manager("chat").table
    assert chat in c.manager("chat").table
    assert [m.label for m in a.core.sessions.replicators["shop"].targets] == ["b"]
    assert set(a.core.sessions.replicators) == {"shop", "chat"}
    assert set(c.core.sessions.replicators) == {"chat"}
    assert len(b.manager("own").table) == len(c.manager("own").table) == 0
    assert len(c.manager("shop").table) == 0


def test_plans_have_contexts_that_some_nodes_lack() -> None:
    """Every invariant is looked at in each of them, under faults."""
    assert run_plan(WITH_CONTEXTS).violations == []


def test_what_is_lost_in_one_context_of_a_plan_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail: in this context nobody takes what the others acknowledge."""
    merge = Transfer.merge

    def forgetful(self: Transfer, pairs: Pairs, now: float) -> None:
        if self._manager.context != "blog":
            merge(self, pairs, now)

    monkeypatch.setattr(Transfer, "merge", forgetful)
    assert run_plan(WITH_CONTEXTS).violations


@pytest.mark.parametrize(
    ("extras", "said"),
    [
        ((Extra("app"),), "contexts: names must differ"),
        ((Extra("x"), Extra("x")), "contexts: names must differ"),
        ((Extra("x", (3,)),), r"contexts\[0\].nodes: nodes are 0 to 2"),
    ],
)
def test_contexts_that_cannot_be_are_refused(extras: tuple[Extra, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_plan(Plan(contexts=extras))
