"""What keys of maps are, and how they name records."""

from __future__ import annotations

from typing import Final, TypeAlias

from tribes.errors import LocalProtocolError

__all__ = ["KEY_MAX_CHARS", "MapKey", "decode_key", "encode_key"]

MapKey: TypeAlias = str | bytes | int
"""Text, bytes or a number. Keys of different types are different keys."""

KEY_MAX_CHARS: Final = 254
"""Characters, bytes or digits of a key: the name of a record has two more."""

_TEXT: Final = "s:"
_BYTES: Final = "y:"
_NUMBER: Final = "n:"


def encode_key(key: object) -> str:
    """Return the name of an entry's record. None begins like a session id.

    Raises:
        LocalProtocolError: The key is of another type, too long, or no text that can be encoded.
    """
    kind = type(key)
    if kind is str:
        name = _TEXT + str(key)
        try:
            name.encode()
        except UnicodeEncodeError as why:
            raise LocalProtocolError(f"a map key is text that UTF-8 can encode: {why}") from why
    elif isinstance(key, bytes) and kind is bytes:
        # One character per byte.
        name = _BYTES + key.decode("latin-1")
    elif kind is int:
        name = f"{_NUMBER}{key:x}"
    else:
        raise LocalProtocolError(f"a map key is str, bytes or int, not {kind.__name__}")
    if len(name) > KEY_MAX_CHARS + 2:
        raise LocalProtocolError(
            f"a map key has at most {KEY_MAX_CHARS} characters, this one {len(name) - 2}"
        )
    return name


def decode_key(name: str) -> MapKey | None:
    """Return the key that a record's name stands for; None when no map of ours made it."""
    kind, rest = name[:2], name[2:]
    try:
        if kind == _TEXT:
            return rest
        if kind == _BYTES:
            return rest.encode("latin-1")
        if kind == _NUMBER:
            number = int(rest, 16)
            return number if encode_key(number) == name else None
    except ValueError:
        return None
    return None
