"""Single vectors, for tests that need bytes of a real Tomcat."""

from __future__ import annotations

from functools import cache
from typing import Any

from tribes.testing.vectors import DEFAULT_FILE, load_vectors


@cache
def _by_name() -> dict[str, Any]:
    return {entry["name"]: entry for entry in load_vectors(DEFAULT_FILE)}


def vector(name: str) -> Any:
    """Return the vector of a name."""
    return _by_name()[name]
