"""Nodes for the tests of the web adapters: real ones, and one whose members answer as told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.manager.inbox import resolve_all
from tribes.runtime.background import BackgroundNode
from tribes.runtime.parts import Sessions

if TYPE_CHECKING:
    from tribes.manager.delta import DeltaManager

MISSING = {"n2": "TimeoutError: no acknowledgement within 1000 ms"}


class Node:
    """A node whose members answer as a test says, at once."""

    def __init__(self, **settings: Any) -> None:
        self.config = NodeConfig(
            contexts=("app",),
            manager=ManagerConfig(**{"channel_send_options": 6, **settings}),
        )
        self.sessions = Sessions(self.config)
        self.is_running = self.was_started = True
        self.acked: tuple[str, ...] = ("n2",)
        self.missing: dict[str, str] = {}
        self.sessions.inbox.wake = self.answer

    def answer(self) -> None:
        resolve_all(self.sessions.inbox.drain(100), self.acked, self.missing)

    def lose(self) -> None:
        self.acked, self.missing = (), MISSING

    def manager(self, context: str) -> DeltaManager:
        return self.sessions.manager(context)

    async def await_joined(self) -> bool:
        return True

    def wait_joined(self) -> bool:
        return True

    @property
    def counters(self) -> tuple[int, int, int]:
        numbers = self.manager("app").statistics()
        return (
            numbers.commits_incomplete,
            numbers.commits_served_unreplicated,
            numbers.commits_refused,
        )


def node_without_its_key() -> BackgroundNode:
    """Cannot be started; the error says how to make the key."""
    channel = ChannelConfig(key_file="/nowhere/group.key")
    return BackgroundNode(NodeConfig(contexts=("app",), channel=channel))


def make_node(name: str = "n1", group_port: int | None = None, **manager: Any) -> BackgroundNode:
    return BackgroundNode(
        NodeConfig(
            name=name,
            contexts=("app",),
            channel=ChannelConfig(
                membership=MembershipConfig(
                    port=group_port or free_udp_port(), frequency=50, drop_time=1000
                ),
                receiver=ReceiverConfig(port=0),
            ),
            # A busy machine may take a second for an acknowledgement.
            manager=ManagerConfig(**{"channel_send_options": 6, "commit_timeout": 5000, **manager}),
        )
    )


@contextmanager
def group(*names: str, **manager: Any) -> Iterator[list[BackgroundNode]]:
    """Nodes of one group, which know each other and have joined."""
    port = free_udp_port()
    nodes = [make_node(name, port, **manager) for name in names]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            assert node.wait_joined(20)
        others = len(nodes) - 1
        wait_until(lambda: all(len(each.manager("app").copies_on) == others for each in nodes))
        yield nodes
    finally:
        for node in nodes:
            node.stop()
