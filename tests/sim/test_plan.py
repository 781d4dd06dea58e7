"""Plans are data: written, read back, and refused with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from tribes.config.managers import BackupConfig, ContextConfig
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    StaticMemberConfig,
)
from tribes.errors import ConfigError
from tribes.testing.generator import CLOCK_OFF_MAX_MS, DEFAULT_FAULTS, draw_plan
from tribes.testing.plan import ACTIONS, KINDS, Extra, Plan, Step, load_plan
from tribes.testing.plan_nodes import node_config
from tribes.testing.plan_strategies import plans
from tribes.testing.workload import MERGED_MIX, MIX

if TYPE_CHECKING:
    from pathlib import Path


def test_plan_survives_its_file(tmp_path: Path) -> None:
    """What hypothesis draws can be run, written and read back."""
    path = tmp_path / "plan.json"

    @given(plans())
    def survives(plan: Plan) -> None:
        plan.check()
        path.write_text(plan.to_json())
        assert load_plan(path) == plan

    survives()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Input data was truncated"),
        ('{"member": 3}', "unknown field `member`"),
        ('{"members": "three"}', "Expected `int`"),
        ('{"steps": [{"at": 1, "action": "burn"}]}', r"steps\[0\].action: 'burn' is none of"),
        ('{"steps": [{"at": 1, "action": "crash", "nodes": [7]}]}', "numbered 0 to 2"),
        ('{"steps": [{"at": -1, "action": "crash", "nodes": [0]}]}', r"steps\[0\]: times must not"),
        ('{"steps": [{"at": 1, "action": "crash", "seconds": -1}]}', "times must not"),
        ('{"members": 0}', "from 1 to 1000"),
        ('{"routing": "best"}', "'sticky' or 'random'"),
        ('{"seconds": -1}', "must not be negative"),
        ('{"tabs": 0}', "must be at least 1, found 0"),
        ('{"mix": {"sleep": 1}}', "'sleep' is none of abandon, append"),
    ],
)
def test_file_that_is_no_plan_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, the key and what is allowed."""
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_plan(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_told(tmp_path: Path) -> None:
    """No traceback of the operating system's error."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_plan(tmp_path / "none.json")


def test_seeds_give_plans_and_every_fault_comes_up() -> None:
    """Equal seeds, equal plans; a few hundred seeds use every kind of fault."""
    assert draw_plan(7) == draw_plan(7)
    drawn = [draw_plan(seed) for seed in range(400)]
    for plan in drawn:
        plan.check()
    assert {step.action for plan in drawn for step in plan.steps} == set(DEFAULT_FAULTS)
    assert {plan.members for plan in drawn} == {2, 3, 4, 5, 6}
    assert {plan.tabs for plan in drawn} == {1, 2, 3}
    for share in ("tick", "large_share"):
        assert {getattr(plan, share) > 0 for plan in drawn} == {False, True}


def test_faults_can_be_chosen_and_mistyped_ones_are_refused() -> None:
    """Only what was asked for is drawn."""
    chosen = {step.action for seed in range(50) for step in draw_plan(seed, faults=["pause"]).steps}
    assert chosen == {"pause"}
    with pytest.raises(ConfigError, match="burn: no such fault"):
        draw_plan(1, faults=["burn"])


def test_nodes_are_configured_as_the_plan_says() -> None:
    """A setting that does not reach them breaks no promise, so no run would miss it."""
    gzip = ({"class": "GzipInterceptor"},)
    plan = Plan(
        send_options=2,
        max_inactive_s=7,
        links="mixed",
        suspect_after=500,
        interceptors=gzip,
        contexts=(Extra("blog", (1,), send_options=8),),
    )
    blog = ContextConfig(manager=ManagerConfig(channel_send_options=8, max_inactive_s=7))
    for number in (0, 1):
        assert node_config(plan, number) == NodeConfig(
            contexts=("app",),
            context={"blog": blog} if number else {},
            channel=ChannelConfig(
                membership=MembershipConfig(suspect_after=500),
                own_link=number == 0,
                interceptors=gzip,
            ),
            manager=ManagerConfig(channel_send_options=2, max_inactive_s=7),
        )
    plan = Plan(multicast=False, managers="both", copies=2, send_options=2, max_inactive_s=7)
    node = node_config(plan, 1)
    assert node.channel.membership == MembershipConfig(
        multicast=False, static=(StaticMemberConfig(host="127.0.0.1", port=4000),)
    )
    assert node.contexts == ("app", "second")
    backup = BackupConfig(backup_count=2, map_send_options=2, max_inactive_s=7)
    assert node.context == {"app": ContextConfig(manager=backup)}


def test_what_clients_may_do_is_one_list() -> None:
    """A plan may name whatever the workload knows, and nothing else."""
    assert {*MIX, *MERGED_MIX} == KINDS


def test_every_action_is_explained() -> None:
    """A step of each kind is a valid plan for enough nodes."""
    for action in ACTIONS:
        Plan(members=4, steps=(Step(1.0, action, (1, 2, 3)),)).check()
        assert ACTIONS[action]


def test_steps_never_take_a_clock_so_far_that_others_refuse_it() -> None:
    """More than 24 h ahead of another's is refused by design, which no plan shall run into."""
    steps = 0
    for seed in range(40):
        plan = draw_plan(seed, seconds=590, faults=("clock_step",))
        steps += len(plan.steps)
        off = dict.fromkeys(range(plan.members), 0.0)
        for step in plan.steps:
            off[step.nodes[0]] += step.value
            assert abs(off[step.nodes[0]]) <= CLOCK_OFF_MAX_MS
    assert steps > 1000
