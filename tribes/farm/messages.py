"""What the members of a farm say to each other: byte messages of one magic, a version and msgpack.

::

    payload = 00 54 50 46 | u8 version (1) | msgpack array [kind, …]

    STATE     [0, ask, [entry …], [key …], [report …]]
    DIGEST    [1, digest]
    FETCH     [2, key, chunk bytes, [index …]]
    CHUNK     [3, key, chunk bytes, index, data]
    LACK      [4, key]

    entry  = [file, counter, origin, digest, size, modified ms, base, phase, why]
    report = [file, counter, origin, digest, standing, received bytes, why]
    key    = SHA-256 of an archive | u8 kind

STATE is all that a member knows and has; ``ask`` wants the other's. DIGEST is a hash of what is to
be equal everywhere, so that a lost STATE is noticed. A ``key`` names a content, so whoever has it
can send it, and a piece is the same from anybody.

Every field of a received message is checked here. A later release may add fields at the end of a
message, and kinds: this one does not look at either. Tomcat's own messages (``FileMessage``,
``UndeployMessage``) are objects of Java: they are dropped like all of these.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, final

from tribes.errors import FarmError, RemoteProtocolError
from tribes.farm.catalogue import APPS_MAX, Entry, Phase
from tribes.farm.names import ArchiveName
from tribes.wire.codec import pack, unpack

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_MAX_BYTES",
    "KEY_BYTES",
    "PREFIX",
    "WHY_MAX_CHARS",
    "WINDOW",
    "Chunk",
    "Digest",
    "Fetch",
    "Lack",
    "Message",
    "Report",
    "Standing",
    "State",
    "decode",
    "encode",
    "entry_fields",
    "read_entry",
]

PREFIX: Final = b"\x00TPF\x01"
CHUNK_BYTES: Final = 64 * 1024
"""Of an archive in one message: sessions' changes wait no longer behind it than behind a message of
a state transfer."""
CHUNK_MAX_BYTES: Final = 256 * 1024
WINDOW: Final = 8
"""Pieces that are asked for and not written yet, so 512 KiB of memory at most."""

KEY_BYTES: Final = 33
ID_BYTES: Final = 16
DIGEST_BYTES: Final = 32
WHY_MAX_CHARS: Final = 300
_COUNTER_MAX: Final = 2**62
_ENTRIES_MAX: Final = 2 * APPS_MAX
_KEYS_MAX: Final = 4 * APPS_MAX


@final
class Standing(enum.IntEnum):
    """How a member stands to an entry."""

    LACKS = 0
    """It does not have the archive yet."""
    READY = 1
    """It has the archive, verified and unpacked, and can put it in place at once."""
    FAILED = 2
    DEPLOYED = 3
    """It is in place."""


@final
@dataclass(frozen=True, slots=True)
class Report:
    """How a member stands to one entry.

    Attributes:
        file: Of the archive.
        order: Of the entry.
        standing: How it stands.
        received: Bytes of the archive that it has.
        why: Why it failed.
    """

    file: str
    order: tuple[int, bytes, bytes]
    standing: Standing
    received: int = 0
    why: str = ""


@final
@dataclass(frozen=True, slots=True)
class State:
    """All that a member knows and has; `ask`: it wants the receiver's."""

    ask: bool
    entries: tuple[Entry, ...]
    keys: frozenset[bytes]
    reports: tuple[Report, ...]


@final
@dataclass(frozen=True, slots=True)
class Digest:
    """A hash of the entries."""

    digest: bytes


@final
@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks for pieces of a content."""

    key: bytes
    chunk_bytes: int
    indices: tuple[int, ...]


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a content."""

    key: bytes
    chunk_bytes: int
    index: int
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Lack:
    """The sender does not have a content that it was asked for."""

    key: bytes


Message = State | Digest | Fetch | Chunk | Lack


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case State():
            entries = [entry_fields(each) for each in message.entries]
            reports = [_report(each) for each in message.reports]
            fields = [0, message.ask, entries, sorted(message.keys), reports]
        case Digest():
            fields = [1, message.digest]
        case Fetch():
            fields = [2, message.key, message.chunk_bytes, list(message.indices)]
        case Chunk():
            fields = [3, message.key, message.chunk_bytes, message.index, message.data]
        case Lack():
            fields = [4, message.key]
    return PREFIX + pack(fields)


def entry_fields(entry: Entry) -> list[Any]:
    """What `read_entry` reads."""
    order = [entry.counter, entry.origin, entry.digest]
    times = [entry.size, entry.modified_ms, entry.base]
    return [entry.name.file, *order, *times, int(entry.phase), entry.why]


def _report(report: Report) -> list[Any]:
    return [report.file, *report.order, int(report.standing), report.received, report.why]


def decode(payload: bytes) -> Message | None:
    """Read a message; None: it is of a kind that this release does not know.

    Raises:
        RemoteProtocolError: A field is not what it must be.
    """
    fields = _list(unpack(payload[len(PREFIX) :]), 1, _ENTRIES_MAX)
    rest = fields[1:]
    match _number(fields[0], 255):
        case 0:
            return _state(rest)
        case 1:
            return Digest(_bytes(_field(rest, 0), DIGEST_BYTES))
        case 2:
            wanted = _list(_field(rest, 2), 1, WINDOW)
            indices = tuple(_number(each, 2**31) for each in wanted)
            return Fetch(_bytes(_field(rest, 0), KEY_BYTES), _chunk_bytes(rest), indices)
        case 3:
            data = _field(rest, 3)
            if not isinstance(data, bytes) or not 0 < len(data) <= CHUNK_MAX_BYTES:
                raise RemoteProtocolError("a piece of an archive is too long or empty")
            index = _number(_field(rest, 2), 2**31)
            return Chunk(_bytes(_field(rest, 0), KEY_BYTES), _chunk_bytes(rest), index, data)
        case 4:
            return Lack(_bytes(_field(rest, 0), KEY_BYTES))
        case _:
            return None


def _state(rest: list[Any]) -> State:
    ask = _field(rest, 0)
    if not isinstance(ask, bool):
        raise RemoteProtocolError("a farm's state does not say whether it asks")
    return State(
        ask,
        tuple(read_entry(each) for each in _list(_field(rest, 1), 0, _ENTRIES_MAX)),
        frozenset(_bytes(each, KEY_BYTES) for each in _list(_field(rest, 2), 0, _KEYS_MAX)),
        tuple(_read_report(each) for each in _list(_field(rest, 3), 0, _ENTRIES_MAX)),
    )


def read_entry(value: Any) -> Entry:
    """Check an entry, from a member or from the own file.

    Raises:
        RemoteProtocolError: A field is not what it must be.
    """
    fields = _list(value, 9, 32)
    name, (counter, origin, digest) = _name(fields[0]), _order(fields[1:4])
    size, modified = _number(fields[4], 2**50), _number(fields[5], 2**50)
    base, phase = _number(fields[6], _COUNTER_MAX), Phase(_number(fields[7], max(Phase)))
    return Entry(name, counter, origin, digest, size, modified, base, phase, _text(fields[8]))


def _read_report(value: Any) -> Report:
    fields = _list(value, 7, 32)
    standing = Standing(_number(fields[4], max(Standing)))
    received = _number(fields[5], 2**50)
    order = _order(fields[1:4])
    return Report(_name(fields[0]).file, order, standing, received, _text(fields[6]))


def _name(value: Any) -> ArchiveName:
    try:
        return ArchiveName.parse(_text(value))
    except FarmError as why:
        raise RemoteProtocolError(str(why)) from None


def _order(fields: list[Any]) -> tuple[int, bytes, bytes]:
    digest = fields[2]
    if digest != b"":
        digest = _bytes(digest, DIGEST_BYTES)
    return _number(fields[0], _COUNTER_MAX), _bytes(fields[1], ID_BYTES), digest


def _chunk_bytes(rest: list[Any]) -> int:
    size = _number(_field(rest, 1), CHUNK_MAX_BYTES)
    if not size:
        raise RemoteProtocolError("pieces of an archive have no length")
    return size


def _field(fields: list[Any], index: int) -> Any:
    if index >= len(fields):
        raise RemoteProtocolError("a message of the farm is too short")
    return fields[index]


def _list(value: Any, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise RemoteProtocolError(f"a list of the farm must have {least} to {most} elements")
    return value


def _number(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise RemoteProtocolError(f"a number of the farm must be from 0 to {most}")
    return value


def _bytes(value: Any, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise RemoteProtocolError(f"an id of the farm must have {length} bytes")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > WHY_MAX_CHARS:
        raise RemoteProtocolError(f"a text of the farm has at most {WHY_MAX_CHARS} characters")
    return value
