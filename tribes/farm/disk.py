"""The directories of a farm's member. All of it is called in worker threads.

It is one file because all of it rests on one thing: what a crash between any two lines leaves, and
what the next start makes of that.

::

    deploy_dir/shop                        a link to .farm/store/KEY/tree
    deploy_dir/tool.pyz                    a link to .farm/store/KEY/archive
    deploy_dir/.farm/state                 what is known, written before anything is put in place
    deploy_dir/.farm/watched               what was seen in the watch directory
    deploy_dir/.farm/store/KEY/            a content: verified, unpacked, and complete
    deploy_dir/.farm/new/                  contents that are being unpacked
    temp_dir/KEY.part, KEY.map             pieces of a transfer, and which there are
    temp_dir/given-*                       archives that are being taken in

A content appears in the store by one rename of a directory, and an application by one rename of a
link, so a reader finds the old version or the new one. After a crash what is in ``new`` and
``given-*`` is deleted, and pieces are used again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import structlog

from tribes.errors import FarmError, LocalProtocolError, RemoteProtocolError
from tribes.farm.archives import Limits, check, unpack
from tribes.farm.messages import CHUNK_MAX_BYTES, KEY_BYTES, entry_fields, read_entry
from tribes.farm.names import ArchiveName, Kind
from tribes.farm.records import Kept
from tribes.farm.transfer import Part
from tribes.wire.codec import pack
from tribes.wire.codec import unpack as unpack_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tribes.config.farm import FarmConfig
    from tribes.farm.catalogue import Entry
    from tribes.farm.outputs import Prepare, Save, WriteChunk

__all__ = ["CorruptError", "FarmDisk", "Given"]

log = structlog.get_logger("tribes")

_OWN: Final = ".farm"
_PIECE_BYTES: Final = 256 * 1024
_STATE_MAX_BYTES: Final = 8 * 1024 * 1024
_HEADER_BYTES: Final = 16
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class CorruptError(FarmError):
    """A content does not have the digest that it must have."""


@final
class Given(msgspec.Struct, frozen=True):
    """An archive that was taken in.

    Attributes:
        name: Its name.
        digest: Of its content.
        size: Its bytes.
        modified_ms: When the file was modified, in milliseconds since 1970.
    """

    name: ArchiveName
    digest: bytes
    size: int
    modified_ms: int


@final
class FarmDisk:
    """The files of a farm.

    Args:
        config: Where, and how much.
    """

    def __init__(self, config: FarmConfig) -> None:
        self._config = config
        self._temp = Path(config.temp_dir)
        self._deploy = Path(config.deploy_dir)
        self._own = self._deploy / _OWN
        self._store = self._own / "store"
        self._new = self._own / "new"
        self._used = 0

    # ---- the start -------------------------------------------------------------------------------

    def open(self) -> Kept:
        """Make the directories, delete what a crash has left half done, and read the rest.

        Raises:
            OSError: A directory cannot be made or read.
            FarmError: What this farm has written cannot be read; names the file.
        """
        for each in (self._temp, self._store, self._new):
            each.mkdir(mode=0o755, parents=True, exist_ok=True)
        for left in self._new.iterdir():
            _delete(left)
        for left in self._temp.glob("given-*"):
            _delete(left)
        self._delete_orphans()
        keys = frozenset(key for each in self._store.iterdir() if (key := _key_of(each.name)))
        entries, previous = self._read_state()
        self._used = _size_of(self._store) + _size_of(self._temp)
        return Kept(entries, keys, dict(self._installed()), dict(self._parts()), previous)

    def _delete_orphans(self) -> None:
        """What a crash has left between the first file of a transfer and the last."""
        for left in self._temp.glob("*.map.new"):
            _delete(left)
        for part in self._temp.glob("*.part"):
            if not part.with_suffix(".map").exists():
                _delete(part)

    def _read_state(self) -> tuple[tuple[Entry, ...], Mapping[str, bytes]]:
        path = self._own / "state"
        try:
            data = path.read_bytes()[: _STATE_MAX_BYTES + 1]
        except FileNotFoundError:
            return (), {}
        try:
            version, entries, previous = unpack_message(data)
            if version != 1 or not isinstance(entries, list) or not isinstance(previous, dict):
                raise FarmError("its version or its form is another one")
            keys = {app: key for app, key in previous.items() if _is_key(key)}
            return tuple(map(read_entry, entries)), keys
        except (RemoteProtocolError, FarmError, ValueError, TypeError) as why:
            raise FarmError(
                f"{path} cannot be read: {why}; delete it, and this member learns from the others "
                "what is deployed"
            ) from None

    def _installed(self) -> Iterator[tuple[str, bytes]]:
        for link in self._deploy.iterdir():
            key = self._linked(link)
            if key:
                yield _app_of(link.name), key

    def _linked(self, link: Path) -> bytes:
        """The key that a link of ours leads to; empty: it is none, or leads nowhere."""
        try:
            parts = Path(os.readlink(link)).parts
        except OSError:
            return b""
        is_ours = len(parts) == 4 and parts[:2] == (_OWN, "store")
        return _key_of(parts[2]) if is_ours and link.exists() else b""

    def _parts(self) -> Iterator[tuple[bytes, Part]]:
        for path in sorted(self._temp.glob("*.map")):
            data, key = path.read_bytes(), _key_of(path.stem)
            size = int.from_bytes(data[:8])
            chunk_bytes = int.from_bytes(data[8:_HEADER_BYTES])
            have = bytearray(data[_HEADER_BYTES:])
            is_sound = 0 < chunk_bytes <= CHUNK_MAX_BYTES and len(have) == -(-size // chunk_bytes)
            if key and is_sound and self._part(key).exists():
                yield key, Part(size, chunk_bytes, have)
            else:
                self.drop(key)
                path.unlink(missing_ok=True)

    # ---- transfers -------------------------------------------------------------------------------

    def _part(self, key: bytes) -> Path:
        return self._temp / f"{key.hex()}.part"

    def _map(self, key: bytes) -> Path:
        return self._temp / f"{key.hex()}.map"

    def write(self, chunk: WriteChunk) -> None:
        """Write a piece, and then that it is there.

        Raises:
            OSError: It cannot be written.
            FarmError: ``disk_max_bytes`` would be passed.
        """
        part, plan = self._part(chunk.key), self._map(chunk.key)
        if not plan.exists():
            self._check_room(chunk.size)
            total = -(-chunk.size // chunk.chunk_bytes)
            header = chunk.size.to_bytes(8) + chunk.chunk_bytes.to_bytes(8)
            part.touch(mode=0o600)
            _write_whole(plan, header + bytes(total))
            self._used += _HEADER_BYTES + total
        with part.open("r+b") as file:
            # Pieces come in any order, and a file counts as long as it is, gaps included.
            before = file.seek(0, os.SEEK_END)
            file.seek(chunk.index * chunk.chunk_bytes)
            file.write(chunk.data)
            self._used += max(0, file.tell() - before)
        with plan.open("r+b") as file:
            file.seek(_HEADER_BYTES + chunk.index)
            file.write(b"\1")

    def read(self, key: bytes, chunk_bytes: int, index: int) -> bytes:
        """Read a piece of a content of the store.

        Raises:
            OSError: It is not there any more.
        """
        with (self._store / key.hex() / "archive").open("rb") as file:
            file.seek(index * chunk_bytes)
            return file.read(chunk_bytes)

    def drop(self, key: bytes) -> None:
        """Delete the pieces of a transfer. A disk that refuses it costs room, not the node."""
        for path in (self._part(key), self._map(key)):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as why:
                log.error("pieces not deleted", file=path.name, why=why.strerror)
                continue
            self._used -= size

    # ---- the store -------------------------------------------------------------------------------

    def prepare(self, order: Prepare) -> None:
        """Verify a whole transfer and put it into the store, unpacked.

        Raises:
            CorruptError: It has another digest.
            FarmError: It is hostile, damaged or too large.
            OSError: A file cannot be read or written.
        """
        part = self._part(order.key)
        try:
            if not order.size:
                part.touch(mode=0o600)
            digest, size = _digest_of(part)
            if (digest, size) != (order.key[:-1], order.size):
                raise CorruptError("its digest is not the one that was announced")
            self._take(part, order.name, digest)
        finally:
            self.drop(order.key)

    def take(self, path: Path, name: ArchiveName) -> Given:
        """Take in an archive that somebody gives to this member.

        Raises:
            FarmError: It is hostile, damaged or too large, or not a file, or changes meanwhile.
            OSError: A file cannot be read or written.
        """
        copy = self._temp / f"given-{secrets.token_hex(8)}"
        try:
            modified_ns = self._copy(path, copy)
            digest, size = _digest_of(copy)
            self._take(copy, name, digest)
            return Given(name, digest, size, modified_ns // 1_000_000)
        finally:
            copy.unlink(missing_ok=True)

    def _copy(self, path: Path, copy: Path) -> int:
        """Copy a file that may be written to meanwhile; returns when it was modified, in ns."""
        source = os.open(path, os.O_RDONLY | _NO_FOLLOW)
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode):
            # Before open, which refuses a directory and leaves it open.
            os.close(source)
            raise FarmError("it is no plain file")
        with open(source, "rb") as file:
            if before.st_size > self._config.archive_max_bytes:
                raise FarmError(
                    f"it has {before.st_size} bytes, more than farm.archive_max_bytes, "
                    f"{self._config.archive_max_bytes}"
                )
            self._check_room(before.st_size)
            with copy.open("xb") as into:
                left = before.st_size
                while left and (data := file.read(min(left, _PIECE_BYTES))):
                    left -= len(data)
                    into.write(data)
            after = os.fstat(source)
        if left or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise FarmError("it changes while it is read")
        return before.st_mtime_ns

    def _take(self, path: Path, name: ArchiveName, digest: bytes) -> None:
        key = digest + bytes((name.kind,))
        self._check_target(name)
        place = self._store / key.hex()
        if place.exists():
            return
        room = self._config.disk_max_bytes - self._used - path.stat().st_size
        limits = Limits(
            max(min(self._config.unpacked_max_bytes, room), 0),
            self._config.ratio_max,
            self._config.entries_max,
        )
        new = self._new / secrets.token_hex(8)
        new.mkdir(mode=0o755)
        try:
            if name.kind is Kind.FILE:
                check(path, name.kind, limits)
            else:
                tree = new / "tree"
                tree.mkdir(mode=0o755)
                unpack(path, name.kind, tree, limits)
            _copy_file(path, new / "archive")
            _sync_tree(new)
            new.rename(place)
            _sync(self._store)
        except BaseException:
            _delete(new)
            raise
        self._used += _size_of(place)

    def _check_target(self, name: ArchiveName) -> None:
        """Something that is not ours is never replaced."""
        target = self._deploy / name.target
        if target.is_symlink():
            if not self._is_ours(target):
                raise FarmError(f"{target} is a link that the farm has not made; take it away")
        elif target.exists():
            raise FarmError(f"{target} is there, and the farm has not made it; take it away")

    def _is_ours(self, link: Path) -> bool:
        try:
            return Path(os.readlink(link)).parts[:2] == (_OWN, "store")
        except OSError:
            return False

    def _check_room(self, size: int) -> None:
        if self._used + size > self._config.disk_max_bytes:
            raise FarmError(
                f"there are {self._used} bytes of archives here, and {size} more would pass "
                f"farm.disk_max_bytes, {self._config.disk_max_bytes}"
            )

    def forget(self, key: bytes) -> None:
        """Delete a content."""
        place = self._store / key.hex()
        if place.exists():
            self._used -= _size_of(place)
            # Out of sight at once: half of it must never be taken for the whole.
            away = self._new / secrets.token_hex(8)
            place.rename(away)
            _delete(away)

    # ---- in place --------------------------------------------------------------------------------

    def install(self, entry: Entry) -> Path | None:
        """Put a content in place, or take an application away; returns where it is.

        Raises:
            FarmError: Something else is there.
            OSError: A link cannot be made.
        """
        target = self._deploy / entry.name.target
        if entry.digest:
            self._check_target(entry.name)
            what = "archive" if entry.name.kind is Kind.FILE else "tree"
            link = self._new / secrets.token_hex(8)
            # Relative, so that the whole directory can be moved or mounted elsewhere.
            link.symlink_to(Path(_OWN, "store", entry.key.hex(), what))
            link.replace(target)
        for other in self._deploy.iterdir():
            is_ours = _app_of(other.name) == entry.name.app and self._is_ours(other)
            if is_ours and not (entry.digest and _is_same(other, target)):
                other.unlink()
        _sync(self._deploy)
        return target if entry.digest else None

    def save(self, state: Save) -> None:
        """Write down what is known, by one rename."""
        entries = [entry_fields(entry) for entry in state.entries]
        _write_whole(self._own / "state", pack([1, entries, dict(state.previous)]))

    # ---- the watch directory's memory ------------------------------------------------------------

    def read_watched(self) -> dict[str, Any]:
        """What `save_watched` wrote; nothing, if it cannot be read."""
        try:
            found = unpack_message((self._own / "watched").read_bytes())
        except (OSError, RemoteProtocolError):
            return {}
        return found if isinstance(found, dict) else {}

    def save_watched(self, watched: Mapping[str, Any]) -> None:
        """Write down what was seen."""
        with contextlib.suppress(LocalProtocolError):
            _write_whole(self._own / "watched", pack(dict(watched)))

    def upload_path(self) -> Path:
        """A new name for an archive that an operator sends."""
        return self._temp / f"given-{secrets.token_hex(8)}"


def _key_of(name: str) -> bytes:
    try:
        key = bytes.fromhex(name)
    except ValueError:
        return b""
    return key if len(key) == KEY_BYTES and key[-1] in tuple(Kind) else b""


def _is_key(key: object) -> bool:
    return isinstance(key, bytes) and bool(_key_of(key.hex()))


def _app_of(target: str) -> str:
    """The application of a name in the deploy directory."""
    try:
        return ArchiveName.parse(target).app
    except FarmError:
        return target.lower()


def _digest_of(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return digest, file.tell()


def _copy_file(path: Path, to: Path) -> None:
    with path.open("rb") as source, to.open("xb") as target:
        shutil.copyfileobj(source, target, _PIECE_BYTES)
    to.chmod(0o644)


def _write_whole(path: Path, data: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(root: Path) -> None:
    for directory, _, files in os.walk(root):
        for name in files:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _size_of(root: Path) -> int:
    return sum(
        os.lstat(os.path.join(directory, name)).st_size
        for directory, _, files in os.walk(root)
        for name in files
    )


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are one file: also those that differ in case, where that is not told."""
    return os.path.samestat(one.lstat(), other.lstat())


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
