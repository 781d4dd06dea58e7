"""Regular expressions in a configuration."""

from __future__ import annotations

import re

from tribes.errors import ConfigError

__all__ = ["compiled"]

_SHOWN_MAX = 80


def compiled(pattern: str, key: str) -> re.Pattern[str] | None:
    """Compile a pattern; None if it is empty.

    Args:
        pattern: As it is written.
        key: Where it stands.

    Raises:
        ConfigError: It is no regular expression, or one that cannot be compiled.
    """
    if not pattern:
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as why:
        # The latter two: a repetition that is too large a number, groups nested without end.
        raise ConfigError(
            f"{pattern[:_SHOWN_MAX]!r} is no regular expression: {why}", key=key
        ) from None
