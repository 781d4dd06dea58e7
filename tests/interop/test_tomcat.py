"""A whole Tomcat cluster with a Python member among it, which must do it no harm."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

import pytest
import trio

from tests.interop.conftest import OpenGroup, python_member
from tests.ports import free_tcp_port
from tests.waiting import until
from tribes.config import load_config

pytestmark = pytest.mark.timeout(180)  # each virtual machine takes seconds to start

GUIDE = Path(__file__).parents[2] / "docs" / "tomcat.md"

SESSIONS = 200
WAITS_MS = 60_000
"""So long a Tomcat waits for sessions by default (``stateTransferTimeout``)."""


async def test_tomcat_that_joins_an_older_one_has_every_session(java_group: OpenGroup) -> None:
    """Although the oldest member is a Python process: a DeltaManager asks the first of its list."""
    async with java_group() as group, python_member(group.config()) as (channel, _):
        await trio.sleep(1.2)
        older = await group.java("older", main="TomcatNode")
        await until(lambda: len(channel.members) == 1)
        await older.ask(f"create {SESSIONS}", "CREATED")
        newer = await group.java("newer", main="TomcatNode")
        assert await newer.ask("members", "MEMBERS") == "MEMBERS 2"
        assert await newer.ask("sessions", "SESSIONS") == f"SESSIONS {SESSIONS}"


async def test_first_tomcat_does_not_wait_for_sessions_that_python_does_not_have(
    java_group: OpenGroup,
) -> None:
    """It would wait a minute, but is told that there are none."""
    async with java_group() as group, python_member(group.config()) as (channel, _):
        await trio.sleep(1.2)
        node = await group.java("first", main="TomcatNode")
        assert await node.ask("members", "MEMBERS") == "MEMBERS 1"
        assert int(node.started.split()[1]) < WAITS_MS / 2
        assert channel.shell.core.rpc.statistics.no_context_sent == 1
        await node.ask("create 3", "CREATED")
        assert await node.ask("sessions", "SESSIONS") == "SESSIONS 3"


@pytest.mark.parametrize("chapter", ["Join by multicast", "Join by a list"])
async def test_both_sides_join_as_the_guide_shows(
    java_group: OpenGroup, tmp_path: Path, chapter: str
) -> None:
    """Its ``server.xml`` and its TOML as they stand there, but for addresses and ports."""
    text = GUIDE.read_text().split(f"## {chapter}")[1].split("\n## ")[0]
    async with java_group() as group:
        local = {
            "10.0.0.1": "127.0.0.1",
            "10.0.0.2": "127.0.0.1",
            "45564": str(group.multicast_port),
            "4000": str(free_tcp_port()),
            "4100": str(free_tcp_port()),
            'dropTime="3000"': 'dropTime="3000" ttl="0"',
        }
        for shown, here in local.items():
            text = text.replace(shown, here)
        [xml] = re.findall(r"```xml\n(.*?)```", text, re.DOTALL)
        [toml] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        (tmp_path / "cluster.xml").write_text(xml)
        (tmp_path / "node.toml").write_text(toml)
        got: list[object] = []
        async with python_member(load_config(tmp_path / "node.toml")) as (channel, _):
            channel.add_message_listener(got.append, inline=True, java=True)
            node = await group.run("TomcatNode", "--cluster", str(tmp_path / "cluster.xml"))
            # Not so if it could not read the answer to its request for sessions.
            assert int(node.started.split()[1]) < WAITS_MS / 2
            await until(lambda: len(channel.members) == 1)
            await channel.send(b"hello", options=6)
            before = len(got)
            await node.ask("create 3", "CREATED")
            await until(lambda: len(got) >= before + 3)
            assert await node.ask("members", "MEMBERS") == "MEMBERS 1"


async def test_backup_manager_is_not_slowed_down_by_a_python_member(java_group: OpenGroup) -> None:
    """Its ping to all members at each start of a map ends as soon as without us."""
    alone = await _start_times(java_group, with_python=False)
    together = await _start_times(java_group, with_python=True)
    # It would wait for seconds each time; of three starts, one may be late on a busy machine.
    assert median(together) < median(alone) + 1500


async def _start_times(java_group: OpenGroup, *, with_python: bool) -> list[int]:
    times = []
    async with java_group() as group, trio.open_nursery() as nursery:
        ready, over = trio.Event(), trio.Event()

        async def member() -> None:
            async with python_member(group.config()):
                ready.set()
                await over.wait()

        if with_python:
            nursery.start_soon(member)
            await ready.wait()
        for index in range(3):
            node = await group.java(f"t{index}", "--manager", "backup", main="TomcatNode")
            times.append(int(node.started.split()[1]))
            await node.ask("create 20", "CREATED")
            assert int((await node.ask("sessions", "SESSIONS")).split()[1]) >= 20
        over.set()
    return times
