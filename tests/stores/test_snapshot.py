"""The file between two runs: damage costs what it hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tribes.errors import StoreError
from tribes.stores.snapshot import SnapshotFile

if TYPE_CHECKING:
    from pathlib import Path

VALUES = [(f"A{number:03d}", bytes((number,)) * 50) for number in range(40)]


@pytest.fixture
def snapshot(tmp_path: Path) -> SnapshotFile:
    made = SnapshotFile(tmp_path / "sessions")
    made.save(VALUES)
    return made


def test_what_was_saved_is_loaded(snapshot: SnapshotFile) -> None:
    assert snapshot.load() == (VALUES, 0)
    snapshot.remove()
    snapshot.remove()
    assert snapshot.load() == ([], 0)


def test_nothing_is_something_too(snapshot: SnapshotFile) -> None:
    snapshot.save([])
    assert snapshot.load() == ([], 0)


def test_damage_to_a_head_costs_one_session(snapshot: SnapshotFile) -> None:
    data = bytearray(snapshot.path.read_bytes())
    at = data.index(b"A007")
    for place in range(at - 18, at + 4):
        broken = bytearray(data)
        broken[place] ^= 0x10
        snapshot.path.write_bytes(broken)
        values, damaged = snapshot.load()
        assert values == VALUES[:7] + VALUES[8:]
        assert damaged == 1


def test_a_cut_costs_what_is_behind_it(snapshot: SnapshotFile) -> None:
    data = snapshot.path.read_bytes()
    ends = [data.index(value) + len(value) for _, value in VALUES]
    for end in range(0, len(data), 7):
        snapshot.path.write_bytes(data[:end])
        whole = sum(each <= end for each in ends)
        values, damaged = snapshot.load()
        assert values == VALUES[:whole]
        assert damaged <= 1


def test_a_foreign_file_is_damaged_as_a_whole(snapshot: SnapshotFile) -> None:
    snapshot.path.write_bytes(b"\xac\xed\x00\x05" * 100)
    assert snapshot.load() == ([], 2)
    snapshot.refuse()
    [kept] = snapshot.path.parent.iterdir()
    assert kept.name.endswith(".refused")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        SnapshotFile(tmp_path).load()
    with pytest.raises(StoreError, match="cannot write"):
        SnapshotFile(tmp_path / "no" / "sessions").save([])
