"""The encoding of control messages between our own nodes: msgpack, and nothing else imports it.

A peer's bytes must not cost more than their length allows. msgpack allocates the list that an array
header claims before it looks for the elements, so a few nested headers could make it reserve
gigabytes. Hence two passes: the first walks the bytes and builds nothing, which proves that every
element is really there; the second builds.

Values: None, bool, int (64 bits), float, bytes, str, list and dict. Bytes stay bytes and text stays
text. Extension types, timestamps among them, are refused: what goes beyond these types has a
codec of its own further up.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import msgpack

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.wire.limits import CONTROL_MESSAGE_MAX_BYTES, CONTROL_NESTING_MAX

__all__ = ["pack", "unpack"]

# Looked up by exact type, three times as fast as isinstance(): msgpack makes no others, and in what
# we send a subclass only escapes the check of its depth.
_CONTAINERS: Final = frozenset({dict, list, tuple})


def pack(value: Any) -> bytes:
    """Return the bytes of a control message.

    Tuples become lists, and bytearrays become bytes.

    Raises:
        LocalProtocolError: The value has parts of another type, numbers of more than 64 bits,
            or is nested deeper than `CONTROL_NESTING_MAX`.
    """
    if _is_too_deep(value):
        raise LocalProtocolError(f"a control message nests at most {CONTROL_NESTING_MAX} levels")
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as why:
        raise LocalProtocolError(f"this cannot be sent as a control message: {why}") from why
    return packed


def unpack(data: bytes) -> Any:
    """Return the value of a control message.

    Raises:
        RemoteProtocolError: ``data`` is not exactly one msgpack value of the types above, is
            longer than `CONTROL_MESSAGE_MAX_BYTES` or nested deeper than `CONTROL_NESTING_MAX`.
    """
    size = len(data)
    if not 0 < size <= CONTROL_MESSAGE_MAX_BYTES:
        raise RemoteProtocolError(f"control message of {size} bytes")
    try:
        walker = msgpack.Unpacker(max_buffer_size=size)
        walker.feed(data)
        walker.skip()
        value = msgpack.unpackb(
            data,
            strict_map_key=False,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as why:
        # TypeError is what an unhashable map key gives.
        raise RemoteProtocolError(
            f"control message is malformed: {type(why).__name__}: {why}"
        ) from why
    if _is_too_deep(value):
        raise RemoteProtocolError(f"control message nests over {CONTROL_NESTING_MAX} levels")
    return value


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} is not used")


def _is_too_deep(value: Any) -> bool:
    """Whether lists and maps nest more than `CONTROL_NESTING_MAX` levels.

    Level by level, so it needs no recursion itself, and ends even on a list that holds itself.
    """
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(CONTROL_NESTING_MAX):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _CONTAINERS
        ]
    return bool(level)
