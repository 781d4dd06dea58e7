r"""All sessions of an application in one file, from a clean stop to the next start.

::

    "\x89TSS 1\n", then per session:
    marker (8) | u16 length of key | u32 of value | u32 CRC-32 of these and the key | key | value

Where a piece of the file is damaged, reading goes on at the next marker whose check holds, so it
costs the sessions that it hit.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, final
from zlib import crc32

from tribes.errors import StoreError

from .file import replace_file
from .protocol import is_storable_key

__all__ = ["Contents", "SnapshotFile"]

_MAGIC: Final = b"\x89TSS 1\n"
_MARKER: Final = b"\xffSESS\x00\xfe\x01"
_HEAD: Final = Struct(">8sHI")
_CHECK: Final = Struct(">I")


class Contents(NamedTuple):
    """What was in a file: values by key, and how many places were damaged."""

    values: list[tuple[str, bytes]]
    damaged: int


@final
class SnapshotFile:
    """The file (Tomcat: ``pathname`` of the StandardManager).

    Args:
        path: Where; its directory must be there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def save(self, values: Iterable[tuple[str, bytes]]) -> None:
        """Replace the file, as a whole.

        Raises:
            StoreError: It cannot be written; the old one stays.
        """
        replace_file(self.path, _pieces(values))

    def load(self) -> Contents:
        """Read the file; nothing if there is none.

        Raises:
            StoreError: It cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Contents([], 0)
        except OSError as why:
            raise StoreError(f"cannot read {self.path}: {why.strerror}") from why
        return _parse(data)

    def remove(self) -> None:
        """Remove the file: after a crash, what it holds would bring ended sessions back."""
        self._try(self.path.unlink)

    def refuse(self) -> Path:
        """Set the file aside, for people; return its new name."""
        aside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.refused")
        self._try(lambda: self.path.rename(aside))
        return aside

    def _try(self, act: object) -> None:
        assert callable(act)
        try:
            with suppress(FileNotFoundError):
                act()
        except OSError as why:
            raise StoreError(f"cannot remove or rename {self.path}: {why.strerror}") from why


def _pieces(values: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    yield _MAGIC
    for key, value in values:
        name = key.encode()
        head = _HEAD.pack(_MARKER, len(name), len(value))
        yield b"".join((head, _CHECK.pack(crc32(head + name)), name, value))


def _parse(data: bytes) -> Contents:
    values: list[tuple[str, bytes]] = []
    damaged = 0
    at = len(_MAGIC)
    if not data.startswith(_MAGIC):
        at, damaged = 0, 1
    while at < len(data):
        found = _one(data, at)
        if found is None:
            damaged += 1
            at = data.find(_MARKER, at + 1)
            if at < 0:
                break
            continue
        key, value, at = found
        values.append((key, value))
    return Contents(values, damaged)


def _one(data: bytes, at: int) -> tuple[str, bytes, int] | None:
    """The session that begins here, if one does and is complete."""
    start = at + _HEAD.size + _CHECK.size
    if start > len(data):
        return None
    marker, name_bytes, value_bytes = _HEAD.unpack_from(data, at)
    name, end = data[start : start + name_bytes], start + name_bytes + value_bytes
    check = crc32(data[at : at + _HEAD.size] + name)
    if marker != _MARKER or _CHECK.unpack_from(data, at + _HEAD.size)[0] != check:
        return None
    key = name.decode("ascii", "replace")
    if end > len(data) or not is_storable_key(key):
        return None
    return key, data[start + name_bytes : end], end
