"""The messages by which members agree on a coordinator (tribes-wire §7.11)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from tribes.errors import RemoteProtocolError
from tribes.ids import UNIQUE_ID_BYTES
from tribes.wire.member import Member, decode_member, encode_member

__all__ = ["ALIVE", "HEADER", "MEMBERS_MAX", "Coordination", "CoordinationKind"]

HEADER = bytes.fromhex("aa26dee39e5a413faf86fa9263ca0d3f")
"""How every one of these messages begins."""

ALIVE = bytes.fromhex(
    "4f87e7f1c505405eb37189a83472c8d2ee660a2281f74773ba489b5848847f6f"
    "4a4c8c326f674103b333dd00777509e67732b5979a244f25bcac850fea936ac9"
)
"""A message that begins so only shows that its sender is there; nobody sends it now."""

MEMBERS_MAX = 1000
"""Members of one message; as many as a membership keeps."""

_LENGTH = struct.Struct(">i")
_TYPE_BYTES = 16


class CoordinationKind(enum.Enum):
    """What a message is for."""

    REQUEST = bytes.fromhex("68a1a4d672dc47edb1147a65ffd0cf1e")
    """Goes round and gathers who is there."""
    CONFIRMATION = bytes.fromhex("43586baa45174cbaa5e9a9e783564b14")
    """Says what everybody is to see from now on."""


@dataclass(frozen=True, slots=True)
class Coordination:
    """One message.

    Args:
        kind: What it is for.
        leader: The member that sorts first, as far as its last sender knew.
        source: Who began the election.
        members: Who is there, in absolute order.
        view_id: Names the election, and the view that it ends in.
    """

    kind: CoordinationKind
    leader: Member
    source: Member
    members: tuple[Member, ...]
    view_id: bytes

    def encode(self) -> bytes:
        """Return the message's bytes."""
        parts = [HEADER]
        for member in (self.leader, self.source):
            parts += _counted(member)
        parts.append(_LENGTH.pack(len(self.members)))
        for member in self.members:
            parts += _counted(member)
        return b"".join((*parts, self.view_id, self.kind.value))

    @classmethod
    def decode(cls, data: bytes) -> Coordination:
        """Return what a message says.

        Raises:
            RemoteProtocolError: It is not well-formed, or names more than `MEMBERS_MAX` members.
        """
        if not data.startswith(HEADER):
            raise RemoteProtocolError("no coordination message")
        leader, at = _member(data, len(HEADER))
        source, at = _member(data, at)
        count, at = _number(data, at)
        if not 0 < count <= MEMBERS_MAX:
            raise RemoteProtocolError(f"coordination message with {count} members")
        members = []
        for _ in range(count):
            member, at = _member(data, at)
            members.append(member)
        view_id, kind = data[at : at + UNIQUE_ID_BYTES], data[at + UNIQUE_ID_BYTES :]
        if len(kind) != _TYPE_BYTES:
            raise RemoteProtocolError("coordination message does not end where it should")
        try:
            known = CoordinationKind(kind)
        except ValueError:
            raise RemoteProtocolError(f"coordination message of kind {kind.hex()}") from None
        return cls(known, leader, source, tuple(members), view_id)


def _counted(member: Member) -> tuple[bytes, bytes]:
    record = encode_member(member)
    return _LENGTH.pack(len(record)), record


def _number(data: bytes, at: int) -> tuple[int, int]:
    if at + _LENGTH.size > len(data):
        raise RemoteProtocolError("coordination message is cut short")
    (number,) = _LENGTH.unpack_from(data, at)
    return number, at + _LENGTH.size


def _member(data: bytes, at: int) -> tuple[Member, int]:
    size, at = _number(data, at)
    if size < 0 or at + size > len(data):
        raise RemoteProtocolError(f"coordination message claims a member of {size} bytes")
    return decode_member(data, at, at + size), at + size
