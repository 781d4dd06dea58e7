"""RPC between a real Tomcat and ours: requests, replies, and channels that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.conftest import OpenGroup, content, number_of, python_member
from tests.waiting import until
from tribes import NoRpcChannelError, RpcChannel, RpcMode

if TYPE_CHECKING:
    from tribes.rpc.calls import RpcBody
    from tribes.wire.member import Member

SIZES = (8, 300, 5000, 2_000_000)
RPC_ID = b"rpc"
"""Of the Java side's channel."""


def successor(body: RpcBody, source: Member) -> RpcBody:
    """What the Java side replies too: the message with the next number."""
    assert isinstance(body, bytes)
    return content(number_of(body) + 1, len(body))


@pytest.mark.parametrize("mode", [RpcMode.FIRST_REPLY, RpcMode.MAJORITY_REPLY, RpcMode.ALL_REPLY])
async def test_python_asks_java(java_group: OpenGroup, mode: RpcMode) -> None:
    """The bytes of its ByteMessage come back, whatever their length."""
    async with java_group() as group:
        await group.java("java-1")
        await group.java("java-2")
        async with python_member(group.config()) as (channel, _):
            rpc = RpcChannel(channel, RPC_ID)
            await until(lambda: len(channel.members) == 2)
            for number, size in enumerate(SIZES, 100):
                result = await rpc.asend(content(number, size), mode=mode)
                assert result.is_complete
                assert set(result.bodies) == {content(number + 1, size)}
                names = sorted(reply.source.label for reply in result.replies)
                if mode is RpcMode.ALL_REPLY:
                    assert names == ["java-1", "java-2"]
                else:
                    assert names in (["java-1"], ["java-2"])


async def test_java_asks_python(java_group: OpenGroup) -> None:
    """Our replies are read there; those to nobody's question are told as left over."""
    async with java_group() as group:
        java = await group.java()
        async with python_member(group.config()) as (channel, _):
            RpcChannel(channel, RPC_ID, successor)
            await java.expect("ADDED python@")
            for number, size in enumerate(SIZES, 100):
                for mode in (1, 2, 3):
                    line = await java.ask(f"rpc {number} {size} {mode}", f"ANSWERS {number}")
                    assert line.split()[3:] == [f"python:{number + 1}:true"]
            await java.ask("rpc 200 100 4", "ANSWERS 200")
            await java.expect("LATE python")


async def test_java_does_not_wait_for_a_member_without_the_channel(java_group: OpenGroup) -> None:
    """It waits up to 3 s for all replies; ours is a refusal, so it waits milliseconds.

    As with the pings of a BackupManager, which go to all members and wait for all (DESIGN §4.3).
    """
    async with java_group() as group:
        java = await group.java("java-1")
        await group.java("java-2")
        async with python_member(group.config()) as (channel, _):
            await until(lambda: len(channel.members) == 2)
            await java.expect("ADDED python@")
            await java.expect("ADDED java-2@")
            for number in range(100, 105):
                line = await java.ask(f"rpc {number} 100 3", f"ANSWERS {number}")
                took_ms, *answers = line.split()[2:]
                assert answers == [f"java-2:{number + 1}:true"]
                assert int(took_ms) < 1500, "it waited for us"


async def test_python_is_told_of_channels_that_java_does_not_have(java_group: OpenGroup) -> None:
    """Tomcat's refusal ends our call at once."""
    async with java_group() as group:
        await group.java()
        async with python_member(group.config()) as (channel, _):
            rpc = RpcChannel(channel, b"unknown there")
            await until(lambda: len(channel.members) == 1)
            result = await rpc.asend(b"x", mode=RpcMode.ALL_REPLY, timeout=15)
            assert result.replies == ()
            assert [type(why) for why in result.missing.values()] == [NoRpcChannelError]
