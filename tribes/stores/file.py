"""Sessions as files of one directory: ``<id>.session`` (Tomcat's FileStore, tomcat-sessions §6.3).

A file is a header and the value::

    magic "TSF1" | u64 version | i64 last access, ms | i32 idle limit, s | u32 CRC-32 of these

**Replacing is atomic**: the new file is written beside the old one, under a name of its own, and
renamed over it.  A reader sees the old or the new one, whenever a process is killed; what a killed
one left over is removed an hour later.  With ``fsync="full"`` that holds for a power cut too.

**Two processes** may share the directory on one machine: reading a version and replacing it is one
step under a lock (``flock``) on one of 64 lock files, by key.  The locks are the kernel's, so a
killed holder gives them back.

**Bad input**: a key is letters, digits, ``-`` and ``_``; anything else has no file.  Links are not
followed.  Files that cannot be read are renamed to ``….refused`` and left alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import Final, Literal, NamedTuple, final
from zlib import crc32

from tribes.errors import (
    ConfigError,
    StoreConflictError,
    StoreDataError,
    StoreError,
)

from .idle import storable_idle_s
from .protocol import VALUE_MAX_BYTES, Stored, check_size, is_storable_key

__all__ = ["FileStore", "replace_file"]

FsyncPolicy = Literal["off", "data", "full"]

LOCKS: Final = 64
LEFT_OVER_S: Final = 3600
"""A temporary file that is older belongs to nobody any more."""

_SUFFIX: Final = ".session"
_REFUSED: Final = ".refused"
_TEMPORARY: Final = ".tmp"
_HEAD: Final = Struct(">4sQqi")
_CHECK: Final = Struct(">I")
_HEAD_BYTES: Final = _HEAD.size + _CHECK.size
_MAGIC: Final = b"TSF1"


class _Head(NamedTuple):
    version: int
    last_access_ms: int
    max_inactive_s: int


@final
class FileStore:
    """One file per session.

    Args:
        directory: Where; made, for this user only, if it is not there.
        fsync: What a save waits for. ``"off"``: nothing; a power cut may lose the newest saves or
            leave empty files, which are refused. ``"data"``: the file's content is on the disk
            before it gets its name, so a power cut leaves old or new. ``"full"``: the name too, so
            what was saved stays saved.
        value_max_bytes: A longer value is refused.

    Raises:
        ConfigError: The directory cannot be made or written, or a setting cannot be used.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        fsync: FsyncPolicy = "data",
        value_max_bytes: int = VALUE_MAX_BYTES,
    ) -> None:
        if fsync not in ("off", "data", "full"):
            raise ConfigError(f"must be 'off', 'data' or 'full', found {fsync!r}", key="fsync")
        self.directory = Path(directory).absolute()
        self._fsync = fsync
        self._value_max_bytes = value_max_bytes
        self._mutexes = [threading.Lock() for _ in range(LOCKS)]
        self._pid = os.getpid()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.directory / ".locks").mkdir(mode=0o700, exist_ok=True)
        except OSError as why:
            raise ConfigError(
                f"{self.directory} cannot be made or used: {why.strerror}", key="directory"
            ) from why
        if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"{self.directory} cannot be written", key="directory")

    @property
    def name(self) -> str:
        """The directory."""
        return f"directory {self.directory}"

    def load(self, key: str) -> Stored | None:
        """See `Store.load`. Takes no lock: a file is complete as long as it has its name."""
        if not is_storable_key(key):
            return None
        with self._errors("read"):
            data = self._read(key)
        if data is None:
            return None
        return Stored(data[_HEAD_BYTES:], _head_of(data).version)

    def save(
        self, key: str, data: bytes, *, expected: int, last_access_ms: int, max_inactive_s: int
    ) -> int:
        """See `Store.save`."""
        if not is_storable_key(key):
            raise StoreError(f"{key[:40]!r} cannot be the name of a session's file")
        check_size(self.name, data, self._value_max_bytes)
        version = secrets.randbits(63) | 1
        head = _HEAD.pack(_MAGIC, version, last_access_ms, storable_idle_s(max_inactive_s))
        content = b"".join((head, _CHECK.pack(crc32(head)), data))
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
        with self._errors("write"):
            try:
                # Outside the lock: only the look at the version and the renaming must be one step.
                _write_new(temporary, content, sync=self._fsync != "off")
                with self._locked(key):
                    self._check_version(key, expected)
                    os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            if self._fsync == "full":
                _sync_directory(self.directory)
        return version

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `Store.delete`."""
        if not is_storable_key(key):
            return False
        with self._errors("remove"), self._locked(key):
            if expected is not None:
                found = self._version(key)
                if found is None:
                    return False
                if found != expected:
                    raise StoreConflictError(f"{self.name} has another version of the session")
            try:
                self._path(key).unlink()
            except FileNotFoundError:
                return False
            if self._fsync == "full":
                _sync_directory(self.directory)
        return True

    def refuse(self, key: str) -> None:
        """See `Store.refuse`: the file's name gets ``.refused``, and a number if there is one."""
        if not is_storable_key(key):
            return
        path = self._path(key)
        with self._errors("set aside"), self._locked(key):
            aside = path.with_name(path.name + _REFUSED)
            if os.path.lexists(aside):
                aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_REFUSED}")
            with suppress(FileNotFoundError):
                os.rename(path, aside)

    def keys(self) -> Iterator[str]:
        """See `Store.keys`."""
        with self._errors("list"):
            names = os.listdir(self.directory)
        for name in names:
            key = name.removesuffix(_SUFFIX)
            if key != name and is_storable_key(key):
                yield key

    def expired(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """See `Store.expired`. Reads 28 bytes of each file; removes what killed processes left."""
        found: list[tuple[str, int]] = []
        with self._errors("list"), os.scandir(self.directory) as entries:
            for entry in entries:
                key = entry.name.removesuffix(_SUFFIX)
                if key != entry.name and is_storable_key(key):
                    head = self._head(key)
                    if head is not None and _is_expired(head, now_ms):
                        found.append((key, head.version))
                        if len(found) >= limit:
                            break
                elif entry.name.endswith(_TEMPORARY):
                    _remove_left_over(entry)
        return found

    def clear(self) -> None:
        """See `Store.clear`."""
        for key in self.keys():
            self.delete(key)

    def close(self) -> None:
        """Nothing is kept open."""

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{_SUFFIX}"

    def _read(self, key: str, limit: int | None = None) -> bytes | None:
        """The bytes of a session's file; None if there is none that is a plain file."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as why:
            if why.errno == errno.ELOOP:
                raise StoreDataError("it is a link, and links are not followed") from why
            raise
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            # Before fdopen, which refuses a directory and leaves it open.
            os.close(fd)
            raise StoreDataError("it is no plain file")
        with os.fdopen(fd, "rb") as file:
            most = self._value_max_bytes + _HEAD_BYTES
            if info.st_size > most:
                raise StoreDataError(f"its {info.st_size} bytes are more than {most}")
            return file.read(most if limit is None else limit)

    def _head(self, key: str) -> _Head | None:
        """The header; None if there is no file or no header, which `load` reports."""
        try:
            data = self._read(key, _HEAD_BYTES)
            return None if data is None else _head_of(data)
        except (StoreDataError, PermissionError):
            return None

    def _version(self, key: str) -> int | None:
        data = self._read(key, _HEAD_BYTES)
        return None if data is None else _head_of(data).version

    def _check_version(self, key: str, expected: int) -> None:
        if (self._version(key) or 0) != expected:
            raise StoreConflictError(f"{self.name} has another version of the session")

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Keep every other thread and process away from a key's file."""
        if self._pid != os.getpid():
            # Forked: who held a lock may be a thread that exists only in the parent.
            self._mutexes = [threading.Lock() for _ in range(LOCKS)]
            self._pid = os.getpid()
        number = crc32(key.encode()) % LOCKS
        with self._mutexes[number]:
            path = self.directory / ".locks" / f"{number:02d}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as why:
            raise StoreError(f"cannot {verb} in {self.name}: {why.strerror}") from why


def replace_file(path: Path, pieces: Iterator[bytes]) -> None:
    """Replace a file's content: the whole new one, on the disk, or the old one.

    Raises:
        StoreError: It cannot be written; the old one stays.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
    try:
        try:
            _write_new(temporary, pieces, sync=True)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_directory(path.parent)
    except OSError as why:
        raise StoreError(f"cannot write {path}: {why.strerror}") from why


def _write_new(path: Path, content: bytes | Iterator[bytes], *, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        for piece in (content,) if isinstance(content, bytes) else content:
            file.write(piece)
        file.flush()
        if sync:
            os.fsync(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _head_of(data: bytes) -> _Head:
    if len(data) < _HEAD_BYTES:
        raise StoreDataError(f"a file of {len(data)} bytes is no stored session")
    magic, version, last_access_ms, max_inactive_s = _HEAD.unpack_from(data)
    if magic != _MAGIC or _CHECK.unpack_from(data, _HEAD.size)[0] != crc32(data[: _HEAD.size]):
        raise StoreDataError("the file is no session of this store, or damaged")
    return _Head(version, last_access_ms, max_inactive_s)


def _is_expired(head: _Head, now_ms: int) -> bool:
    return head.max_inactive_s > 0 and head.last_access_ms + 1000 * head.max_inactive_s <= now_ms


def _remove_left_over(entry: os.DirEntry[str], now: Callable[[], float] = time.time) -> None:
    with suppress(OSError):
        if now() - entry.stat(follow_symlinks=False).st_mtime > LEFT_OVER_S:
            os.unlink(entry.path)
