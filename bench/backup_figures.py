"""What the Backup manager costs beside the Delta manager, by the number of members.

``python bench/backup_figures.py``: memory and bytes, on simulated nodes (exact, whatever else the
machine does). ``python bench/backup_figures.py --fetch``: how long a request waits for a session
that lies elsewhere, and for full copies after a crash, on processes of their own.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from tribes import BackgroundNode, ChannelConfig, MembershipConfig, NodeConfig
from tribes.config.managers import BackupConfig
from tribes.config.model import ManagerConfig
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.testing.sim import SimNode, World

SESSIONS = 400
UPDATES = 200
SIZES = (2, 3, 4, 6, 8, 12, 16)


class Counted:
    """Bytes of all messages of managers, once for each member that they go to."""

    def __init__(self) -> None:
        self.bytes = 0

    def watch(self, channel: Any) -> None:
        """Count what a node posts."""
        post = channel.post

        def counted(destinations: Any, payload: bytes, *args: Any, **settings: Any) -> Any:
            targets = tuple(destinations)
            self.bytes += len(payload) * len(targets)
            return post(targets, payload, *args, **settings)

        channel.post = counted


def fetch(node: SimNode, session_id: str) -> None:
    """What a request does first."""
    manager = node.manager("app")
    if isinstance(manager, BackupManager) and manager.is_elsewhere(session_id):
        core, done = node.core.sessions.replicators["app"], list[object]()
        assert isinstance(core, BackupReplicator)
        core.fetch(session_id, done.append, node.clock.monotonic())
        node.pump()
        assert node.world.run_until(node.world.now + 5, lambda: bool(done))


def measure(
    manager: ManagerConfig, count: int, counted: Counted, *, sticky: bool
) -> tuple[int, int]:
    """Bytes of records on one member, on average, and bytes of messages for one update."""
    world, random = World(count), Random(count)
    config = NodeConfig(contexts=("app",), manager=manager)
    nodes = [world.start(f"n{i}", config) for i in range(count)]
    for node in nodes:
        counted.watch(node.core.channel)
    world.run(5)
    homes = {}
    for i in range(SESSIONS):
        session = nodes[i % count].manager("app").create()
        session["value"] = "x" * 1000
        nodes[i % count].manager("app").commit(session)
        nodes[i % count].pump()
        homes[session.id] = nodes[i % count]
    world.run(3)
    memory = sum(node.manager("app").table.bytes for node in nodes) // count
    # What is said without any load, in a second, is not counted.
    before = counted.bytes
    world.run(4)
    idle = (counted.bytes - before) / 4
    begin, before = world.now, counted.bytes
    ids = list(homes)
    for i in range(UPDATES):
        key = random.choice(ids)
        node = homes[key] if sticky else random.choice(nodes)
        fetch(node, key)
        found = node.manager("app").find(key)
        assert found is not None
        found["value"] = f"{i:x<1000}"
        node.manager("app").commit(found)
        node.pump()
        world.run(0.02)
    update = (counted.bytes - before - idle * (world.now - begin)) / UPDATES
    return memory, round(update)


def by_members() -> None:
    """Print the tables."""
    counted = Counted()
    print(
        f"{SESSIONS} sessions of 1 KB; bytes of records per member, of messages per update of 1 KB"
    )
    print("members | memory: Delta, k = 1, k = 2 | update, sticky: Delta, 1, 2 | any node: 1, 2")
    for count in SIZES:
        full = measure(ManagerConfig(), count, counted, sticky=True)
        rows = []
        for sticky in (True, False):
            for copies in (1, 2):
                config = BackupConfig(backup_count=copies)
                rows.append(measure(config, count, counted, sticky=sticky))
        (m1, s1), (m2, s2), (_, a1), (_, a2) = rows
        print(count, "|", full[0], m1, m2, "|", full[1], s1, s2, "|", a1, a2, flush=True)


def node_config(name: str, port: int) -> NodeConfig:
    """A member on loopback."""
    return NodeConfig(
        name=name,
        contexts=("app",),
        channel=ChannelConfig(membership=MembershipConfig(port=port)),
        manager=BackupConfig(map_send_options=8),
    )


@contextmanager
def closing_node(node: BackgroundNode) -> Iterator[None]:
    """Stop it in the end."""
    try:
        yield
    finally:
        node.stop()


def on_processes(port: int, sessions: int) -> None:
    """Print the fetch latency and the time to full copies."""
    command = [sys.executable, __file__, "--member", str(port)]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    try:
        node = BackgroundNode(node_config("measures", port))
        node.start()
        with closing_node(node):
            manager = node.manager("app")
            assert isinstance(manager, BackupManager)
            node.wait_joined()
            while (
                len(node.channel.members) < 3
                or manager.book is None
                or not any(manager.book.claims)
            ):
                time.sleep(0.1)
            time.sleep(3)
            for _ in range(sessions):
                session = manager.create()
                session["value"] = "x" * 200
                manager.commit(session)
                if manager.inbox.is_full:
                    time.sleep(0.05)
            # Keys of anybody's, most of which lie elsewhere: of sessions that do not exist, so that
            # their holders are asked, all of them.
            away = [manager.ids.new() for _ in range(1000)]
            times = []
            for key in away:
                if manager.is_elsewhere(key):
                    begin = time.perf_counter()
                    manager.find(key)
                    times.append(time.perf_counter() - begin)
            cuts = statistics.quantiles(times, n=100)
            print(
                f"fetch of {len(times)}: p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms"
            )
            time.sleep(5)
            os.kill(others[0].pid, signal.SIGKILL)
            begin, seen = time.monotonic(), 0
            while time.monotonic() < begin + 120:
                short = manager.backup_statistics().under_replicated
                seen = max(seen, short)
                if seen and not short:
                    break
                time.sleep(0.02)
            took = time.monotonic() - begin
            print(f"{sessions} sessions: up to {seen} lacked a copy, none after {took:.2f} s")
    finally:
        for each in others:
            each.kill()
            each.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--fetch", action="store_true")
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--sessions", type=int, default=100_000)
    chosen = parser.parse_args()
    if chosen.member:
        member = BackgroundNode(node_config(f"m{os.getpid()}", chosen.member))
        member.start()
        with closing_node(member):
            sys.stdin.read()
    elif chosen.fetch:
        on_processes(45_991, chosen.sessions)
    else:
        by_members()
