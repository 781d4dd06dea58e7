"""A node under traffic, as processes: its last minutes are written, and run again elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.test_operators import TOKEN, Node, start, token_file
from tests.waiting import wait_until
from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.runtime.background import BackgroundNode

if TYPE_CHECKING:
    from subprocess import CompletedProcess

__all__ = ["start", "token_file"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def tribes(*arguments: str) -> CompletedProcess[str]:
    command = [sys.executable, "-m", "tribes", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def node(start: Callable[..., Node], token_file: Path, tmp_path: Path) -> Node:
    """Records, and answers operators."""
    (tmp_path / "recordings").mkdir()
    recorder = f'[recorder]\ndirectory = "{tmp_path / "recordings"}"\nseconds = 30\n'
    return start("n1", f'token_file = "{token_file}"\n{recorder}')


def traffic(node: Node, rounds: int, **attributes: object) -> list[str]:
    """Sessions of a member in this process, which then leaves; returns their ids."""
    port = int(node.file.read_text().partition("port = ")[2].partition("\n")[0])
    config = NodeConfig(
        name="web",
        contexts=("shop",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=port), receiver=ReceiverConfig(port=0)
        ),
    )
    web = BackgroundNode(config)
    web.start()
    try:
        wait_until(lambda: len(web.member_names) > 0)
        assert web.wait_joined(20)
        manager = web.manager("shop")
        for number in range(rounds):
            session = manager.create()
            session["number"] = number
            for name, value in attributes.items():
                session[name] = value
            manager.commit(session)
        return manager.list_ids()
    finally:
        web.stop()


def recorded(node: Node, token_file: Path, *more: str) -> dict[str, Any]:
    asked = ["record", "--url", node.url, "--token-file", str(token_file), "--json", *more]
    done = tribes(*asked)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_an_incident_is_recorded_and_runs_again(
    node: Node, start: Callable[..., Node], token_file: Path
) -> None:
    """Sessions arrive, a member hangs and is suspected, answers, and is killed. The recording tells
    it in that order, and gives the very same outputs in another process; without contents it tells
    the same and is not run.
    """
    other = start("n2")
    node.read_until("member added", member="n2")
    traffic(node, 200)
    other.process.send_signal(signal.SIGSTOP)
    node.read_until("member suspected", member="n2")
    other.process.send_signal(signal.SIGCONT)
    node.read_until("member refuted", member="n2")
    other.process.kill()
    node.read_until("member removed", member="n2")
    full = recorded(node, token_file, "--contents")
    assert full["can_replay"]
    redacted = recorded(node, token_file)
    assert not redacted["can_replay"]
    node.close()
    done = tribes("sim", "--replay", full["path"])
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    said = json.loads(last)
    assert said["equal"]
    assert said["steps"] > 50
    assert told(lines, "member=n2") == ["added", "suspected", "refuted", "removed"]
    done = tribes("sim", "--replay", redacted["path"])
    assert done.returncode == 3
    assert told(done.stdout.splitlines(), "member=n2") == [
        *("added", "suspected", "refuted", "removed")
    ]
    assert Path(redacted["path"]).stat().st_size < Path(full["path"]).stat().st_size


def told(lines: list[str], about: str) -> list[str]:
    """What happened to a member, in order."""
    found = (line.split() for line in lines if about in line)
    return [words[2] for words in found if words[1] == "member" and words[2] != "draining"]


def test_who_may_not_ask_gets_no_recording(
    node: Node, start: Callable[..., Node], tmp_path: Path
) -> None:
    """No token, no file; and a node without a recorder says what to set."""
    done = tribes("record", "--url", node.url)
    assert done.returncode == 1
    assert "token" in done.stderr
    assert not list((tmp_path / "recordings").iterdir())
    (tmp_path / "other.token").write_text(TOKEN)
    (tmp_path / "other.token").chmod(0o600)
    plain = start("n3", f'token_file = "{tmp_path / "other.token"}"\n')
    done = tribes("record", "--url", plain.url, "--token-file", str(tmp_path / "other.token"))
    assert done.returncode == 4
    assert "recorder.directory" in done.stderr
