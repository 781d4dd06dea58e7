"""What the Backup manager costs on real nodes, beside the Delta manager, by the number of members.

    python bench/backup_nodes.py [members] [fetch] [crash] [--sessions N] [--sizes 2,4,8]

``members``: memory of a node with a fixed number of sessions of 1 KB in the group, and bytes that
all nodes receive for one update, on their links. ``fetch``: how long a request waits for a session
that lies elsewhere, one after the other. ``crash``: from the kill of one of four nodes until no
part lacks a copy. Each node is a process on loopback, on one computer. Ends by itself within
minutes, also if nodes do not answer.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tribes import BackgroundNode, ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.config.managers import BackupConfig
from tribes.config.model import ManagerConfig
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.delta import DeltaManager
from tribes.web.freshness import bring

START_S = 60.0
SETTLE_S = 120.0
UPDATES = 2000
FETCHES = 2000
KIB = 1024


class Node:
    """What a node's process does on command."""

    def __init__(self, name: str, port: int, copies: int) -> None:
        backup = BackupConfig(backup_count=copies, map_send_options=8)
        self.node = BackgroundNode(
            NodeConfig(
                name=name,
                contexts=("bench",),
                channel=ChannelConfig(
                    membership=MembershipConfig(port=port, frequency=200, drop_time=6000),
                    receiver=ReceiverConfig(port=0, auto_bind=1000),
                ),
                manager=backup if copies else ManagerConfig(channel_send_options=8),
            )
        )
        self.made: list[str] = []
        self.node.start()
        manager = self.node.manager("bench")
        assert isinstance(manager, DeltaManager)
        self.manager = manager

    def facts(self) -> dict[str, Any]:
        """What this process has."""
        gc.collect()
        status = Path("/proc/self/status").read_text().splitlines()
        [rss] = [int(line.split()[1]) * KIB for line in status if line.startswith("VmRSS:")]
        run = self.node._run
        assert run is not None
        assert run.channel is not None
        core = self.manager.replicator
        manager = self.manager
        return {
            "rss": rss,
            "records": self.manager.table.bytes,
            "live": self.manager.table.live,
            "received": run.channel.shell.core.channel.statistics.bytes_received,
            "members": len(self.node.member_names),
            "settled": not isinstance(core, BackupReplicator) or core.placed.is_settled,
            "short": manager.backup_statistics().under_replicated
            if isinstance(manager, BackupManager)
            else 0,
        }

    def make(self, count: int) -> int:
        """Make sessions of a kilobyte."""
        for _ in range(count):
            session = self.manager.create()
            session["value"] = "x" * 1000
            self._commit(session)
            self.made.append(session.id)
        return count

    def _commit(self, session: Any) -> None:
        self.manager.commit(session)
        while self.manager.inbox.is_full:
            time.sleep(0.01)

    def update(self, count: int) -> int:
        """Change sessions that were made here."""
        for i in range(count):
            session = self.manager.find(self.made[i % len(self.made)])
            assert session is not None
            session["value"] = f"{i:x<1000}"
            self._commit(session)
            # One message each, as single requests make them.
            time.sleep(0.001)
        return count

    def ids(self, count: int) -> list[str]:
        """Ids of sessions made here."""
        return self.made[:count]

    def fetch(self, ids: list[str]) -> list[float]:
        """Have sessions brought that lie elsewhere; the seconds that each took."""
        times = []
        for key in ids:
            if self.manager.lacks(key):
                begin = time.perf_counter()
                bring(self.manager, [key], None)
                times.append(time.perf_counter() - begin)
                assert self.manager.find(key) is not None
        return times


class Process:
    """One of them, from outside."""

    def __init__(self, name: str, port: int, copies: int) -> None:
        command = [sys.executable, __file__, "--node", name, str(port), str(copies)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, what: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def serve(name: str, port: int, copies: int) -> None:
    """A node's process: a line of JSON in, one out; it ends with its input."""
    # What nodes log goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    node = Node(name, port, copies)
    try:
        for line in sys.stdin:
            what, *arguments = json.loads(line)
            print(json.dumps(getattr(node, what)(*arguments)), file=answers, flush=True)
    finally:
        node.node.stop()


@contextmanager
def group(count: int, copies: int) -> Iterator[list[Process]]:
    """Nodes that see each other and hold what they should."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    made = [Process(f"n{i}", port, copies) for i in range(count)]
    try:
        until(made, lambda f: f["members"] == count and f["settled"], START_S)
        yield made
    finally:
        for each in made:
            each.kill()


def until(
    processes: list[Process], condition: Callable[[dict[str, Any]], bool], within: float
) -> list[dict[str, Any]]:
    """Wait until all nodes' facts are so."""
    deadline = time.monotonic() + within
    while True:
        facts = [each.do("facts") for each in processes]
        if all(map(condition, facts)):
            return facts
        if time.monotonic() > deadline:
            raise SystemExit(f"not so after {within} s: {facts}")
        time.sleep(0.05)


def fill(processes: list[Process], sessions: int, copies: int) -> list[dict[str, Any]]:
    """Make sessions on all nodes in equal parts, and wait until they lie where they should."""
    count = len(processes)
    for each in processes:
        each.do("make", sessions // count)
    total = sessions // count * count * (min(1 + copies, count) if copies else count)
    deadline = time.monotonic() + SETTLE_S
    while sum((facts := each.do("facts"))["live"] for each in processes) < total:
        if time.monotonic() > deadline:
            raise SystemExit(f"not all copies after {SETTLE_S} s: {facts}")
        time.sleep(0.2)
    return [each.do("facts") for each in processes]


def by_members(sizes: list[int], sessions: int) -> None:
    """Print memory and bytes, for Delta (0 copies said) and Backup with one and two."""
    print(f"{sessions} sessions of 1 KB; averages over the nodes")
    print("nodes, manager: MiB more resident, MiB of records; bytes received per update of 1 KB")
    for count in sizes:
        for copies in (0, 1, 2)[: 3 if count > 2 else 2]:
            with group(count, copies) as processes:
                before = [each.do("facts") for each in processes]
                after = fill(processes, sessions, copies)
                memory, records = (
                    sum(a[what] - b[what] for a, b in zip(after, before, strict=True)) / count
                    for what in ("rss", "records")
                )
                time.sleep(1)
                idle, begin = _received(processes), time.monotonic()
                time.sleep(3)
                rate = (_received(processes) - idle) / (time.monotonic() - begin)
                start, begin = _received(processes), time.monotonic()
                processes[0].do("update", UPDATES)
                time.sleep(1)
                took = time.monotonic() - begin
                each = (_received(processes) - start - rate * took) / UPDATES
            name = f"Backup, k = {copies}" if copies else "Delta"
            mib = KIB * KIB
            print(
                f"{count}, {name}: {memory / mib:.1f}, {records / mib:.1f}; {each:.0f}", flush=True
            )


def _received(processes: list[Process]) -> int:
    return sum(each.do("facts")["received"] for each in processes)


def fetch(sessions: int) -> None:
    """Print how long a request waits for a session that lies elsewhere."""
    with group(4, 1) as processes:
        fill(processes, min(sessions, 20_000), 1)
        ids = processes[0].do("ids", FETCHES) + processes[1].do("ids", FETCHES)
        for what in ("first", "again, the copy is the same"):
            times = processes[3].do("fetch", ids)
            cuts = statistics.quantiles(times, n=100)
            print(
                f"{len(times)} fetches, {what}: p50 {cuts[49] * 1e3:.2f} ms, "
                f"p99 {cuts[98] * 1e3:.2f} ms, longest {max(times) * 1e3:.1f} ms",
                flush=True,
            )


def crash(sessions: int) -> None:
    """Print how long a group of four takes to have all copies again."""
    with group(4, 1) as processes:
        fill(processes, sessions, 1)
        begin = time.monotonic()
        processes[3].kill()
        left, most = processes[:3], 0
        while time.monotonic() < begin + SETTLE_S:
            facts = [each.do("facts") for each in left]
            short = sum(each["short"] for each in facts)
            most = max(most, short)
            if most and not short and all(f["settled"] and f["members"] == 3 for f in facts):
                break
            time.sleep(0.02)
        took = time.monotonic() - begin
        print(f"{sessions} sessions: up to {most} lacked a copy, none {took:.2f} s after the kill")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["members", "fetch", "crash"])
    parser.add_argument("--sessions", type=int, default=0)
    parser.add_argument("--sizes", default="2,4,8")
    parser.add_argument("--node", nargs=3)
    chosen = parser.parse_args()
    if chosen.node:
        name, port, copies = chosen.node
        serve(name, int(port), int(copies))
        return
    if "members" in chosen.what:
        by_members([int(size) for size in chosen.sizes.split(",")], chosen.sessions or 20_000)
    if "fetch" in chosen.what:
        fetch(chosen.sessions or 20_000)
    if "crash" in chosen.what:
        crash(chosen.sessions or 100_000)


if __name__ == "__main__":
    main()
