"""What settings may be at all, and the checks that many of them share.

A number that is none compares as false with everything, so no check of a range finds it. A number
of more than 64 bits, a NUL in a text and half of a surrogate pair come to light as an error of
Python's somewhere below, at a moment when nobody thinks of the configuration any more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from math import isnan
from typing import Any, Final, TypeAlias

import msgspec

from tribes.errors import ConfigError

__all__ = [
    "BUFFER_MAX_BYTES",
    "IPAddress",
    "check_bounds",
    "check_ip",
    "check_port",
    "check_positive",
    "check_within",
]

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

BUFFER_MAX_BYTES: Final = 2**31 - 1
"""Of a socket's buffer: the kernel takes a C int."""

_INTEGER_END: Final = 2**63
"""As TOML: integers have 64 bits."""
_DEPTH_MAX: Final = 32
"""Of tables in an interceptor's; ours have 5 levels."""


def check_bounds(record: msgspec.Struct, key: str = "") -> None:
    """Refuse what can be no setting at all. Values are not shown: they may be secret.

    Args:
        record: Of any kind; records, tables and lists in it are looked at too.
        key: Where it stands; empty: it is the whole configuration.

    Raises:
        ConfigError: Names the key, and what to write instead.
    """
    _check(record, key, 0)


def _check(value: Any, key: str, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise ConfigError(f"is nested deeper than {_DEPTH_MAX} tables and lists", key=key[:200])
    if isinstance(value, str):
        _check_text(value, key)
    elif isinstance(value, int):
        if not -_INTEGER_END <= value < _INTEGER_END:
            raise ConfigError("is a number of more than 64 bits; write a smaller one", key=key)
    elif isinstance(value, float):
        if isnan(value):
            raise ConfigError("is nan, not a number; write one", key=key)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _check(getattr(value, name), f"{key}.{name}" if key else name, depth + 1)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _check_text(str(name), key)
            _check(each, f"{key}.{name}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            _check(each, f"{key}[{number}]", depth + 1)


def _check_text(text: str, key: str) -> None:
    if "\0" in text:
        raise ConfigError(
            "has a NUL character, which no name, path or text may; take it away", key=key
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError("is no text in UTF-8; write it anew", key=key) from None


def check_positive(key: str, value: float) -> None:
    """Refuse 0 and less.

    Raises:
        ConfigError: Names the key and what was found, as all below.
    """
    if value <= 0:
        raise ConfigError(f"must be greater than 0, found {value}", key=key)


def check_within(key: str, value: float, lowest: float, highest: float, *, what: str = "") -> None:
    """Refuse what is not in a range; ``what`` says what its ends mean."""
    if not lowest <= value <= highest:
        raise ConfigError(
            f"must be {what or f'from {lowest} to {highest}'}, found {value}", key=key
        )


def check_port(key: str, value: int, *, lowest: int) -> None:
    """Refuse what is no port. ``lowest``: 0 where it means any free one, -1 where it means none."""
    if not lowest <= value <= 65535:
        raise ConfigError(f"must be a port from {lowest} to 65535, found {value}", key=key)


def check_ip(key: str, text: str) -> IPAddress:
    """Return an IP address; refuse what is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not an IP address; write one like 127.0.0.1", key=key
        ) from None
