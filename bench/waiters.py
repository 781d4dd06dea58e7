"""What an acknowledged commit costs its request, by the kind of host that waits.

    python bench/waiters.py [--seconds 1] [--runs 5] [--size 1024]

Two processes on this machine, loopback; a session with one attribute of ``size`` bytes is changed
and committed with option 6, one commit after the other: by a task of the channel's own trio run
(``native``), by a thread beside the channel's as a WSGI worker is (``thread``), by an asyncio task
(``asyncio``) and by a task of another trio run (``other trio``), each beside a background node. In
turns, so that a noisy second hits all. At last, 64 asyncio tasks commit at once: how many wake-ups
of their loop that takes.

Prints the median of the runs and the spread, and one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from tribes import (
    BackgroundNode,
    ChannelConfig,
    GroupChannel,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.runtime import waiters

AT_ONCE = 64
WARM_UP = 200


def config(name: str, group_port: int) -> NodeConfig:
    return NodeConfig(
        name=name,
        contexts=("bench",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=group_port, frequency=100),
            receiver=ReceiverConfig(port=0),
        ),
        manager=ManagerConfig(channel_send_options=6),
    )


async def peer(group_port: int) -> None:
    """The other process: holds copies until its stdin ends."""
    async with GroupChannel(config("peer", group_port)):
        await trio.to_thread.run_sync(sys.stdin.read)


class Writer:
    """Makes the next change of a session of its own."""

    def __init__(self, node: Any, size: int) -> None:
        self.manager = node.manager("bench")
        session = self.manager.create()
        session["a"] = ""
        self.manager.commit(session)
        self.id = session.id
        self.value = "x" * (size - 8)
        self.turn = 0

    def change(self) -> Any:
        session = self.manager.find(self.id)
        self.turn += 1
        session["a"] = f"{self.value}{self.turn:8}"
        return session


def timed(node: BackgroundNode, size: int, seconds: float) -> list[float]:
    """Latencies in µs of commits that block this thread."""
    writer, found = Writer(node, size), []
    for _ in range(WARM_UP):
        node.commit(writer.change())
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        assert node.commit(writer.change()).acked
        found.append((time.perf_counter() - begin) * 1e6)
    return found


async def atimed(
    commit: Callable[[Any], Awaitable[Any]], writer: Writer, seconds: float
) -> list[float]:
    """The same for commits that are awaited."""
    found = []
    for _ in range(WARM_UP):
        await commit(writer.change())
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        assert (await commit(writer.change())).acked
        found.append((time.perf_counter() - begin) * 1e6)
    return found


async def native(group_port: int, size: int, seconds: float) -> list[float]:
    async with GroupChannel(config("native", group_port)) as channel:
        await channel.await_joined()
        while "peer" not in channel.manager("bench").copies_on:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
        return await atimed(channel.acommit, Writer(channel, size), seconds)


async def wake_ups(node: BackgroundNode, size: int) -> tuple[int, int]:
    """Wake-ups of the asyncio loop, and commits, when many tasks wait at the same time."""
    writers = [Writer(node, size) for _ in range(AT_ONCE)]
    box = waiters._box_of_loop(asyncio.get_running_loop())
    for _ in range(50):
        await asyncio.gather(*(node.acommit(writer.change()) for writer in writers))
    return box.wake_ups, 50 * AT_ONCE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--peer", type=int)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if arguments.peer:
        trio.run(peer, arguments.peer)
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        group_port = sock.getsockname()[1]
    load = os.getloadavg()[0]
    seconds, size = arguments.seconds, arguments.size
    other = subprocess.Popen(
        [sys.executable, __file__, "--peer", str(group_port)], stdin=subprocess.PIPE
    )
    node = BackgroundNode(config("background", group_port))
    found: dict[str, list[list[float]]] = {}
    try:
        for _ in range(arguments.runs):
            # The background node stops meanwhile: as a third member it would be waited for too.
            found.setdefault("native", []).append(trio.run(native, group_port, size, seconds))
            node = BackgroundNode(config("background", group_port))
            node.start()
            node.wait_joined()
            while "peer" not in node.manager("bench").copies_on:
                time.sleep(0.01)
            beside = Writer(node, size)
            found.setdefault("thread", []).append(timed(node, size, seconds))
            found.setdefault("asyncio", []).append(
                asyncio.run(atimed(node.acommit, beside, seconds))
            )
            found.setdefault("other trio", []).append(
                trio.run(atimed, node.acommit, beside, seconds)
            )
            woken, commits = asyncio.run(wake_ups(node, size))
            node.stop()
    finally:
        node.stop()
        assert other.stdin is not None
        other.stdin.close()
        other.wait(10)
    report: dict[str, float] = {"load before": round(load, 2)}
    print(f"{'commit (6), 1 KB, us':22} {'p50':>8} {'lowest':>8} {'highest':>8} {'p99':>8}")
    for name, runs in found.items():
        p50s = [statistics.median(run) for run in runs]
        p99s = [statistics.quantiles(run, n=100)[98] for run in runs]
        report[f"{name} p50"] = round(statistics.median(p50s), 1)
        report[f"{name} p99"] = round(statistics.median(p99s), 1)
        print(
            f"{name:22} {statistics.median(p50s):8.0f} {min(p50s):8.0f} {max(p50s):8.0f} "
            f"{statistics.median(p99s):8.0f}"
        )
    report["wake-ups per commit, 64 asyncio tasks at once"] = round(woken / commits, 4)
    report["load after"] = round(os.getloadavg()[0], 2)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
