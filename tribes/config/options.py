"""Send options as a configuration's text: numbers and names (tribes-wire §4.1)."""

from __future__ import annotations

import re
from typing import Final

from tribes.errors import ConfigError

__all__ = ["format_send_options", "parse_send_options"]

_VALUES: Final = {
    "byte": 1,
    "byte_message": 1,
    "use_ack": 2,
    "sync": 4,
    "synchronized_ack": 4,
    "async": 8,
    "asynchronous": 8,
    "secure": 16,
    "udp": 32,
    "multicast": 64,
}
# Tomcat prints from the highest bit down, each by its short name.
_NAMES: Final = (
    (64, "multicast"),
    (32, "udp"),
    (16, "secure"),
    (8, "async"),
    (4, "sync"),
    (2, "use_ack"),
    (1, "byte"),
)
# At most ten digits after the zeros: int() refuses very long texts with an error of its own.
_NUMBER: Final = re.compile(r"([+-]?)0*([0-9]{1,10})")
_COMMA: Final = re.compile(r"\s*,\s*", re.ASCII)
_I32_MIN: Final = -(2**31)
_I32_MAX: Final = 2**31 - 1


def parse_send_options(text: str) -> int:
    """Return the options that a configuration text names, as Tomcat reads it.

    Empty text is 0. A decimal number is used as it is. Otherwise: names in lower case, separated
    by commas, with blanks around a comma but not around the whole; commas at the end are ignored.

    Raises:
        ConfigError: A name is unknown, or a number needs more than 32 bits.
    """
    if not text:
        return 0
    number = _NUMBER.fullmatch(text)
    if number and _I32_MIN <= int(number[1] + number[2]) <= _I32_MAX:
        return int(number[1] + number[2])
    names = _COMMA.split(text)
    while names and not names[-1]:
        names.pop()
    options = 0
    for name in names:
        if name not in _VALUES:
            raise ConfigError(
                f"{name!r} is no send option; write a 32-bit number, or names separated by commas, "
                f"in lower case, among {', '.join(_VALUES)}"
            )
        options |= _VALUES[name]
    return options


def format_send_options(value: int) -> str:
    """Return the names of the options that are set, highest bit first; other bits have no name."""
    return ", ".join(name for bit, name in _NAMES if value & bit)
