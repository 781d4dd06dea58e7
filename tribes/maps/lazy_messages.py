"""What the members of a lazy map ask each other: requests and replies, as bodies of RPC.

::

    GET     [0, name]               → NOT_HERE [0] | NONE [1] | VALUE [2, value]
    PUT     [1, name, value | nil]  → NOT_HERE [0] | NONE [1] | FULL [4]
                                      | DONE [3, version, [name …], {name: why}]

A PUT of nil removes. Names are those of records, values are encoded, all in msgpack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tribes.errors import RemoteProtocolError
from tribes.manager.inbox import CommitResult
from tribes.manager.messages import KEY_MAX_CHARS
from tribes.maps.keys import decode_key
from tribes.maps.manager import VALUE_MAX_BYTES
from tribes.wire.codec import pack, unpack

__all__ = ["Get", "MapReply", "Put", "decode_reply", "decode_request"]

NAMES_MAX = 1024
"""Members that one result names."""


@dataclass(frozen=True, slots=True)
class Get:
    """What is the value of an entry?"""

    name: str

    def encode(self) -> bytes:
        """The body of a request."""
        return pack([0, self.name])


@dataclass(frozen=True, slots=True)
class Put:
    """Set an entry, or remove it (None)."""

    name: str
    value: bytes | None

    def encode(self) -> bytes:
        """The body of a request."""
        return pack([1, self.name, self.value])


@dataclass(frozen=True, slots=True)
class MapReply:
    """What a member replies.

    Attributes:
        is_here: It has the entry's partition, whole; else the other fields mean nothing.
        value: The encoded value, None if there is no such entry.
        result: What became of a write; None if there was nothing to remove.
        is_full: A write found no room for a new entry.
    """

    is_here: bool = True
    is_full: bool = False
    value: bytes | None = None
    result: CommitResult | None = None

    def encode(self) -> bytes:
        """The body of a reply."""
        if not self.is_here:
            return pack([0])
        if self.is_full:
            return pack([4])
        if self.result is not None:
            done = self.result
            return pack([3, done.version, list(done.acked), dict(done.missing)])
        return pack([1] if self.value is None else [2, self.value])


def decode_request(body: object) -> Get | Put:
    """Read a request.

    Raises:
        RemoteProtocolError: It is malformed.
    """
    fields = _fields(body)
    match fields:
        case [0, str() as name] if _is_name(name):
            return Get(name)
        case [1, str() as name, (bytes() | None) as value] if _is_name(name):
            if len(value or b"") > VALUE_MAX_BYTES:
                raise RemoteProtocolError(f"a map's value of {len(value or b'')} bytes")
            return Put(name, value)
        case _:
            pass
    raise RemoteProtocolError("malformed request to a map")


def decode_reply(body: object) -> MapReply:
    """Read a reply.

    Raises:
        RemoteProtocolError: It is malformed.
    """
    fields = _fields(body)
    match fields:
        case [0]:
            return MapReply(is_here=False)
        case [1]:
            return MapReply()
        case [4]:
            return MapReply(is_full=True)
        case [2, bytes() as value]:
            return MapReply(value=value)
        case [3, int() as version, list() as acked, dict() as missing] if len(acked) + len(
            missing
        ) <= NAMES_MAX and all(
            isinstance(name, str) for name in (*acked, *missing, *missing.values())
        ):
            return MapReply(result=CommitResult(version, tuple(acked), missing))
        case _:
            pass
    raise RemoteProtocolError("malformed reply of a map")


def _fields(body: object) -> list[Any]:
    fields = unpack(body) if isinstance(body, bytes) else None
    return fields if isinstance(fields, list) else []


def _is_name(name: str) -> bool:
    return len(name) <= KEY_MAX_CHARS and decode_key(name) is not None
