"""Shells complete the command: real ones, in a terminal, with the Tab key."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.system.test_top import Terminal
from tribes.cli.app import main

pytestmark = pytest.mark.timeout(120)

SHELLS = {
    "bash": ("--norc", "--noprofile", "-i"),
    "zsh": ("-f", "-i"),
    "fish": ("--no-config", "-i"),
}
SET_UP = {
    "bash": 'eval "$(tribes completion bash)"',
    "zsh": 'autoload -U compinit; compinit -u -d zcomp; eval "$(tribes completion zsh)"',
    "fish": "tribes completion fish | source",
}


@pytest.fixture
def shell(
    tmp_path: Path, needs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Terminal]]:
    """Starts a shell that knows the command and its completions."""
    program = tmp_path / "bin" / "tribes"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nfrom tribes.cli.app import main\nmain(prog_name='tribes')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setenv("HOME", str(tmp_path))
    opened: list[Terminal] = []

    def start(name: str) -> Terminal:
        terminal = Terminal([needs(name), *SHELLS[name]], 100, 30)
        opened.append(terminal)
        terminal.press(f"cd {tmp_path}; {SET_UP[name]}; echo set-''up\n")
        terminal.until("set-up\n")
        return terminal

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize("name", SHELLS)
def test_commands_options_and_choices_are_completed(
    shell: Callable[[str], Terminal], name: str, tmp_path: Path
) -> None:
    """A command begun, a command of a command, an option, what an option may be, and a file."""
    (tmp_path / "my-node.toml").touch()
    terminal = shell(name)
    for begun, whole in (
        ("tribes doc", "tribes doctor "),
        ("tribes sessions exp", "tribes sessions expire "),
        ("tribes status --token-f", "tribes status --token-file "),
        ("tribes node --log-format js", "tribes node --log-format json "),
        ("tribes node --config my-n", "tribes node --config my-node.toml"),
    ):
        terminal.press(begun + "\t")
        terminal.until(whole.rstrip())
        terminal.press("\x15")  # the line away
        terminal.read(0.3)


@pytest.mark.parametrize("name", SHELLS)
def test_the_script_is_printed(name: str) -> None:
    """For a file, or for eval."""
    done = CliRunner().invoke(main, ["completion", name])
    assert done.exit_code == 0
    assert "_TRIBES_COMPLETE" in done.output
    assert CliRunner().invoke(main, ["completion", "csh"]).exit_code == 2
