"""What Tribes' own tests assert of traffic, on real sockets: the numbers are upstream's."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from tests.ports import free_udp_port
from tests.runtime.conftest import make_config as make_config
from tests.runtime.test_group_channel import MakeConfig, together
from tests.standstill import Stopwatch
from tests.waiting import until
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData


class Checked:
    """A listener that verifies every message: its length, one fill byte, and nothing else."""

    def __init__(self, channel: GroupChannel) -> None:
        self.good: set[bytes] = set()
        self.count = 0
        channel.add_message_listener(self._take, inline=True)

    def _take(self, message: ChannelData) -> None:
        self.count += 1
        data = message.message
        if len(data) == int.from_bytes(data[:4], "big") and data[8:] == data[8:9] * (len(data) - 8):
            self.good.add(data[:8])

    async def all(self, count: int, within: float) -> None:
        """Wait for so many; they are there in time, but for a standstill of this machine."""
        watch = Stopwatch()
        await until(lambda: len(self.good) == count)
        assert watch.seconds < within
        assert self.count == count


def content(number: int, size: int) -> bytes:
    """Length, number, and one byte again and again."""
    return size.to_bytes(4, "big") + number.to_bytes(4, "big") + bytes((number % 251,)) * (size - 8)


async def send_all(
    channel: GroupChannel, *, options: int, senders: int, each: int, longest: int, shortest: int = 9
) -> None:
    """Send ``each`` messages in each of ``senders`` tasks."""

    async def send(sender: int) -> None:
        random = Random(sender)
        for number in range(each):
            # Many short ones, and some of every length.
            size = int(shortest + (longest - shortest) * random.random() ** 4)
            await channel.send(content(sender * each + number, size), options=options)

    async with trio.open_nursery() as nursery:
        for sender in range(senders):
            nursery.start_soon(send, sender)


@pytest.mark.slow
@pytest.mark.parametrize("own_link", [True, False])
@pytest.mark.parametrize(
    ("options", "senders", "within"),
    [(0, 20, 15.0), (8, 20, 25.0), (8, 1, 5.0), (2, 1, 0.25), (6, 1, 0.25)],
    ids=["20 no ack", "20 async", "1 async", "1 receipt", "1 processed"],
)
async def test_every_message_arrives_whole(
    make_config: MakeConfig, own_link: bool, options: int, senders: int, within: float
) -> None:
    """TestDataIntegrity: 500 messages of each sender, of up to 65,554 bytes; so long after the
    last send.
    """
    configs = [make_config(name) for name in "ab"]
    configs = [
        msgspec.structs.replace(
            each, channel=msgspec.structs.replace(each.channel, own_link=own_link)
        )
        for each in configs
    ]
    async with GroupChannel(configs[0]) as a, GroupChannel(configs[1]) as b:
        got = Checked(b)
        await together(a, b)
        await send_all(a, options=options, senders=senders, each=500, longest=65_554)
        await got.all(senders * 500, within)


@pytest.mark.parametrize("options", [2, 6], ids=["receipt", "processed"])
async def test_every_acknowledged_datagram_arrives_whole(
    make_config: MakeConfig, options: int
) -> None:
    """TestUdpPackages: 500 messages of 100 to 1,123 bytes, one by one."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b", udp_port=0)) as b:
        got = Checked(b)
        await together(a, b)
        await send_all(a, options=32 | options, senders=1, each=500, shortest=100, longest=1123)
        await got.all(500, 0.25)


async def test_a_member_starts_and_stops_again_on_the_same_ports(make_config: MakeConfig) -> None:
    """TestGroupChannelStartStop, with a UDP port: nothing of the first keeps the second out."""
    udp_port = free_udp_port()
    ports = set()
    for _ in range(3):
        watch = Stopwatch()
        async with GroupChannel(make_config("a", udp_port=udp_port)) as channel:
            ports.add(channel.local.udp_port)
        assert watch.seconds < 2
    assert ports == {udp_port}
