"""Managers without a channel from one table, under our names or Tomcat's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tribes.config.bounds import check_bounds
from tribes.config.load import convert_named
from tribes.config.managers import PersistentConfig, StandardConfig, check_persistent
from tribes.errors import ConfigError

__all__ = ["local_config_from"]


def local_config_from(
    found: Mapping[str, Any], *, source: str = ""
) -> StandardConfig | PersistentConfig:
    """Make a configuration of one table: ``[StandardManager]`` or ``[PersistentManager]``.

    Args:
        found: A mapping with one of these two names; under it our names or Tomcat's.
        source: Where it comes from, for errors.

    Raises:
        ConfigError: It has not exactly one of them, or a key is not known or has a wrong value.
    """
    if len(found) != 1 or next(iter(found)) not in ("StandardManager", "PersistentManager"):
        raise ConfigError(
            f"write one table, StandardManager or PersistentManager; found {', '.join(found)}",
            source=source,
        )
    [(name, table)] = found.items()
    if name == "StandardManager":
        plain = convert_named(table, StandardConfig, path=name, source=source)
        check_bounds(plain, name)
        return plain
    made = convert_named(table, PersistentConfig, path=name, source=source)
    check_bounds(made, name)
    check_persistent(made, has_store=False)
    return made
