"""Files: what a kill, a full disk and other people's files cannot do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.stores.test_protocol import save
from tribes.errors import ConfigError, StoreDataError, StoreError
from tribes.stores import file
from tribes.stores.file import FileStore, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "s")


def files(store: FileStore) -> set[str]:
    return {path.name for path in store.directory.iterdir() if path.name != ".locks"}


def test_t93_one_file_per_session_readable_by_its_owner_only(store: FileStore) -> None:
    save(store, "A1", b"secret")
    assert files(store) == {"A1.session"}
    assert (store.directory / "A1.session").stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700


KILLED = """
import os, signal, sys
from tests.stores.test_protocol import save
from tribes.stores import file
step, directory, fsync = sys.argv[1:]
store = file.FileStore(directory, fsync=fsync)
seen = store.load("A1").version
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
real = os.replace
def replace_and_die(*args):
    real(*args)
    die()
class HalfFile:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        die()
if step == "opened":
    os.fdopen = die
elif step == "half written":
    real_fdopen = os.fdopen
    os.fdopen = lambda *args: HalfFile(real_fdopen(*args))
elif step == "synced":
    os.fsync = die
elif step == "locked":
    file.FileStore._check_version = die
elif step == "before rename":
    os.replace = die
elif step == "after rename":
    os.replace = replace_and_die
save(store, "A1", b"new" * 1000, seen)
"""
STEPS = ("opened", "half written", "synced", "locked", "before rename", "after rename")


@pytest.mark.parametrize("step", STEPS)
def test_t93_killed_anywhere_in_a_save_leaves_the_old_or_the_new(
    store: FileStore, step: str
) -> None:
    """Never half of one; and neither a lock nor a file of the killed one is in anybody's way."""
    save(store, "A1", b"old")
    command = [sys.executable, "-c", KILLED, step, str(store.directory), "full"]
    assert subprocess.run(command, timeout=30).returncode == -signal.SIGKILL
    found = store.load("A1")
    assert found is not None
    assert found.data == (b"new" * 1000 if step == "after rename" else b"old")
    assert list(store.keys()) == ["A1"]
    version = save(store, "A1", b"next", found.version)
    assert store.load("A1") == (b"next", version)


def test_t93_leftovers_of_killed_processes_are_removed_after_an_hour(store: FileStore) -> None:
    old, new = store.directory / "A1.session.12.tmp", store.directory / "A2.session.12.tmp"
    other = store.directory / "notes.txt"
    for path in (old, new, other):
        path.write_bytes(b"x")
    long_ago = time.time() - file.LEFT_OVER_S - 1
    for path in (old, other):
        os.utime(path, (long_ago, long_ago))
    store.expired(0, 10)
    assert files(store) == {new.name, other.name}


class FullDisk:
    """A file whose disk takes so many bytes."""

    def __init__(self, real: Any, room: int) -> None:
        self._real = real
        self._room = room

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._real.close()

    def write(self, data: bytes) -> None:
        self._real.write(data[: self._room])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_is_an_error_and_the_old_copy_stays(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    version = save(store, "A1", b"old")
    real = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "fdopen",
            lambda fd, mode: FullDisk(real(fd, mode), room) if "w" in mode else real(fd, mode),
        )
        with pytest.raises(StoreError, match=r"cannot write in directory .*: No space left"):
            save(store, "A1", b"new" * 100, version)
    assert store.load("A1") == (b"old", version)
    assert files(store) == {"A1.session"}
    save(store, "A1", b"new", version)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="not here: needs mount")
def test_on_a_full_file_system_the_old_copy_stays(tmp_path: Path) -> None:
    """The same with a real one of 64 KiB."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tribes-test", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("not here: this machine lets nobody mount")
    try:
        store = FileStore(small / "s")
        version = save(store, "A1", b"old")
        with pytest.raises(StoreError, match="No space left"):
            save(store, "A1", b"n" * 100_000, version)
        assert store.load("A1") == (b"old", version)
        assert files(store) == {"A1.session"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_t93_links_are_not_followed(store: FileStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 100)
    (store.directory / "A1.session").symlink_to(outside)
    with pytest.raises(StoreDataError, match="link"):
        store.load("A1")
    store.refuse("A1")
    assert outside.read_bytes() == b"x" * 100
    assert files(store) == {"A1.session.refused"}


@pytest.mark.parametrize("content", [b"", b"short", b"\xac\xed" * 100])
def test_foreign_files_are_refused_and_kept(store: FileStore, content: bytes) -> None:
    path = store.directory / "A1.session"
    path.write_bytes(content)
    with pytest.raises(StoreDataError):
        store.load("A1")
    with pytest.raises(StoreDataError):
        save(store, "A1", b"x")
    assert store.expired(10**15, 10) == []
    store.refuse("A1")
    assert (store.directory / "A1.session.refused").read_bytes() == content
    save(store, "A1", b"x")


def free_descriptor() -> int:
    """The number that the next file gets, which is greater if one has been left open."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_blocks_nobody_and_is_not_left_open(
    store: FileStore, make: Callable[[Path], None]
) -> None:
    """A pipe without a writer, and a directory; each look would keep one more."""
    make(store.directory / "A1.session")
    before = free_descriptor()
    with pytest.raises(StoreDataError, match="no plain file"):
        store.load("A1")
    assert store.expired(10**15, 10) == []
    assert free_descriptor() == before


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "s", value_max_bytes=100)
    (store.directory / "A1.session").write_bytes(b"x" * 1000)
    with pytest.raises(StoreDataError, match="1000 bytes are more"):
        store.load("A1")


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fsync: must be 'off', 'data' or 'full'"):
        FileStore(tmp_path, fsync="sometimes")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"directory: .* cannot be made"):
        FileStore(tmp_path / "file" / "s")


@pytest.mark.parametrize(("policy", "calls"), [("off", 0), ("data", 1), ("full", 2)])
def test_fsync_policy_says_what_a_save_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Any, calls: int
) -> None:
    store = FileStore(tmp_path / "s", fsync=policy)
    made: list[int] = []
    monkeypatch.setattr(os, "fsync", made.append)
    save(store, "A1", b"x")
    assert len(made) == calls


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    replace_file(path, iter([b"one", b"two"]))

    def fail() -> Any:
        yield b"half"
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(StoreError, match="Input/output"):
        replace_file(path, fail())
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]
