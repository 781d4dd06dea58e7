"""What members of Tomcat's StaticMembershipService tell each other (tribes-wire §6.2).

START and PING travel as the body of a request, and the reply is the same message with the replier
as its member; STOP travels plainly. They are one Java object each.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tribes.errors import RemoteProtocolError
from tribes.wire.java import (
    BYTES,
    HEAD_OF_BYTES,
    MEMBER_CLASS,
    SERIALIZABLE,
    STREAM_HEADER,
    JavaClass,
    JavaCode,
    class_description,
    encode_text,
    member_data,
)
from tribes.wire.java_reader import JavaReader, read_whole

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = [
    "MEMBER_TYPE",
    "MemberMessage",
    "MemberMessageKind",
    "decode_member_message",
    "encode_member_message",
    "is_member_message",
    "read_member_message",
    "static_membership_id",
]

MEMBER_TYPE: Final = "Lorg/apache/catalina/tribes/Member;"
"""How Java writes the type of a field that holds a member."""

_NAME: Final = "org.apache.catalina.tribes.membership.StaticMembershipProvider$MemberMessage"
_CLASS: Final = JavaClass(
    _NAME,
    SERIALIZABLE,
    (("I", "msgtype"), (MEMBER_TYPE, "member"), (BYTES, "membershipId")),
)
_I32: Final = struct.Struct(">i")
_HEAD: Final = bytes((JavaCode.OBJECT,)) + class_description(
    _NAME,
    1,
    SERIALIZABLE,
    fields=b"".join(
        (
            b"\0\x03I\0\x07msgtypeL\0\x06member",
            encode_text(MEMBER_TYPE),
            b"[\0\x0cmembershipId",
            encode_text(BYTES),
        )
    ),
)
_PREFIX: Final = STREAM_HEADER + _HEAD[: 4 + len(_NAME)]


@final
class MemberMessageKind(enum.IntEnum):
    """What it says."""

    START = 1
    STOP = 2
    PING = 3


@final
@dataclass(frozen=True, slots=True)
class MemberMessage:
    """One message.

    Attributes:
        kind: What it says.
        member: About whom: its sender.
        membership_id: Of the service; messages of others do not count.
    """

    kind: MemberMessageKind
    member: Member
    membership_id: bytes


def static_membership_id(channel_name: str) -> bytes:
    """Return the id of a service: Tomcat's channel is named ``<cluster name>-Channel``.

    Raises:
        UnicodeEncodeError: The name has characters beyond ISO-8859-1.
    """
    return f"{channel_name}-StaticMembership".encode("latin-1")


def encode_member_message(message: MemberMessage) -> bytes:
    """Return a message as it stands inside a stream."""
    return b"".join(
        (
            _HEAD,
            _I32.pack(message.kind),
            bytes((JavaCode.OBJECT,)),
            MEMBER_CLASS,
            member_data(message.member),
            HEAD_OF_BYTES,
            _I32.pack(len(message.membership_id)),
            message.membership_id,
        )
    )


def is_member_message(stream: bytes) -> bool:
    """Tell whether a whole stream claims to be such a message, as STOP does."""
    return stream.startswith(_PREFIX)


def decode_member_message(stream: bytes) -> MemberMessage:
    """Return the message of a whole stream.

    Raises:
        RemoteProtocolError: It is malformed, or something else.
    """
    return read_whole(stream, read_member_message)


def read_member_message(reader: JavaReader) -> MemberMessage:
    """Read the message that stands here in a stream.

    Raises:
        RemoteProtocolError: It is malformed, or something else.
    """
    reader.expect_object(_CLASS, "membership message")
    number = reader.i32()
    member, membership_id = reader.member(), reader.byte_array()
    try:
        kind = MemberMessageKind(number)
    except ValueError as why:
        raise RemoteProtocolError(f"a membership message of type {number}") from why
    if member is None or membership_id is None:
        raise RemoteProtocolError("a membership message without member or membership id")
    return MemberMessage(kind, member, membership_id)
