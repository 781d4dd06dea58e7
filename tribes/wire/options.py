"""Send options: the flags of a message and their text in a configuration (tribes-wire §4.1)."""

from __future__ import annotations

import enum
from typing import Final, final

from tribes.config.options import format_send_options, parse_send_options

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
