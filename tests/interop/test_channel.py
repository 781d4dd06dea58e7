"""Java and Python in one group: what each sees, sends, acknowledges and notices."""

from __future__ import annotations

import signal

import pytest
import trio

from tests.interop.conftest import (
    FAILS,
    OpenGroup,
    both_ways,
    content,
    flood_both_ways,
    python_member,
)
from tests.ports import free_udp_port
from tests.waiting import until
from tribes import GroupSendError, MemberRemoved, RemoteProcessError

pytestmark = pytest.mark.timeout(180)  # each virtual machine takes seconds to start

OPTIONS = (0, 2, 6, 8)
SIZES = (0, 1, 7, 8, 1000, 65_536, 4_000_000)


async def test_they_see_each_other_with_domain_and_payload(java_group: OpenGroup) -> None:
    """By multicast, whoever came first; our heartbeats carry a trailer that Java ignores."""
    async with java_group() as group:
        java = await group.java("java-1", "--domain", "shop")
        async with python_member(group.config("python-1", membership={"domain": "till"})) as (
            channel,
            _,
        ):
            await java.expect("ADDED python-1@till")
            await until(lambda: len(channel.members) == 1)
            (seen,) = channel.members
            assert (seen.payload, seen.domain) == (b"java-1", b"shop")
            late = await group.java("java-2")
            await late.expect("ADDED python-1@till")
            await late.expect("ADDED java-1@shop")
            await until(lambda: len(channel.members) == 2)
            assert sorted((await late.ask("members", "MEMBERS")).split()[1:]) == [
                "java-1@shop",
                "python-1@till",
            ]


async def test_leave_and_crash_are_noticed_on_both_sides(java_group: OpenGroup) -> None:
    """A leave is told at once and told apart from a crash, which the refused connection shows."""
    async with java_group() as group:
        leaver, crasher, stays = [await group.java(name) for name in ("leaver", "crasher", "stays")]
        gone: dict[bytes, str] = {}
        async with python_member(group.config()) as (channel, _):

            def note(event: object) -> None:
                if isinstance(event, MemberRemoved):
                    gone[event.member.payload] = event.reason

            channel.add_membership_listener(note)
            await until(lambda: len(channel.members) == 3)
            await leaver.ask("stop", "STOPPED")
            await until(lambda: b"leaver" in gone)
            crasher.process.send_signal(signal.SIGKILL)
            await until(lambda: b"crasher" in gone, 6)
            assert gone[b"leaver"] == "left"
            assert gone[b"crasher"] != "left"
            assert [m.payload for m in channel.members] == [b"stays"]
        await stays.expect("LEFT python", 3)


async def test_killed_python_member_is_noticed_by_both(java_group: OpenGroup) -> None:
    """Its port is closed: it is gone for Java and for ours, without a leave."""
    async with java_group() as group:
        java = await group.java()
        gone: list[tuple[bytes, str]] = []
        async with python_member(group.config()) as (channel, _):

            def note(event: object) -> None:
                if isinstance(event, MemberRemoved):
                    gone.append((event.member.payload, event.reason))

            channel.add_membership_listener(note)
            killed = await group.python("killed")
            await java.expect("ADDED killed@")
            await until(lambda: len(channel.members) == 2)
            killed.send_signal(signal.SIGKILL)
            await java.expect("GONE killed", 8)
            await until(lambda: bool(gone), 8)
            assert [name for name, _ in gone] == [b"killed"]
            assert gone[0][1] != "left"
            assert not [line for line in java.lines if line.startswith("LEFT")]


@pytest.mark.parametrize("options", OPTIONS)
async def test_messages_of_every_size_pass_both_ways(java_group: OpenGroup, options: int) -> None:
    """Unchanged, with the option that they were sent with."""
    async with java_group() as group:
        java = await group.java()
        async with python_member(group.config()) as (channel, heard):
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED python@")
            for number, size in enumerate(SIZES, 100):
                await both_ways(java, channel, heard, number, size, options)


@pytest.mark.parametrize("options", [32, 34, 38, 64])
async def test_messages_by_udp_and_to_the_group_pass_both_ways(
    java_group: OpenGroup, options: int
) -> None:
    """As datagrams; the acknowledgement comes as one, and a failure with it."""
    async with java_group() as group:
        java = await group.java("java", "--udp-port", str(free_udp_port()))
        async with python_member(group.config(udp_port=0)) as (channel, heard):
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED python@")
            for number, size in enumerate((0, 8, 1000, 60_000), 100):
                await both_ways(java, channel, heard, number, size, options)
            assert channel.shell.core.channel.datagrams.statistics.received == 4
            if options == 38:
                with pytest.raises(GroupSendError):
                    await channel.send(content(FAILS, 100), options=options)
                await java.ask(f"send {FAILS} 100 38", f"FAILED {FAILS}")


async def test_failure_of_a_listener_is_the_senders_error(java_group: OpenGroup) -> None:
    """With option 6, on both sides, naming the member; the next message is taken."""
    async with java_group() as group:
        java = await group.java()
        async with python_member(group.config()) as (channel, _):
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED python@")
            with pytest.raises(GroupSendError) as caught:
                await channel.send(content(FAILS, 100), options=6)
            ((member, error),) = caught.value.faulty.items()
            assert member.payload == b"java"
            assert isinstance(error, RemoteProcessError)
            await channel.send(content(FAILS, 100), options=2)
            await channel.send(content(14, 100), options=6)
            answer = await java.ask(f"send {FAILS} 100 6", f"FAILED {FAILS}")
            assert answer.split()[2].startswith("python:RemoteProcessException")
            await java.ask(f"send {FAILS} 100 2", f"SENT {FAILS}")
            await java.ask("send 14 100 6", "SENT 14")


@pytest.mark.parametrize(("options", "count"), [(2, 20_000), (8, 50_000)])
async def test_many_messages_of_many_senders_arrive_complete(
    java_group: OpenGroup, options: int, count: int
) -> None:
    """With eight senders, each way at the same time: none is lost, doubled or damaged."""
    async with java_group() as group:
        java = await group.java()
        async with python_member(group.config()) as (channel, heard):
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED python@")
            await flood_both_ways(
                java, channel, heard, count, java_options=options, options=options
            )
            # A message more than there should be would come now.
            await trio.sleep(1)
            assert heard.counted == count
            assert await java.ask(f"counts {count}", "COUNTS") == f"COUNTS {count} 0"
