"""The invariants notice broken builds; `make mutants` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import mutants, run

MUTANTS = {mutant.name: mutant for mutant in mutants.MUTANTS}
SEEDS = 20


@pytest.mark.parametrize(
    ("name", "invariant"),
    [
        ("ack before processing", "faulty list"),
        ("timeout ignored", "late send"),
        ("no retry", "faulty without cause"),
        ("no probe", "invented member"),
        ("farewell ignored", "farewell"),
        ("dead member stays a target", "target is no member"),
        ("no comparison after a loss", "equal soon"),
        ("owner does not ask", "fired in use"),
        ("everybody owns", "fired twice"),
        ("faulty list empty", "faulty list"),
        ("older version wins", ""),
        ("tombstone skipped", ""),
        ("first commit lost", ""),
        ("core not woken", ""),
        ("own: nothing sent again", "acknowledged"),
        ("own: start ignored", "no duplicate"),
        ("own: failure told only once", "faulty list"),
        ("never refutes", "drained"),
        ("never suspects", "waited in vain"),
        ("own pause counts against the others", "suspected without cause"),
        ("own: never connects again", ""),
        ("order: held counts as processed", "acknowledged"),
        ("gzip: last byte lost", "acknowledged"),
        ("health: no second observer", "removed against a witness"),
        ("health: witness not believed", "removed against a witness"),
        ("health: witness waited for", "kept for ever"),
        ("health: contradicted for ever", "kept for ever"),
        ("health: silent at once", "removed early"),
        ("merge: counts twice", "invented addition"),
        ("merge: spliced", "lost element"),
        ("merge: removals forgotten", "removed element"),
        ("merge: conflict not counted", "conflict not counted"),
        ("merge: everything is a conflict", "conflict invented"),
        ("lock: given to all", "lock held twice"),
        ("health: mark of a first frame ignored", "a test"),
        ("health: repeats told", "a test"),
    ],
)
def test_a_broken_build_is_noticed(name: str, invariant: str) -> None:
    result = run.hunt(MUTANTS[name], SEEDS)
    assert result.caught
    assert invariant in result.caught
    assert not result.unsound


@pytest.mark.parametrize(
    "name",
    [name for name in MUTANTS if MUTANTS[name].test is not None and not MUTANTS[name].reason],
)
def test_broken_protection_is_noticed(name: str) -> None:
    """By the test that it names, which the sound build passes."""
    result = run.hunt(MUTANTS[name], 1)
    assert result.caught
    assert not result.unsound


def test_what_was_broken_is_whole_again() -> None:
    for mutant in MUTANTS.values():
        before = [vars(owner)[name] for owner, name, _ in mutant.patches]
        with mutant.patch():
            pass
        assert before == [vars(owner)[name] for owner, name, _ in mutant.patches]


def test_the_registry_is_large_enough_and_explains_itself() -> None:
    files = {path.stem for path in Path(__file__).parent.glob("*_mutants.py")}
    registered = {name for name in vars(mutants) if name.endswith("_mutants")}
    assert registered == {name for name in files if not name.startswith("test_")}
    assert len(MUTANTS) == len(mutants.MUTANTS) >= 130
    assert all(mutant.text.endswith(".") for mutant in MUTANTS.values())
    assert sum(not mutant.reason for mutant in MUTANTS.values()) >= 0.95 * len(MUTANTS)


def test_written_plans_are_plans_and_differ_by_seed() -> None:
    written = {mutant.plan for mutant in MUTANTS.values() if mutant.plan is not None}
    assert len(written) >= 10
    for write in written:
        write(1).check()
        assert write(1) == write(1) != write(2)


def test_the_sound_build_passes_a_mutants_plans() -> None:
    assert run.check_sound(MUTANTS["last record lost"], 3) == ""
