"""What a check found: how it is, in a sentence, and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Finding", "State", "fail", "ok", "warn", "worst"]


class State(enum.StrEnum):
    """How something is."""

    OK = "ok"
    WARN = "warn"
    """It works now, or may be meant; worth a look."""
    FAIL = "fail"
    """The node does not work like this, or not with the others."""


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says.

    Attributes:
        check: Name of the check; stable.
        state: How it is.
        text: What was found.
        fix: What to do, in one sentence; empty where nothing is wrong.
    """

    check: str
    state: State
    text: str
    fix: str = ""


def ok(check: str, text: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, State.OK, text)


def warn(check: str, text: str, fix: str) -> Finding:
    """Worth a look."""
    return Finding(check, State.WARN, text, fix)


def fail(check: str, text: str, fix: str) -> Finding:
    """Wrong."""
    return Finding(check, State.FAIL, text, fix)


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among them."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.FAIL, State.WARN) if state in states), State.OK)
