"""What stays in this process: listeners are compared, and that is the application's code."""

from __future__ import annotations

import threading

from tribes.manager.kept_here import KeptHere


def test_listeners_are_compared_without_the_lock() -> None:
    """An ``__eq__`` that uses a session would wait for itself for ever."""
    lock = threading.Lock()
    was_locked: list[bool] = []

    class Listener:
        __hash__ = None  # type: ignore[assignment] # it has no use for it

        def __eq__(self, other: object) -> bool:
            was_locked.append(lock.locked())
            return isinstance(other, Listener)

    kept, first = KeptHere(lock), Listener()
    kept.listen("K", (first,), ())
    kept.listen("K", (Listener(),), ())
    assert kept.listeners_of("K") == (first,)
    kept.listen("K", (), (Listener(),))
    assert kept.listeners_of("K") == ()
    assert was_locked
    assert not any(was_locked)
