"""Send options: the flags of a message and their text in a configuration (tribes-wire §4.1)."""

from __future__ import annotations

import enum
import re
from typing import Final, final

from tribes.errors import ConfigError

__all__ = ["SendOptions", "format_send_options", "parse_send_options", "wire_options"]


@final
class SendOptions(enum.IntFlag):
    """Flags of one message. Other bits of the 32 belong to interceptors and applications."""

    BYTE_MESSAGE = 1
    """The message is plain bytes, not a Java object. The channel decides, see `wire_options`."""
    USE_ACK = 2
    """The sender waits until the receiver has the message."""
    SYNCHRONIZED_ACK = 4
    """With USE_ACK: the sender waits until the receiver has processed the message."""
    ASYNCHRONOUS = 8
    """The message is queued and the sender goes on at once."""
    SECURE = 16
    """Nothing acts on it, here or in Tomcat."""
    UDP = 32
    """One datagram to each destination instead of TCP."""
    MULTICAST = 64
    """One datagram to the whole group, whatever the destinations."""
    DEFAULT = 2
    """What Tomcat uses where nothing is configured: USE_ACK."""


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

# Plain numbers: the complement of an IntFlag member covers the named bits only, and would clear
# every bit that an interceptor or an application has set.
_BYTE_MESSAGE: Final = 1
_ALL_BUT_BYTE_MESSAGE: Final = ~1


def wire_options(options: int, *, is_bytes: bool) -> int:
    """Return the options that a message carries on the wire.

    The kind of the message decides about BYTE_MESSAGE, whatever the caller asked for; all other
    bits stay as they are.

    Args:
        options: What the caller asked for.
        is_bytes: Whether the message is plain bytes.
    """
    if is_bytes:
        return int(options) | _BYTE_MESSAGE
    return int(options) & _ALL_BUT_BYTE_MESSAGE


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
