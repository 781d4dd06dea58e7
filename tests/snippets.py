"""What pages show, taken out of them to be run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

__all__ = ["DOCS", "blocks", "code_lines", "missing_targets", "run"]

DOCS: Final = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the blocks of one language of a page below docs/."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def missing_targets(page: Path) -> list[str]:
    """Return what a page links to, and is not there; what `make docs` makes is left out."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    made = DOCS / "reference"
    return [
        target
        for target in targets
        if not (page.parent / target).exists()
        and not (page.parent / target).resolve().is_relative_to(made)
    ]


def code_lines(program: Path) -> list[str]:
    """Return the lines of a program behind its docstring, without imports and blank ones."""
    _, _, code = program.read_text().split('"""', 2)
    return [
        line
        for line in code.splitlines()
        if line.strip() and not line.startswith(("import ", "from "))
    ]


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a block, and return the names that it has made."""
    names = {"__name__": "shown"} if names is None else names
    exec(compile(code, "docs", "exec"), names)
    return names
