"""How long a session may be idle, as stores write it down."""

from __future__ import annotations

from typing import Final

__all__ = ["IDLE_MAX_S", "storable_idle_s"]

IDLE_MAX_S: Final = 2**31 - 1
"""68 years: what the field of a stored session holds."""


def storable_idle_s(max_inactive_s: int) -> int:
    """Return the nearest number of seconds that a field of 32 bits holds; 0 or less: for ever."""
    return max(min(max_inactive_s, IDLE_MAX_S), -IDLE_MAX_S)
