"""``tribes sim``: look for broken promises in simulated clusters.

Without a plan, plans are drawn from seeds. The last line of the output is JSON with ``seed``,
``digest``, ``events``, ``violations``, ``virtual_s`` and ``real_s``; the exit status is 1 when
something did not hold.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click

from tribes.errors import ConfigError
from tribes.testing.execute import Outcome, run_plan
from tribes.testing.generator import draw_plan
from tribes.testing.plan import ACTIONS, Plan, load_plan
from tribes.testing.replaying import show_replay
from tribes.testing.report import text_report, write_html

__all__ = ["sim"]


def _seeds(_context: click.Context, _option: click.Parameter, text: str | None) -> range | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise click.BadParameter("write a range like 1-100")
    return range(int(match[1]), int(match[2]) + 1)


def _faults(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ACTIONS]
    if unknown:
        raise click.BadParameter(
            f"no such fault: {', '.join(unknown)}. There are {', '.join(ACTIONS)}"
        )
    return names


@click.command("sim")
@click.option("--members", type=click.IntRange(1, 1000), help="Nodes; default: drawn, 2 to 6.")
@click.option(
    "--minutes",
    type=click.FloatRange(0.01),
    default=1 / 6,
    help="Virtual minutes under faults; default: ten seconds.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--seeds", callback=_seeds, metavar="A-B", help="Run one plan for each of these seeds."
)
@click.option("--faults", callback=_faults, metavar="NAME,…", help="Only these kinds; '' for none.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run this plan instead of drawing one.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the HTML report and the plan of each failed run.",
)
@click.option(
    "--replay",
    "recording",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run the inputs of a file that `tribes record` wrote again, and show its timeline.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def sim(
    members: int | None,
    minutes: float,
    seed: int,
    seeds: range | None,
    faults: list[str] | None,
    plan_file: Path | None,
    report: Path | None,
    recording: Path | None,
    quiet: bool,
) -> None:
    """Run clusters in a simulated world under faults, and check what was promised.

    Or, with --replay, what one real node was given.

    Exit codes: 0: all held; 1: something did not, a plan cannot be read, or a replay had other
    outputs; 2: wrong command line; 3: a recording has nothing that could be run.
    """
    if recording is not None:
        sys.exit(show_replay(recording, quiet=quiet))
    try:
        if plan_file is not None:
            plans = [load_plan(plan_file)]
        else:
            plans = [
                draw_plan(each, members=members, seconds=minutes * 60, faults=faults)
                for each in (seeds or [seed])
            ]
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    totals = {"events": 0, "violations": 0, "virtual_s": 0.0, "real_s": 0.0}
    last: Outcome | None = None
    for plan in plans:
        last = _run_one(plan, plan_file, minutes, members, faults, report, quiet=quiet)
        totals["events"] += last.events
        totals["violations"] += len(last.violations)
        totals["virtual_s"] += last.virtual_s
        totals["real_s"] += last.real_s
    assert last is not None
    line = {
        "seed": last.plan.seed,
        "digest": last.digest,
        "events": totals["events"],
        "violations": totals["violations"],
        "virtual_s": round(totals["virtual_s"], 3),
        "real_s": round(totals["real_s"], 3),
    }
    if seeds is not None:
        line["runs"] = len(plans)
    click.echo(json.dumps(line))
    if totals["violations"]:
        sys.exit(1)


def _run_one(
    plan: Plan,
    plan_file: Path | None,
    minutes: float,
    members: int | None,
    faults: list[str] | None,
    report: Path | None,
    *,
    quiet: bool,
) -> Outcome:
    if quiet or not sys.stderr.isatty():
        outcome = run_plan(plan)
    else:
        with click.progressbar(length=1000, label=f"seed {plan.seed}", file=sys.stderr) as bar:
            outcome = run_plan(plan, progress=lambda share: bar.update(int(1000 * share) - bar.pos))
    if not outcome.violations:
        return outcome
    # The same once more, now with everything noted: a run costs less than noting all of them.
    noted = run_plan(plan, keep_timeline=True)
    replay = _replay(plan, plan_file, minutes, members, faults)
    click.echo(f"\nseed {plan.seed}:\n{text_report(noted, replay=replay)}\n")
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        write_html(noted, report / f"seed-{plan.seed}.html", replay=replay)
        (report / f"seed-{plan.seed}.json").write_text(plan.to_json())
    return outcome


def _replay(
    plan: Plan,
    plan_file: Path | None,
    minutes: float,
    members: int | None,
    faults: list[str] | None,
) -> str:
    if plan_file is not None:
        return f"tribes sim --plan {plan_file}"
    parts = [f"tribes sim --seed {plan.seed} --minutes {minutes!r}"]
    if members is not None:
        parts.append(f"--members {members}")
    if faults is not None:
        parts.append(f"--faults '{','.join(faults)}'")
    return " ".join(parts)
