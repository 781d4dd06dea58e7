"""Runs with Backup managers that once broke a promise."""

from __future__ import annotations

import pytest

from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan
from tribes.testing.plan import Plan, Step


def test_a_holder_that_a_visitor_did_not_know_gets_its_changes() -> None:
    """Two nodes see each other later than the rest sees both. What one of them changed on a visit
    to the third meanwhile was not with the other one, until the copies were compared.
    """
    plan = Plan(
        seed=20,
        members=4,
        seconds=25.0,
        clients=6,
        think=0.05,
        steps=(
            Step(2.926, "mass_restart", (1,), seconds=2.0),
            Step(4.467, "delay", (1, 0), value=0.5, seconds=5.0),
            Step(5.64, "flap", (1, 2), value=0.1, seconds=2.0),
        ),
        managers="backup",
    )
    assert [str(each) for each in run_plan(plan).violations] == []


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (20, "a holder that a visitor did not know"),
        (167, "a node that had not heard yet what others want took itself for drained"),
        (378, "what was changed before any holder was known went to the first one only"),
    ],
)
def test_found(seed: int, what: str) -> None:
    """Each of these seeds found something."""
    assert [str(each) for each in run_plan(draw_plan(seed, managers="backup")).violations] == [], (
        what
    )


def test_a_node_that_was_alone_is_not_drained_before_it_knows_who_came() -> None:
    """The split healed 17 ms before it was stopped: the other was a member, and had not said yet
    that it has the application. Two sessions were lost with a node that had said it is drained.
    """
    assert [str(each) for each in run_plan(draw_plan(705186)).violations] == []
