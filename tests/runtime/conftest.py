"""Channels on real loopback sockets, each test in a multicast group of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers.databases import mariadb, postgresql, server_directory
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
)

__all__ = ["make_config", "mariadb", "postgresql", "server_directory"]


@pytest.fixture
def make_config() -> Callable[..., NodeConfig]:
    """Configurations of one group, with any free TCP port and quick heartbeats."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        group_port = sock.getsockname()[1]

    def make(
        name: str,
        *,
        contexts: tuple[str, ...] = (),
        send_options: int = 8,
        timeout: int = 3000,
        **receiver: Any,
    ) -> NodeConfig:
        return NodeConfig(
            name=name,
            contexts=contexts,
            channel=ChannelConfig(
                membership=MembershipConfig(port=group_port, frequency=50, drop_time=1000),
                receiver=ReceiverConfig(port=0, **receiver),
                sender=SenderConfig(timeout=timeout),
            ),
            manager=ManagerConfig(channel_send_options=send_options),
        )

    return make
