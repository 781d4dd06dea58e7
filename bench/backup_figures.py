"""What the Backup manager costs beside the Delta manager, by the number of members.

``python bench/backup_figures.py``: memory and bytes, on simulated nodes (exact, whatever else the
machine does). What real nodes do is measured by ``backup_nodes.py``.
"""

from __future__ import annotations

import argparse
from random import Random
from typing import Any

from tribes import NodeConfig
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    by_members()
