"""The files in examples/node: what they name exists, and what they promise holds."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tribes.cli.app import main
from tribes.config import NodeConfig, read_config

NODE = Path(__file__).parent.parent.parent / "examples" / "node"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(NODE / "tribes-node.service")
    return parser


@pytest.mark.parametrize("name", ["node.toml", "farm.toml"])
def test_the_configuration_would_start(name: str) -> None:
    """And `tribes config check` finds nothing to say about it."""
    config = read_config(NODE / name).config
    assert config.http is not None
    assert config.http.port == 9480
    done = CliRunner().invoke(main, ["config", "check", "--no-env", str(NODE / name)])
    assert done.exit_code == 0, done.output


def test_the_unit_gives_the_node_time_to_leave() -> None:
    """Longer than a drain; what cannot start is not started again; its command is one."""
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > 2 * NodeConfig().drain_timeout_s
    assert service["RestartPreventExitStatus"] == "1 2"
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.endswith("/tribes")
    assert CliRunner().invoke(main, [*arguments, "--help"]).exit_code == 0


def test_systemd_takes_the_unit(needs: Any, tmp_path: Path) -> None:
    """Its own checker has nothing to complain of but the program, which is not installed here."""
    checker = needs("systemd-analyze")
    text = (NODE / "tribes-node.service").read_text()
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    file = tmp_path / "tribes-node.service"
    file.write_text(text)
    done = subprocess.run(
        [checker, "verify", str(file)], capture_output=True, text=True, timeout=50, check=False
    )
    assert "Unknown" not in done.stderr
    assert "tribes-node.service:" not in done.stderr
    assert done.returncode == 0, done.stderr


def test_the_container_runs_the_same_command_as_an_ordinary_user() -> None:
    """In the form that passes signals on."""
    text = (NODE / "Containerfile").read_text()
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    entry = re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)
    words = [word for line in entry for word in re.findall(r'"([^"]+)"', line)]
    assert words[0] == "tribes"
    assert CliRunner().invoke(main, [*words[1:], "--help"]).exit_code == 0
