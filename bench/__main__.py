"""Benchmarks: ``python -m bench [ROW …]``, or ``make bench ROW=…``.

Each row prints a table, and one line of JSON in the end. The results go to a file, row by row, of
which ``python -m bench.report`` makes docs/performance.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path

from bench.machine import described
from bench.results import RESULTS, store
from bench.rows import ROWS
from bench.runner import FULL, QUICK, Bench, measure_row


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all of them, if none is named")
    parser.add_argument("--runs", type=int, default=0, help=f"in turns; {FULL.runs} otherwise")
    parser.add_argument("--seconds", type=float, default=0, help="of a run of a row's first case")
    parser.add_argument("--main", action="store_true", help="only the case that is a row's figure")
    parser.add_argument("--quick", action="store_true", help="once and tiny: does it work?")
    parser.add_argument("--out", type=Path, help=f"file of results; {RESULTS} unless quick")
    parser.add_argument("--list", action="store_true", help="name the rows and their goals")
    arguments = parser.parse_args()
    if arguments.list:
        for row in ROWS.values():
            print(f"{row.name:24} {row.title} ({row.unit}): {row.goal.words}")
        return 0
    unknown = [name for name in arguments.rows if name not in ROWS]
    if unknown:
        print(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    size = QUICK if arguments.quick else FULL
    size = replace(
        size, runs=arguments.runs or size.runs, seconds=arguments.seconds or size.seconds
    )
    size = replace(size, only_main=size.only_main or arguments.main)
    target = arguments.out or (None if arguments.quick else RESULTS)
    # The processes that it has started end with it, also when it is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed: list[str] = []
    with Bench(size) as bench:
        for name in arguments.rows or ROWS:
            before = described()
            try:
                outcome = measure_row(bench, ROWS[name])
            except (RuntimeError, OSError, ValueError) as error:
                # What one row needs may fail here; the others are measured all the same.
                print(f"{name}: {error!r}", file=sys.stderr, flush=True)
                failed.append(name)
                continue
            if target is not None:
                store(target, outcome.told(before | {"load_after": described()["load"]}))
            print(outcome.table(), flush=True)
            print(outcome.line(), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
