"""What the invariants have found in runs under faults, each as the shortest run that shows it."""

from __future__ import annotations

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan
from tribes.testing.invariants import check_converged
from tribes.testing.plan import Extra, Plan, Step
from tribes.testing.sim import World


def test_a_member_that_was_gone_for_the_others_only_gets_what_it_missed() -> None:
    """What it missed is there at once, not after the comparison that takes 16 s a round.

    The others dropped the stopped node and it did not drop them: only they asked it for sessions
    when it was back. Seed 46 of `test_runs` with option 6 showed it.
    """
    world = World(1)
    config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=6))
    a, b, c = nodes = [world.start(name, config) for name in "abc"]
    world.run(3)
    a.pause()
    world.run(4.8)
    assert b.names() == c.names() == ["b", "c"]
    keys = []
    for i in range(50):
        session = (b, c)[i % 2].manager().create()
        session["i"] = i
        (b, c)[i % 2].manager().commit(session)
        keys.append(session.id)
        world.run(0.01)
    a.resume()
    healed = world.now
    world.run(3)
    assert [key for key in keys if a.manager().find(key) is None] == []
    assert check_converged(world, nodes, healed, 3) == []


def test_a_member_that_never_saw_the_lost_one_gets_its_last_write() -> None:
    """Who saw the lost member go offers what it has to who did not. Seed 3801 showed it."""
    world = World(2)
    config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=0))
    a, b, c = (world.start(name, config) for name in "abc")
    world.cut(a, c, both=True)
    world.run(3)
    session = a.manager().create()
    session["i"] = 1
    a.manager().commit(session)
    world.run(0.1)
    assert c.names() == ["b", "c"]
    assert b.manager().find(session.id) is not None
    assert c.manager().find(session.id) is None
    a.crash()
    world.run(2)
    assert c.manager().find(session.id) is not None


def test_sessions_that_expired_on_both_sides_of_a_split_count_no_conflict() -> None:
    """Neither side has its values any more when they meet. Seed 860241: the checks asked for it."""
    plan = Plan(
        seed=860241,
        members=5,
        seconds=10.0,
        send_options=2,
        clients=1,
        think=0.05,
        max_inactive_s=3,
        messages_per_s=0.0,
        steps=(Step(5.069, "partition", (0, 2, 4), seconds=5.0),),
        tabs=1,
        links="mixed",
        contexts=(Extra("blog", (0, 2, 3, 4), send_options=6, clients=1),),
        managers="backup",
    )
    assert [str(each) for each in run_plan(plan).violations] == []


def test_the_second_manager_s_history_knows_of_faults_that_the_world_does_not_tell() -> None:
    """Or its checks demand in a split what is promised in peace. Seed 893823 showed it."""
    assert [str(each) for each in run_plan(draw_plan(893823)).violations] == []


def test_a_member_that_leaves_at_the_same_time_need_not_have_what_is_handed_over() -> None:
    """It was still joining and slow; those that stay had all of it."""
    assert [str(each) for each in run_plan(draw_plan(903418)).violations] == []
