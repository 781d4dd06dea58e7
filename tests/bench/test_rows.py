"""Rows run, once and tiny, with every peer that is to be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.rows import ROWS
from bench.runner import QUICK, Bench, measure_row
from tests.conftest import must_have_servers

WANTED = {
    *("acked-latency", "acked-throughput", "async-throughput", "session-updates-async"),
    *("session-updates-acked", "session-cost", "wire-bytes", "replica-memory", "state-transfer"),
    *("join", "crash-noticed", "hang-noticed", "hung-neighbour", "encryption", "growth"),
}
ROOT = Path(__file__).parents[2]

THIRD = os.environ.get("TRIBES_BENCH_THIRD", "")
"""CI runs a third of the rows, another one every day (0, 1 or 2); without it all run."""
TO_RUN = list(ROWS.values())[int(THIRD) :: 3] if THIRD else list(ROWS.values())


def test_rows_have_their_names() -> None:
    """They are the interface of ``make bench ROW=name``."""
    assert set(ROWS) >= WANTED
    assert all(name == row.name for name, row in ROWS.items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rows_run() -> None:
    """Each has a figure of ours; a peer without one says why."""
    print("rows:", *(row.name for row in TO_RUN))
    with Bench(QUICK) as bench:
        for row in TO_RUN:
            outcome = measure_row(bench, row)
            line = json.loads(outcome.line())
            assert line["row"] == row.name
            assert isinstance(line["ours"], float), outcome.table()
            assert set(line["peers"]) == set(line["ratio_to"])
            assert "tribes" in line["peers"]
            contenders = [each for case in outcome.cases for each in case.contenders.values()]
            assert all(each.samples or each.absent for each in contenders), outcome.table()
            missing = [each.absent for each in contenders if "not installed" in each.absent]
            assert not (missing and must_have_servers()), missing


def test_command_ends_with_one_line_of_json(tmp_path: Path) -> None:
    """The row that needs no other process, for its form."""
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "anti-entropy", "--quick", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    line = json.loads(ended.stdout.splitlines()[-1])
    assert list(line) == ["row", "ours", "unit", "peers", "ratio_to", "runs"]
    assert line["ours"] <= 1024
    assert json.loads(out.read_text())["anti-entropy"]["cases"]


def test_unknown_row_is_named_with_those_that_there_are() -> None:
    """Exit status 2, as for any wrong use of a command."""
    command = [sys.executable, "-m", "bench", "acked-latancy"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "acked-latancy" in ended.stderr
    assert "acked-latency" in ended.stderr
