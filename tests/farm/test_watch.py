"""What a look at the watch directory means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tribes.farm.catalogue import APPS_MAX
from tribes.farm.watch import Look, Stamp, Watch, look

if TYPE_CHECKING:
    from pathlib import Path

OLD: Stamp = (10, 1)
NEW: Stamp = (11, 2)


def seen(files: dict[str, Stamp], place: int = 1) -> Look:
    return Look(place, files, {})


def test_a_file_is_taken_when_it_has_settled() -> None:
    """While it grows it is left alone."""
    watch = Watch(1.0, {})
    assert not watch.see(seen({"a.zip": OLD}), 0.0).taken
    assert not watch.see(seen({"a.zip": NEW}), 0.9).taken
    assert not watch.see(seen({"a.zip": NEW}), 1.8).taken
    assert watch.is_waiting
    assert watch.see(seen({"a.zip": NEW}), 2.0).taken == {"a.zip": NEW}
    watch.took("a.zip", NEW, b"d")
    assert not watch.see(seen({"a.zip": NEW}), 9.0).taken
    assert not watch.is_waiting


def test_a_file_that_is_replaced_is_not_gone_in_between() -> None:
    """One that stays away is, once."""
    watch = Watch(1.0, {})
    watch.took("a.zip", OLD, b"d")
    watch.see(seen({"a.zip": OLD}), 0.0)
    assert not watch.see(seen({}), 1.0).gone
    assert not watch.see(seen({"a.zip": NEW}), 1.5).gone
    assert watch.see(seen({"a.zip": NEW}), 2.5).taken
    watch.took("a.zip", NEW, b"e")
    assert not watch.see(seen({}), 3.0).gone
    assert watch.see(seen({}), 4.0).gone == {"a.zip": b"e"}
    assert not watch.see(seen({}), 9.0).gone


def test_what_went_while_the_process_was_away_is_gone() -> None:
    """And what stayed is not taken again."""
    first = Watch(0.0, {})
    first.see(seen({}), 0.0)
    first.took("a.zip", OLD, b"d")
    first.took("b.zip", OLD, b"e")
    second = Watch(0.0, first.kept)
    found = second.see(seen({"b.zip": OLD}), 0.0)
    assert (found.taken, found.gone) == ({}, {"a.zip": b"d"})


def test_another_directory_undeploys_nothing() -> None:
    """Where a disk is not mounted any more, nobody has removed its files."""
    watch = Watch(0.0, {})
    watch.see(seen({}, 1), 0.0)
    watch.took("a.zip", OLD, b"d")
    found = watch.see(seen({}, 2), 1.0)
    assert found.is_other
    assert not found.gone
    assert not watch.see(seen({}, 2), 2.0).gone


def test_only_plain_files_with_names_of_archives_are_looked_at(tmp_path: Path) -> None:
    """What is refused is told with the reason; hidden files and others are left alone."""
    for name in ("a.zip", ".b.zip", "readme.txt", "a..b.zip", "con.war"):
        (tmp_path / name).write_bytes(b"x")
    os.symlink("/etc/passwd", tmp_path / "link.zip")
    (tmp_path / "dir.zip").mkdir()
    os.mkfifo(tmp_path / "pipe.zip")
    found = look(str(tmp_path))
    assert list(found.files) == ["a.zip"]
    assert set(found.refused) == {"link.zip", "dir.zip", "pipe.zip", "a..b.zip", "con.war"}
    assert "links are not followed" in found.refused["link.zip"]
    watch = Watch(0.0, {})
    assert set(watch.see(found, 0.0).refused) == set(found.refused)
    assert not watch.see(found, 1.0).refused, "each is told once"


def test_damaged_memory_is_none() -> None:
    """The worst that comes of it is that a file is looked at again."""
    for kept in ({"files": 3}, {"files": [["a"]]}, {"place": "x", "files": [[1, 2, 3, 4]]}):
        assert not Watch(0.0, kept).see(seen({}), 0.0).gone


def test_of_too_many_files_none_counts_as_gone(tmp_path: Path) -> None:
    """Which ones are looked at is chance: what is deployed must not be undeployed for that."""
    watch = Watch(1.0, {})
    for number in range(APPS_MAX + 1):
        (tmp_path / f"a{number}.zip").touch()
        watch.took(f"a{number}.zip", (0, 0), b"d")
    seen = look(str(tmp_path))
    assert len(seen.files) == APPS_MAX
    for now in (0.0, 2.0, 4.0):
        assert not watch.see(seen, now).gone
    (tmp_path / "a0.zip").unlink()
    gone = [watch.see(look(str(tmp_path)), now).gone for now in (6.0, 8.0)]
    assert gone == [{}, {"a0.zip": b"d"}]
