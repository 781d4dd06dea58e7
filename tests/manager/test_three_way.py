"""Two changes of one value made at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from tribes.manager.three_way import ABSENT, merge_values
from tribes.testing.manager_strategies import session_values

CASES: list[tuple[Any, Any, Any, Any, bool]] = [
    # base, mine, theirs, joined, whether both are in it
    ({"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1, "c": 3, "b": 2}, True),
    ({"a": 1, "b": 1}, {"a": 1}, {"a": 2, "b": 1}, {"a": 2}, True),
    ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, False),
    ({"a": 1}, {}, {"a": 2}, {}, False),
    ({"x": {"a": 1}}, {"x": {"a": 1, "b": 2}}, {"x": {"a": 5}}, {"x": {"a": 5, "b": 2}}, True),
    (ABSENT, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}, True),
    ({1, 2}, {1, 2, 3}, {2, 4}, {2, 3, 4}, True),
    (frozenset({1}), frozenset({1, 2}), frozenset(), frozenset({2}), True),
    (ABSENT, {1}, {2}, {1, 2}, True),
    ([1], [1, 2], [1, 3, 4], [1, 3, 4, 2], True),
    ([1], [], [1, 2], [], False),
    ([1, 2], [2, 1], [1, 2, 3], [2, 1], False),
    (ABSENT, [1], [2], [2, 1], True),
    (1, 2, 3, 2, False),
    (1, 2, 1, 2, True),
    (1, 1, 2, 2, True),
    (1, 2, 2, 2, True),
    (1, True, 2, True, False),
    ({"a": 1}, [1], {"a": 2}, [1], False),
    ({"a": 1}, ABSENT, {"a": 2}, ABSENT, False),
    ({"a": 1}, ABSENT, {"a": 1}, ABSENT, True),
    ({"a": 1}, {"a": 1}, ABSENT, ABSENT, True),
    (ABSENT, 1, 2, 1, False),
]


@pytest.mark.parametrize(("base", "mine", "theirs", "joined", "is_clean"), CASES)
def test_both_changes_are_kept_where_that_is_clear(
    base: Any, mine: Any, theirs: Any, joined: Any, is_clean: bool
) -> None:
    value, clean = merge_values(base, mine, theirs)
    assert value == joined
    assert type(value) is type(joined)
    assert clean is is_clean


@given(session_values(), session_values())
def test_a_change_against_none_is_the_change(base: Any, changed: Any) -> None:
    value, clean = merge_values(base, changed, base)
    assert value is changed
    assert clean


def test_the_values_merged_are_not_changed() -> None:
    base, mine, theirs = {"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]}
    assert merge_values(base, mine, theirs) == ({"a": [1, 3, 2]}, True)
    assert (base, mine, theirs) == ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 3]})
