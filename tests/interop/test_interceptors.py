"""The interceptors of a real Tomcat and ours: what one writes the other reads.

Several take turns on one Java process, because starting it costs more than all that it is sent.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.interop.conftest import (
    OpenGroup,
    both_ways,
    content,
    flood_both_ways,
    python_member,
)
from tests.waiting import until
from tribes import SenderConfig

pytestmark = pytest.mark.timeout(180)  # each virtual machine takes seconds to start

OPTIONS: Final = (0, 2, 6, 8)
SIZES: Final = (0, 1, 1000, 400_000)
LONG: Final = 4_000_000
FRAGMENT: Final = 300_000
"""Tomcat copies the whole message for each piece, so smaller ones fill its memory."""

KEY: Final = "000102030405060708090a0b0c0d0e0f"
"""The key that ``Peer.java`` has."""

GCM, CBC = "AES/GCM/NoPadding", "AES/CBC/PKCS5Padding"
CFB, OFB = "AES/CFB/PKCS5Padding", "AES/OFB/PKCS5Padding"

STACKS: Final = (
    "gzip",
    "order",
    f"fragment={FRAGMENT}",
    f"encrypt={GCM}",
    f"encrypt={CBC}",
    f"encrypt={CFB}",
    f"encrypt={OFB}",
    f"gzip,encrypt={GCM},fragment={FRAGMENT},order",
    f"gzip,encrypt={CBC},order",
    f"gzip,fragment={FRAGMENT},encrypt={OFB}",
)
"""As ``Peer.java`` takes them, from the first to the last."""


def stack(text: str, *, key: str = KEY) -> tuple[dict[str, Any], ...]:
    """Our tables for a stack of ``Peer.java``."""
    tables = []
    for each in text.split(",") if text else ():
        name, _, value = each.partition("=")
        tables.append(
            {
                "gzip": {"class": "GzipInterceptor"},
                "order": {"class": "OrderInterceptor"},
                "domain": {"class": "DomainFilterInterceptor", "domain": value},
                "fragment": {"class": "FragmentationInterceptor", "maxSize": value},
                "encrypt": {
                    "class": "EncryptInterceptor",
                    "encryptionAlgorithm": value,
                    "encryptionKey": key,
                },
            }[name]
        )
    return (*tables, {"class": "MessageDispatchInterceptor"}, {"class": "TcpFailureDetector"})


@pytest.mark.parametrize("text", STACKS)
async def test_messages_pass_a_stack_both_ways(java_group: OpenGroup, text: str) -> None:
    """Every size with every option, and the longest acknowledged and not."""
    async with java_group() as group:
        java = await group.java("java", "--stack", text)
        config = group.config(interceptors=stack(text))
        async with python_member(config) as (channel, heard):
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED python@")
            number = 100
            for options in OPTIONS:
                for size in SIZES:
                    number += 1
                    await both_ways(java, channel, heard, number, size, options)
            for options in (6, 8):
                await both_ways(java, channel, heard, 200 + options, LONG, options)


COUNT = 4000


async def test_order_of_eight_senders_is_kept_both_ways(java_group: OpenGroup) -> None:
    """Over several connections each way, which by themselves would change it."""
    async with java_group() as group:
        java = await group.java("java", "--stack", "order")
        config = group.config(interceptors=stack("order"), sender=SenderConfig(pool_size=4))
        async with python_member(config) as (channel, heard):
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED python@")
            await flood_both_ways(java, channel, heard, COUNT, java_options=8, options=10)
            assert heard.disordered == 0
            assert await java.ask("order", "DISORDERED") == "DISORDERED 0"


@pytest.mark.parametrize("algorithm", [GCM, CBC])
async def test_message_of_another_key_is_handled_by_nobody(
    java_group: OpenGroup, algorithm: str
) -> None:
    """Both sides go on, and who has the right key is understood. With GCM we say that we refuse."""
    async with java_group() as group:
        text = f"encrypt={algorithm}"
        java = await group.java("java", "--stack", text)
        wrong = group.config("wrong", interceptors=stack(text, key="ff" * 16))
        right = group.config("python", interceptors=stack(text))
        async with (
            python_member(wrong) as (stranger, ignorant),
            python_member(right) as (channel, heard),
        ):
            await until(lambda: len(channel.members) == 2 and len(stranger.members) == 2)
            await java.expect("ADDED wrong@")
            await java.expect("ADDED python@")
            (member,) = [each for each in stranger.members if each.payload == b"java"]
            # Tomcat drops what it cannot read, and acknowledges it as processed.
            await stranger.send(content(101, 1000), to=[member], options=6)
            if algorithm == GCM:
                line = await java.ask("send 102 1000 6", "FAILED 102")
                assert line.split()[2:] == ["wrong:RemoteProcessException"]
            else:
                await java.ask("send 102 1000 6", "SENT 102")
            await heard.expect(102, 1000)
            (member,) = [each for each in channel.members if each.payload == b"java"]
            await channel.send(content(103, 1000), to=[member], options=6)
            line = await java.expect("GOT 103")
            assert line.split()[2:] == ["1000", "true", "python"]
            assert not [each for each in java.lines if each.startswith("GOT")]
            assert not ignorant.messages


async def test_domain_filter_hides_another_domain_both_ways(java_group: OpenGroup) -> None:
    """A Tomcat of another domain is neither seen nor heard; with a filter it sees nothing of us."""
    async with java_group() as group:
        filtered = await group.java("far", "--domain", "till", "--stack", "domain=till")
        open_one = await group.java("open", "--domain", "till")
        friend = await group.java("java", "--domain", "shop", "--stack", "domain=shop")
        config = group.config(membership={"domain": "shop"}, interceptors=stack("domain=shop"))
        async with python_member(config) as (channel, heard):
            await friend.expect("ADDED python@shop")
            await open_one.expect("ADDED python@shop")
            await until(lambda: len(channel.members) == 1)
            # Sent to all that it sees, us among them; what it sends first would come first.
            await open_one.ask("send 101 100 6", "SENT 101")
            await both_ways(friend, channel, heard, 102, 100, 6)
            assert not heard.messages
            assert [member.payload for member in channel.members] == [b"java"]
            assert await filtered.ask("members", "MEMBERS") == "MEMBERS open@till"
