"""docs/performance.md is of the results that lie beside the benchmarks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from bench.outcomes import Goal
from bench.report import BEGIN, END, PAGE, draw, page_of
from bench.results import load
from bench.rows import ROWS
from tests.bench.test_outcomes import outcome

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {
    "when": "2026-11-21 11:00 UTC",
    "load": 0.1,
    "load_after": 4.5,
    "revision": "abc",
    "processor": "one",
    "cores": 2,
    "memory_gib": 4,
    "kernel": "6",
    "python": "3.11",
    "libraries": {"trio": "0.35"},
    "java": "java",
    "redis": "redis",
    "memcached": "memcached",
    "tomcat": "10.1",
}


def test_page_is_of_the_results() -> None:
    """Who changes one of them runs ``python -m bench.report``."""
    text = PAGE.read_text()
    assert page_of(load(), text) == text


def test_page_names_only_plots_that_are_there() -> None:
    """And the folder has no others."""
    named = set(re.findall(r"\]\(performance/([\w-]+\.svg)\)", PAGE.read_text()))
    assert named == {path.name for path in (PAGE.parent / "performance").glob("*.svg")}


def test_page_tells_a_busy_machine_missed_goals_and_who_was_not_measured() -> None:
    """What stands outside the marks stays."""
    told = outcome([20], [10], Goal("≤ 1.5 × Tribes", 1.5, of="tribes")).told(MACHINE)
    page = page_of({"acked-latency": told}, f"before {BEGIN} old {END} after")
    assert page.startswith(f"before {BEGIN}")
    assert page.endswith(f"{END} after")
    assert "old" not in page
    assert "the machine was not quiet" in page
    assert "| 20 | 10 | 2 | – | – | ≤ 1.5 × Tribes | **no** |" in page
    assert "redis-server is not installed" in page


def test_page_without_marks_is_refused() -> None:
    """Nothing is overwritten by guessing."""
    with pytest.raises(ValueError, match="lacks"):
        page_of({}, "a page")


def test_plots_of_equal_results_are_equal(tmp_path: Path) -> None:
    """So they change in a commit only when the results do."""
    told = outcome([20, 30], [10, 20], Goal("", 1)).told(MACHINE)
    found = []
    for name in ("a", "b"):
        draw({"acked-latency": told}, tmp_path / name)
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"acked-latency.svg", "ratios.svg"}


def test_rows_have_the_names_that_results_are_kept_under() -> None:
    """Results of a row that is no more would stay for ever."""
    assert set(load()) <= set(ROWS)
