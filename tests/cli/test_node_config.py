"""``tribes node --config``: the file, the environment over it, and the options over both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tribes.cli import node as command
from tribes.cli.app import main
from tribes.config import NodeConfig

SERVER = Path(__file__).parent.parent / "data" / "server.xml"
TOML = """
name = "from the file"
contexts = ["shop"]
insecure = true
[channel.membership]
bind = "192.0.2.7"
frequency = 300
[channel.receiver]
address = "192.0.2.7"
port = 4300
auto_bind = 3
[manager]
commit_timeout = 77
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[NodeConfig]:
    """What a node would have been started with."""
    found: list[NodeConfig] = []

    async def run(read: Callable[[], NodeConfig], source: str) -> None:
        found.append(read())

    monkeypatch.setattr(command, "_run", run)
    return found


def node(*arguments: Any, **environ: str) -> Result:
    return CliRunner().invoke(main, ["node", *map(str, arguments)], env=dict(environ))


def test_a_file_is_used(tmp_path: Path, started: list[NodeConfig]) -> None:
    """Also where an option has a default."""
    file = tmp_path / "n.toml"
    file.write_text(TOML)
    assert node("--config", file).exit_code == 0
    [config] = started
    assert (config.name, config.contexts, config.hold_all) == ("from the file", ("shop",), False)
    assert config.channel.receiver.port == 4300
    assert config.channel.membership.frequency == 300
    assert config.manager.commit_timeout == 77


def test_the_environment_and_then_the_options_go_over_it(
    tmp_path: Path, started: list[NodeConfig]
) -> None:
    """Those that were given, and nothing else."""
    file = tmp_path / "n.toml"
    file.write_text(TOML)
    environ = {"TRIBES_CHANNEL__RECEIVER__PORT": "1", "TRIBES_CHANNEL__RECEIVER__AUTO_BIND": "9"}
    done = node("--config", file, "--port", 4000, "--address", "127.0.0.1", **environ)
    assert done.exit_code == 0
    [config] = started
    receiver, membership = config.channel.receiver, config.channel.membership
    assert (receiver.port, receiver.auto_bind, receiver.address) == (4000, 9, "127.0.0.1")
    assert (membership.bind, membership.frequency) == ("127.0.0.1", 300)
    assert config.name == "from the file"


def test_a_file_of_tomcat_is_used_and_its_notices_are_logged(started: list[NodeConfig]) -> None:
    """With file and line."""
    done = node("--config", SERVER)
    assert done.exit_code == 0
    assert started[0].channel.membership.port == 45570
    assert "channelStartOptions" in done.stderr + done.stdout


def test_without_a_file_the_environment_counts_too(started: list[NodeConfig]) -> None:
    """And a node without contexts holds all."""
    assert node("--name", "n", TRIBES_MANAGER__MIN_COPIES="0").exit_code == 0
    assert started == [NodeConfig(name="n", hold_all=True)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[channel.receiver]\nport = 99999", "line 2: channel.receiver.port"),
        ("[channel.receiver]\nprot = 1", "is port meant?"),
        ("<Cluster>", "line 1, column 10"),
        ("[channel.receiver]\naddress = '192.0.2.1'", "line 2: channel.receiver.address"),
    ],
)
def test_errors_name_the_file(
    tmp_path: Path, started: list[NodeConfig], text: str, said: str
) -> None:
    """And the place in it."""
    file = tmp_path / "n.conf"
    file.write_text(text)
    done = node("--config", file)
    assert done.exit_code == 1
    assert f"{file}: " in done.stderr
    assert said in done.stderr
    assert started == []
