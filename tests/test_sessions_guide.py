"""What docs/sessions.md says of sessions and managers is so."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

from tests.snippets import DOCS, blocks, run
from tribes.config.model import ManagerConfig
from tribes.manager.listeners import _METHODS
from tribes.manager.session import Session
from tribes.manager.statistics import ManagerStatistics
from tribes.testing.manager_strategies import make_manager

GUIDE = DOCS / "sessions.md"


class Colour(enum.Enum):
    """What an application might have."""

    RED = 1


@dataclass(frozen=True)
class Money:
    """The same, of two parts."""

    amount: int
    currency: str


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_code_of_the_page_runs() -> None:
    """Block by block, with a manager of one process."""
    manager = make_manager()
    names: dict[str, Any] = {"manager": manager}
    life, listener, conflicts, merged, types = blocks("sessions.md")
    for code in (life, listener):
        run(code, names)
    assert manager.statistics().ended == 1
    assert len(manager.watch.listeners) == 1

    names |= {"node": SimpleNamespace(manager={"shop": manager}.get), "session": manager.create()}
    run(conflicts, names)
    assert manager.on_conflict is names["tell"]
    for _ in range(2):
        run(merged, names)
    session = names["session"]
    assert int(session["visits"]) == 2
    assert set(session["tags"]) == {"new"}
    assert list(session["log"]) == ["bought a hat"] * 2

    names |= {"Colour": Colour, "Money": Money}
    run(types, names)
    session["price"], session["colour"] = Money(5, "EUR"), Colour.RED
    manager.commit(session)
    found = manager.find(session.id)
    assert found is not None
    assert (found["price"], found["colour"]) == (Money(5, "EUR"), Colour.RED)


def test_every_listeners_method_is_on_the_page() -> None:
    text = section("Listeners")
    assert {name for name in _METHODS if f"`{name}(" not in text} == set()


def test_settings_on_the_page_exist_with_these_defaults() -> None:
    """Limits and filters, by name; defaults as the table says."""
    for part in ("Limits", "Attributes that stay here", "Listeners"):
        named = re.findall(r"`((?:max|session|on|notify|warn|attribute)_[a-z_]+)`", section(part))
        assert len(named) >= 3, part
        for name in named:
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
