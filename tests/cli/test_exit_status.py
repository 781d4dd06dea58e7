"""One table says what each command's exit status means, and it is as the commands say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tribes.cli.app import main

GUIDE = Path(__file__).parent.parent.parent / "docs" / "operations.md"
HIDDEN = {"demo-node"}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Each by its name; a group that says its codes itself stands for all in it."""
    ctx = click.Context(main)
    for name in main.list_commands(ctx):
        command = main.get_command(ctx, name)
        assert command is not None
        if name in HIDDEN or command.hidden:
            continue
        if name == "config":
            assert isinstance(command, click.Group)
            yield from ((f"config {each}", inner) for each, inner in command.commands.items())
        else:
            yield name, command


def table() -> dict[str, set[int]]:
    """The codes beside 0 by command."""
    section = GUIDE.read_text().split("## Exit status")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z ]+)` \|(.*)\|$", section, re.MULTILINE)
    return {
        name: {at for at, cell in enumerate(cells.split("|"), 1) if cell.strip()}
        for name, cells in rows
    }


def test_every_command_is_in_the_table_with_the_codes_that_its_help_names() -> None:
    """No other command, and no other code."""
    said = {}
    for name, command in commands():
        text = re.sub(r"\s+", " ", command.help or "")
        assert "Exit codes: 0:" in text, name
        said[name] = {int(code) for code in re.findall(r"[;:] (\d):", text.split("Exit codes")[1])}
        said[name].discard(0)
    assert said == table()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["node", "--address", "10.0.0.1"], 1),
        (["node", "--port", "70000"], 2),
        (["doctor", "--config", "{tmp}/none.toml"], 1),
        (["doctor", "--seconds", "0"], 2),
        (["status", "--url", "http://127.0.0.1:1"], 1),
        (["status", "--url", "nonsense"], 2),
        (["top", "--once", "--url", "http://127.0.0.1:1"], 1),
        (["members", "--url", "http://127.0.0.1:1"], 1),
        (["sessions", "list", "shop", "--url", "http://127.0.0.1:1"], 1),
        (["sessions", "list"], 2),
        (["resync", "shop", "--url", "http://127.0.0.1:1"], 1),
        (["drain", "--url", "http://127.0.0.1:1"], 1),
        (["config", "check", "{tmp}/good.toml"], 0),
        (["config", "check", "{tmp}/tomcat.xml", "--strict"], 1),
        (["config", "check", "{tmp}/bad.toml"], 2),
        (["config", "convert", "{tmp}/good.toml"], 0),
        (["config", "convert", "{tmp}/good.toml", "--output", "{tmp}/good.toml"], 1),
        (["config", "convert", "{tmp}/bad.toml"], 2),
        (["config", "show"], 0),
        (["config", "show", "{tmp}/bad.toml"], 2),
        (["config", "explain", "dropTime"], 0),
        (["config", "explain", "nothingLikeIt"], 2),
        (["keygen"], 0),
        (["keygen", "--output", "{tmp}/good.toml"], 1),
        (["keygen", "--id", "0"], 2),
        (["completion", "fish"], 0),
        (["completion", "csh"], 2),
        (["sim", "--members", "2", "--minutes", "0.05", "--quiet"], 0),
        (["sim", "--plan", "{tmp}/good.toml"], 1),
        (["sim", "--seed", "x"], 2),
    ],
)
def test_a_command_ends_as_the_table_says(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    """Codes 3 and 4 are shown with the commands themselves."""
    (tmp_path / "good.toml").write_text('name = "n1"\n')
    (tmp_path / "bad.toml").write_text("nam = 1\n")
    (tmp_path / "tomcat.xml").write_text("<Cluster channelSendOptions='8' foo='1'/>")
    done = CliRunner().invoke(main, [each.format(tmp=tmp_path) for each in arguments])
    assert done.exit_code == status, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "check", "{tmp}/good.toml", "{tmp}/bad.toml"],
        ["config", "show", "{tmp}/good.toml"],
        ["config", "explain", "dropTime"],
        ["config", "explain", "nothingLikeIt"],
        ["sim", "--members", "2", "--minutes", "0.05", "--quiet"],
    ],
)
def test_what_is_to_be_read_is_json_for_programs(arguments: list[str], tmp_path: Path) -> None:
    """One document on standard output."""
    (tmp_path / "good.toml").write_text('name = "n1"\n')
    (tmp_path / "bad.toml").write_text("nam = 1\n")
    more = [] if arguments[0] == "sim" else ["--json"]
    done = CliRunner().invoke(main, [each.format(tmp=tmp_path) for each in [*arguments, *more]])
    found = json.loads(done.stdout)
    if arguments[1] == "check":
        assert [each["error"] is None for each in found["files"]] == [True, False]
        assert "nam" in found["files"][1]["error"]
    if arguments[1] == "show":
        assert found["name"] == "n1"
