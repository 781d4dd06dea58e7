"""What has to hold for each group of the interoperability vectors.

A module of checks registers them with `@check("group")` and is listed in `BUILT_IN`; nothing else
has to know it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tribes.testing.vector_checks.registry import CHECKS as CHECKS
from tribes.testing.vector_checks.registry import Check as Check
from tribes.testing.vector_checks.registry import Mismatch as Mismatch
from tribes.testing.vector_checks.registry import NotBuilt as NotBuilt
from tribes.testing.vector_checks.registry import Vector as Vector
from tribes.testing.vector_checks.registry import check as check
from tribes.testing.vector_checks.registry import expect as expect

BUILT_IN: Final = (
    "member",
    "frame",
    "config",
    "control",
    "behaviour",
    "interceptors",
    "java",
)
"""Modules of this package that hold checks."""


def load_checks() -> dict[str, Check]:
    """Import every module of checks; return the check of each group. Cheap to repeat."""
    for name in BUILT_IN:
        import_module(f"{__name__}.{name}")
    return CHECKS
