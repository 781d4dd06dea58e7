"""Keys by their paths: ``channel.receiver.port``."""

from __future__ import annotations

from typing import Any

import msgspec

from tribes.config.model import NodeConfig

__all__ = ["value_at", "with_value"]


def value_at(config: NodeConfig, key: str) -> Any:
    """The value of a key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def with_value(config: NodeConfig, key: str, value: Any) -> NodeConfig:
    """The same configuration with another value of a key."""
    *above, name = key.split(".")
    path = ".".join(above)
    table = value_at(config, path) if path else config
    changed = msgspec.structs.replace(table, **{name: value})
    if path:
        return with_value(config, path, changed)
    assert isinstance(changed, NodeConfig)
    return changed
