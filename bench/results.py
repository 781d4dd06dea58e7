"""The file of results: each row's last outcome, with the machine and the moment it is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"


def load(path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """By row."""
    if not path.exists():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return found


def store(path: Path, told: Mapping[str, Any]) -> None:
    """Put one row's outcome in the place of its last one."""
    found = load(path)
    found[str(told["row"])] = dict(told)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
