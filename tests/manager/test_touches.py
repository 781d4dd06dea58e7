"""Uses that changed nothing are told in batches."""

from __future__ import annotations

import pytest

from tribes.manager.touches import Touches


@pytest.mark.parametrize(
    ("max_inactive_s", "interval_ds"), [(1, 10), (8, 10), (80, 100), (1800, 600), (0, 600)]
)
def test_a_use_is_due_after_an_eighth_of_the_limit(max_inactive_s: int, interval_ds: int) -> None:
    touches = Touches()
    touches.add("a", 1000, max_inactive_s)
    touches.add("a", 1000 + interval_ds - 1, max_inactive_s)
    assert touches.take(1000 + interval_ds - 1, 9) == []
    assert touches.take(1000 + interval_ds, 9) == ["a"]
    assert len(touches) == 0


def test_what_is_due_is_not_held_up_by_slower_sessions() -> None:
    touches = Touches()
    touches.add("slow", 0, 1800)
    touches.add("quick", 5, 8)
    assert touches.take(15, 9) == ["quick"]
    assert len(touches) == 1


def test_a_batch_is_bounded() -> None:
    touches = Touches()
    for n in range(5):
        touches.add(f"{n}", n, 8)
    assert touches.take(100, 3) == ["0", "1", "2"]
    assert touches.take(100, 3) == ["3", "4"]
