"""What docs/ shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tribes.testing.plan import ACTIONS

TESTING = Path(__file__).parent.parent / "docs" / "testing.md"


def test_fault_test_of_the_guide_passes() -> None:
    """The example is a test, so it is run."""
    [code] = re.findall(r"```python\n(.*?)```", TESTING.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(TESTING), "exec"), names)
    names["test_my_handler_survives_a_hung_node"]()


def test_every_fault_is_in_the_guide() -> None:
    """The table names each action that a plan may have."""
    shown = set(re.findall(r"`([a-z_]+)`", TESTING.read_text()))
    assert set(ACTIONS) <= shown
