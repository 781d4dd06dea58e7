"""Whole runs: no promise is broken, the same seed is the same run, a broken build is caught."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings

from tribes.cli.app import main
from tribes.manager.transfer import Transfer
from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan
from tribes.testing.plan import Plan, Step
from tribes.testing.plan_strategies import plans
from tribes.testing.report import text_report

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.manager.messages import Pairs

FIXED_SEEDS = range(1, 61)
"""The same in every run, so that a change that breaks one of them is the cause."""

FRESH = int(os.environ.get("TRIBES_SIM_SEEDS", "60"))
FIRST_SEED = int(os.environ.get("TRIBES_SIM_FIRST_SEED", "61"))
"""Where the further seeds begin: CI goes on every day, a developer's run stays the same."""

PARTS = 3


def assert_kept(plan: Plan) -> None:
    outcome = run_plan(plan)
    if outcome.violations:
        noted = run_plan(plan, keep_timeline=True)
        again = f"tribes sim --seed {plan.seed}"
        if plan != draw_plan(plan.seed):
            again = "tribes sim --plan FILE, with the plan above in it"
        pytest.fail(f"seed {plan.seed}:\n{text_report(noted, replay=again)}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(PARTS))
def test_fixed_seeds_break_no_promise(part: int) -> None:
    """Swarms of faults on clusters of two to six nodes, checked in every way we have."""
    for seed in FIXED_SEEDS[part::PARTS]:
        assert_kept(draw_plan(seed))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(PARTS))
def test_fresh_seeds_break_no_promise(part: int) -> None:
    """The same with others from day to day; a failure names its seed and how to run it again."""
    fresh = range(FIRST_SEED, FIRST_SEED + FRESH)
    print(f"seeds {fresh[0]} to {fresh[-1]}, part {part}: TRIBES_SIM_FIRST_SEED={FIRST_SEED}")
    for seed in fresh[part::PARTS]:
        assert_kept(draw_plan(seed))


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_plans_drawn_by_hypothesis_break_no_promise(plan: Plan) -> None:
    """A failure here shrinks to the few steps that matter."""
    assert_kept(plan)


def test_same_plan_is_the_same_run_byte_for_byte() -> None:
    """Two runs of one plan have one digest, with and without a timeline."""
    plan = draw_plan(12, members=4)
    first, second = run_plan(plan), run_plan(plan, keep_timeline=True)
    assert (first.digest, first.events) == (second.digest, second.events)
    assert first.timeline == []
    assert second.timeline
    assert run_plan(draw_plan(13, members=4)).digest != first.digest


def test_deliberately_broken_build_is_caught_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Acknowledged and not applied: the command says what broke, and how to see it again."""
    original = Transfer.merge

    def forgetful(self: Transfer, pairs: Pairs, now: float) -> None:
        original(self, pairs[:-1] if len(pairs) == 1 else pairs, now)

    monkeypatch.setattr(Transfer, "merge", forgetful)
    plan = Plan(
        seed=1,
        members=3,
        seconds=6.0,
        steps=(Step(2.0, "crash", (1,), seconds=1.0), Step(4.0, "crash", (2,), seconds=1.0)),
    )
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    arguments = ["sim", "--plan", str(path), "--report", str(tmp_path / "report")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    lines = result.output.strip().splitlines()
    summary = json.loads(lines[-1])
    assert summary["violations"] > 0
    assert any(line.startswith("BROKEN") for line in lines)
    assert f"again:  tribes sim --plan {path}" in lines
    report = (tmp_path / "report" / "seed-1.html").read_text()
    assert "<svg" in report
    assert "BROKEN" in report


def test_a_failed_seed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CI prints is enough to see the failure again."""
    monkeypatch.setattr(Transfer, "merge", lambda self, pairs, now: None)
    with pytest.raises(pytest.fail.Exception, match="tribes sim --seed 3") as failure:
        assert_kept(draw_plan(3))
    assert str(failure.value).startswith("seed 3:")
    with pytest.raises(pytest.fail.Exception, match="tribes sim --plan FILE"):
        assert_kept(msgspec.structs.replace(draw_plan(3), settle=11.0))


def test_who_is_to_die_in_a_write_is_alive_at_the_end() -> None:
    """A step just before the end does not leave a dead node for the time in which all is well."""
    plan = Plan(seed=3, seconds=2.0, clients=1, think=5.0, messages_per_s=0.0)
    steps = (Step(1.99, "crash_during_send", (1,)),)
    outcome = run_plan(msgspec.structs.replace(plan, steps=steps), keep_timeline=True)
    assert outcome.violations == []
    last = [kind for _, node, kind, _ in outcome.timeline if node == "n1"]
    assert last.index("start", last.index("crash")) > 0


def test_listeners_may_be_slow_and_packets_forged() -> None:
    """Both happen, and cost no promise."""
    plan = Plan(
        seed=5,
        seconds=6.0,
        messages_per_s=5.0,
        large_share=0.3,
        tabs=3,
        tick=0.05,
        steps=(
            Step(1.0, "slow_listeners", (0,), value=0.5, seconds=2.0),
            Step(2.0, "forge"),
            Step(4.0, "drain", (1,), seconds=1.0),
        ),
    )
    outcome = run_plan(plan, keep_timeline=True)
    assert outcome.violations == []
    assert any(kind == "fault" and "inject" in text for _, _, kind, text in outcome.timeline)
    slow, *others = plan.steps
    quick = (msgspec.structs.replace(slow, value=0.0), *others)
    assert run_plan(msgspec.structs.replace(plan, steps=quick)).digest != outcome.digest


def test_command_ends_with_one_line_of_json() -> None:
    """Seed, digest, events, violations and both times, for one seed and for many."""
    result = CliRunner().invoke(main, ["sim", "--seed", "3", "--members", "3", "--minutes", "0.1"])
    assert result.exit_code == 0, result.output
    one = json.loads(result.output.strip().splitlines()[-1])
    assert set(one) == {"seed", "digest", "events", "violations", "virtual_s", "real_s"}
    again = CliRunner().invoke(main, ["sim", "--seed", "3", "--members", "3", "--minutes", "0.1"])
    assert json.loads(again.output.strip().splitlines()[-1])["digest"] == one["digest"]
    many = CliRunner().invoke(main, ["sim", "--seeds", "1-3", "--minutes", "0.05", "--quiet"])
    assert many.exit_code == 0, many.output
    assert json.loads(many.output.strip().splitlines()[-1])["runs"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faults", "burn"], "no such fault: burn"),
        (["--seeds", "5-1"], "write a range like 1-100"),
        (["--plan", "none.json"], "none.json: cannot be read"),
        (["--minutes", "0"], "0 is not in the range"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], message: str) -> None:
    """The command says which and what is allowed."""
    result = CliRunner().invoke(main, ["sim", *arguments])
    assert result.exit_code != 0
    assert message in result.output
