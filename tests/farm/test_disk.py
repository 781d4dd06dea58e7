"""The directories of a member: what appears in them, what a crash leaves, and what it counts."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from tests.farm.contents import NAME, noise, zip_of
from tests.stores.test_file import free_descriptor
from tribes.config.farm import FarmConfig
from tribes.errors import FarmError
from tribes.farm.catalogue import Entry, Phase
from tribes.farm.disk import CorruptError, FarmDisk
from tribes.farm.names import ArchiveName, Kind
from tribes.farm.outputs import Prepare, Save, WriteChunk

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 4096
ROOM = 2**18
SHOP = ArchiveName.parse(NAME)


@pytest.fixture
def config(tmp_path: Path) -> FarmConfig:
    """Its directories, below the test's."""
    return FarmConfig(
        deploy_dir=str(tmp_path / "apps"), temp_dir=str(tmp_path / "temp"), disk_max_bytes=ROOM
    )


@pytest.fixture
def disk(config: FarmConfig) -> FarmDisk:
    """One that is open."""
    made = FarmDisk(config)
    made.open()
    return made


def key_of(content: bytes, kind: Kind = Kind.ZIP) -> bytes:
    return sha256(content).digest() + bytes((kind,))


def entry_of(content: bytes, name: ArchiveName = SHOP, counter: int = 1) -> Entry:
    digest = sha256(content).digest() if content else b""
    return Entry(name, counter, bytes(16), digest, len(content), 0, phase=Phase.DEPLOYED)


def pieces(content: bytes, key: bytes = b"") -> list[WriteChunk]:
    """All pieces of a content, in order."""
    key = key or key_of(content)
    return [
        WriteChunk(key, len(content), CHUNK, at // CHUNK, content[at : at + CHUNK])
        for at in range(0, len(content), CHUNK)
    ]


def give(disk: FarmDisk, path: Path, content: bytes, name: ArchiveName = SHOP) -> bytes:
    """Take an archive in from a file; returns its key."""
    path.write_bytes(content)
    given = disk.take(path, name)
    assert (given.digest, given.size) == (sha256(content).digest(), len(content))
    return key_of(content, name.kind)


def room_left(config: FarmConfig, disk: FarmDisk) -> int:
    """What `disk_max_bytes` leaves, by trying: a transfer of so many bytes may begin."""
    low, high = 0, config.disk_max_bytes
    while low < high:
        size = (low + high + 1) // 2
        probe = WriteChunk(bytes(32) + b"\0", size, CHUNK_ALL, 0, b"")
        try:
            disk.write(probe)
        except FarmError:
            high = size - 1
        else:
            low = size
        disk.drop(probe.key)
    return low


CHUNK_ALL = 2**40
"""So that its map has one byte."""


# ---- in place ------------------------------------------------------------------------------------


def test_an_archive_appears_and_goes_by_one_link(
    disk: FarmDisk, config: FarmConfig, tmp_path: Path
) -> None:
    """Deployed, replaced under a name in other letters, undeployed; the content stays."""
    one, two = zip_of({"a": b"1"}), zip_of({"a": b"2"})
    for content in (one, two):
        give(disk, tmp_path / NAME, content)
    apps = tmp_path / "apps"
    assert disk.install(entry_of(one)) == apps / "shop"
    assert (apps / "shop" / "a").read_bytes() == b"1"
    capital = ArchiveName.parse("Shop.zip")
    disk.install(entry_of(two, capital, 2))
    assert [each.name for each in apps.iterdir() if each.name != ".farm"] == ["Shop"]
    assert (apps / "Shop" / "a").read_bytes() == b"2"
    assert FarmDisk(config).open().installed == {"shop": key_of(two)}
    assert disk.install(entry_of(b"", capital, 3)) is None
    assert [each.name for each in apps.iterdir()] == [".farm"]
    assert disk.read(key_of(one), len(one), 0) == one


def test_what_stays_a_file_is_linked_as_one(disk: FarmDisk, tmp_path: Path) -> None:
    """A wheel keeps its name."""
    content = zip_of({"a": b"1"})
    wheel = ArchiveName.parse("tool-1.0.whl")
    give(disk, tmp_path / wheel.file, content, wheel)
    disk.install(entry_of(content, wheel))
    assert (tmp_path / "apps" / "tool-1.0.whl").read_bytes() == content


@pytest.mark.parametrize("is_link", [True, False])
def test_what_is_not_the_farms_is_never_replaced(
    disk: FarmDisk, tmp_path: Path, is_link: bool
) -> None:
    """Neither a directory nor a link to elsewhere, and nothing is taken in for it."""
    there = tmp_path / "apps" / "shop"
    if is_link:
        there.symlink_to(tmp_path)
    else:
        there.mkdir()
    with pytest.raises(FarmError, match="has not made"):
        give(disk, tmp_path / NAME, zip_of({"a": b"1"}))
    with pytest.raises(FarmError, match="has not made"):
        disk.install(entry_of(zip_of({"a": b"1"})))
    disk.install(entry_of(b""))
    assert there.is_symlink() is is_link
    assert there.exists()
    assert not any((tmp_path / "apps" / ".farm" / "new").iterdir())
    assert not any((tmp_path / "temp").iterdir())


@pytest.mark.parametrize("made", ["link", "pipe", "directory"])
def test_only_plain_files_are_taken_in(disk: FarmDisk, tmp_path: Path, made: str) -> None:
    """A pipe does not hang it, a link is not followed, and nothing is left open."""
    path = tmp_path / NAME
    if made == "link":
        (tmp_path / "other").write_bytes(zip_of({"a": b"1"}))
        path.symlink_to(tmp_path / "other")
    elif made == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = free_descriptor()
    with pytest.raises((FarmError, OSError), match=r"no plain file|symbolic links"):
        disk.take(path, SHOP)
    assert free_descriptor() == before
    assert not any((tmp_path / "temp").iterdir())


# ---- transfers -----------------------------------------------------------------------------------


def test_pieces_in_any_order_become_the_archive(disk: FarmDisk, tmp_path: Path) -> None:
    """And leave nothing behind."""
    content = zip_of({"a": b"1"}, size=3 * CHUNK + 7)
    for piece in reversed(pieces(content)):
        disk.write(piece)
    disk.prepare(Prepare(key_of(content), SHOP, len(content)))
    assert disk.read(key_of(content), CHUNK, 3) == content[3 * CHUNK :]
    assert not any((tmp_path / "temp").iterdir())


def test_a_wrong_piece_is_found_out(disk: FarmDisk, tmp_path: Path) -> None:
    """Before anything is unpacked; its pieces are deleted."""
    content = zip_of({"a": b"1"}, size=2 * CHUNK)
    for piece in pieces(noise(2 * CHUNK), key_of(content)):
        disk.write(piece)
    with pytest.raises(CorruptError):
        disk.prepare(Prepare(key_of(content), SHOP, len(content)))
    assert not any((tmp_path / "temp").iterdir())
    assert not any((tmp_path / "apps" / ".farm" / "store").iterdir())


def test_the_next_process_knows_which_pieces_there_are(disk: FarmDisk, config: FarmConfig) -> None:
    """By their map, which is written after each piece."""
    content = noise(3 * CHUNK)
    disk.write(pieces(content)[1])
    [(key, part)] = FarmDisk(config).open().parts.items()
    assert (key, part.size, part.chunk_bytes) == (key_of(content), len(content), CHUNK)
    assert part.have == b"\0\1\0"


def test_transfers_give_back_what_they_took(disk: FarmDisk, config: FarmConfig) -> None:
    """Whatever pieces came, in whatever order: a file counts with its gaps and its map."""
    before = room_left(config, disk)
    for number in range(4):
        content = noise(40 * CHUNK, number)
        for piece in pieces(content)[: -2 - number : -1]:
            disk.write(piece)
        assert room_left(config, disk) < before
        disk.drop(key_of(content))
    assert room_left(config, disk) == before


def test_more_than_the_disk_may_hold_does_not_begin(config: FarmConfig, tmp_path: Path) -> None:
    """Neither a transfer nor an archive that is given, and the error names the setting."""
    small = FarmConfig(
        deploy_dir=config.deploy_dir, temp_dir=config.temp_dir, disk_max_bytes=2 * CHUNK
    )
    disk = FarmDisk(small)
    disk.open()
    with pytest.raises(FarmError, match=r"farm\.disk_max_bytes"):
        disk.write(pieces(noise(3 * CHUNK))[0])
    with pytest.raises(FarmError, match=r"farm\.disk_max_bytes"):
        give(disk, tmp_path / NAME, zip_of({"a": b"1"}, size=3 * CHUNK))
    assert not any((tmp_path / "temp").iterdir())


def test_pieces_that_cannot_be_deleted_cost_no_more_than_their_room(
    disk: FarmDisk, tmp_path: Path
) -> None:
    """A disk that does not do what it is told would otherwise end the node, with its sessions."""
    content = noise(2 * CHUNK)
    (tmp_path / "temp" / f"{key_of(content).hex()}.part").mkdir()
    disk.drop(key_of(content))
    with pytest.raises(OSError, match="Is a directory"):
        disk.prepare(Prepare(key_of(content), SHOP, len(content)))


# ---- the start -----------------------------------------------------------------------------------


def test_what_a_crash_has_left_half_done_is_deleted(config: FarmConfig, tmp_path: Path) -> None:
    """And a finished content, a whole transfer and the state are used."""
    disk = FarmDisk(config)
    disk.open()
    content = zip_of({"a": b"1"})
    key = give(disk, tmp_path / NAME, content)
    disk.save(Save((entry_of(content),), {"shop": key}))
    whole = pieces(noise(2 * CHUNK))
    disk.write(whole[0])
    temp, new = tmp_path / "temp", tmp_path / "apps" / ".farm" / "new"
    for left in (
        temp / "given-0123",
        temp / f"{key.hex()}.part",
        temp / f"{key.hex()}.map.new",
        temp / f"{'00' * 33}.map",
    ):
        left.write_bytes(b"x" * 20)
    (new / "abc" / "tree").mkdir(parents=True)
    kept = FarmDisk(config).open()
    assert kept.entries == (entry_of(content),)
    assert kept.keys == {key}
    assert kept.previous == {"shop": key}
    assert set(kept.parts) == {whole[0].key}
    assert {each.suffix for each in temp.iterdir()} == {".part", ".map"}
    assert {each.stem for each in temp.iterdir()} == {whole[0].key.hex()}
    assert not any(new.iterdir())


@pytest.mark.parametrize("data", [b"", b"\x93\x01", b"\x07", b"\x93\x02\x90\x80", noise(100)])
def test_a_state_that_cannot_be_read_is_named(
    disk: FarmDisk, config: FarmConfig, tmp_path: Path, data: bytes
) -> None:
    """With what to do; nothing is deployed by guessing."""
    disk.save(Save((), {}))
    path = tmp_path / "apps" / ".farm" / "state"
    path.write_bytes(data)
    with pytest.raises(FarmError, match="delete it") as caught:
        FarmDisk(config).open()
    assert str(path) in str(caught.value)


def test_a_content_is_forgotten_at_once(disk: FarmDisk, config: FarmConfig, tmp_path: Path) -> None:
    """It is gone for whoever reads, and its room is free."""
    before = room_left(config, disk)
    key = give(disk, tmp_path / NAME, zip_of({"a": b"1"}, size=5 * CHUNK))
    assert room_left(config, disk) < before
    disk.forget(key)
    disk.forget(key)
    assert room_left(config, disk) == before
    with pytest.raises(FileNotFoundError):
        disk.read(key, CHUNK, 0)
