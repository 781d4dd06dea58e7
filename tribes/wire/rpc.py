"""The envelope of requests and replies, as Tomcat's ``RpcMessage`` has it (tribes-wire §5.3).

::

    request, reply     u8 reply | i32 + correlation id | i32 + rpc id, then a Java object, the body
    no-channel reply   i32 + correlation id | i32 + rpc id

The body is read apart from the envelope: a member that does not know a request's body, or that has
no channel for it, can still say so to whoever asked.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.wire.java import (
    EXTERNAL,
    STREAM_HEADER,
    JavaClass,
    JavaValue,
    block_data,
    class_description,
    encode_value,
)
from tribes.wire.java_reader import JavaReader
from tribes.wire.limits import UNIQUE_ID_MAX_BYTES
from tribes.wire.map_message import MapMessage, encode_map_message, read_map_message
from tribes.wire.member_message import (
    MemberMessage,
    encode_member_message,
    read_member_message,
)

__all__ = [
    "RPC_ID_MAX_BYTES",
    "RpcEnvelope",
    "RpcKind",
    "check_rpc_id",
    "decode_envelope",
    "encode_no_channel",
    "encode_rpc",
    "is_rpc",
]

_T = TypeVar("_T")

RPC_ID_MAX_BYTES: Final = 4096
"""Longest rpc id. Tomcat's maps use their name. A member without it sends it back to who asks."""

_RPC: Final = "org.apache.catalina.tribes.group.RpcMessage"
_NO_CHANNEL: Final = "org.apache.catalina.tribes.group.RpcMessage$NoRpcChannelReply"
_RPC_CLASS: Final = class_description(_RPC, 0x712A750FF274E509, EXTERNAL)
_NO_CHANNEL_CLASS: Final = class_description(
    _NO_CHANNEL, 0x7BAB8FB36A4B5BA6, EXTERNAL, parent=_RPC_CLASS
)
_REQUEST_OR_REPLY: Final = JavaClass(_RPC, EXTERNAL)
_REFUSAL: Final = JavaClass(_NO_CHANNEL, EXTERNAL, (), _REQUEST_OR_REPLY)
_HANDLES: Final = 2
"""Before the body, the stream holds a class and an object that it could refer back to."""
_OBJECT: Final = b"\x73"
_END: Final = b"\x78"
_PREFIXES: Final = tuple(
    STREAM_HEADER + b"\x73\x72" + struct.pack(">H", len(name)) + name.encode()
    for name in (_RPC, _NO_CHANNEL)
)
_I32: Final = struct.Struct(">i")


class RpcKind(enum.Enum):
    """What an RPC message is."""

    REQUEST = "request"
    REPLY = "reply"
    NO_CHANNEL = "no channel"


@dataclass(frozen=True, slots=True)
class RpcEnvelope:
    """A received RPC message, its body still as it came.

    Attributes:
        kind: What it is.
        correlation: Names the call.
        rpc_id: Names the channel.
        stream: The whole message.
        body_at: Where the body begins in it.
    """

    kind: RpcKind
    correlation: bytes
    rpc_id: bytes
    stream: bytes
    body_at: int

    def body(self) -> JavaValue:
        """Read the body.

        Raises:
            RemoteProtocolError: It is malformed, or of a class that is not spoken here.
        """
        return self._read(JavaReader.value)

    def membership_body(self) -> MemberMessage:
        """Read the body of a message of Tomcat's StaticMembershipService.

        Raises:
            RemoteProtocolError: It is malformed, or something else.
        """
        return self._read(read_member_message)

    def map_body(self) -> MapMessage:
        """Read the body of a message of Tomcat's replicated maps.

        Raises:
            RemoteProtocolError: It is malformed, or something else.
        """
        return self._read(read_map_message)

    def _read(self, read: Callable[[JavaReader], _T]) -> _T:
        reader = JavaReader(self.stream, self.body_at, handles=_HANDLES)
        result = read(reader)
        reader.expect_byte(_END[0])
        reader.expect_end()
        return result


def is_rpc(message: bytes) -> bool:
    """Tell whether the message field of a Java message is an RPC message."""
    return message.startswith(_PREFIXES)


def encode_rpc(
    rpc_id: bytes,
    correlation: bytes,
    body: JavaValue | MemberMessage | MapMessage,
    *,
    is_reply: bool,
) -> bytes:
    """Return the message field of a request or a reply.

    Raises:
        LocalProtocolError: The body is of a type that cannot travel.
    """
    head = bytes((is_reply,)) + _ids(correlation, rpc_id)
    return b"".join(
        (STREAM_HEADER, _OBJECT, _RPC_CLASS, block_data(head), _encode_body(body), _END)
    )


def _encode_body(body: JavaValue | MemberMessage | MapMessage) -> bytes:
    if isinstance(body, MemberMessage):
        return encode_member_message(body)
    if isinstance(body, MapMessage):
        return encode_map_message(body, handles=_HANDLES)
    return encode_value(body)


def encode_no_channel(rpc_id: bytes, correlation: bytes) -> bytes:
    """Return the message field of "there is no such channel here"."""
    data = block_data(_ids(correlation, rpc_id))
    return b"".join((STREAM_HEADER, _OBJECT, _NO_CHANNEL_CLASS, data, _END))


def check_rpc_id(rpc_id: bytes) -> None:
    """Refuse what cannot name an RPC channel.

    Raises:
        LocalProtocolError: It is empty, or longer than `RPC_ID_MAX_BYTES`.
    """
    if not 0 < len(rpc_id) <= RPC_ID_MAX_BYTES:
        raise LocalProtocolError(
            f"an rpc id has 1 to {RPC_ID_MAX_BYTES} bytes, not {len(rpc_id)}: it names the channel "
            "on all members"
        )


def decode_envelope(message: bytes) -> RpcEnvelope:
    """Read everything but the body.

    Raises:
        RemoteProtocolError: It is malformed, or its ids are too long.
    """
    reader = JavaReader(message)
    described, _ = reader.begin_object()
    if described not in (_REQUEST_OR_REPLY, _REFUSAL):
        raise RemoteProtocolError(f"Java class {described.name[:100]!r} is no RPC message")
    data = reader.blocks()
    if described == _REFUSAL:
        reader.expect_byte(_END[0])
        reader.expect_end()
        kind, at = RpcKind.NO_CHANNEL, 0
    else:
        if not data or data[0] > 1:
            raise RemoteProtocolError("an RPC message that is neither request nor reply")
        kind, at = (RpcKind.REPLY if data[0] else RpcKind.REQUEST), 1
    correlation, at = _cut(data, at, UNIQUE_ID_MAX_BYTES)
    rpc_id, at = _cut(data, at, RPC_ID_MAX_BYTES)
    if at != len(data):
        raise RemoteProtocolError(f"{len(data) - at} bytes behind the ids of an RPC message")
    return RpcEnvelope(kind, correlation, rpc_id, message, reader.at)


def _ids(correlation: bytes, rpc_id: bytes) -> bytes:
    return _I32.pack(len(correlation)) + correlation + _I32.pack(len(rpc_id)) + rpc_id


def _cut(data: bytes, at: int, limit: int) -> tuple[bytes, int]:
    if at + 4 > len(data):
        raise RemoteProtocolError("ids of an RPC message cut short")
    (length,) = _I32.unpack_from(data, at)
    at += 4
    if not 0 <= length <= limit or at + length > len(data):
        raise RemoteProtocolError(f"an RPC message claims an id of {length} bytes")
    return data[at : at + length], at + length
