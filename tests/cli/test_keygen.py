"""``tribes keygen``: one new key each time, in a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tribes.cli.app import main
from tribes.security.keys import KeyRing, check_file_mode

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="not here: modes of POSIX")


def keygen(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["keygen", *map(str, arguments)])


def test_a_key_goes_to_standard_output_and_the_advice_elsewhere() -> None:
    """So that the output can be a file."""
    done = keygen()
    assert done.exit_code == 0
    [line] = done.stdout.splitlines()
    assert KeyRing.parse(line).ids == (1,)
    assert "This is the group key 1." in done.stderr
    assert "take the old line away" in done.stderr
    assert 'ChannelConfig(key_file="group.key")' in done.stderr
    assert "--key-file group.key" in done.stderr
    assert line not in done.stderr
    assert line.split(":")[3] not in done.stderr


def test_each_key_is_new() -> None:
    """It is random."""
    assert len({keygen().stdout for _ in range(20)}) == 20


def test_an_id_can_be_chosen() -> None:
    """Within its byte."""
    assert KeyRing.parse(keygen("--id", "255").stdout).ids == (255,)
    for wrong in ("0", "256", "x"):
        assert keygen("--id", wrong).exit_code == 2


@posix
def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Whatever the umask, and it passes the check that members make."""
    before = os.umask(0)
    try:
        done = keygen("--output", tmp_path / "key", "--id", "4")
    finally:
        os.umask(before)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert f"Written to {tmp_path / 'key'}." in done.stderr
    mode = (tmp_path / "key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    check_file_mode(mode, "key")
    text = (tmp_path / "key").read_text()
    assert text.endswith("\n")
    assert KeyRing.parse(text).ids == (4,)
    assert text.split(":")[3] not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    """It may hold a key that is in use."""
    path = tmp_path / "key"
    path.write_text("precious")
    done = keygen("--output", path)
    assert done.exit_code == 1
    assert "exists and may hold a key that is in use" in done.stderr
    assert path.read_text() == "precious"


@posix
def test_a_file_is_replaced_by_force(tmp_path: Path) -> None:
    """In one step, with the right mode; a link is replaced, not what it leads to."""
    path, elsewhere = tmp_path / "key", tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    elsewhere.chmod(0o644)
    path.symlink_to(elsewhere)
    assert keygen("--output", path).exit_code == 1
    assert keygen("--output", path, "--force").exit_code == 0
    assert elsewhere.read_text() == "precious"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(KeyRing.parse(path.read_text())) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["elsewhere", "key"]
    assert keygen("--output", tmp_path / "new", "--force").exit_code == 0


@posix
def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """A pipe or a device, such as /dev/stdout."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = keygen("--output", pipe, "--force")
    assert done.exit_code == 1
    assert "no regular file" in done.stderr
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert keygen("--output", tmp_path).exit_code == 2


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Without a traceback."""
    path = tmp_path / "none" / "key"
    done = keygen("--output", path)
    assert done.exit_code == 1
    assert f"{path} can't be written: No such file or directory" in done.stderr


@posix
def test_nothing_is_left_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half key would be found later and taken for one."""

    def full(descriptor: int, *_: object, **__: object) -> object:
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    for force in ([], ["--force"]):
        done = keygen("--output", tmp_path / "key", *force)
        assert done.exit_code == 1
        assert "No space left on device" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_the_command_is_listed() -> None:
    """With its one line of help."""
    assert "keygen" in CliRunner().invoke(main, ["--help"]).output
