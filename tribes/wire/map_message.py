"""The messages of Tomcat's replicated maps, such as its BackupManager's (tribes-wire §5.4).

They are Java objects that hold keys and values as Java objects of their own. Those stay what they
came as, bytes: a member of Python can see what is said about which key, and needs no class of
Tomcat's applications for it. `tribes.wire.java_reader.decode_java` reads the simple ones.
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
from tribes.wire.java_reader import FIRST_HANDLE, JavaReader, read_whole
from tribes.wire.member_message import MEMBER_TYPE

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = [
    "MapMessage",
    "MapMessageKind",
    "MapState",
    "decode_map_message",
    "decode_map_state",
    "encode_map_message",
    "encode_map_state",
    "is_map_message",
    "read_map_message",
]

NODES_MAX: Final = 4096
"""Backup nodes that one message may name; a group has at most so many members."""

_PACKAGE: Final = "org.apache.catalina.tribes.tipis.AbstractReplicatedMap"
_NAME: Final = _PACKAGE + "$MapMessage"
_STATE_NAME: Final = _PACKAGE + "$State"
_NODES_TYPE: Final = f"[{MEMBER_TYPE}"
_CLASS: Final = JavaClass(
    _NAME,
    SERIALIZABLE,
    (
        ("Z", "diff"),
        ("I", "msgtype"),
        (BYTES, "diffvalue"),
        (BYTES, "keydata"),
        (BYTES, "mapId"),
        (_NODES_TYPE, "nodes"),
        (MEMBER_TYPE, "primary"),
        (BYTES, "valuedata"),
    ),
)
_NODES_CLASS: Final = JavaClass("[Lorg.apache.catalina.tribes.Member;", SERIALIZABLE)

_ENUM: Final = 0x12
_JAVA_ENUM: Final = JavaClass("java.lang.Enum", _ENUM)
_STATE_CLASS: Final = JavaClass(_STATE_NAME, _ENUM, (), _JAVA_ENUM)
_STATE_HEAD: Final = bytes((JavaCode.ENUM,)) + class_description(
    _STATE_NAME, 0, _ENUM, parent=class_description("java.lang.Enum", 0, _ENUM)
)
_I32: Final = struct.Struct(">i")
_NULL: Final = bytes((JavaCode.NULL,))
_PREFIX: Final = b"".join(
    (STREAM_HEADER, b"\x73\x72", struct.pack(">H", len(_NAME)), _NAME.encode())
)


@final
class MapMessageKind(enum.IntEnum):
    """What a message is for."""

    BACKUP = 1
    RETRIEVE_BACKUP = 2
    PROXY = 3
    REMOVE = 4
    STATE = 5
    START = 6
    STOP = 7
    INIT = 8
    COPY = 9
    STATE_COPY = 10
    ACCESS = 11
    NOTIFY_MAPMEMBER = 12
    PING = 13


@final
class MapState(enum.Enum):
    """How far a map is: the value of a reply to PING."""

    NEW = "NEW"
    STATETRANSFERRED = "STATETRANSFERRED"
    INITIALIZED = "INITIALIZED"
    DESTROYED = "DESTROYED"


@final
@dataclass(frozen=True, slots=True)
class MapMessage:
    """One message.

    Attributes:
        kind: What it is for.
        map_id: Names the map; also the rpc id of its requests.
        key: A whole Java stream with the key, or None.
        value: A whole Java stream with the value, or None.
        diff: What changed of the value, in a form of the value's own; None without.
        is_diff: Whether it is about a change rather than a value.
        primary: Who has the entry, or speaks for its map.
        nodes: Who has its backups; None where that is not said.
    """

    kind: MapMessageKind
    map_id: bytes | None
    key: bytes | None = None
    value: bytes | None = None
    diff: bytes | None = None
    is_diff: bool = False
    primary: Member | None = None
    nodes: tuple[Member | None, ...] | None = None


def is_map_message(stream: bytes) -> bool:
    """Tell whether a whole stream claims to be such a message."""
    return stream.startswith(_PREFIX)


def decode_map_message(stream: bytes) -> MapMessage:
    """Return the message of a whole stream.

    Raises:
        RemoteProtocolError: It is malformed, or something else.
    """
    return read_whole(stream, read_map_message)


def read_map_message(reader: JavaReader) -> MapMessage:
    """Read the message that stands here in a stream.

    Raises:
        RemoteProtocolError: It is malformed, or something else.
    """
    reader.expect_object(_CLASS, "map message")
    is_diff, number = reader.byte(), reader.i32()
    try:
        kind = MapMessageKind(number)
    except ValueError as why:
        raise RemoteProtocolError(f"a map message of type {number}") from why
    if is_diff > 1:
        raise RemoteProtocolError(f"{is_diff} in the place of a Java boolean")
    diff, key, map_id = reader.byte_array(), reader.byte_array(), reader.byte_array()
    nodes, primary = _read_nodes(reader), reader.member()
    value = reader.byte_array()
    return MapMessage(kind, map_id, key, value, diff, bool(is_diff), primary, nodes)


def _read_nodes(reader: JavaReader) -> tuple[Member | None, ...] | None:
    code = reader.byte()
    if code == JavaCode.NULL:
        return None
    reader.at -= 1
    described, _ = reader.begin_object(JavaCode.ARRAY)
    count = reader.i32()
    if described != _NODES_CLASS or not 0 <= count <= NODES_MAX:
        raise RemoteProtocolError(f"{count} of {described.name[:100]!r} are no nodes of a map")
    return tuple([reader.member() for _ in range(count)])


def encode_map_message(message: MapMessage, *, handles: int = 0) -> bytes:
    """Return a message as it stands inside a stream.

    Args:
        message: It.
        handles: How many things before it a stream could refer back to: 2 in an RPC message.
    """
    writer = _Writer(handles)
    writer.head()
    writer.add(bytes((message.is_diff,)) + _I32.pack(message.kind))
    for data in (message.diff, message.key, message.map_id):
        writer.byte_array(data)
    writer.nodes(message.nodes)
    writer.member(message.primary)
    writer.byte_array(message.value)
    return writer.result


class _Writer:
    """Writes as Java does: what was written before is referred to by its number."""

    def __init__(self, handles: int) -> None:
        self._pieces: list[bytes] = []
        self._count = handles
        self._numbers: dict[str, int] = {}

    @property
    def result(self) -> bytes:
        return b"".join(self._pieces)

    def add(self, data: bytes) -> None:
        self._pieces.append(data)

    def head(self) -> None:
        self._count += 1  # The class itself.
        fields = [struct.pack(">H", len(_CLASS.fields))]
        for kind, name in _CLASS.fields:
            fields.append(kind[0].encode() + struct.pack(">H", len(name)) + name.encode())
            if len(kind) > 1:
                fields.append(self._once(f"text {kind}", encode_text(kind)))
        self.add(bytes((JavaCode.OBJECT,)))
        self.add(class_description(_NAME, 1, SERIALIZABLE, fields=b"".join(fields)))
        self._count += 1  # The object.

    def byte_array(self, data: bytes | None) -> None:
        if data is None:
            self.add(_NULL)
            return
        self.add(bytes((JavaCode.ARRAY,)) + self._once(BYTES, HEAD_OF_BYTES[1:]))
        self._count += 1
        self.add(_I32.pack(len(data)) + data)

    def nodes(self, nodes: tuple[Member | None, ...] | None) -> None:
        if nodes is None:
            self.add(_NULL)
            return
        described = class_description(_NODES_CLASS.name, 0x5EC4606B842D393C, SERIALIZABLE)
        self.add(bytes((JavaCode.ARRAY,)) + self._once(_NODES_CLASS.name, described))
        self._count += 1
        self.add(_I32.pack(len(nodes)))
        for member in nodes:
            self.member(member)

    def member(self, member: Member | None) -> None:
        if member is None:
            self.add(_NULL)
            return
        self.add(bytes((JavaCode.OBJECT,)) + self._once("member", MEMBER_CLASS))
        self._count += 1
        self.add(member_data(member))

    def _once(self, name: str, data: bytes) -> bytes:
        """Return what it takes to write a text or a class here: itself, or a reference."""
        number = self._numbers.get(name)
        if number is not None:
            return bytes((JavaCode.REFERENCE,)) + _I32.pack(FIRST_HANDLE + number)
        self._numbers[name] = self._count
        self._count += 1
        return data


def encode_map_state(state: MapState) -> bytes:
    """Return the whole stream that is the value of a reply to PING."""
    return STREAM_HEADER + _STATE_HEAD + encode_text(state.value)


def decode_map_state(stream: bytes) -> MapState:
    """Return the state of a whole stream.

    Raises:
        RemoteProtocolError: It is malformed, or something else.
    """
    text = read_whole(stream, _read_state)
    try:
        return MapState(text)
    except ValueError as why:
        raise RemoteProtocolError(f"a map is not {text[:40]!r}") from why


def _read_state(reader: JavaReader) -> str:
    reader.expect_object(_STATE_CLASS, "state of a map", JavaCode.ENUM)
    return reader.text()
