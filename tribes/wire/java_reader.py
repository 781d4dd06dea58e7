"""Reads the few Java objects that are spoken here (tribes-wire §5.2, App. A).

Nothing that a stream names is ever looked up, made or called: a class is a name to compare with,
and whatever is not listed here is refused. Reading costs one pass over the bytes, and allocates
nothing by what they claim.

A stream may refer back to what it held before, by number. So the reader keeps what it has read, in
order; a reference gives the same value again, and one to something that is not complete, or of
another kind than is asked for, is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar, final

from tribes.errors import RemoteProtocolError
from tribes.wire.java import (
    BYTE_MESSAGE,
    BYTES,
    EXTERNAL,
    INTEGER,
    LONG,
    MEMBER_IMPL,
    NUMBER,
    SERIALIZABLE,
    STATIC_MEMBER,
    STREAM_HEADER,
    UNIQUE_ID,
    JavaByteArray,
    JavaClass,
    JavaCode,
    JavaLong,
    JavaUniqueId,
    JavaValue,
)
from tribes.wire.member import Member, decode_member

__all__ = ["FIRST_HANDLE", "JavaReader", "decode_java", "read_whole"]

_T = TypeVar("_T")

FIRST_HANDLE: Final = 0x7E0000
"""Number of the first thing that a stream can refer back to."""

_FIELDS_MAX: Final = 16
_PARENTS_MAX: Final = 2
_PRIMITIVES: Final = "BCDFIJSZ"

_I32: Final = struct.Struct(">i")
_I64: Final = struct.Struct(">q")
_U16: Final = struct.Struct(">H")

_NUMBER: Final = JavaClass(NUMBER, SERIALIZABLE)
_INTEGER: Final = JavaClass(INTEGER, SERIALIZABLE, (("I", "value"),), _NUMBER)
_LONG: Final = JavaClass(LONG, SERIALIZABLE, (("J", "value"),), _NUMBER)
_BYTE_MESSAGE: Final = JavaClass(BYTE_MESSAGE, EXTERNAL)
_UNIQUE_ID: Final = JavaClass(UNIQUE_ID, SERIALIZABLE, ((BYTES, "id"),))
_BYTES: Final = JavaClass(BYTES, SERIALIZABLE)
_MEMBER: Final = JavaClass(MEMBER_IMPL, EXTERNAL)
_MEMBERS: Final = (_MEMBER, JavaClass(STATIC_MEMBER, EXTERNAL, (), _MEMBER))
"""A StaticMember is written as a member is: it says no more."""


def decode_java(data: bytes) -> JavaValue:
    """Return the value of a stream; an empty one holds null, as in Tomcat.

    Raises:
        RemoteProtocolError: The stream is malformed, or holds something that is not spoken here.
    """
    if not data:
        return None
    return read_whole(data, JavaReader.value)


def read_whole(stream: bytes, read: Callable[[JavaReader], _T]) -> _T:
    """Return what ``read`` reads of a stream that must end there.

    Raises:
        RemoteProtocolError: It is malformed, or there is more behind it.
    """
    reader = JavaReader(stream)
    result = read(reader)
    reader.expect_end()
    return result


@final
class JavaReader:
    """Reads one stream from its beginning.

    Args:
        data: The stream.
        at: Where to begin; by default behind the stream's header, which is checked.
        handles: How many things before that place can be referred to. They are not known here, so
            such a reference is refused.

    Raises:
        RemoteProtocolError: Every method does, when the bytes are not what is asked for.
    """

    __slots__ = ("_data", "_handles", "at")

    def __init__(self, data: bytes, at: int | None = None, *, handles: int = 0) -> None:
        self._data = data
        if at is None:
            if not data.startswith(STREAM_HEADER):
                raise RemoteProtocolError("not a Java object stream")
            at = len(STREAM_HEADER)
        self.at = at
        self._handles: list[object] = [None] * handles

    # Values.

    def value(self) -> JavaValue:
        """Read one value."""
        code = self.byte()
        if code == JavaCode.NULL:
            return None
        if code == JavaCode.REFERENCE:
            found = self._referred()
            if not isinstance(found, str | bytes | int | Member):
                raise RemoteProtocolError("a Java reference to what is no value")
            return found
        if code in (JavaCode.STRING, JavaCode.LONG_STRING):
            return self._text(code)
        if code == JavaCode.ARRAY:
            return self._byte_array()
        if code == JavaCode.OBJECT:
            return self._object()
        raise RemoteProtocolError(f"a Java object of code {code:#x} is not spoken here")

    # Each of these three looks at the code itself: a stream could nest without end in `value`.

    def text(self) -> str:
        """Read a text that is there."""
        code = self.byte()
        if code in (JavaCode.STRING, JavaCode.LONG_STRING):
            return self._text(code)
        found = self._referred() if code == JavaCode.REFERENCE else None
        if not isinstance(found, str):
            raise RemoteProtocolError(f"Java code {code:#x} in the place of a text")
        return found

    def byte_array(self) -> bytes | None:
        """Read a ``byte[]`` or null."""
        code = self.byte()
        if code == JavaCode.NULL:
            return None
        if code == JavaCode.ARRAY:
            return bytes(self._byte_array())
        found = self._referred() if code == JavaCode.REFERENCE else None
        if not isinstance(found, JavaByteArray):
            raise RemoteProtocolError(f"Java code {code:#x} in the place of a byte[]")
        return bytes(found)

    def member(self) -> Member | None:
        """Read a member or null."""
        code = self.byte()
        if code == JavaCode.NULL:
            return None
        if code == JavaCode.OBJECT:
            described, number = self._begin()
            if described in _MEMBERS:
                return self._member(number)
            raise RemoteProtocolError(f"Java class {described.name[:100]!r} is no member")
        found = self._referred() if code == JavaCode.REFERENCE else None
        if not isinstance(found, Member):
            raise RemoteProtocolError(f"Java code {code:#x} in the place of a member")
        return found

    def begin_object(self, code: JavaCode = JavaCode.OBJECT) -> tuple[JavaClass, int]:
        """Read the class of an object of unknown class; its data follow.

        Returns:
            The class, and a number to give the finished object to `finish` by.
        """
        self.expect_byte(code)
        return self._begin()

    def expect_object(
        self, expected: JavaClass, what: str, code: JavaCode = JavaCode.OBJECT
    ) -> None:
        """Read the class of an object, which must be this one; its data follow.

        Raises:
            RemoteProtocolError: It is of another class, so it is not ``what`` is expected.
        """
        described, _ = self.begin_object(code)
        if described != expected:
            raise RemoteProtocolError(f"Java class {described.name[:100]!r} is no {what}")

    def finish(self, number: int, value: object) -> None:
        """Remember an object, for references to it."""
        self._handles[number] = value

    def _begin(self) -> tuple[JavaClass, int]:
        described = self.java_class()
        if described is None:
            raise RemoteProtocolError("a Java object without a class")
        return described, self._reserve()

    def _reserve(self) -> int:
        self._handles.append(None)
        return len(self._handles) - 1

    def _referred(self) -> object:
        number = self.i32() - FIRST_HANDLE
        found = self._handles[number] if 0 <= number < len(self._handles) else None
        if found is None:
            raise RemoteProtocolError(f"a Java reference to number {number}, which is not there")
        return found

    def _text(self, code: int) -> str:
        if code == JavaCode.STRING:
            length = self._u16()
        else:
            (length,) = _I64.unpack(self.take(8))
        text = _from_modified_utf8(self.take(length))
        self._handles.append(text)
        return text

    def _byte_array(self) -> JavaByteArray:
        described, number = self._begin()
        _expect(described, _BYTES)
        value = JavaByteArray(self.take(self.i32()))
        self.finish(number, value)
        return value

    def _object(self) -> JavaValue:
        described, number = self._begin()
        value: JavaValue
        if described == _BYTE_MESSAGE:
            value = self._counted_blocks("ByteMessage")
        elif described in _MEMBERS:
            return self._member(number)
        elif described == _INTEGER:
            value = self.i32()
        elif described == _LONG:
            value = JavaLong(_I64.unpack(self.take(8))[0])
        elif described == _UNIQUE_ID:
            value = JavaUniqueId(self.byte_array() or b"")
        else:
            name = described.name[:100]
            raise RemoteProtocolError(f"a Java object of class {name!r} is not spoken here")
        self.finish(number, value)
        return value

    def _member(self, number: int) -> Member:
        member = decode_member(self._counted_blocks("member"))
        self.finish(number, member)
        return member

    def _counted_blocks(self, what: str) -> bytes:
        data = self.blocks()
        self.expect_byte(JavaCode.END)
        if len(data) < 4 or _I32.unpack_from(data)[0] != len(data) - 4:
            raise RemoteProtocolError(f"a {what} of another length than it says")
        return data[4:]

    # Classes.

    def java_class(self, depth: int = 0) -> JavaClass | None:
        """Read the description of a class, or a reference to one.

        Classes are told apart by name and fields: their serial ids differ between releases.
        """
        code = self.byte()
        if code == JavaCode.NULL:
            return None
        if code == JavaCode.REFERENCE:
            found = self._referred()
            if not isinstance(found, JavaClass):
                raise RemoteProtocolError("a Java reference to what is no class")
            return found
        if code != JavaCode.CLASS or depth > _PARENTS_MAX:
            raise RemoteProtocolError(f"a Java class of code {code:#x}, depth {depth}")
        name = self._name()
        self.take(8)
        number = self._reserve()
        flags, count = self.byte(), self._u16()
        if count > _FIELDS_MAX:
            raise RemoteProtocolError(f"Java class {name[:100]!r} has {count} fields")
        fields = tuple([self._field() for _ in range(count)])
        self.expect_byte(JavaCode.END)
        described = JavaClass(name, flags, fields, self.java_class(depth + 1))
        self.finish(number, described)
        return described

    def _field(self) -> tuple[str, str]:
        kind = chr(self.byte())
        name = self._name()
        return (kind if kind in _PRIMITIVES else self.text()), name

    def _name(self) -> str:
        return self.take(self._u16()).decode("latin-1")

    # Bytes.

    def blocks(self) -> bytes:
        """Read the blocks of data that follow."""
        pieces = []
        while self.at < len(self._data):
            code = self._data[self.at]
            if code not in (JavaCode.BLOCK, JavaCode.LONG_BLOCK):
                break
            self.at += 1
            pieces.append(self.take(self.byte() if code == JavaCode.BLOCK else self.i32()))
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


def _expect(found: JavaClass, wanted: JavaClass) -> None:
    if found != wanted:
        raise RemoteProtocolError(
            f"Java class {found.name[:100]!r} in the place of {wanted.name!r}, or in another form"
        )


def _from_modified_utf8(data: bytes) -> str:
    try:
        halves = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
        return halves.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
    except UnicodeError as why:
        raise RemoteProtocolError(f"text of a Java object: {why}") from why
