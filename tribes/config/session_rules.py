"""Checks of what a manager's configuration says of limits and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.config.bounds import check_within
from tribes.config.patterns import compiled
from tribes.errors import ConfigError
from tribes.ids import SESSION_ID_MAX_BYTES, SESSION_ID_MIN_BYTES

if TYPE_CHECKING:
    from tribes.config.manager import ManagerConfig

__all__ = ["check_session_rules"]

_FILTERS: Final = ("session_attribute_name_filter", "session_attribute_value_class_name_filter")
_LIMITS: Final = ("max_lifetime_s", "attribute_max_bytes", "session_max_bytes")
_CHOICES: Final = {"on_full": ("reject", "evict"), "on_oversize": ("refuse", "warn")}


def check_session_rules(config: ManagerConfig, at: str) -> None:
    """Refuse limits and filters that cannot work.

    Args:
        config: Of any kind.
        at: Where it stands.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    for name, allowed in _CHOICES.items():
        if getattr(config, name) not in allowed:
            choice = " or ".join(map(repr, allowed))
            raise ConfigError(
                f"must be {choice}, found {getattr(config, name)!r}", key=f"{at}.{name}"
            )
    check_within(
        f"{at}.session_id_length",
        config.session_id_length,
        SESSION_ID_MIN_BYTES,
        SESSION_ID_MAX_BYTES,
        what=f"{SESSION_ID_MIN_BYTES} to {SESSION_ID_MAX_BYTES} random bytes",
    )
    for name in _LIMITS:
        if getattr(config, name) < 0:
            raise ConfigError(
                f"must be 0 (no limit) or more, found {getattr(config, name)}",
                key=f"{at}.{name}",
            )
    for name in _FILTERS:
        compiled(getattr(config, name), f"{at}.{name}")
    if config.on_full == "evict" and config.max_active_sessions == 0:
        raise ConfigError(
            "is 0: there would be no session to keep; write a limit, or -1 for none",
            key=f"{at}.max_active_sessions",
        )
