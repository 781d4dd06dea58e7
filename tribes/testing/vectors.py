"""Run the interoperability vectors, which a real Tomcat made, against this implementation.

::

    python -m tribes.testing.vectors [FILE] [--verbose]

Prints each vector that failed, then what was skipped because no check exists for it, and as the
last line ``N passed, N failed, N skipped``. Exit status: 0 if all passed, 1 if a vector failed or
was skipped, 2 if the file cannot be used. The checks are in `tribes.testing.vector_checks`;
everything they expect is computed from a vector's inputs, so any file of the same format can be
run.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from tribes.testing.vector_checks import Mismatch, NotBuilt, load_checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tribes.testing.vector_checks import Check, Vector

__all__ = [
    "DEFAULT_FILE",
    "Outcome",
    "Report",
    "VectorsFileError",
    "load_vectors",
    "main",
    "print_report",
    "run_vectors",
]

DEFAULT_FILE: Final = Path(__file__).resolve().parents[2] / "tests" / "data" / "tribes-vectors.json"
"""The project's own copy, in a source tree."""

_FORMAT: Final = 1
_SHOWN_CHARACTERS: Final = 100


class VectorsFileError(Exception):
    """A vectors file cannot be read, or is none. The message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A vector that did not pass, and why: the error of its check, or None if it has no check."""

    group: str
    name: str
    why: Exception | None = None


@dataclass(slots=True)
class Report:
    """What a run found."""

    passed: list[Outcome] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    skipped: list[Outcome] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The last line of the output."""
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def load_vectors(path: Path) -> list[Vector]:
    """Return the vectors of a file.

    Raises:
        VectorsFileError: There is no readable file of this format at ``path``.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as why:
        raise VectorsFileError(f"{path}: cannot be read: {why.strerror or why}") from why
    except (ValueError, RecursionError) as why:
        raise VectorsFileError(f"{path}: is not JSON: {why}") from why
    fault = _format_fault(content)
    if fault:
        raise VectorsFileError(f"{path}: {fault}")
    vectors: list[Vector] = content["vectors"]
    return vectors


def run_vectors(vectors: Iterable[Vector], checks: Mapping[str, Check]) -> Report:
    """Give each vector to the check of its group. Nothing that a check raises ends the run."""
    report = Report()
    for vector in vectors:
        group, name = vector["group"], vector["name"]
        check = checks.get(group)
        if check is None:
            report.skipped.append(Outcome(group, name))
            continue
        try:
            check(vector)
        except NotBuilt as why:
            report.skipped.append(Outcome(group, name, why))
        except Exception as why:  # noqa: BLE001 - a check that crashes is a vector that fails
            report.failed.append(Outcome(group, name, why))
        else:
            report.passed.append(Outcome(group, name))
    return report


def print_report(report: Report, out: TextIO, *, verbose: bool = False) -> None:
    """Print the failures, what was skipped and the summary.

    Args:
        report: What to print.
        out: Where to.
        verbose: Also name each vector that passed, show values in full and errors with their
            traceback.
    """
    if verbose:
        for outcome in report.passed:
            print(f"passed {outcome.group}: {outcome.name}", file=out)
    for outcome in report.failed:
        print(f"FAILED {outcome.group}: {outcome.name}", file=out)
        for line in _explain(outcome.why, verbose=verbose):
            print(f"    {line}", file=out)
    groups = Counter(outcome.group for outcome in report.skipped if outcome.why is None)
    if groups:
        print("skipped, these groups have no check:", file=out)
        for group, count in sorted(groups.items()):
            print(f"    {group} {count}", file=out)
    not_built = [outcome for outcome in report.skipped if outcome.why is not None]
    if not_built:
        print("skipped, these parts are not built:", file=out)
        for outcome in not_built:
            print(f"    {outcome.group}: {outcome.name} ({outcome.why})", file=out)
    print(report.summary, file=out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a file as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tribes.testing.vectors",
        description="Run interoperability vectors made by Apache Tomcat Tribes.",
    )
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE, metavar="FILE")
    parser.add_argument("--verbose", action="store_true", help="show passed vectors, whole values")
    options = parser.parse_args(arguments)
    try:
        vectors = load_vectors(options.file)
    except VectorsFileError as why:
        print(f"error: {why}", file=sys.stderr)
        return 2
    report = run_vectors(vectors, load_checks())
    print_report(report, sys.stdout, verbose=options.verbose)
    return 1 if report.failed or report.skipped else 0


def _format_fault(content: Any) -> str:
    """Return what makes this no vectors file, or nothing."""
    if not isinstance(content, dict):
        return f"holds a JSON {type(content).__name__}, not an object with 'vectors'"
    if content.get("format", _FORMAT) != _FORMAT:
        return f"has format {content['format']!r}, only {_FORMAT} is known"
    vectors = content.get("vectors")
    if not isinstance(vectors, list):
        return "has no list 'vectors'"
    for index, vector in enumerate(vectors):
        if not isinstance(vector, dict):
            return f"vectors[{index}] is a {type(vector).__name__}, not an object"
        for key in ("name", "group"):
            if not isinstance(vector.get(key), str):
                return f"vectors[{index}] has no text {key!r}"
    return ""


def _explain(why: Exception | None, *, verbose: bool) -> list[str]:
    """Return the lines that say why a vector failed."""
    if isinstance(why, Mismatch):
        expected, got = repr(why.expected), repr(why.got)
        what = why.what
        if not verbose and max(len(expected), len(got)) > _SHOWN_CHARACTERS:
            at = _first_difference(expected, got)
            what += f": differs from character {at} on"
            expected, got = _cut(expected, at), _cut(got, at)
        return [what, f"expected {expected}", f"got      {got}"]
    if verbose and why is not None:
        return [line for text in traceback.format_exception(why) for line in text.splitlines()]
    return [f"{type(why).__name__}: {why}"[:_SHOWN_CHARACTERS]]


def _first_difference(one: str, other: str) -> int:
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))


def _cut(text: str, at: int) -> str:
    """Return the part of a long text around ``at``, which is of interest."""
    start = max(0, at - _SHOWN_CHARACTERS // 4)
    end = start + _SHOWN_CHARACTERS
    before = "..." if start > 0 else ""
    after = "..." if end < len(text) else ""
    return before + text[start:end] + after


if __name__ == "__main__":
    sys.exit(main())
