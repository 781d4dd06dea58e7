"""Archives, which may come from anybody: checked whole, and unpacked within bounds or not at all.

Nothing that an archive says of itself is believed: sizes are counted while they are unpacked, names
are held against :mod:`tribes.farm.names`, and there are files and directories only. Whatever is
unpacked lands in a directory that nobody looks at, and is deleted when anything is refused.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, final

from tribes.errors import FarmError
from tribes.farm.names import Kind, entry_path, same_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Limits", "check", "unpack"]

_PIECE_BYTES: Final = 64 * 1024
_FREE_BYTES: Final = 1024 * 1024
"""The ratio counts from here: a small file of zeros is no bomb."""
_DIRECTORY_BYTES_PER_ENTRY: Final = 256
_HEADER_MAX_BYTES: Final = 8 * 1024
"""Longest name or extended header; paths have 1024 bytes at most. Readers before Python 3.11.10
take quadratic time for one (CVE-2024-6232), and nothing else runs meanwhile."""
_READ_MAX_BYTES: Final = 1024 * 1024
_HEADERS_MAX_BYTES: Final = 1024 * 1024
"""Of all that stands before one entry: names, extended headers, the map of a sparse file."""
_ENCRYPTED: Final = 0x1
_FILE_MODE: Final = 0o644
_RUN_MODE: Final = 0o755

_Broken = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    UnicodeError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    IndexError,
    KeyError,
)
"""What the readers raise for bytes that are no archive."""


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may become.

    Attributes:
        unpacked_max_bytes: All its files together.
        ratio_max: How many times more than the archive that may be.
        entries_max: Files and directories.
    """

    unpacked_max_bytes: int
    ratio_max: int
    entries_max: int


@final
class _Budget:
    """Counts what is really unpacked."""

    def __init__(self, limits: Limits, archive_bytes: int) -> None:
        self._limits = limits
        self._ratio_limit = limits.ratio_max * archive_bytes + _FREE_BYTES
        self._bytes = 0
        self._entries = 0
        self._seen: dict[str, bool] = {}

    def spend(self, count: int) -> None:
        """So many bytes more."""
        self._bytes += count
        if self._bytes > self._limits.unpacked_max_bytes:
            limit = self._limits.unpacked_max_bytes
            raise FarmError(f"it unpacks to more than farm.unpacked_max_bytes allows, {limit}")
        if self._bytes > self._ratio_limit:
            limit = self._limits.ratio_max
            raise FarmError(f"it unpacks to more than farm.ratio_max times its size, {limit}")

    def enter(self, name: str, *, is_directory: bool) -> tuple[str, ...]:
        """One entry more; returns the parts of its path."""
        self._entries += 1
        if self._entries > self._limits.entries_max:
            limit = self._limits.entries_max
            raise FarmError(f"it has more entries than farm.entries_max allows, {limit}")
        parts = entry_path(name)
        for depth in range(1, len(parts)):
            self._claim(parts[:depth], name, is_directory=True)
        if parts:
            self._claim(parts, name, is_directory=is_directory)
        elif not is_directory:
            raise FarmError(f"entry {name[:120]!r} has no name")
        return parts

    def _claim(self, parts: tuple[str, ...], name: str, *, is_directory: bool) -> None:
        same = same_path(parts)
        before = self._seen.get(same)
        if before is None:
            self._seen[same] = is_directory
        elif not (before and is_directory):
            raise FarmError(
                f"entry {name[:120]!r} is there twice, or is the same as another one where a file "
                "system tells no case"
            )


def check(path: Path, kind: Kind, limits: Limits) -> None:
    """Refuse what could not be unpacked, without unpacking it to a disk.

    Raises:
        FarmError: What is wrong.
        OSError: The file cannot be read.
    """
    _run(path, kind, limits, None)


def unpack(path: Path, kind: Kind, into: Path, limits: Limits) -> None:
    """Unpack an archive into an empty directory.

    Raises:
        FarmError: What is wrong; a part of it may be there.
        OSError: The file cannot be read, or the directory not written.
    """
    _run(path, kind, limits, into)


def _run(path: Path, kind: Kind, limits: Limits, into: Path | None) -> None:
    budget = _Budget(limits, path.stat().st_size)
    try:
        with path.open("rb") as file:
            if kind is Kind.TAR:
                _read_tar(file, budget, into)
            else:
                _read_zip(file, budget, limits, into)
    except _Broken as why:
        raise FarmError(f"it is no {_NAMES[kind]} file, or a damaged one: {why}"[:300]) from None


_NAMES: Final = {Kind.ZIP: "zip", Kind.FILE: "zip", Kind.TAR: "tar.gz"}


# ---- zip -------------------------------------------------------------------------------------


def _read_zip(file: IO[bytes], budget: _Budget, limits: Limits, into: Path | None) -> None:
    most = max(limits.entries_max * _DIRECTORY_BYTES_PER_ENTRY, _PIECE_BYTES * 2)
    with zipfile.ZipFile(_Bounded(file, most)) as archive:
        for info in archive.infolist():
            _check_zip_entry(info)
            # A name that was cut at a NUL has another one in the file.
            is_directory = info.is_dir()
            parts = budget.enter(info.orig_filename, is_directory=is_directory)
            if is_directory:
                _make_directory(into, parts)
                continue
            is_program = bool((info.external_attr >> 16) & 0o111)
            with archive.open(info) as content:
                _copy(content, budget, into, parts, is_program=is_program)


def _check_zip_entry(info: zipfile.ZipInfo) -> None:
    shown = repr(info.orig_filename[:120])
    if info.flag_bits & _ENCRYPTED:
        raise FarmError(f"entry {shown} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FarmError(f"entry {shown} is compressed otherwise than by deflate")
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise FarmError(f"entry {shown} is no file and no directory, but {_what(mode)}")


def _what(mode: int) -> str:
    return "a symbolic link" if stat.S_ISLNK(mode) else "a device or the like"


class _Bounded:
    """A file of which nobody reads much at once: a directory of a zip file is read whole."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._most = most
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > self._most:
            # The reader asks for the rest of the file where its end holds the directory.
            here = self._file.tell()
            left = os.fstat(self._file.fileno()).st_size - here
            count = left if count < 0 else min(count, left)
            if count > self._most:
                raise FarmError("its directory is larger than farm.entries_max allows")
        return self._file.read(count)

    def close(self) -> None:
        self._file.close()


# ---- tar.gz ----------------------------------------------------------------------------------


class _Header(tarfile.TarInfo):
    """A header that announces no long texts: they would be read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Read 512 bytes; called by the reader for each header."""
        header = super().frombuf(buf, encoding, errors)
        if header.type not in _PLAIN_TYPES and header.size > _HEADER_MAX_BYTES:
            raise FarmError("it has a header that is too long")
        return header


_PLAIN_TYPES: Final = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)


class _Inflated:
    """The bytes of a gzip file, counted and bounded."""

    def __init__(self, file: IO[bytes], budget: _Budget) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        self._budget = budget
        self.header_left: int | None = _HEADERS_MAX_BYTES
        """Bytes that the reader may still take to find the next entry; None: it reads contents."""

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _READ_MAX_BYTES:
            raise FarmError("it has a header that is too long")
        data = self._file.read(count)
        self._budget.spend(len(data))
        if self.header_left is not None:
            self.header_left -= len(data)
            if self.header_left < 0:
                raise FarmError("it has a header that is too long")
        return data


def _read_tar(file: IO[bytes], budget: _Budget, into: Path | None) -> None:
    stream: Any = _Inflated(file, budget)
    # "r|": read once from front to back, so that nothing is found by an offset it claims.
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE_BYTES, tarinfo=_Header) as archive:
        for info in _members(archive, stream):
            if info.isdir():
                _make_directory(into, budget.enter(info.name, is_directory=True))
            elif info.isreg() and not info.issparse():
                parts = budget.enter(info.name, is_directory=False)
                content = archive.extractfile(info)
                assert content is not None
                _copy(content, None, into, parts, is_program=bool(info.mode & 0o111))
            else:
                shown = repr(info.name[:120])
                what = "a link" if info.islnk() or info.issym() else "a device or the like"
                raise FarmError(f"entry {shown} is no file and no directory, but {what}")
    # To its end, where its checksum is.
    while stream.read(_PIECE_BYTES):
        pass


def _members(archive: tarfile.TarFile, stream: _Inflated) -> Iterator[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
        stream.header_left = None
        yield info
        stream.header_left = _HEADERS_MAX_BYTES
        # It would keep all of them, and what all headers say.
        archive.members = []  # type: ignore[attr-defined]
        archive.pax_headers = {}
    stream.header_left = None


# ---- files -----------------------------------------------------------------------------------


def _make_directory(into: Path | None, parts: tuple[str, ...]) -> None:
    if into is not None:
        into.joinpath(*parts).mkdir(mode=_RUN_MODE, parents=True, exist_ok=True)


def _copy(
    content: IO[bytes],
    budget: _Budget | None,
    into: Path | None,
    parts: tuple[str, ...],
    *,
    is_program: bool,
) -> None:
    if into is None:
        while data := content.read(_PIECE_BYTES):
            if budget is not None:
                budget.spend(len(data))
        return
    path = into.joinpath(*parts)
    path.parent.mkdir(mode=_RUN_MODE, parents=True, exist_ok=True)
    # Whatever bits an archive asks for, nobody gets more than reading, and running what runs.
    mode = _RUN_MODE if is_program else _FILE_MODE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode)
    with open(descriptor, "wb") as file:
        while data := content.read(_PIECE_BYTES):
            if budget is not None:
                budget.spend(len(data))
            file.write(data)


_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
