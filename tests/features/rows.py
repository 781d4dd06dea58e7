"""The mission's checklists: which row is shown by which test, read from the tests' names.

A test shows row T24 when its function's name begins ``test_t24_``, and W9.3 when it begins
``test_w93_``; several rows stand in a row: ``test_t24_t45_…``. ``rows.toml`` says what each row
asks for. What Tribes' own tests assert are rows too, W10.1 and so on:
tests/upstream/assertions.py lists them and names their tests, which have other names.
``python -m tests.features.write`` writes docs/features.md; `ran_not` is how a whole run of the
suite finds rows whose tests did not run.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.upstream.assertions import ASSERTIONS, Assertion

__all__ = ["PAGE", "Row", "Shown", "claims", "page", "ran_not", "rows", "rows_of"]

_TESTS: Final = Path(__file__).parents[1]
PAGE: Final = _TESTS.parent / "docs" / "features.md"
_NAME = re.compile(r"test((?:_(?:[tf]\d{1,3}|w9[1-8]))+)(?:_|$)")

_CHAPTERS: Final = (
    ("T", "Apache Tomcat's clustering", "`Cluster`, managers, valves, listeners, stores."),
    ("F", "memcached-session-manager", "Sessions on memcached, Redis or Valkey."),
    ("W", "The wire", "What a channel's configuration has, and what Tribes' own tests assert."),
)


@dataclass(frozen=True)
class Row:
    """One line of the checklist.

    Attributes:
        name: ``T24``, ``F07``.
        part: The component of theirs that does it.
        is_better: More is asked than theirs does.
        behaviour: What is asked for.
        instead: In which form it holds here, where that differs; empty: as asked.
    """

    name: str
    part: str
    is_better: bool
    behaviour: str
    instead: str


@dataclass(frozen=True)
class Shown:
    """A test that shows rows.

    Attributes:
        path: Its file, below the repository's root.
        test: Its function's name, ``Class::function`` for a method.
    """

    path: str
    test: str


def rows() -> dict[str, Row]:
    """Return all rows, in the checklist's order."""
    with Path(__file__).with_name("rows.toml").open("rb") as file:
        raw = tomllib.load(file)
    written = {
        name: Row(
            name, each["part"], each["kind"] == "better", each["behaviour"], each.get("instead", "")
        )
        for name, each in raw.items()
    }
    asserted = {
        name: Row(name, each.upstream, is_better=False, behaviour=each.what, instead=each.differs)
        for name, each in _upstream().items()
    }
    return written | asserted


def _upstream() -> dict[str, Assertion]:
    return {f"W10.{number}": each for number, each in enumerate(ASSERTIONS, 1)}


def rows_of(test: str) -> list[str]:
    """Return the rows that a test's name claims, spelt as in the checklist."""
    found = _NAME.match(test.rpartition("::")[2])
    if found is None:
        return []
    return [_row(letter, digits) for letter, digits in re.findall(r"_([tfw])(\d+)", found[1])]


def _row(letter: str, digits: str) -> str:
    if letter == "w":
        return f"W{digits[0]}.{digits[1:]}"
    return f"T{int(digits)}" if letter == "t" else f"F{int(digits):02}"


def claims() -> dict[str, list[Shown]]:
    """Return the tests of every row that any test claims, in the order of files and lines."""
    found: dict[str, list[Shown]] = {}
    for path in sorted(_TESTS.rglob("test_*.py")):
        text = path.read_text()
        if re.search(r"def test_[tfw]\d", text) is None:
            continue
        for test in _functions(ast.parse(text).body, ""):
            for row in rows_of(test):
                shown = Shown(path.relative_to(_TESTS.parent).as_posix(), test)
                found.setdefault(row, []).append(shown)
    for row, each in _upstream().items():
        for named in each.tests:
            file, _, test = named.partition("::")
            found.setdefault(row, []).append(Shown(f"tests/{file}", test))
    return found


def _functions(body: Iterable[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}::")


def ran_not(passed: Iterable[str]) -> list[str]:
    """Return the claimed tests of which nothing passed.

    Args:
        passed: Node ids of the tests that passed in a run of the whole suite.
    """
    ran = {nodeid.partition("[")[0] for nodeid in passed}
    claimed = {f"{each.path}::{each.test}" for tests in claims().values() for each in tests}
    return sorted(claimed - ran)


def page() -> str:
    """Return the text of docs/features.md."""
    shown = claims()
    known = rows()
    parts = [
        "# Features",
        "",
        "What this project promises to do, row by row, and the test that shows each. Written by"
        " `python -m tests.features.write` from the names of the tests; a run of the whole suite"
        " fails when a test that is named here did not run.",
        "",
        "**parity**: as there. **better**: more than there. A row without a test is open.",
    ]
    for letter, title, lead in _CHAPTERS:
        chapter = [row for row in known.values() if row.name.startswith(letter)]
        done = sum(row.name in shown for row in chapter)
        parts += [
            "",
            f"## {title}",
            "",
            f"{lead} {done} of {len(chapter)} rows are shown.",
            "",
            "| row | part | behaviour | test | status |",
            "| --- | --- | --- | --- | --- |",
            *(_line(row, shown.get(row.name, [])) for row in chapter),
        ]
    return "\n".join(parts) + "\n"


def _line(row: Row, tests: list[Shown]) -> str:
    behaviour = row.behaviour + (f"; here: {row.instead}" if row.instead else "")
    links = "<br>".join(f"[{_short(each.test)}](../{each.path})" for each in tests)
    kind = "better" if row.is_better else "parity"
    status = f"{kind}, shown" if tests else f"{kind}, **open**"
    return f"| {row.name} | {row.part} | {behaviour} | {links} | {status} |"


def _short(test: str) -> str:
    return test.rpartition("::")[2].removeprefix("test_")
