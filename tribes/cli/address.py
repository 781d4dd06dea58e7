"""Addresses on the command line."""

from __future__ import annotations

from tribes.config.model import ReceiverConfig, StaticMemberConfig
from tribes.errors import ConfigError

__all__ = ["static_member"]


def static_member(text: str) -> StaticMemberConfig:
    """Read ``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        ConfigError: There is no port behind the colon. Whether it is one of 65535 is checked with
            the rest of the configuration.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = text, str(ReceiverConfig().port)
    if not port.isdecimal() or len(port) > 5:
        raise ConfigError(f"{text!r} has no port behind its colon; write HOST:PORT", key="--member")
    return StaticMemberConfig(host=host.removeprefix("[").removesuffix("]"), port=int(port))
