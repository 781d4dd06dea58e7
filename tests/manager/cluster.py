"""A simulated cluster with sessions: what the tests of joining, repair and expiry share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.sim import SimNode, SimWaiter, World

if TYPE_CHECKING:
    from tribes.manager.replication import Replicator


def config(options: int = 6, **manager: Any) -> NodeConfig:
    """A node with one context."""
    return NodeConfig(
        contexts=("app",),
        manager=ManagerConfig(channel_send_options=options, **manager),
    )


def start(world: World, names: str, options: int = 6, **manager: Any) -> list[SimNode]:
    """Start nodes, and let them find each other."""
    nodes = [world.start(name, config(options, **manager)) for name in names]
    world.run(3)
    return nodes


def write(node: SimNode, name: str, value: object, session_id: str | None = None) -> str:
    """One request that writes; returns the session's id."""
    manager = node.manager()
    session = manager.create() if session_id is None else manager.find(session_id)
    assert session is not None, f"{node.name} does not know the session"
    session[name] = value
    manager.commit(session, SimWaiter())
    return session.id


def fill(node: SimNode, count: int, value: object = 0) -> list[str]:
    """So many sessions, before anybody else is there or while nobody is in a hurry."""
    ids = [write(node, "value", value) for _ in range(count)]
    node.world.run(1)
    return ids


def read(node: SimNode, session_id: str) -> dict[str, object] | None:
    """One request that reads, and counts as a use."""
    session = node.manager().find(session_id)
    if session is None:
        return None
    found = dict(session)
    node.manager().commit(session)
    return found


def replicator(node: SimNode) -> Replicator:
    """Of its one context."""
    found: Replicator = node.core.sessions.replicators["app"]
    return found


def are_equal(*nodes: SimNode) -> bool:
    """Whether all hold the same."""
    return len({node.manager().table.root_digest() for node in nodes}) == 1
