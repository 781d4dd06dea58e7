"""``tribes node`` with ``[http]``, as a process: its port, its signals, its last minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_udp_port

TOKEN = "operators-token-of-the-test"


class Node:
    """A node process, and where it answers.

    Args:
        directory: Where its file is to be.
        name: Its name.
        multicast_port: Of the group; None: it hears and sends no heartbeats.
        more: What the file ends with, beginning in the table ``[http]``.
        before: What it begins with.
        port: Where its members connect.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        multicast_port: int | None,
        more: str = "",
        *,
        before: str = "",
        port: int = 0,
    ) -> None:
        self.file = directory / f"{name}.toml"
        self.port = port
        group = "multicast = false" if multicast_port is None else f"port = {multicast_port}"
        self.file.write_text(
            f'{before}name = "{name}"\ncontexts = ["shop"]\n'
            f"[channel.membership]\n{group}\n"
            f"[channel.receiver]\nport = {port}\n[http]\nport = 0\n{more}"
        )
        command = [sys.executable, "-m", "tribes", "node", "--config", str(self.file)]
        self.process = subprocess.Popen(
            [*command, "--log-format", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            self.url: str = self.read_until("operators")["url"]
        except BaseException:
            self.close()
            raise

    def read_until(self, event: str, **fields: object) -> dict[str, Any]:
        """The first line of that event with those fields."""
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            said: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if said.get("event") == event and fields.items() <= said.items():
                return said
        raise AssertionError(f"the node ended without {event!r}: {seen}")

    def next_event(self) -> str:
        """The event of the next line."""
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["event"])

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Its owner's only."""
    file = tmp_path / "http.token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    return file


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts nodes of one group."""
    port, nodes = free_udp_port(), []

    def begin(name: str, more: str = "", **settings: Any) -> Node:
        nodes.append(Node(tmp_path, name, port, more, **settings))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.close()


def test_a_node_answers_until_it_has_left(start: Callable[..., Node], token_file: Path) -> None:
    """Ready after joining; the token of the file, also of the file as it is after SIGHUP; drained
    by an operator it ends with status 0.
    """
    node = start("n1", f'token_file = "{token_file}"\n')
    node.read_until("joined")
    with httpx.Client(base_url=node.url, trust_env=False) as http:
        assert http.get("/live").status_code == 200
        assert http.get("/ready").status_code == 200
        assert http.get("/status").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        shown = http.get("/status", headers=headers).json()
        assert (shown["node"], shown["config"]) == ("n1", str(node.file))
        token_file.write_text("another-token-of-the-test")
        node.process.send_signal(signal.SIGHUP)
        node.read_until("token read again")
        assert http.get("/status", headers=headers).status_code == 401
        headers = {"Authorization": "Bearer another-token-of-the-test"}
        assert http.get("/metrics", headers=headers).status_code == 200
        token_file.chmod(0o644)
        node.process.send_signal(signal.SIGHUP)
        assert "chmod 600" in node.read_until("token stays as it was")["error"]
        assert http.post("/drain", headers=headers).status_code == 202
    node.read_until("node left")
    assert node.process.wait(10) == 0


def listening(pid: int) -> int:
    """At how many TCP ports a process listens."""
    table = Path(f"/proc/{pid}/net/tcp").read_text() + Path(f"/proc/{pid}/net/tcp6").read_text()
    rows = [line.split() for line in table.splitlines()]
    listeners = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    return len(listeners & {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not here: no /proc")
def test_without_its_section_nothing_listens(start: Callable[..., Node], tmp_path: Path) -> None:
    """But the members' port."""
    node = start("n1")
    node.read_until("joined")
    assert listening(node.process.pid) == 2
    file = tmp_path / "n2.toml"
    file.write_text("[channel.membership]\nmulticast = false\n[channel.receiver]\nport = 0\n")
    command = [sys.executable, "-m", "tribes", "node", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("node ready" in line for line in process.stdout)
            assert listening(process.pid) == 1
        finally:
            process.terminate()


def test_a_port_that_others_reach_is_refused_without_a_token(tmp_path: Path) -> None:
    """With what to set."""
    file = tmp_path / "n.toml"
    file.write_text('[http]\naddress = "0.0.0.0"\n')
    command = [sys.executable, "-m", "tribes", "node", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "http.token_file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_ends_the_start(start: Callable[..., Node], tmp_path: Path) -> None:
    """With what to change, and no traceback."""
    port = start("n1").url.rstrip("/").rpartition(":")[2]
    file = tmp_path / "second.toml"
    file.write_text(f"[channel.receiver]\nport = 0\n[http]\nport = {port}\n")
    command = [sys.executable, "-m", "tribes", "node", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "http.port" in done.stderr
    assert "another port" in done.stderr
    assert "Traceback" not in done.stderr
