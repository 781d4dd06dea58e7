"""What the last line of ``tribes node`` counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.web.nodes import Node
from tribes.cli.node import live_sessions


def test_sessions_that_have_ended_are_not_counted() -> None:
    """A member keeps for a while what it must know of them."""
    node = Node()
    manager = node.manager("app")
    for _ in range(3):
        node.sessions.committer("app").commit(manager.create())
    ended = manager.create()
    node.sessions.committer("app").commit(ended)
    ended.invalidate()
    node.sessions.committer("app").commit(ended)
    assert len(manager.table) == 4
    channel: Any = SimpleNamespace(sessions=node.sessions)
    assert live_sessions(channel) == {"app": 3}
