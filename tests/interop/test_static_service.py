"""A real StaticMembershipService and ours: who is listed where, and who notices a leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tests.interop.conftest import python_member
from tests.ports import free_tcp_port
from tests.waiting import until

if TYPE_CHECKING:
    from tests.interop.conftest import OpenGroup


async def test_each_lists_the_other_until_it_leaves(java_group: OpenGroup) -> None:
    """Without a heartbeat of either: the Java member asks, and ours answers."""
    async with java_group() as group:
        config = group.config(port=free_tcp_port())
        # Silence alone would not be noticed in the time of a test.
        membership = msgspec.structs.replace(
            config.channel.membership,
            multicast=False,
            static_service_name="test-Channel",
            drop_time=600_000,
        )
        config = msgspec.structs.replace(
            config, channel=msgspec.structs.replace(config.channel, membership=membership)
        )
        port = config.channel.receiver.port
        java = await group.java("java", "--member", str(port), main="StaticPeer")
        for _ in range(2):
            async with python_member(config) as (channel, _heard):
                await java.expect(f"ADDED {port}")
                await until(lambda: len(channel.members) == 1)
                await channel.send(b"x", options=6)
                members = channel.members
            await java.expect(f"GONE {port}")
            assert [member.port for member in members] == [int(java.started.split()[1])]
        async with python_member(config) as (channel, _heard):
            await until(lambda: len(channel.members) == 1)
            await java.ask("stop", "STOPPED")
            await until(lambda: not channel.members)
