"""A real Tribes member in Java and one of ours in the same group, on loopback only."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.ports import free_tcp_port, free_udp_port
from tests.servers.tomcat_jars import compile_beside, missing_jars
from tests.waiting import until
from tribes import ChannelConfig, GroupChannel, MembershipConfig, NodeConfig, ReceiverConfig

if TYPE_CHECKING:
    from tests.conftest import Needs
    from tribes.channel.chain import Interceptor
    from tribes.wire.data import ChannelData

WAIT_S = 20.0
FLOOD = 1_000_000
"""Messages with this number or a greater one are counted and not told one by one; each sender of a
flood has so many numbers."""

SENDERS = 8
"""Of a flood."""

FAILS = 13
"""The listeners of both sides raise for the message with this number."""


def content(number: int, size: int) -> bytes:
    """The message with a number: eight bytes of it, then bytes that follow from it."""
    data = bytearray((number * 31 + i) & 0xFF for i in range(256))
    whole = bytes(data * (size // 256 + 1))[:size]
    return struct.pack(">q", number) + whole[8:] if size >= 8 else whole


def number_of(data: bytes) -> int:
    """The number of a message; 0 for those too short to have one."""
    return int(struct.unpack(">q", data[:8])[0]) if len(data) >= 8 else 0


class JavaMember:
    """A process of ``Peer.java``: lines go in, lines come out."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.started = ""
        self.lines: list[str] = []
        self._more = trio.Event()

    async def read(self) -> None:
        """Collect its lines until it ends."""
        rest = b""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._more.set()
            self._more = trio.Event()

    async def say(self, line: str) -> None:
        """Give it a command."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def expect(self, start: str, seconds: float = WAIT_S) -> str:
        """Wait for a line, which may have come already, and take it away."""
        with trio.move_on_after(seconds):
            while True:
                for line in self.lines:
                    if line == start or line.startswith(start + " "):
                        self.lines.remove(line)
                        return line
                await self._more.wait()
        pytest.fail(f"no {start!r} within {seconds:g} s; there is {self.lines!r}")

    async def ask(self, line: str, answer: str, seconds: float = WAIT_S) -> str:
        """Give a command and wait for its answer."""
        await self.say(line)
        return await self.expect(answer, seconds)


@pytest.fixture(scope="session")
def java_classes(needs: Needs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[str]]:
    """The command that runs a class of ours with Tomcat's jars; they are compiled here."""
    java, javac = needs("java"), needs("javac")
    if missing := missing_jars():
        pytest.skip(f"{', '.join(missing)}: not installed (libtomcat10-java)")
    target = tmp_path_factory.mktemp("classes")
    command = compile_beside(Path(__file__).parent, target, javac, java, ["-Xmx256m"])
    return lambda: command


class Group:
    """Java and Python members that share a multicast port."""

    def __init__(self, nursery: trio.Nursery, command: Callable[[], list[str]]) -> None:
        self.multicast_port = free_udp_port()
        self._nursery = nursery
        self._command = command
        self._processes: list[trio.Process] = []

    async def java(
        self, name: str = "java", *more: str, main: str = "Peer", port: int = 0
    ) -> JavaMember:
        """Start a Java member and wait until its channel runs."""
        place = (
            "--multicast-port",
            str(self.multicast_port),
            "--port",
            str(port or free_tcp_port()),
        )
        return await self.run(main, "--name", name, *place, *more)

    async def run(self, main: str, *arguments: str) -> JavaMember:
        """Start a Java program and wait until its channel runs."""
        command = [*self._command(), main, *arguments]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._processes.append(process)
        member = JavaMember(process)
        self._nursery.start_soon(member.read)
        member.started = await member.expect("STARTED", 40)
        return member

    async def python(self, name: str) -> trio.Process:
        """Start a Python member in a process of its own."""
        place = ("--multicast-port", str(self.multicast_port), "--port", str(free_tcp_port()))
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tribes", "node", "--name", name, *place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def config(
        self,
        name: str = "python",
        *,
        port: int = 0,
        udp_port: int = -1,
        membership: Mapping[str, Any] | None = None,
        **channel: Any,
    ) -> NodeConfig:
        """The configuration of a Python member of this group."""
        return NodeConfig(
            name=name,
            channel=ChannelConfig(
                membership=MembershipConfig(**{"port": self.multicast_port, **(membership or {})}),
                receiver=ReceiverConfig(port=port or free_tcp_port(), udp_port=udp_port),
                **channel,
            ),
        )

    async def close(self) -> None:
        """End what was started."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def group(command: Callable[[], list[str]]) -> AsyncIterator[Group]:
    """A group whose processes are ended at the end."""
    async with trio.open_nursery() as nursery:
        running = Group(nursery, command)
        try:
            yield running
        finally:
            with trio.CancelScope(shield=True):
                await running.close()
            nursery.cancel_scope.cancel()


class Heard:
    """What arrived at a Python member."""

    def __init__(self, channel: GroupChannel) -> None:
        self.messages: list[ChannelData] = []
        self.counted = 0
        self.damaged = 0
        self.disordered = 0
        self._last_of_sender: dict[int, int] = {}
        channel.add_message_listener(self._take, inline=True)

    def _take(self, message: ChannelData) -> None:
        number = number_of(message.message)
        if number >= FLOOD:
            sender = number // FLOOD
            self.disordered += self._last_of_sender.get(sender, 0) >= number
            self._last_of_sender[sender] = number
            self.counted += 1
            self.damaged += message.message != content(number, len(message.message))
            return
        self.messages.append(message)
        if number == FAILS:
            raise ValueError("as the test wants it")

    async def expect(self, number: int, size: int) -> ChannelData:
        """Wait for a message and take it away; it must be whole."""
        found: list[ChannelData] = []

        def is_there() -> bool:
            found[:] = [
                each
                for each in self.messages
                if number_of(each.message) == (number if size >= 8 else 0)
                and len(each.message) == size
            ]
            return bool(found)

        await until(is_there)
        self.messages.remove(found[0])
        assert found[0].message == content(number, size)
        return found[0]


@asynccontextmanager
async def python_member(
    config: NodeConfig, interceptors: Sequence[Interceptor] | None = None
) -> AsyncIterator[tuple[GroupChannel, Heard]]:
    """One of ours, with what it hears."""
    async with GroupChannel(config, interceptors=interceptors) as channel:
        yield channel, Heard(channel)


async def both_ways(
    java: JavaMember, channel: GroupChannel, heard: Heard, number: int, size: int, options: int
) -> None:
    """Send a message each way; both must arrive whole, with the sender's name."""
    await channel.send(content(number, size), options=options)
    line = await java.expect(f"GOT {number if size >= 8 else 0}")
    assert line.split()[2:] == [str(size), "true", "python"]
    await java.ask(f"send {number} {size} {options}", f"SENT {number}")
    message = await heard.expect(number, size)
    assert message.source.payload == b"java"


async def flood_both_ways(
    java: JavaMember,
    channel: GroupChannel,
    heard: Heard,
    count: int,
    *,
    java_options: int,
    options: int,
) -> None:
    """Send so many messages each way at the same time, from eight senders; all arrive whole."""
    await java.say(f"flood {count} {SENDERS} {java_options} 200")

    async def sender(first: int) -> None:
        for number in range(first, first + count // SENDERS):
            await channel.send(content(number, 200), options=options)

    async with trio.open_nursery() as nursery:
        for index in range(SENDERS):
            nursery.start_soon(sender, FLOOD * (index + 1))
    assert await java.expect("FLOODED", 120) == "FLOODED 0"
    await until(lambda: heard.counted >= count, 60)
    assert (heard.counted, heard.damaged) == (count, 0)
    assert await java.ask(f"counts {count}", "COUNTS", 60) == f"COUNTS {count} 0"


OpenGroup = Callable[[], AbstractAsyncContextManager[Group]]
"""The type of the fixture ``java_group``."""


@pytest.fixture
def java_group(java_classes: Callable[[], list[str]]) -> OpenGroup:
    """What opens a group that ends with its block."""
    return partial(group, java_classes)
