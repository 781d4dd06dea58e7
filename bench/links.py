"""What a message between two members costs, beside the same exchange over plain sockets.

    python bench/links.py [--runs 5] [--seconds 1] [--profile native]

Two processes on loopback, members of one group, and a third one at the other end of the plain
sockets: blocking ones, one thread, nothing but ``send`` and ``recv``. Each of our figures is taken
right after the floor it is compared with, in turns for as many runs, and the ratio is the median of
the runs' ratios. Latencies are those of messages of 1 KB whose send returns when they were
processed (6); what is applied counts when the other side says that it has processed the last one.

Prints a table, and one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import platform
import pstats
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import structlog
import trio
import trio.lowlevel

from tribes import (
    BackgroundNode,
    ChannelConfig,
    ChannelData,
    GroupChannel,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)

ACKED_BYTES = 1024
APPLIED_BYTES = 200
ANSWER_BYTES = 40
"""As many as an acknowledgement of ours has on the wire."""
SENDERS = 8
BATCH = 32
WARM_UP = 300
SAMPLES = 50


# ---- the floor ---------------------------------------------------------------------------------


def floor_peer() -> None:
    """Answer each message of a connection, or count a stream and answer its end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                kind = connection.recv(1)
                if kind == b"p":
                    _answer(connection)
                elif kind == b"s":
                    _count(connection)
                else:
                    return


def _answer(connection: socket.socket) -> None:
    answer, owed = b"a" * ANSWER_BYTES, 0
    while data := connection.recv(262144):
        owed += len(data)
        whole, owed = divmod(owed, ACKED_BYTES)
        connection.sendall(answer * whole)


def _count(connection: socket.socket) -> None:
    while data := connection.recv(262144):
        if data.endswith(b"."):
            connection.sendall(b"a")


class Floor:
    """Plain sockets, and what they take for the same."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds

    def _connect(self, kind: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(kind)
        return sock

    def latencies(self) -> list[float]:
        """Seconds from a message to its answer."""
        message, found = b"m" * ACKED_BYTES, []
        with self._connect(b"p") as sock:
            end = time.perf_counter() + self._seconds
            while (begin := time.perf_counter()) < end:
                sock.sendall(message)
                got = 0
                while got < ANSWER_BYTES:
                    got += len(sock.recv(4096))
                found.append(time.perf_counter() - begin)
        return found[WARM_UP:]

    def acked(self) -> float:
        """Messages per second with as many on their way as there are senders."""
        message, done, got = b"m" * ACKED_BYTES, 0, 0
        with self._connect(b"p") as sock:
            begin = time.perf_counter()
            sock.sendall(message * SENDERS)
            while time.perf_counter() < begin + self._seconds:
                got += len(sock.recv(4096))
                whole, got = divmod(got, ANSWER_BYTES)
                done += whole
                sock.sendall(message * whole)
            rate = done / (time.perf_counter() - begin)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):  # To close with unread answers would be a reset.
                pass
            return rate

    def streamed(self) -> float:
        """Messages per second one way, one call each."""
        message, done = b"m" * APPLIED_BYTES, 0
        with self._connect(b"s") as sock:
            begin = time.perf_counter()
            while time.perf_counter() < begin + self._seconds:
                for _ in range(100):
                    sock.sendall(message)
                done += 100
            sock.sendall(b".")
            sock.recv(1)
            return done / (time.perf_counter() - begin)

    def stop(self) -> None:
        """End the other side."""
        self._connect(b"x").close()


# ---- ours --------------------------------------------------------------------------------------


def config(name: str, group_port: int, options: int = 6) -> NodeConfig:
    return NodeConfig(
        name=name,
        contexts=("bench",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=group_port, frequency=100),
            receiver=ReceiverConfig(port=0),
        ),
        manager=ManagerConfig(channel_send_options=options),
    )


async def peer(group_port: int) -> None:
    """The other member: processes everything until its standard input ends."""
    count = 0

    def listen(message: ChannelData) -> None:
        nonlocal count
        count += 1

    async with GroupChannel(config("peer", group_port)) as channel:
        channel.add_message_listener(listen, inline=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def await_peer(node: Any) -> None:
    """Wait until the peer is there and takes copies."""
    while "peer" not in node.manager("bench").copies_on:  # noqa: ASYNC110 - nothing tells
        await trio.sleep(0.01)


async def native_latencies(channel: GroupChannel, seconds: float) -> list[float]:
    message, found = b"m" * ACKED_BYTES, []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await channel.send(message, options=6)
        found.append(time.perf_counter() - begin)
    return found[WARM_UP:]


async def native_acked(channel: GroupChannel, seconds: float) -> float:
    message, done = b"m" * ACKED_BYTES, 0
    begin = time.perf_counter()

    async def send() -> None:
        nonlocal done
        while time.perf_counter() < begin + seconds:
            await channel.send(message, options=6)
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(send)
    return done / (time.perf_counter() - begin)


async def native_applied(channel: GroupChannel, seconds: float) -> float:
    message, done = b"m" * APPLIED_BYTES, 0
    begin = time.perf_counter()
    while time.perf_counter() < begin + seconds:
        for _ in range(100):
            await channel.send(message, options=8)
        done += 100
    # In the same order: when this one was processed, all before it were.
    await channel.send(message, options=6)
    return done / (time.perf_counter() - begin)


async def updates_applied(group_port: int, seconds: float) -> float:
    """Session updates (8) per second, one attribute of so many bytes, from a task."""
    async with GroupChannel(config("updates", group_port, options=8)) as channel:
        await await_peer(channel)
        manager = channel.manager("bench")
        sessions = [manager.create() for _ in range(100)]
        value, done = "x" * (APPLIED_BYTES - 8), 0
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            for session in sessions:
                session["a"] = f"{value}{done:8}"
                manager.commit(session)
                done += 1
            await trio.lowlevel.checkpoint()
        await channel.send(b"end", options=6)
        return done / (time.perf_counter() - begin)


async def update_bytes(channel: GroupChannel, batch: int) -> float:
    """Bytes on the wire, both ways, of one update of ten characters, so many at once."""
    manager, shell = channel.manager("bench"), channel.shell
    sessions = [manager.create() for _ in range(batch)]
    found = []
    for turn in range(SAMPLES):
        for session in sessions:
            session["a"] = f"{turn:10}"
        before = shell.bytes_written + shell.core.channel.statistics.bytes_received
        async with trio.open_nursery() as nursery:
            for session in sessions:
                nursery.start_soon(channel.acommit, session)
        after = shell.bytes_written + shell.core.channel.statistics.bytes_received
        found.append((after - before) / batch)
    # The median: now and then replicas are compared meanwhile.
    return statistics.median(found)


def thread_latencies(node: BackgroundNode, seconds: float) -> list[float]:
    """As a WSGI worker sends: from a thread that blocks."""
    message, found = b"m" * ACKED_BYTES, []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        node.send(message, options=6)
        found.append(time.perf_counter() - begin)
    return found[WARM_UP:]


async def asyncio_latencies(node: BackgroundNode, seconds: float) -> list[float]:
    message, found = b"m" * ACKED_BYTES, []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await node.asend(message, options=6)
        found.append(time.perf_counter() - begin)
    return found[WARM_UP:]


# ---- the comparison ----------------------------------------------------------------------------


@dataclass
class Results:
    """Of each figure: what was measured and what the floor was, run by run."""

    ours: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    floor: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, ours: float, floor: float | None = None) -> None:
        self.ours[name].append(ours)
        if floor is not None:
            self.floor[name].append(floor)

    def add_latencies(self, name: str, ours: list[float], floor: list[float]) -> None:
        for which, at in (("p50", 49), ("p99", 98)):
            values = [statistics.quantiles(each, n=100)[at] * 1e6 for each in (ours, floor)]
            self.add(f"{name}, {which}, us", *values)

    def rows(self) -> dict[str, dict[str, float]]:
        """Medians, spreads and ratios."""
        found = {}
        for name, ours in self.ours.items():
            row = {"ours": statistics.median(ours), "lowest": min(ours), "highest": max(ours)}
            if floor := self.floor.get(name):
                ratios = [mine / theirs for mine, theirs in zip(ours, floor, strict=True)]
                row |= {
                    "floor": statistics.median(floor),
                    "ratio": statistics.median(ratios),
                    "ratio_lowest": min(ratios),
                    "ratio_highest": max(ratios),
                }
            found[name] = {key: round(value, 3) for key, value in row.items()}
        return found

    def print(self) -> None:
        """A table for people."""
        columns = ("ours", "lowest", "highest", "floor", "ratio", "ratio_lowest", "ratio_highest")
        print(f"{'':36}" + "".join(f"{column.replace('ratio_', ''):>11}" for column in columns))
        for name, row in self.rows().items():
            cells = [f"{row[c]:>11,.{2 if 'ratio' in c else 0}f}" for c in columns if c in row]
            print(f"{name:36}" + "".join(cells))


async def natively(group_port: int, floor: Floor, seconds: float, results: Results) -> None:
    async with GroupChannel(config("native", group_port)) as channel:
        await await_peer(channel)
        # In a thread, so that the member goes on meanwhile.
        base = await trio.to_thread.run_sync(floor.latencies)
        results.add_latencies("acked, native", await native_latencies(channel, seconds), base)
        for name, theirs, ours in (
            (f"acked/s, {SENDERS} senders", floor.acked, native_acked),
            (f"async applied/s, {APPLIED_BYTES} B", floor.streamed, native_applied),
        ):
            cpu, begin = time.process_time(), time.perf_counter()
            base_rate = await trio.to_thread.run_sync(theirs)
            base_cpu = _cpu_us(cpu, begin, base_rate)
            cpu, begin = time.process_time(), time.perf_counter()
            rate = await ours(channel, seconds)
            results.add(name, rate, base_rate)
            results.add(f"  processor us each, {name[:5]}", _cpu_us(cpu, begin, rate), base_cpu)
        results.add("bytes per update, alone", await update_bytes(channel, 1))
        results.add(f"bytes per update, batch of {BATCH}", await update_bytes(channel, BATCH))


def _cpu_us(cpu: float, begin: float, rate: float) -> float:
    """What each message took of this process's processor time, which other programs do not take."""
    messages = rate * (time.perf_counter() - begin)
    return (time.process_time() - cpu) / messages * 1e6


def beside(group_port: int, floor: Floor, seconds: float, results: Results) -> None:
    node = BackgroundNode(config("background", group_port))
    node.start()
    try:
        node.wait_joined()
        while "peer" not in node.manager("bench").copies_on:
            time.sleep(0.01)
        base = floor.latencies()
        results.add_latencies("acked, from a thread", thread_latencies(node, seconds), base)
        base = floor.latencies()
        ours = asyncio.run(asyncio_latencies(node, seconds))
        results.add_latencies("acked, from asyncio", ours, base)
    finally:
        node.stop()


def one_run(group_port: int, floor: Floor, seconds: float, results: Results) -> None:
    trio.run(natively, group_port, floor, seconds, results)
    rate = floor.streamed()
    name = f"session updates applied/s, {APPLIED_BYTES} B"
    results.add(name, trio.run(updates_applied, group_port, seconds), rate)
    beside(group_port, floor, seconds, results)


def profiled(which: str, group_port: int, seconds: float) -> None:
    """Where one of the figures spends its time in this process."""
    works: dict[str, Callable[[GroupChannel, float], Any]] = {
        "native": native_latencies,
        "acked": native_acked,
        "applied": native_applied,
    }

    async def run() -> None:
        async with GroupChannel(config("native", group_port)) as channel:
            await await_peer(channel)
            profile = cProfile.Profile(time.process_time)  # others do not count
            with profile:
                await works[which](channel, seconds)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)

    trio.run(run)


def main() -> None:
    """Compare; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--profile", choices=["native", "acked", "applied"])
    parser.add_argument("--peer", type=int)
    parser.add_argument("--floor-peer", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if arguments.peer:
        trio.run(peer, arguments.peer)
        return
    if arguments.floor_peer:
        floor_peer()
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        group_port = sock.getsockname()[1]
    load = os.getloadavg()
    results = Results()
    with (
        subprocess.Popen(
            [sys.executable, __file__, "--peer", str(group_port)], stdin=subprocess.PIPE
        ) as other,
        subprocess.Popen(
            [sys.executable, __file__, "--floor-peer"], stdout=subprocess.PIPE, text=True
        ) as plain,
    ):
        assert plain.stdout is not None
        floor = Floor(int(plain.stdout.readline()), arguments.seconds)
        try:
            if arguments.profile:
                profiled(arguments.profile, group_port, arguments.seconds)
            else:
                for _ in range(arguments.runs):
                    one_run(group_port, floor, arguments.seconds, results)
        finally:
            assert other.stdin is not None
            other.stdin.close()
            floor.stop()
    if arguments.profile:
        return
    results.print()
    machine = {
        "python": platform.python_version(),
        "trio": version("trio"),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load before": round(load[0], 2),
        "load after": round(os.getloadavg()[0], 2),
        "runs": arguments.runs,
        "seconds": arguments.seconds,
    }
    print(json.dumps({"machine": machine, "figures": results.rows()}))


if __name__ == "__main__":
    main()
