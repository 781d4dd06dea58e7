"""The work that is measured, the same for whoever does it: senders, updates, and what is told.

A loop is written once, as a coroutine; a `Host` says where it runs and what sending means there. In
a thread nothing suspends, so `run_here` drives the coroutine through without an event loop.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import trio

ATTRIBUTE = "a"
MANY = 100
"""Sessions that an update chooses from."""
DIGITS = 10
PAUSE_S = 0.0002
"""Between requests that are timed one by one."""
TURN = 50
"""Loops that wait for nobody let others run as often."""

T = TypeVar("T")
Command = Callable[..., Mapping[str, Any]]


class Host(Protocol):
    """Where a sender runs: a thread, an asyncio task, a task of the channel's own trio run."""

    async def send(self, data: bytes, options: int) -> None: ...

    async def commit(self, session: Any) -> None: ...

    async def checkpoint(self) -> None: ...

    async def pause(self) -> None:
        """A millisecond."""
        ...

    async def gather(self, count: int, work: Callable[[int], Coroutine[Any, Any, int]]) -> int:
        """Do so much work at once; the sum of what it returns."""
        ...


def run_here(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits for an event loop")


def in_threads(count: int, work: Callable[[int], int]) -> int:
    """Do work in threads at once, and add up."""
    counts = [0] * count

    def run(index: int) -> None:
        counts[index] = work(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


async def in_asyncio(count: int, work: Callable[[int], Coroutine[Any, Any, int]]) -> int:
    """The same in tasks of the running asyncio loop."""
    return sum(await asyncio.gather(*(work(index) for index in range(count))))


async def in_trio(count: int, work: Callable[[int], Coroutine[Any, Any, int]]) -> int:
    """The same in tasks of trio."""
    counts = [0] * count

    async def run(index: int) -> None:
        counts[index] = await work(index)

    async with trio.open_nursery() as nursery:
        for index in range(count):
            nursery.start_soon(run, index)
    return sum(counts)


def message(size: int, number: int = -1) -> bytes:
    """A message that says which it is; of -1 the order is not looked at."""
    return struct.pack(">q", number).ljust(size, b"\0")


def text(size: int, number: int) -> str:
    """An attribute's value that says which it is."""
    return "x" * (size - DIGITS) + f"{number:0{DIGITS}}"


def percentiles(seconds: Sequence[float], **more: float) -> dict[str, float]:
    """In microseconds."""
    found = sorted(seconds)
    return {
        "n": len(found),
        "p50": found[len(found) // 2] * 1e6,
        "p99": found[int(len(found) * 0.99)] * 1e6,
        "max": found[-1] * 1e6,
        **more,
    }


def each_timed(seconds: float, work: Callable[[], object]) -> dict[str, float]:
    """Do it over and over, one after the other."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end or not taken:
        work()
        taken.append(time.perf_counter() - begin)
    return percentiles(taken)


def requests_timed(count: int, work: Callable[[int], object]) -> dict[str, float]:
    """Do it so often, each by itself: what it leaves to others is done in the pause."""
    taken: list[float] = []
    for turn in range(count):
        begin = time.perf_counter()
        work(turn)
        taken.append(time.perf_counter() - begin)
        time.sleep(PAUSE_S)
    return percentiles(taken)


def rated(seconds: float, senders: int, work: Callable[[int, int], object]) -> dict[str, float]:
    """Do it in threads for a while; `work` is told which of them and which turn."""
    begin = time.perf_counter()

    def loop(index: int) -> int:
        turn = 0
        while time.perf_counter() < begin + seconds:
            work(index, turn)
            turn += 1
        return turn

    count = in_threads(senders, loop)
    return {"n": count, "seconds": time.perf_counter() - begin}


class Heard:
    """Counts messages that arrived, and those that came after a later one of the same sender."""

    def __init__(self) -> None:
        self.last = 0.0
        self.count, self.highest, self.inversions = 0, -1, 0

    def note(self, data: bytes) -> None:
        self.count += 1
        self.last = time.time()
        (number,) = struct.unpack_from(">q", data)
        if number >= 0:
            self.inversions += number < self.highest
            self.highest = max(self.highest, number)

    def forget(self) -> dict[str, Any]:
        self.count, self.highest, self.inversions = 0, -1, 0
        return {}

    def told(self) -> dict[str, Any]:
        return {"n": self.count, "last": self.last, "inversions": self.inversions}


def tell(answer: Mapping[str, Any]) -> None:
    """Answer whoever drives this process."""
    print(json.dumps(answer), flush=True)


def split(line: str) -> tuple[str, list[str]]:
    """A command and its arguments, the last of which may be JSON."""
    name, _, rest = line.strip().partition(" ")
    return name, [rest] if rest.startswith("{") else rest.split()


def serve(commands: Mapping[str, Command]) -> None:
    """Do what standard input says until it ends or says ``stop``."""
    tell({"started": True})
    for line in sys.stdin:
        name, arguments = split(line)
        if name == "stop":
            break
        tell(commands[name](*arguments))
