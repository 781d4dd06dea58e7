"""What a session commit costs its thread, and how many per second two processes make.

    python bench/first_figures.py [--seconds 3] [--size 1024]

Two processes on this machine, loopback. Prints a table and, as the last line, JSON. Each figure is
the median of the runs, with the lowest and the highest; the machine is rarely quiet, so compare
figures of one call only.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import structlog
import trio

from tribes import (
    ChannelConfig,
    GroupChannel,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
)
from tribes.runtime.background import BackgroundNode
from tribes.runtime.waiters import ThreadWaiter

RUNS = 5


def config(name: str, group_port: int, options: int) -> NodeConfig:
    return NodeConfig(
        name=name,
        contexts=("bench",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=group_port, frequency=100, drop_time=3000),
            receiver=ReceiverConfig(port=0),
            sender=SenderConfig(queue_max_bytes=64 * 1024 * 1024),
        ),
        manager=ManagerConfig(channel_send_options=options),
    )


async def peer(group_port: int) -> None:
    """The other process: holds copies until its stdin ends."""
    async with GroupChannel(config("peer", group_port, 8)):
        await trio.to_thread.run_sync(sys.stdin.read)


def commits(group_port: int, seconds: float, size: int) -> dict[str, list[float]]:
    """Session updates of one attribute of ``size`` characters, from threads, options 8 and 6."""
    found: dict[str, list[float]] = {}
    for options in (8, 6):
        node = BackgroundNode(config(f"bench-{options}", group_port, options))
        node.start()
        node.wait_joined()
        while len(node.view.members) < 1:
            time.sleep(0.01)
        time.sleep(0.5)
        manager = node.manager("bench")
        ids = []
        for _ in range(100):
            session = manager.create()
            for name in "abcde":
                session[name] = "x" * 100
            manager.commit(session)
            ids.append(session.id)
        value = "x" * (size - 8)

        def one(turn: int, manager=manager, ids=ids, value=value, options=options) -> None:  # type: ignore[no-untyped-def]
            session = manager.find(ids[turn % 100])
            session["a"] = f"{value}{turn:8}"
            if options == 8:
                manager.commit(session)
            else:
                waiter = ThreadWaiter()
                if manager.commit(session, waiter).version is not None:
                    waiter.wait(5)

        def run(threads: int, one: Callable[[int], None] = one) -> float:
            counts = [0] * threads
            end = time.perf_counter() + seconds

            def loop(index: int) -> None:
                turn = index
                while time.perf_counter() < end:
                    one(turn)
                    turn += threads
                    counts[index] += 1

            begin = time.perf_counter()
            workers = [threading.Thread(target=loop, args=(i,)) for i in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return sum(counts) / (time.perf_counter() - begin)

        if options == 8:
            costs = []
            for turn in range(3000):
                begin = time.perf_counter()
                one(turn)
                costs.append((time.perf_counter() - begin) * 1e6)
                time.sleep(0.0002)
            found["load+change+commit (8), us p50"] = [statistics.median(costs)]
        for threads in (1, 4):
            found[f"session commits/s ({options}), {threads} thread(s)"] = [
                run(threads) for _ in range(RUNS)
            ]
            time.sleep(1)
        node.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
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
    other = subprocess.Popen(
        [sys.executable, __file__, "--peer", str(group_port)], stdin=subprocess.PIPE
    )
    try:
        found = commits(group_port, arguments.seconds, arguments.size)
    finally:
        other.stdin.close()  # type: ignore[union-attr]
        other.wait(10)
    for name, values in found.items():
        spread = f"   ({min(values):,.0f} to {max(values):,.0f})" if len(values) > 1 else ""
        print(f"{name:45} {statistics.median(values):12,.1f}{spread}")
    print(json.dumps({name: statistics.median(values) for name, values in found.items()}))


if __name__ == "__main__":
    main()
