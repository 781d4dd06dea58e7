"""Going through all keys in rounds."""

from __future__ import annotations

import gc

from tribes.manager.cursor import KeyCursor


def test_rounds_visit_every_key_once_per_pass() -> None:
    cursor = KeyCursor(lambda: ["a", "b", "c", "d", "e"])
    visited = [list(cursor.round(2)) for _ in range(3)]
    assert [len(visit) for visit in visited] == [2, 2, 1]
    assert sorted(key for visit in visited for key in visit) == ["a", "b", "c", "d", "e"]
    assert len(list(cursor.round(100))) == 5, "no key twice in one round"


def test_a_round_that_is_left_early_goes_on_where_it_was_left() -> None:
    cursor = KeyCursor(lambda: ["a", "b", "c"])
    first = next(cursor.round(3))
    assert sorted([first, *cursor.round(3)]) == ["a", "b", "c"]


def test_no_keys_are_no_round() -> None:
    assert list(KeyCursor(list).round(10)) == []


def test_a_pass_costs_the_garbage_collector_nothing() -> None:
    """It looks once, and sees that there is only text."""
    cursor = KeyCursor(lambda: [f"k{number}" for number in range(1000)])
    key = next(cursor.round(10))
    gc.collect()
    assert [each for each in gc.get_referrers(key) if isinstance(each, list | tuple)] == []
