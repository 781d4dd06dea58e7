"""Identifiers that members, messages and sessions carry."""

from __future__ import annotations

from typing import NewType

__all__ = [
    "SESSION_ID_MAX_BYTES",
    "SESSION_ID_MIN_BYTES",
    "UNIQUE_ID_BYTES",
    "SessionId",
    "SessionKey",
    "UniqueId",
    "make_unique_id",
    "parse_unique_id",
]

UniqueId = NewType("UniqueId", bytes)
"""16 bytes that name one member incarnation or one message."""

SessionId = NewType("SessionId", str)
"""What the cookie carries, without the route: hexadecimal, upper case."""

SessionKey = NewType("SessionKey", str)
"""A session's first id. It never changes, whatever ids the session gets later (DESIGN §5.3)."""

UNIQUE_ID_BYTES = 16
SESSION_ID_MIN_BYTES = 2
"""Random bytes of a session's id: its first three digits name the session's partition."""
SESSION_ID_MAX_BYTES = 64


def make_unique_id(entropy: bytes) -> UniqueId:
    """Shape 16 random bytes like a version-4 UUID, as Tribes does (tribes-wire §2.1).

    Args:
        entropy: Exactly 16 random bytes.

    Raises:
        ValueError: ``entropy`` has another length.
    """
    if len(entropy) != UNIQUE_ID_BYTES:
        raise ValueError(f"a unique id is made from {UNIQUE_ID_BYTES} bytes, got {len(entropy)}")
    shaped = bytearray(entropy)
    shaped[6] = (shaped[6] & 0x0F) | 0x40
    shaped[8] = (shaped[8] & 0x3F) | 0x80
    return UniqueId(bytes(shaped))


def parse_unique_id(text: str) -> UniqueId:
    """Read 16 bytes as people write them.

    Args:
        text: 32 hexadecimal digits, or Tomcat's list ``{1,-2,255,…}`` of 16 decimal bytes, signed
            or not, with blanks or without (tribes-wire §9.4).

    Raises:
        ValueError: It is neither, or has another length.
    """
    trimmed = text.strip()
    if trimmed.startswith("{") and trimmed.endswith("}"):
        numbers = [int(part) for part in trimmed[1:-1].split(",")]
        if not all(-128 <= number <= 255 for number in numbers):
            raise ValueError(f"{text!r} holds a number that is no byte")
        found = bytes(number % 256 for number in numbers)
    else:
        found = bytes.fromhex(trimmed)
    if len(found) != UNIQUE_ID_BYTES:
        raise ValueError(f"{text!r} has {len(found)} bytes, a unique id has {UNIQUE_ID_BYTES}")
    return UniqueId(found)
