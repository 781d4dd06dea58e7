"""Channels on real loopback sockets, each test in a multicast group of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.ports import free_udp_port
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
    group_port = free_udp_port()

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
