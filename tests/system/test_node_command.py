"""``tribes node``: joins, holds copies, prints structured events, leaves cleanly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def node(cluster: Any) -> Iterator[subprocess.Popen[str]]:
    """A standalone member in the group of the cluster."""
    command = [sys.executable, "-m", "tribes", "node", "--name", "keeper", "--port", "0"]
    command += ["--multicast-port", str(cluster.multicast_port), "--log-format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], event: str, **fields: object) -> dict[str, Any]:
    """The first event of that name with those fields."""
    assert process.stdout is not None
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line)
        if said["event"] == event and fields.items() <= said.items():
            return said
    raise AssertionError(f"the node ended without {event!r}")


def test_standalone_member_holds_copies_and_gives_them_back(
    cluster: Any, make_user: Any, node: subprocess.Popen[str]
) -> None:
    """When every web node has died, the session is still there for the next one."""
    ready = read_until(node, "node ready")
    assert ready["node"] == "keeper"
    cluster.start("n1")
    read_until(node, "member added", member="n1")
    user = make_user()
    for _ in range(5):
        user.visit(cluster.http, cluster.url("n1"))
    assert sorted(cluster.members("n1")) == ["keeper", "n1"]
    cluster.kill("n1")
    assert read_until(node, "member removed", member="n1")["reason"] == "crashed"
    cluster.start("n2")
    assert user.visit(cluster.http, cluster.url("n2"))["count"] == 6
    assert len(user.session_ids) == 1
    node.send_signal(signal.SIGTERM)
    left = read_until(node, "node left")
    assert left["sessions"] == {"demo": 1}
    assert node.wait(10) == 0
    cluster.wait_members("n2", ["n2"], within=5)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--address", "192.0.2.1"], 1, "insecure = true"),
        (["--address", "0.0.0.0", "--insecure"], 1, "other members could reach"),
        (["--address", "nonsense"], 1, "'nonsense' is not an IP address"),
        (["--multicast-address", "127.0.0.1"], 1, "not a multicast address"),
        (["--drop-time", "600"], 1, "at least 1000"),
        (["--send-options", "sometimes"], 1, "sometimes"),
        (["--port", "70000"], 2, "70000"),
    ],
)
def test_settings_that_cannot_work_are_told_with_the_remedy(
    arguments: list[str], status: int, message: str
) -> None:
    """The command ends at once, names what is wrong, and shows no traceback."""
    command = [sys.executable, "-m", "tribes", "node", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
