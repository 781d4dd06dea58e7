"""What pages show, taken out of them to be run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

__all__ = ["DOCS", "blocks", "run"]

DOCS: Final = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the blocks of one language of a page below docs/."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a block, and return the names that it has made."""
    names = {"__name__": "shown"} if names is None else names
    exec(compile(code, "docs", "exec"), names)
    return names
