"""The few Java objects that are spoken here: text, numbers, bytes, null (tribes-wire §5.2, App. A).

Tribes puts everything but byte messages on the wire as one object of Java's serialisation. This
module writes a handful of shapes, byte for byte as Java does; `tribes.wire.java_reader` reads the
same ones.

===================  ==================================
Java                 here
===================  ==================================
null                 ``None``
String               ``str``
ByteMessage          ``bytes``
Integer              ``int`` of 32 bits
Long                 `JavaLong`, or a longer ``int``
byte[]               `JavaByteArray`
UniqueId             `JavaUniqueId`
MemberImpl           `tribes.wire.member.Member`
===================  ==================================
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from tribes.errors import LocalProtocolError
from tribes.wire.member import Member, encode_member

__all__ = [
    "BYTES",
    "BYTE_MESSAGE",
    "EXTERNAL",
    "HEAD_OF_BYTES",
    "INTEGER",
    "LONG",
    "MEMBER_CLASS",
    "MEMBER_IMPL",
    "NUMBER",
    "SERIALIZABLE",
    "STATIC_MEMBER",
    "STREAM_HEADER",
    "UNIQUE_ID",
    "JavaByteArray",
    "JavaClass",
    "JavaCode",
    "JavaLong",
    "JavaUniqueId",
    "JavaValue",
    "block_data",
    "class_description",
    "encode_java",
    "encode_text",
    "encode_value",
    "member_data",
]


@final
class JavaLong(int):
    """A number that is a Long in Java, however small it is."""


@final
class JavaByteArray(bytes):
    """A plain ``byte[]``, where ``bytes`` is a ByteMessage."""


@final
class JavaUniqueId(bytes):
    """An ``org.apache.catalina.tribes.UniqueId``, of any length."""


JavaValue: TypeAlias = str | bytes | int | Member | None
"""What this module writes, and the reader reads."""

STREAM_HEADER: Final = b"\xac\xed\x00\x05"
"""Every stream begins with it."""


class JavaCode(enum.IntEnum):
    """What comes next in a stream."""

    NULL = 0x70
    REFERENCE = 0x71
    CLASS = 0x72
    OBJECT = 0x73
    STRING = 0x74
    ARRAY = 0x75
    BLOCK = 0x77
    END = 0x78
    LONG_BLOCK = 0x7A
    LONG_STRING = 0x7C
    ENUM = 0x7E


EXTERNAL: Final = 0x0C
"""Flags of a class that writes its own data, in blocks."""
SERIALIZABLE: Final = 0x02
"""Flags of a class whose fields are written."""

_BLOCK_BYTES: Final = 1024
"""Java's buffer: a block of data has at most this many bytes."""
_SHORT_BLOCK_BYTES: Final = 256

_I32: Final = struct.Struct(">i")
_I64: Final = struct.Struct(">q")
_U16: Final = struct.Struct(">H")

BYTE_MESSAGE: Final = "org.apache.catalina.tribes.ByteMessage"
INTEGER: Final = "java.lang.Integer"
LONG: Final = "java.lang.Long"
NUMBER: Final = "java.lang.Number"
BYTES: Final = "[B"
UNIQUE_ID: Final = "org.apache.catalina.tribes.UniqueId"
MEMBER_IMPL: Final = "org.apache.catalina.tribes.membership.MemberImpl"
STATIC_MEMBER: Final = "org.apache.catalina.tribes.membership.StaticMember"


@final
@dataclass(frozen=True, slots=True)
class JavaClass:
    """A class as a stream describes it: a name to compare with, nothing more.

    Attributes:
        name: Its full name.
        flags: How its data are written.
        fields: Type and name of each, in the stream's order.
        parent: Its superclass, if that is described too.
    """

    name: str
    flags: int
    fields: tuple[tuple[str, str], ...] = ()
    parent: JavaClass | None = None


def class_description(
    name: str, serial_id: int, flags: int, *, fields: bytes = b"\0\0", parent: bytes = b""
) -> bytes:
    """Return the description of a class.

    Args:
        name: Its full name.
        serial_id: Its serial version id, as a u64.
        flags: How its data are written.
        fields: Their number as a u16, and their descriptions.
        parent: Description of its superclass; none by default.
    """
    text = name.encode()
    head = bytes((JavaCode.CLASS,)) + _U16.pack(len(text)) + text + serial_id.to_bytes(8, "big")
    return b"".join(
        (head, bytes((flags,)), fields, bytes((JavaCode.END,)), parent or bytes((JavaCode.NULL,)))
    )


def _object(description: bytes) -> bytes:
    return bytes((JavaCode.OBJECT,)) + description


_NUMBER_CLASS: Final = class_description(NUMBER, 0x86AC951D0B94E08B, SERIALIZABLE)
_HEAD_OF_INTEGER: Final = _object(
    class_description(
        INTEGER,
        0x12E2A0A4F7818738,
        SERIALIZABLE,
        fields=b"\0\x01I\0\x05value",
        parent=_NUMBER_CLASS,
    )
)
_HEAD_OF_LONG: Final = _object(
    class_description(
        LONG, 0x3B8BE490CC8F23DF, SERIALIZABLE, fields=b"\0\x01J\0\x05value", parent=_NUMBER_CLASS
    )
)
_HEAD_OF_BYTE_MESSAGE: Final = _object(
    class_description(BYTE_MESSAGE, 0x7F57970A7BABE10D, EXTERNAL)
)
_HEAD_OF_UNIQUE_ID: Final = _object(
    class_description(UNIQUE_ID, 1, SERIALIZABLE, fields=b"\0\x01[\0\x02idt\0\x02[B")
)
MEMBER_CLASS: Final = class_description(MEMBER_IMPL, 0x8476F37B32953667, EXTERNAL)
HEAD_OF_BYTES: Final = bytes((JavaCode.ARRAY,)) + class_description(
    BYTES, 0xACF317F8060854E0, SERIALIZABLE
)


def encode_java(value: JavaValue) -> bytes:
    """Return a whole stream with one value.

    Raises:
        LocalProtocolError: A number of more than 64 bits, or a value of another type.
    """
    return STREAM_HEADER + encode_value(value)


def encode_value(value: object) -> bytes:
    """Return a value as it stands inside a stream.

    Raises:
        LocalProtocolError: A number of more than 64 bits, or a value of another type.
    """
    kind = type(value)
    if value is None:
        return bytes((JavaCode.NULL,))
    if isinstance(value, str):
        return encode_text(value)
    if isinstance(value, Member):
        return _object(MEMBER_CLASS) + member_data(value)
    if kind is JavaUniqueId:
        assert isinstance(value, bytes)
        return _HEAD_OF_UNIQUE_ID + HEAD_OF_BYTES + _I32.pack(len(value)) + value
    if kind is JavaByteArray:
        assert isinstance(value, bytes)
        return HEAD_OF_BYTES + _I32.pack(len(value)) + value
    if isinstance(value, bytes):
        data = block_data(_I32.pack(len(value)) + value)
        return _HEAD_OF_BYTE_MESSAGE + data + bytes((JavaCode.END,))
    if isinstance(value, int) and kind is not bool:
        if kind is not JavaLong and -(2**31) <= value < 2**31:
            return _HEAD_OF_INTEGER + _I32.pack(value)
        if -(2**63) <= value < 2**63:
            return _HEAD_OF_LONG + _I64.pack(value)
        raise LocalProtocolError(f"{value} does not fit in 64 bits")
    raise LocalProtocolError(
        f"a {kind.__name__} cannot travel as a Java object: use bytes, text, a number, a member "
        "or None"
    )


def member_data(member: Member) -> bytes:
    """Return what follows the class of a member: its record, counted, in blocks."""
    record = encode_member(member)
    return block_data(_I32.pack(len(record)) + record) + bytes((JavaCode.END,))


def block_data(data: bytes) -> bytes:
    """Return the external data of an object as Java cuts it into blocks."""
    pieces = []
    for at in range(0, len(data), _BLOCK_BYTES):
        piece = data[at : at + _BLOCK_BYTES]
        if len(piece) < _SHORT_BLOCK_BYTES:
            pieces.append(bytes((JavaCode.BLOCK, len(piece))))
        else:
            pieces.append(bytes((JavaCode.LONG_BLOCK,)) + _I32.pack(len(piece)))
        pieces.append(piece)
    return b"".join(pieces)


def encode_text(text: str) -> bytes:
    data = _modified_utf8(text)
    if len(data) <= 0xFFFF:
        return bytes((JavaCode.STRING,)) + _U16.pack(len(data)) + data
    return bytes((JavaCode.LONG_STRING,)) + _I64.pack(len(data)) + data


def _modified_utf8(text: str) -> bytes:
    # NUL takes two bytes, and each half of a surrogate pair three.
    if text.isascii():
        return text.encode().replace(b"\0", b"\xc0\x80")
    units = text.encode("utf-16-be", "surrogatepass")
    halves = "".join(chr(unit) for (unit,) in _U16.iter_unpack(units))
    return halves.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
