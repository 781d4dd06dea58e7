"""Which check belongs to which group of vectors, and what a check may say.

A check is a function of one vector. It returns when all is well; it raises `Mismatch` (or fails an
assertion, or raises anything else) when the vector fails; it raises `NotBuilt` when the vector is
about something that does not exist here yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

__all__ = ["CHECKS", "Check", "Mismatch", "NotBuilt", "Vector", "check", "expect"]

Vector: TypeAlias = dict[str, Any]
"""One entry of a vectors file: ``name``, ``group``, ``inputs``, its outputs and ``notes``."""

Check: TypeAlias = Callable[[Vector], None]

CHECKS: Final[dict[str, Check]] = {}
"""The check of each group, filled by `check`."""


class Mismatch(AssertionError):  # noqa: N818 - reads as what it reports
    """What was computed is not what the vector says."""

    def __init__(self, what: str, *, expected: object, got: object) -> None:
        super().__init__(what, expected, got)
        self.what = what
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected!r}, got {self.got!r}"


class NotBuilt(Exception):  # noqa: N818 - it is not an error: the vector counts as skipped
    """The vector needs a part that does not exist here yet; the message names that part."""


def check(*groups: str) -> Callable[[Check], Check]:
    """Make the decorated function the check of these groups.

    Raises:
        ValueError: A group has a check already.
    """

    def register(function: Check) -> Check:
        for group in groups:
            if group in CHECKS:
                raise ValueError(f"group {group!r} has a check already: {CHECKS[group]}")
            CHECKS[group] = function
        return function

    return register


def expect(what: str, expected: object, got: object) -> None:
    """Raise `Mismatch` unless the two are equal."""
    if expected != got:
        raise Mismatch(what, expected=expected, got=got)
