"""The few Java objects that are spoken here: text, numbers, bytes, null (tribes-wire §5.2, App. A).

Tribes puts everything but byte messages on the wire as one object of Java's serialisation. This
module writes a handful of shapes, byte for byte as Java does, and reads the same ones. Nothing that
a stream names is ever looked up, made or called: a class is a name to compare with, and whatever is
not listed here is refused. Reading costs one pass over the bytes, and allocates nothing by what
they claim.

===================  ==================================
Java                 here
===================  ==================================
null                 ``None``
String               ``str``
ByteMessage          ``bytes``
Integer              ``int`` of 32 bits
Long                 `JavaLong`, or a longer ``int``
byte[]               `JavaByteArray`
===================  ==================================
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias, final

from tribes.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "EXTERNAL",
    "SERIALIZABLE",
    "STREAM_HEADER",
    "JavaByteArray",
    "JavaLong",
    "JavaReader",
    "JavaValue",
    "block_data",
    "class_description",
    "decode_java",
    "encode_java",
    "encode_value",
]


@final
class JavaLong(int):
    """A number that is a Long in Java, however small it is."""


@final
class JavaByteArray(bytes):
    """A plain ``byte[]``, where ``bytes`` is a ByteMessage."""


JavaValue: TypeAlias = str | bytes | int | None
"""What this module writes and reads."""

STREAM_HEADER: Final = b"\xac\xed\x00\x05"
"""Every stream begins with it."""

_NULL: Final = 0x70
_CLASS: Final = 0x72
_OBJECT: Final = 0x73
_STRING: Final = 0x74
_ARRAY: Final = 0x75
_BLOCK: Final = 0x77
_END: Final = 0x78
_LONG_BLOCK: Final = 0x7A
_LONG_STRING: Final = 0x7C

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

_BYTE_MESSAGE: Final = "org.apache.catalina.tribes.ByteMessage"
_INTEGER: Final = "java.lang.Integer"
_LONG: Final = "java.lang.Long"
_NUMBER: Final = "java.lang.Number"
_BYTES: Final = "[B"


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
    head = bytes((_CLASS,)) + _U16.pack(len(text)) + text + serial_id.to_bytes(8, "big")
    return b"".join((head, bytes((flags,)), fields, bytes((_END,)), parent or bytes((_NULL,))))


def _object(description: bytes) -> bytes:
    return bytes((_OBJECT,)) + description


_NUMBER_CLASS: Final = class_description(_NUMBER, 0x86AC951D0B94E08B, SERIALIZABLE)
_HEAD_OF_INTEGER: Final = _object(
    class_description(
        _INTEGER,
        0x12E2A0A4F7818738,
        SERIALIZABLE,
        fields=b"\0\x01I\0\x05value",
        parent=_NUMBER_CLASS,
    )
)
_HEAD_OF_LONG: Final = _object(
    class_description(
        _LONG, 0x3B8BE490CC8F23DF, SERIALIZABLE, fields=b"\0\x01J\0\x05value", parent=_NUMBER_CLASS
    )
)
_HEAD_OF_BYTE_MESSAGE: Final = _object(
    class_description(_BYTE_MESSAGE, 0x7F57970A7BABE10D, EXTERNAL)
)
_HEAD_OF_BYTES: Final = bytes((_ARRAY,)) + class_description(
    _BYTES, 0xACF317F8060854E0, SERIALIZABLE
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
        return bytes((_NULL,))
    if isinstance(value, str):
        return _encode_text(value)
    if kind is JavaByteArray:
        assert isinstance(value, bytes)
        return _HEAD_OF_BYTES + _I32.pack(len(value)) + value
    if isinstance(value, bytes):
        data = block_data(_I32.pack(len(value)) + value)
        return _HEAD_OF_BYTE_MESSAGE + data + bytes((_END,))
    if isinstance(value, int) and kind is not bool:
        if kind is not JavaLong and -(2**31) <= value < 2**31:
            return _HEAD_OF_INTEGER + _I32.pack(value)
        if -(2**63) <= value < 2**63:
            return _HEAD_OF_LONG + _I64.pack(value)
        raise LocalProtocolError(f"{value} does not fit in 64 bits")
    raise LocalProtocolError(
        f"a {kind.__name__} cannot travel as a Java object: use bytes, text, a number or None"
    )


def block_data(data: bytes) -> bytes:
    """Return the external data of an object as Java cuts it into blocks."""
    pieces = []
    for at in range(0, len(data), _BLOCK_BYTES):
        piece = data[at : at + _BLOCK_BYTES]
        if len(piece) < _SHORT_BLOCK_BYTES:
            pieces.append(bytes((_BLOCK, len(piece))))
        else:
            pieces.append(bytes((_LONG_BLOCK,)) + _I32.pack(len(piece)))
        pieces.append(piece)
    return b"".join(pieces)


def _encode_text(text: str) -> bytes:
    data = _modified_utf8(text)
    if len(data) <= 0xFFFF:
        return bytes((_STRING,)) + _U16.pack(len(data)) + data
    return bytes((_LONG_STRING,)) + _I64.pack(len(data)) + data


def _modified_utf8(text: str) -> bytes:
    # NUL takes two bytes, and each half of a surrogate pair three.
    if text.isascii():
        return text.encode().replace(b"\0", b"\xc0\x80")
    units = text.encode("utf-16-be", "surrogatepass")
    halves = "".join(chr(unit) for (unit,) in _U16.iter_unpack(units))
    return halves.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def _from_modified_utf8(data: bytes) -> str:
    try:
        halves = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
        return halves.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
    except UnicodeError as why:
        raise RemoteProtocolError(f"text of a Java object: {why}") from why


def decode_java(data: bytes) -> JavaValue:
    """Return the value of a stream; an empty one holds null, as in Tomcat.

    Raises:
        RemoteProtocolError: The stream is malformed, or holds something that is not spoken here.
    """
    if not data:
        return None
    reader = JavaReader(data)
    value = reader.value()
    reader.expect_end()
    return value


class JavaReader:
    """Reads one stream from its beginning.

    Args:
        data: The stream.
        at: Where to begin; by default behind the stream's header, which is checked.

    Raises:
        RemoteProtocolError: Every method does, when the bytes are not what is asked for.
    """

    __slots__ = ("_data", "at")

    def __init__(self, data: bytes, at: int | None = None) -> None:
        self._data = data
        if at is None:
            if not data.startswith(STREAM_HEADER):
                raise RemoteProtocolError("not a Java object stream")
            at = len(STREAM_HEADER)
        self.at = at

    def value(self) -> JavaValue:
        """Read one value."""
        code = self.byte()
        if code == _NULL:
            return None
        if code == _STRING:
            return _from_modified_utf8(self.take(self._u16()))
        if code == _LONG_STRING:
            (length,) = _I64.unpack(self.take(8))
            return _from_modified_utf8(self.take(length))
        if code == _ARRAY:
            self.expect_class((_BYTES,), SERIALIZABLE)
            self._expect_no_parent()
            return JavaByteArray(self.take(self.i32()))
        if code != _OBJECT:
            raise RemoteProtocolError(f"a Java object of code {code:#x} is not spoken here")
        return self._object()

    def _object(self) -> JavaValue:
        name, flags, fields = self.class_head()
        if name == _BYTE_MESSAGE and flags == EXTERNAL and not fields:
            self.expect_byte(_END)
            self._expect_no_parent()
            data = self.blocks()
            self.expect_byte(_END)
            if len(data) < 4 or _I32.unpack_from(data)[0] != len(data) - 4:
                raise RemoteProtocolError("a ByteMessage of another length than it says")
            return data[4:]
        if name in (_INTEGER, _LONG) and flags == SERIALIZABLE and fields == 1:
            wanted = b"I\0\x05value" if name == _INTEGER else b"J\0\x05value"
            if self.take(len(wanted)) != wanted:
                raise RemoteProtocolError(f"{name} with other fields than Java's")
            self.expect_byte(_END)
            self.expect_byte(_CLASS)
            self.at -= 1
            self.expect_class((_NUMBER,), SERIALIZABLE)
            self._expect_no_parent()
            if name == _INTEGER:
                return self.i32()
            return JavaLong(_I64.unpack(self.take(8))[0])
        raise RemoteProtocolError(f"a Java object of class {name[:100]!r} is not spoken here")

    def class_head(self) -> tuple[str, int, int]:
        """Read the beginning of a class description: name, flags, number of fields.

        Classes are told apart by name: their serial ids differ between releases.
        """
        self.expect_byte(_CLASS)
        name = self.take(self._u16()).decode("latin-1")
        self.take(8)
        return name, self.byte(), self._u16()

    def expect_class(self, names: tuple[str, ...], flags: int) -> str:
        """Read the description of one of these classes, without fields, up to its superclass."""
        name, found, fields = self.class_head()
        if name not in names or found != flags or fields:
            raise RemoteProtocolError(f"Java class {name[:100]!r} in the place of {names[0]!r}")
        self.expect_byte(_END)
        return name

    def _expect_no_parent(self) -> None:
        self.expect_byte(_NULL)

    def blocks(self) -> bytes:
        """Read the blocks of data that follow."""
        pieces = []
        while self.at < len(self._data):
            code = self._data[self.at]
            if code not in (_BLOCK, _LONG_BLOCK):
                break
            self.at += 1
            pieces.append(self.take(self.byte() if code == _BLOCK else self.i32()))
        return b"".join(pieces)

    def expect_byte(self, wanted: int) -> None:
        """Read one byte that must be this one."""
        found = self.byte()
        if found != wanted:
            raise RemoteProtocolError(f"Java object: {found:#x} in the place of {wanted:#x}")

    def expect_end(self) -> None:
        """The stream must be over."""
        if self.at != len(self._data):
            raise RemoteProtocolError(f"{len(self._data) - self.at} bytes behind a Java object")

    def byte(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def i32(self) -> int:
        """Read a signed number."""
        number: int = _I32.unpack(self.take(4))[0]
        return number

    def _u16(self) -> int:
        number: int = _U16.unpack(self.take(2))[0]
        return number

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        end = self.at + count
        if count < 0 or end > len(self._data):
            raise RemoteProtocolError(f"Java object cut short: {count} bytes at {self.at}")
        piece = self._data[self.at : end]
        self.at = end
        return piece
