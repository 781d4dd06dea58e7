"""Runs broken builds of the product in the simulator and says which were noticed.

Each mutant has its process and at most so many plans; it is caught by the first violation, by an
exception that leaves the core, or by a run that does not end. Before that, the sound build must
pass plans of the same kind.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from typing import TYPE_CHECKING

from tests import waiting
from tests.mutants.mutants import MUTANTS, Mutant
from tribes.channel.outbox import Outbox
from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tribes.testing.plan import Plan

__all__ = ["Result", "check_sound", "hunt", "plan_for"]

SOUND_SEEDS = 10
PLAN_MAX_S = 30
"""Seconds of this machine after which a run counts as endless."""
IMPATIENT_S = 5.0
"""For which a test of a broken build waits for what a sound one does at once."""
ENOUGH = 0.95
_MISFITS = (AttributeError, NameError, TypeError)
"""What it looks like when the product has moved away from under a patch."""


class _EndlessError(BaseException):
    """Not an Exception, so that nothing in the product takes it for a user's error."""


class MisfitError(Exception):
    """A mutant does not do what it says: its patch does not fit the product any more."""


@dataclass(frozen=True)
class Result:
    """What became of one mutant.

    Attributes:
        name: Of the mutant.
        caught: Which invariant noticed it, or the exception; empty: it survived.
        seeds: Plans that were run.
        seconds: What they took.
        unsound: What the sound build did wrong in plans of that kind; should be empty.
    """

    name: str
    caught: str
    seeds: int
    seconds: float
    unsound: str = ""


def plan_for(mutant: Mutant, seed: int) -> Plan:
    """Draw a plan that aims at a mutant, or take the one that was written for it."""
    if mutant.plan is not None:
        return _as_for(mutant, mutant.plan(seed))
    members = mutant.changes.get("members")
    rest = {name: value for name, value in mutant.changes.items() if name != "members"}
    plan = draw_plan(
        seed,
        members=members,
        seconds=rest.get("seconds", 10.0),
        faults=mutant.faults,
        managers=rest.get("managers", "delta"),
    )
    if mutant.options:
        rest["send_options"] = mutant.options[seed % len(mutant.options)]
    return _as_for(mutant, msgspec.structs.replace(plan, **rest))


def _as_for(mutant: Mutant, plan: Plan) -> Plan:
    # Own links and suspicion stand in for much of what keeps plain links right.
    if mutant.own:
        return msgspec.structs.replace(plan, links="own", suspect_after=1000)
    return msgspec.structs.replace(plan, links="plain", suspect_after=0)


def _profile(mutant: Mutant) -> str:
    drawn = mutant.faults, mutant.options, sorted(mutant.changes.items())
    return repr((drawn, mutant.plan, mutant.test, mutant.stress, mutant.own))


def _outcome(mutant: Mutant, seed: int, *, sound: bool) -> str:
    """Run one plan; the name of what was noticed, or nothing."""
    if mutant.test is not None:
        return _test_outcome(mutant, mutant.test, sound=sound)
    plan = plan_for(mutant, seed)
    with mutant.patch(sound=sound), _bugs() as bugs:
        try:
            violations = run_plan(plan).violations
        except _MISFITS as error:
            raise MisfitError(f"{mutant.name}: {error!r}") from error
        except Exception as error:  # noqa: BLE001 - whatever leaves the core is what we look for
            return f"exception {type(error).__name__}"
        except _EndlessError:
            return "endless run"
    for bug in bugs:
        if isinstance(bug, _MISFITS):
            raise MisfitError(f"{mutant.name}: {bug!r}") from bug
    return ", ".join(dict.fromkeys(violation.invariant for violation in violations))


def _test_outcome(mutant: Mutant, test: Callable[[], object], *, sound: bool) -> str:
    with mutant.patch(sound=sound), nullcontext() if sound else _impatient():
        try:
            test()
        except _MISFITS as error:
            raise MisfitError(f"{mutant.name}: {error!r}") from error
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - what we look for
            return f"a test, {type(error).__name__}"
        except _EndlessError:
            return "endless test"
    return ""


@contextmanager
def _impatient() -> Iterator[None]:
    """Let tests of nodes with threads give up sooner: most broken builds are found by a wait."""
    usual = waiting.wait_until.__defaults__
    waiting.wait_until.__defaults__ = (IMPATIENT_S,)
    try:
        yield
    finally:
        waiting.wait_until.__defaults__ = usual


@contextmanager
def _bugs() -> Iterator[list[Exception]]:
    """Collect what the core catches, so that one message's failure does not hide a misfit."""
    bugs: list[Exception] = []
    real = Outbox.tell_bug

    def told(self: Outbox, what: str, error: Exception) -> None:
        bugs.append(error)
        real(self, what, error)

    Outbox.tell_bug = told  # type: ignore[method-assign]
    try:
        yield bugs
    finally:
        Outbox.tell_bug = real  # type: ignore[method-assign]


def check_sound(mutant: Mutant, seeds: int = SOUND_SEEDS) -> str:
    """Run the sound build with a mutant's plans; what was wrong, or nothing."""
    for seed in range(seeds if mutant.test is None else 1):
        if found := _outcome(mutant, seed, sound=True):
            return f"seed {seed}: {found}"
    return ""


def hunt(mutant: Mutant, seeds: int, *, watch: bool = False) -> Result:
    """Run a mutant until it is noticed in a plan that the sound build passes.

    Args:
        mutant: Which.
        seeds: Plans, at most.
        watch: End runs that do not end; needs the main thread, and SIGALRM for itself.
    """
    begin, unsound = time.perf_counter(), ""
    watch = watch and hasattr(signal, "SIGALRM")
    if watch:
        signal.signal(signal.SIGALRM, _alarm)
    for seed in range(seeds if mutant.test is None else 1):
        if watch:
            signal.alarm(PLAN_MAX_S)
        found = _outcome(mutant, seed, sound=False)
        if watch:
            signal.alarm(0)
        if not found:
            continue
        if wrong := _outcome(mutant, seed, sound=True):
            unsound = f"seed {seed}: {wrong}"
            continue
        return Result(mutant.name, found, seed + 1, time.perf_counter() - begin, unsound)
    return Result(mutant.name, "", seeds, time.perf_counter() - begin, unsound)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _EndlessError


def _work(order: tuple[int, int, bool]) -> Result:
    index, seeds, is_first = order
    mutant = MUTANTS[index]
    unsound = check_sound(mutant) if is_first else ""
    try:
        result = hunt(mutant, seeds, watch=True)
    except MisfitError as error:
        result = Result(mutant.name, "", 0, 0.0, f"misfit: {error}")
    return replace(result, unsound=unsound or result.unsound)


def _line(result: Result) -> str:
    outcome = f"caught after {result.seeds} seeds: {result.caught}"
    if not result.caught:
        outcome = f"SURVIVED {result.seeds} seeds"
    warning = f"  SOUND BUILD FAILED, {result.unsound}" if result.unsound else ""
    return f"{result.name:<36} {outcome}{warning}"


def main() -> int:
    """Run the mutants; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="plans per mutant, at most")
    parser.add_argument(
        "--only", action="append", help="names of mutants, as 'own: *'; default: all"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    wanted = parser.parse_args()
    only = wanted.only or ["*"]
    if unknown := [each for each in only if not any(fnmatchcase(m.name, each) for m in MUTANTS)]:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    chosen = [i for i, m in enumerate(MUTANTS) if any(fnmatchcase(m.name, each) for each in only)]
    results = []
    with multiprocessing.Pool(wanted.jobs, maxtasksperchild=1) as pool:
        # Mutants that are hunted with the same plans need only one look at the sound build.
        firsts = {_profile(MUTANTS[index]): index for index in reversed(chosen)}
        orders = [(i, wanted.seeds, firsts[_profile(MUTANTS[i])] == i) for i in chosen]
        for result in pool.imap_unordered(_work, orders):
            results.append(result)
            print(_line(result), flush=True)
    by_name = {result.name: result for result in results}
    print(f"\n{'mutant':<36} {'noticed by':<26} {'seeds':>5} {'s':>6}")
    unexplained: list[Mutant] = []
    explained: list[Mutant] = []
    unsound: list[Result] = []
    for mutant in (MUTANTS[index] for index in chosen):
        result = by_name[mutant.name]
        print(
            f"{mutant.name:<36} {result.caught or 'SURVIVED':<26} "
            f"{result.seeds:>5} {result.seconds:>6.1f}"
        )
        if not result.caught:
            (explained if mutant.reason else unexplained).append(mutant)
        if result.unsound:
            unsound.append(result)
    survived = len(explained) + len(unexplained)
    print()
    for mutant in explained:
        print(f"{mutant.name}: {mutant.text} Survived, since {mutant.reason}.")
    for mutant in unexplained:
        print(f"{mutant.name}: {mutant.text} SURVIVED, and nobody knows why.")
    for result in unsound:
        print(f"{result.name}: the sound build fails its plans, {result.unsound}")
    print(f"{len(chosen) - survived} caught, {survived} survived of {len(chosen)}")
    demanded = len(chosen) - len(explained)
    return int(bool(unsound) or demanded - len(unexplained) < ENOUGH * demanded)


if __name__ == "__main__":
    sys.exit(main())
