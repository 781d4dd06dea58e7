"""What a farm's core wants done; see :mod:`tribes.farm.core`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tribes.farm.catalogue import Entry
    from tribes.farm.messages import Message
    from tribes.farm.names import ArchiveName

__all__ = [
    "DropPart",
    "FarmOutput",
    "Forget",
    "Install",
    "Prepare",
    "ReadChunk",
    "Save",
    "Send",
    "Tell",
    "WriteChunk",
]


@final
@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a member, by its unique id."""

    member: bytes
    message: Message


@final
@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Read a piece from the store, send it to a member, and say so by ``read``."""

    member: bytes
    key: bytes
    chunk_bytes: int
    index: int


@final
@dataclass(frozen=True, slots=True)
class WriteChunk:
    """Write a piece of a content, and say so by ``wrote``."""

    key: bytes
    size: int
    chunk_bytes: int
    index: int
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Prepare:
    """Verify the pieces against the digest and unpack them into the store; then ``prepared``."""

    key: bytes
    name: ArchiveName
    size: int


@final
@dataclass(frozen=True, slots=True)
class Install:
    """Put a content in place, or take an application away; then ``installed_now``."""

    entry: Entry


@final
@dataclass(frozen=True, slots=True)
class DropPart:
    """Delete the pieces of a content."""

    key: bytes


@final
@dataclass(frozen=True, slots=True)
class Forget:
    """Delete a content from the store."""

    key: bytes


@final
@dataclass(frozen=True, slots=True)
class Save:
    """Write down what must survive the process, before any later output of the disk."""

    entries: tuple[Entry, ...]
    previous: Mapping[str, bytes]


@final
@dataclass(frozen=True, slots=True)
class Tell:
    """Something for the log."""

    event: str
    fields: Mapping[str, object]


FarmOutput = Send | ReadChunk | WriteChunk | Prepare | Install | DropPart | Forget | Save | Tell
