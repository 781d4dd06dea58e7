"""What docs/sessions.md says of sessions and managers is so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from tribes.config.model import ManagerConfig
from tribes.manager.listeners import _METHODS
from tribes.manager.session import Session
from tribes.manager.statistics import ManagerStatistics
from tribes.testing.manager_strategies import make_manager

GUIDE = Path(__file__).parent.parent / "docs" / "sessions.md"


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_code_of_the_page_runs() -> None:
    """Block by block, with a manager of one process."""
    manager = make_manager()
    names: dict[str, Any] = {"manager": manager}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for code in blocks[:2]:
        exec(compile(code, str(GUIDE), "exec"), names)
    assert manager.statistics().ended == 1
    assert len(manager.watch.listeners) == 1


def test_every_listeners_method_is_on_the_page() -> None:
    text = section("Listeners")
    assert {name for name in _METHODS if f"`{name}(" not in text} == set()


def test_settings_on_the_page_exist_with_these_defaults() -> None:
    """Limits and filters, by name; defaults as the table says."""
    for part in ("Limits", "Attributes that stay here", "Listeners"):
        for name in re.findall(
            r"`((?:max|session|on|notify|warn|attribute)_[a-z_]+)`", section(part)
        ):
            is_method = name in _METHODS or hasattr(Session, name)
            is_number = name in {each.name for each in fields(ManagerStatistics)}
            assert is_method or is_number or name in ManagerConfig.__struct_fields__, name
    config = ManagerConfig()
    table = dict(
        re.findall(r"^\| `([a-z_]+)` \| `?\"?([a-z0-9-]+)", section("Limits"), re.MULTILINE)
    )
    assert len(table) >= 6
    for name, default in table.items():
        found = getattr(config, name)
        assert default == (str(found).lower() if isinstance(found, bool) else str(found)), name


def test_statistics_on_the_page_exist() -> None:
    known = {each.name for each in fields(ManagerStatistics)}
    text = section("Statistics").partition("`sent`")[0]
    named = re.findall(r"`([a-z_]+)`", text)
    assert len(named) > 10
    assert set(named) <= known
