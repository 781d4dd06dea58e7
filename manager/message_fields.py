"""Checks of single fields of received messages; a ValueError says what was expected."""

from __future__ import annotations

from typing import Any

__all__ = ["as_bool", "as_int", "as_text"]


def as_text(value: Any, limit: int = 256) -> str:
    """Return text of at most ``limit`` characters.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError(f"expected text of at most {limit} characters")
    return value


def as_int(value: Any, low: int, high: int) -> int:
    """Return an integer of a range, both ends included.

    Raises:
        ValueError: It is none; True and False are none.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected an integer from {low} to {high}")
    return value


def as_bool(value: Any) -> bool:
    """Return true or false.

    Raises:
        ValueError: It is neither.
    """
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value
