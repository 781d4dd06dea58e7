"""The scripts that documentation names start as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "bench" / "README.md"]
NAMED = {
    name
    for page in PAGES
    if "_build" not in page.parts
    for name in re.findall(r"python (bench/[a-z_]+\.py)", page.read_text())
}


def test_scripts_are_named() -> None:
    assert {"bench/backup_nodes.py", "bench/web_cost.py"} <= NAMED


@pytest.mark.parametrize("script", sorted(NAMED))
def test_script_says_how_it_is_used(script: str) -> None:
    """Beside the other modules of its directory, which then come first: one was named as a library
    that trio needs.
    """
    done = subprocess.run(
        [sys.executable, script, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
