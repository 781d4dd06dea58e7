"""A whole Tomcat cluster with a Python member among it, which must do it no harm."""

from __future__ import annotations

import trio

from tests.interop.conftest import OpenGroup, python_member, until

SESSIONS = 200


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
    """It would wait a minute (``stateTransferTimeout``), but is told that there are none."""
    async with java_group() as group, python_member(group.config()) as (channel, _):
        await trio.sleep(1.2)
        node = await group.java("first", main="TomcatNode")
        assert await node.ask("members", "MEMBERS") == "MEMBERS 1"
        assert int(node.started.split()[1]) < 10_000
        assert channel.shell.core.rpc.statistics.no_context_sent == 1
        await node.ask("create 3", "CREATED")
        assert await node.ask("sessions", "SESSIONS") == "SESSIONS 3"


async def test_backup_manager_is_not_slowed_down_by_a_python_member(java_group: OpenGroup) -> None:
    """Its ping to all members at each start of a map ends as soon as without us."""
    alone = await _start_times(java_group, with_python=False)
    together = await _start_times(java_group, with_python=True)
    assert max(together) < max(alone) + 1500


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
