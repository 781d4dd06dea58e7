"""Simulated nodes with a Backup manager, and how a request uses a session there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tribes.config.managers import BackupConfig
from tribes.config.model import NodeConfig
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.inbox import CommitResult
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import part_of
from tribes.testing.sim import SimNode, SimWaiter, World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.manager.session import Session

__all__ = [
    "bystanders",
    "commit",
    "config",
    "copies",
    "core",
    "find",
    "holders",
    "manager",
    "owners",
    "put",
    "start",
    "write",
]


def config(**settings: Any) -> NodeConfig:
    """Settings of a node whose application has a Backup manager."""
    return NodeConfig(contexts=("app",), manager=BackupConfig(**settings))


def start(world: World, names: str, **settings: Any) -> list[SimNode]:
    """Start nodes, and wait until they hold what they should."""
    nodes = [world.start(name, config(**settings)) for name in names]
    world.run(4)
    return nodes


def core(node: SimNode) -> BackupReplicator:
    """The core's side."""
    found = node.core.sessions.replicators["app"]
    assert isinstance(found, BackupReplicator)
    return found


def manager(node: SimNode) -> BackupManager:
    """The requests' side."""
    found = node.manager("app")
    assert isinstance(found, BackupManager)
    return found


def find(node: SimNode, session_id: str, wait: float = 1.0) -> Session | None:
    """What a request gets: a session that is away is fetched first."""
    if manager(node).is_elsewhere(session_id):
        done: list[Exception | None] = []
        core(node).fetch(session_id, done.append, node.clock.monotonic())
        node.pump()
        world = node.world
        assert world.run_until(world.now + wait, lambda: bool(done)), "no answer"
        if done[0] is not None:
            raise done[0]
    return manager(node).find(session_id)


def commit(node: SimNode, session: Session) -> CommitResult:
    """Commit, and wait for the members."""
    waiter, world = SimWaiter(), node.world
    if manager(node).commit(session, waiter).version is None:
        return CommitResult(0, (), {})
    node.pump()
    assert world.run_until(world.now + 3, lambda: waiter.is_done), "the commit waits for ever"
    assert waiter.result is not None
    return waiter.result


def put(node: SimNode, **attributes: Any) -> str:
    """A request that makes a session; returns its id."""
    session = manager(node).create()
    session.update(attributes)
    assert not commit(node, session).missing
    return session.id


def write(node: SimNode, session_id: str, **attributes: Any) -> CommitResult:
    """A request that changes a session."""
    session = find(node, session_id)
    assert session is not None
    session.update(attributes)
    return commit(node, session)


def holders(nodes: Iterable[SimNode], session_id: str) -> list[SimNode]:
    """The nodes that hold a session, whole."""
    part = part_of(session_id)
    return [
        node
        for node in nodes
        if node.is_alive and core(node).placed.book.states[part] == PlaceState.HOLD
    ]


def bystanders(nodes: Iterable[SimNode], session_id: str) -> list[SimNode]:
    """Those that do not."""
    held = holders(list(nodes), session_id)
    return [node for node in nodes if node.is_alive and node not in held]


def owners(nodes: Iterable[SimNode], session_id: str) -> list[SimNode]:
    """The nodes that say that they own a session."""
    part = part_of(session_id)
    return [node for node in nodes if node.is_alive and core(node).placed.book.is_owner(part)]


def copies(nodes: Iterable[SimNode], ids: Iterable[str]) -> Counter[int]:
    """How many nodes have a record of each session."""
    live = [node for node in nodes if node.is_alive]
    return Counter(sum(key in manager(node).table for node in live) for key in ids)
