"""Attributes that are too large cost only themselves, and say so by name."""

from __future__ import annotations

from typing import Any

import pytest

from tribes.errors import SessionLimitError
from tribes.manager.merged import MergedList, MergedSet
from tribes.manager.record import size
from tribes.manager.rules import Rules
from tribes.testing.manager_strategies import make_manager


def test_an_attribute_that_is_too_large_is_refused_by_name() -> None:
    manager = make_manager(rules=Rules(attribute_max_bytes=1000))
    session = manager.create()
    session["big"], session["small"] = "x" * 1000, "y" * 100
    outcome = manager.commit(session)
    assert list(outcome.failed) == ["big"]
    error = outcome.failed["big"]
    assert isinstance(error, SessionLimitError)
    assert "'big'" in str(error)
    assert "1,003 bytes" in str(error)
    assert "manager.attribute_max_bytes" in str(error)
    found = manager.find(session.id)
    assert found is not None
    assert dict(found) == {"small": "y" * 100}
    session["big"] = "now it fits"
    assert manager.commit(session).failed == {}
    assert manager.statistics().attributes_too_large == 1


def test_a_value_that_grew_in_place_is_refused_too() -> None:
    manager = make_manager(rules=Rules(attribute_max_bytes=100))
    session = manager.create()
    session["cart"] = []
    manager.commit(session)
    again = manager.find(session.id)
    assert again is not None
    again["cart"] += ["book"] * 50
    assert list(manager.commit(again).failed) == ["cart"]


def test_of_a_session_that_is_too_large_what_grows_most_is_refused() -> None:
    manager = make_manager(rules=Rules(session_max_bytes=2000))
    session = manager.create()
    session["a"], session["b"], session["c"] = "a" * 800, "b" * 900, "c" * 1000
    outcome = manager.commit(session)
    assert list(outcome.failed) == ["c"]
    assert "manager.session_max_bytes" in str(outcome.failed["c"])
    record = manager.table.get(session.key)
    assert record is not None
    assert size(record) <= 2000
    shrinking = manager.find(session.id)
    assert shrinking is not None
    shrinking["a"] = ""
    shrinking["c"] = "c" * 1000
    assert manager.commit(shrinking).failed == {}
    assert set(shrinking) == {"a", "b", "c"}


def test_a_session_that_is_too_large_already_may_shrink() -> None:
    """The limit was lowered: removing and shortening must work all the same."""
    manager = make_manager(rules=Rules(session_max_bytes=1000))
    wide = make_manager(actor=2)
    session = wide.create()
    session["a"] = "a" * 5000
    wide.commit(session)
    record = wide.table.get(session.key)
    assert record is not None
    manager.clock.observe(wide.clock.last)
    manager.table.merge_in(session.key, record)
    found = manager.find(session.id)
    assert found is not None
    found["a"] = "a" * 4000
    assert manager.commit(found).failed == {}
    found["b"] = 1
    assert list(manager.commit(found).failed) == ["b"]


@pytest.mark.parametrize("limits", [{"attribute_max_bytes": 10}, {"session_max_bytes": 10}])
def test_a_warning_lets_it_pass(limits: dict[str, int]) -> None:
    lines: list[Any] = []
    manager = make_manager(
        rules=Rules(warns_of_size=True, **limits),  # type: ignore[arg-type]
        report=lambda *line: lines.append(line),
    )
    session = manager.create()
    session["big"] = "x" * 100
    assert manager.commit(session).failed == {}
    [(level, event, fields)] = lines
    assert (level, event, fields["attribute"]) == ("warning", "session attribute is large", "big")
    found = manager.find(session.id)
    assert found is not None
    assert "big" in found


@pytest.mark.parametrize("kind", [MergedList, MergedSet])
def test_what_merges_by_element_has_the_same_limit(kind: Any) -> None:
    manager = make_manager(rules=Rules(attribute_max_bytes=1000))
    session = manager.create()
    session["big"], session["small"] = kind(["x" * 1000]), kind(["y"])
    outcome = manager.commit(session)
    assert list(outcome.failed) == ["big"]
    assert isinstance(outcome.failed["big"], SessionLimitError)
    found = manager.find(session.id)
    assert found is not None
    assert list(found) == ["small"]
