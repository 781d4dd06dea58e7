"""SIGHUP to a running ``tribes node``: what changes at once, what stays, and what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_tcp_port
from tests.system.test_operators import Node, start
from tribes.security.keys import GroupKey

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["start"]

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not here: SIGHUP"),
]


def again(node: Node, old: str, new: str) -> None:
    """Change the file and have it read."""
    text = node.file.read_text()
    assert old in text
    node.file.write_text(text.replace(old, new))
    node.process.send_signal(signal.SIGHUP)


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts nodes that find others by the names in their files only."""
    nodes: list[Node] = []

    def begin(name: str) -> Node:
        nodes.append(Node(tmp_path, name, None, port=free_tcp_port()))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.close()


def test_the_log_level_changes(start: Callable[..., Node]) -> None:
    """Lines below it stop, and come again."""
    node = start("n1", before='log_level = "info"\n')
    node.read_until("joined")
    again(node, '"info"', '"warning"')
    assert node.read_until("log level changed")["level"] == "warning"
    other = start("n2")
    other.read_until("member added")
    again(node, '"warning"', '"debug"')
    # What came meanwhile was not printed: the next line is that of the change.
    assert node.next_event() == "log level changed"
    other.process.send_signal(signal.SIGTERM)
    node.read_until("member removed")


def test_static_members_are_added_and_taken_away(quiet: Callable[..., Node]) -> None:
    """By address and by name: a member that is named is met at once, one that is not any more is
    not looked for when it has gone.
    """
    one, two, three = quiet("n1"), quiet("n2"), quiet("n3")
    named = f'\n[[channel.membership.static]]\nhost = "127.0.0.1"\nport = {two.port}\n'
    again(one, "[http]", named + "[http]")
    assert one.read_until("static members changed")["added"] == [f"127.0.0.1:{two.port}"]
    one.read_until("member added", member="n2")
    by_name = f'\n[[channel.membership.static]]\nhost = "localhost"\nport = {three.port}\n'
    again(one, named, by_name)
    said = one.read_until("static members changed")
    assert said["added"] == [f"localhost:{three.port}"]
    assert said["removed"] == [f"127.0.0.1:{two.port}"]
    one.read_until("member added", member="n3")
    two.process.send_signal(signal.SIGTERM)
    assert one.read_until("member removed", member="n2")["reason"] == "left"


def test_a_file_that_cannot_be_used_changes_nothing(
    start: Callable[..., Node], tmp_path: Path
) -> None:
    """The log names the file, the line and the key; the next good one counts."""
    node = start("n1", before='log_level = "info"\n')
    node.read_until("joined")
    again(node, 'log_level = "info"', 'log_level = "loud"\nfoo = 1')
    error = node.read_until("configuration stays as it was")["error"]
    assert str(node.file) in error
    assert "foo" in error
    again(node, "\nfoo = 1", "")
    error = node.read_until("configuration stays as it was")["error"]
    assert str(node.file) in error
    assert "log_level" in error
    again(node, 'log_level = "loud"', 'log_level = "info')
    assert "no TOML" in node.read_until("configuration stays as it was")["error"]
    other = start("n2")
    other.read_until("joined")
    node.read_until("member added", member="n2")
    again(node, 'log_level = "info', 'log_level = "debug"')
    assert node.read_until("log level changed")["before"] == "info"


def test_what_needs_a_restart_is_named_and_stays(start: Callable[..., Node]) -> None:
    """With the paths of its keys."""
    node = start("n1", before='log_level = "info"\n')
    again(node, "[http]", "[channel.sender]\ntimeout = 4000\n[http]")
    assert node.read_until("settings need a restart")["keys"] == ["channel.sender.timeout"]


def test_keys_are_read_again_from_the_file_of_the_configuration(
    start: Callable[..., Node], tmp_path: Path
) -> None:
    """A file that cannot be used leaves the keys in force."""
    file = tmp_path / "group.key"
    one, two = (GroupKey(number, bytes([number]) * 32).to_text() for number in (1, 2))
    file.write_text(one + "\n")
    file.chmod(0o600)
    node = start("n1", f'[channel]\nkey_file = "{file}"\n')
    file.write_text(f"{two}\n{one}\n")
    node.process.send_signal(signal.SIGHUP)
    assert node.read_until("keys read again")["ids"] == [2, 1]
    file.write_text("nonsense\n")
    node.process.send_signal(signal.SIGHUP)
    said = node.read_until("keys stay as they were")
    assert str(file) in said["error"]
    assert "nonsense" not in said["error"]


def test_without_a_file_there_is_nothing_to_read_and_nothing_ends() -> None:
    """The signal's own meaning would end the process."""
    command = [sys.executable, "-m", "tribes", "node", "--port", "0", "--no-multicast"]
    with subprocess.Popen(
        [*command, "--log-format", "json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "node ready" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        text = process.stdout.read()
    assert process.returncode == 0
    assert "node leaves" in text
