"""What a row's samples come to: medians, ratios, goals, the line of JSON."""

from __future__ import annotations

import json
from math import inf

import pytest

from bench.outcomes import OURS, Case, Goal, Outcome, Sample


def outcome(ours: list[float], theirs: list[float], goal: Goal) -> Outcome:
    """A row with one peer that was measured and one that was not."""
    found = Outcome("acked-latency", "a message", "µs", goal, len(ours))
    case = Case("2 nodes", "µs")
    case.of(OURS).samples = [Sample(value, 1000, 0.5) for value in ours]
    case.of("tribes").samples = [Sample(value) for value in theirs]
    case.of("redis").absent = "redis-server is not installed"
    found.cases.append(case)
    return found


def test_line_of_json_has_the_medians_and_the_ratio_of_each_peer() -> None:
    """The ratio is the median of the ratios of runs that took turns, ours over theirs."""
    found = outcome([10, 40, 20], [10, 20, 40], Goal("≤ 1.5", 1.5, of="tribes"))
    assert json.loads(found.line()) == {
        "row": "acked-latency",
        "ours": 20.0,
        "unit": "µs",
        "peers": {"tribes": 20.0, "redis": None},
        "ratio_to": {"tribes": 1.0, "redis": None},
        "runs": 3,
    }
    assert "\n" not in found.line()


def test_contender_tells_spread_and_processor_time_for_a_hundred_thousand_updates() -> None:
    """A thousand updates took half a second of processor time."""
    found = outcome([10, 40, 20], [1, 1, 1], Goal("", inf)).told({})
    told = found["cases"][0]["contenders"]
    assert told[OURS] == {"median": 20.0, "lowest": 10.0, "highest": 40.0, "cpu_s_per_100k": 50.0}
    assert told["redis"] == {"absent": "redis-server is not installed"}


@pytest.mark.parametrize(
    ("goal", "is_met"),
    [
        (Goal("", 1.9, of="tribes"), False),
        (Goal("", 2.0, of="tribes"), True),
        (Goal("", 2.1, of="tribes", at_most=False), False),
        (Goal("", 2.0, of="tribes", at_most=False), True),
        (Goal("", 20), True),
        (Goal("", 19.9), False),
        (Goal("", 1, of="redis"), None),
    ],
)
def test_goal_is_of_the_figure_or_of_its_ratio(goal: Goal, is_met: bool | None) -> None:
    """A goal beside a peer that was not measured is neither reached nor missed."""
    assert outcome([20], [10], goal).told({})["goal_met"] is is_met


def test_table_says_why_a_peer_has_no_figure() -> None:
    """Nobody has to guess what a dash means."""
    table = outcome([20], [10], Goal("", 1)).table()
    assert "redis-server is not installed" in table
    assert "ours / it 2.00" in table
