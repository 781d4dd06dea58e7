"""One member of a group as a process of its own, which does what its standard input says.

Each line is a JSON object with ``id``, ``do`` and arguments; the answer is a line with the same
``id``. Events of the membership are told as they come. Times are those of the monotonic clock,
which all processes of a machine share. The end of standard input ends it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog
import trio

from tribes import (
    ChannelConfig,
    ChannelData,
    GroupChannel,
    GroupSendError,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

SESSIONS = 100
_NUMBER = struct.Struct(">cI")


class Program:
    """What a member can be told to do."""

    def __init__(self, channel: GroupChannel, *, inline: bool) -> None:
        self.channel = channel
        self.numbers: list[int] = []
        self.handled: list[tuple[str, float]] = []
        channel.add_message_listener(self.listen, inline=inline)

    def listen(self, message: ChannelData) -> None:
        """A number is noted, a word is done, anything else is only processed."""
        data = message.message
        if data.startswith(b"#"):
            self.numbers.append(_NUMBER.unpack_from(data)[1])
        elif data.startswith(b"sleep "):
            time.sleep(float(data[6:]))
            self.handled.append(("sleep", time.monotonic()))
        elif data.startswith(b"c-call "):
            hold_the_interpreter(float(data[7:]))
            self.handled.append(("c-call", time.monotonic()))

    async def members(self) -> list[str]:
        return sorted(member.label for member in self.channel.members)

    async def sends(
        self,
        count: int,
        options: int = 6,
        size: int = 200,
        to: list[str] | None = None,
        seconds: float = 1e9,
    ) -> dict[str, Any]:
        """Send one after the other; returns when each began and what it took."""
        times, failed = [], Counter[str]()
        message = b"." * size
        clock = time.monotonic
        end = clock() + seconds
        for _ in range(count):
            begin = clock()
            if begin > end:
                break
            targets = None if to is None else [m for m in self.channel.members if m.label in to]
            try:
                await self.channel.send(message, targets, options=options)
            except GroupSendError as error:
                failed.update(
                    f"{member.label}: {type(why).__name__}" for member, why in error.faulty.items()
                )
            times.append((begin, clock() - begin))
        return {"times": times, "failed": dict(failed)}

    async def numbered(self, count: int, size: int) -> dict[str, Any]:
        """Send numbers asynchronously, as fast as they are taken."""
        begin, rest = time.monotonic(), b"." * (size - _NUMBER.size)
        for number in range(count):
            await self.channel.send(_NUMBER.pack(b"#", number) + rest, options=8)
        return {"seconds": time.monotonic() - begin, "links": self.channel.shell.links.opened}

    async def how_many(self) -> int:
        """How many numbers came."""
        return len(self.numbers)

    async def received(self) -> dict[str, Any]:
        """What came of the numbers."""
        steps = itertools.pairwise(self.numbers)
        return {
            "count": len(self.numbers),
            "twice": len(self.numbers) - len(set(self.numbers)),
            "in_order": all(later > earlier for earlier, later in steps),
            "last": self.numbers[-1] if self.numbers else None,
        }

    async def reset(self) -> int:
        """End every connection with a reset, as a firewall that forgot it; returns how many."""
        links = list(self.channel.shell.links.open.values())
        for link in links:
            # To connect to nowhere makes the kernel abort what is connected.
            nowhere = struct.pack("HH12x", socket.AF_UNSPEC, 0)
            ctypes.CDLL(None).connect(link.sock.fileno(), nowhere, len(nowhere))
        return len(links)

    async def handle(self, word: str, to: list[str]) -> None:
        """Give a member's listener something to do, and do not wait for it."""
        targets = [member for member in self.channel.members if member.label in to]
        await self.channel.send(word.encode(), targets, options=8)

    async def was_handled(self) -> list[tuple[str, float]]:
        return self.handled

    async def commits(self, seconds: float, pause: float = 0.002) -> dict[str, Any]:
        """Requests: each changes a session and waits for the members."""
        manager = self.channel.manager("app")
        sessions = [manager.create() for _ in range(SESSIONS)]
        times, errors, missing = [], [], Counter[str]()
        end = time.monotonic() + seconds
        for number in itertools.count():
            begin = time.monotonic()
            if begin > end:
                break
            session = sessions[number % SESSIONS]
            session["n"] = number
            try:
                missing.update((await self.channel.acommit(session)).missing)
            except Exception as error:  # noqa: BLE001 - reported
                errors.append(repr(error))
            times.append((begin, time.monotonic() - begin))
            await trio.sleep(pause)
        return {"times": times, "errors": errors, "missing": dict(missing)}

    async def contents(self) -> dict[str, Any]:
        """The digest of all sessions."""
        table = self.channel.manager("app").table
        return {"sessions": len(table), "digest": table.root_digest()}

    async def spin(self, threads: int, seconds: float) -> float:
        """Keep the interpreter busy; returns the longest time that this loop did not run."""
        end = time.monotonic() + seconds

        def count() -> None:
            number = 0
            while time.monotonic() < end:
                for _ in range(1000):
                    number += 1

        workers = [threading.Thread(target=count) for _ in range(threads)]
        for worker in workers:
            worker.start()
        worst = 0.0
        while (begin := time.monotonic()) < end:
            await trio.sleep(0.01)
            worst = max(worst, time.monotonic() - begin)
        for worker in workers:
            worker.join()
        return worst

    async def fork(self, how: str) -> int:
        """Make a child that sleeps, with whatever it got of this process; returns its pid."""
        if how == "program":
            # The starter keeps descriptors open on purpose.
            return subprocess.Popen(["sleep", "60"], close_fds=False).pid  # noqa: ASYNC220
        if how == "multiprocessing":
            context = multiprocessing.get_context("fork")
            process = context.Process(target=time.sleep, args=(60,))
            process.start()
            assert process.pid is not None
            return process.pid
        # "c": by a library, so that Python has no say in it.
        pid: int = ctypes.PyDLL(None).fork() if how == "c" else os.fork()
        if pid == 0:
            sleep_and_end()
        return pid


def sleep_and_end() -> None:
    """What a forked child does."""
    try:
        time.sleep(60)
    finally:
        os._exit(0)


def hold_the_interpreter(seconds: float) -> None:
    """One C call that lets no other thread run, and takes as long on a busy machine."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # unlike CDLL, this keeps the lock


def say(**found: Any) -> None:
    os.write(1, (json.dumps(found) + "\n").encode())


def told(event: Event) -> None:
    member = getattr(event, "member", None)
    say(
        event=type(event).__name__,
        member=getattr(member, "label", ""),
        reason=str(getattr(event, "reason", "")),
        at=time.monotonic(),
    )


async def serve(program: Program, nursery: trio.Nursery) -> None:
    """Do what standard input says, each command in a task."""

    async def run(number: int, work: Callable[..., Awaitable[Any]], arguments: Any) -> None:
        say(id=number, answer=await work(**arguments))

    pending = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        async for data in stdin:
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                command = json.loads(line)
                number, work = command.pop("id"), getattr(program, command.pop("do"))
                nursery.start_soon(run, number, work, command)
    nursery.cancel_scope.cancel()


async def main(name: str, group_port: int, inline: bool) -> None:
    config = NodeConfig(
        name=name,
        contexts=("app",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=group_port), receiver=ReceiverConfig(port=0)
        ),
        manager=ManagerConfig(channel_send_options=6),
    )
    async with GroupChannel(config, watch=told) as channel, trio.open_nursery() as nursery:
        await channel.await_joined()
        say(event="joined", member=name, at=time.monotonic())
        await serve(Program(channel, inline=inline), nursery)


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3] == "inline")
