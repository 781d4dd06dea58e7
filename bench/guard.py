"""A guard against slow creeping losses: ``python -m bench.guard`` counts instructions, not seconds.

Callgrind counts what each of the five hottest paths executes for one message or one request
(`bench.hot_paths`). Seconds say little on a machine that others use; instructions are the same on a
busy one, within a few percent. They are told in multiples of a reference, simple things that depend
on nothing of ours, so that another CPython or another build changes both.

``guard.json`` beside this holds what is accepted. More than `LIMIT` times that fails: a loss of
half as much again is seen, a few percent never are. Who makes a path slower for a reason, or
faster, writes it anew with ``--write``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.hot_paths import COUNTS, ROUNDS

BASELINE = Path(__file__).parent / "guard.json"
LIMIT = 1.4
TIMEOUT_S = 600
_ROOT = Path(__file__).parents[1]


def count(valgrind: str, *slower: str) -> list[dict[str, float]]:
    """Instructions of each path, in references, once for each of ``slower``.

    Args:
        valgrind: The program.
        slower: The path that is to do half as much again; empty: none, and ``all``: each.
    """
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        out = Path(folder) / "out"
        command = [
            *(valgrind, "--tool=callgrind", "--toggle-collect=PySequence_Count"),
            *("--dump-before=PySequence_Index", f"--callgrind-out-file={out}"),
            *(sys.executable, "-m", "bench.hot_paths", *slower),
        ]
        # With random hashes the dictionaries would differ from run to run.
        environment = dict(os.environ, PYTHONHASHSEED="0", PYTHONPATH=str(_ROOT))
        subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            check=True,
            timeout=TIMEOUT_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        dumps = sorted(out.parent.glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [_total(path) for path in dumps]
    # The last round of each; what stands before a round's first cut is nothing's.
    rounds = _batched(totals, len(COUNTS) + 1)
    return [_in_references(each[1:]) for each in rounds[ROUNDS - 1 :: ROUNDS]]


def _batched(totals: list[int], size: int) -> list[list[int]]:
    assert len(totals) % size == 0, f"{len(totals)} cuts"
    return [totals[at : at + size] for at in range(0, len(totals), size)]


def _in_references(totals: list[int]) -> dict[str, float]:
    each = {
        name: total / often for (name, often), total in zip(COUNTS.items(), totals, strict=True)
    }
    reference = each.pop("reference")
    return {name: round(instructions / reference, 2) for name, instructions in each.items()}


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def losses(found: dict[str, float], accepted: dict[str, float]) -> dict[str, float]:
    """The paths that take too much, with how many times what is accepted."""
    ratios = {name: found[name] / accepted[name] for name in accepted}
    return {name: round(ratio, 2) for name, ratio in ratios.items() if ratio > LIMIT}


def accepted() -> dict[str, float]:
    """What is in the file."""
    found: dict[str, float] = json.loads(BASELINE.read_text())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__)
    parser.add_argument("--write", action="store_true", help="accept what is found")
    arguments = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is not installed", file=sys.stderr)
        return 2
    (found,) = count(valgrind, "")
    if arguments.write:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n")
    before = accepted()
    for name, value in found.items():
        print(f"{name:10} {value:8.2f} references, accepted {before[name]:8.2f}")
    if lost := losses(found, before):
        print(f"more than {LIMIT} times what is accepted: {lost}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
