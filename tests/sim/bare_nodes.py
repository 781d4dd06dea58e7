"""Simulated nodes without sessions, and what happens to them and between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tribes.config.model import NodeConfig

if TYPE_CHECKING:
    from tribes.testing.sim import SimNode, World

__all__ = ["Seen", "start", "texts", "watch"]

Seen = list[tuple[float, str, str, Any]]
"""When, where, what kind, and what it was."""


def start(world: World, names: str) -> list[SimNode]:
    """Start nodes between which only the test's own messages are under way."""
    nodes = [world.start(name, NodeConfig()) for name in names]
    world.run(2.2)  # between two heartbeats
    return nodes


def watch(world: World) -> Seen:
    """What the world tells its observers from now on."""
    seen: Seen = []
    world.observers.append(lambda *what: seen.append(what))
    return seen


def texts(node: SimNode) -> list[bytes]:
    """The messages that a node has got."""
    return [message.message for message in node.messages]
