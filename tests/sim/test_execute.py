"""Whole runs: no promise is broken, the same seed is the same run, a broken build is caught."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

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

SEEDS = int(os.environ.get("TRIBES_SIM_SEEDS", "120"))

FIRST_SEED = int(os.environ.get("TRIBES_SIM_FIRST_SEED", "1"))
"""Fixed unless told otherwise; `tribes sim --seeds` is for going further."""

KNOWN = (38, 92, 109, 257, 261, 275, 349, 384, 504, 590, 911, 1031)
"""Seeds that found something once: each stands for a bug that is mended."""


def assert_kept(plan: Plan) -> None:
    outcome = run_plan(plan)
    if outcome.violations:
        noted = run_plan(plan, keep_timeline=True)
        pytest.fail(text_report(noted, replay=f"tribes sim --seed {plan.seed}"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(6))
def test_seeds_break_no_promise(part: int) -> None:
    """Swarms of faults on clusters of two to six nodes, checked in every way we have."""
    print(f"seeds {FIRST_SEED} to {FIRST_SEED + SEEDS - 1}, part {part}")
    for seed in range(FIRST_SEED + part, FIRST_SEED + SEEDS, 6):
        assert_kept(draw_plan(seed))


@pytest.mark.parametrize("seed", KNOWN)
def test_seeds_that_found_something_stay_mended(seed: int) -> None:
    """Regressions, by their seed."""
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


def test_command_ends_with_one_line_of_json() -> None:
    """Seed, digest, events, violations and both times, for one seed and for many."""
    result = CliRunner().invoke(main, ["sim", "--seed", "3", "--members", "3", "--minutes", "0.1"])
    assert result.exit_code == 0, result.output
    one = json.loads(result.output.strip().splitlines()[-1])
    assert set(one) == {"seed", "digest", "events", "violations", "virtual_s", "real_s"}
    again = CliRunner().invoke(main, ["sim", "--seed", "3", "--members", "3", "--minutes", "0.1"])
    assert json.loads(again.output.strip().splitlines()[-1])["digest"] == one["digest"]
    many = CliRunner().invoke(main, ["sim", "--seeds", "1-3", "--minutes", "0.05", "--quiet"])
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
