"""One node of the demo: the small web application on a background node, served by uvicorn."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import uvicorn

from tribes.cli.demo_app import make_app
from tribes.cli.logs import set_up_logging
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.runtime.background import BackgroundNode
from tribes.web.asgi import SessionMiddleware
from tribes.web.serving import DrainingServer

__all__ = ["run_node"]

_SYNCHRONOUS = 6
"""Acknowledged after processing: an answer that a browser has seen is on every node."""


def run_node(
    name: str,
    http_port: int,
    multicast_port: int,
    control_url: str,
    peers: Mapping[str, str],
    address: str = "127.0.0.1",
) -> None:
    """Serve until SIGTERM, then leave the group in good order.

    Args:
        name: The node's name.
        http_port: Where the page is, at ``address``.
        multicast_port: The demo's own group, so that two demos do not meet.
        control_url: Where nodes are killed and started.
        peers: Name and address of every node of the demo.
        address: What to listen on. The demo itself stays on loopback; another address is for
            tests that put each node into a network namespace of its own.
    """
    set_up_logging("text", "info")
    node = BackgroundNode(
        NodeConfig(
            name=name,
            contexts=("demo",),
            insecure=not ipaddress.ip_address(address).is_loopback,
            channel=ChannelConfig(
                membership=MembershipConfig(port=multicast_port, bind=address),
                receiver=ReceiverConfig(address=address),
            ),
            manager=ManagerConfig(channel_send_options=_SYNCHRONOUS),
        )
    )
    app = SessionMiddleware(
        make_app(name, lambda: node.member_names, control_url, peers),
        node,
        route=name,
        ready_path="/ready",
    )
    config = uvicorn.Config(
        app,
        host=address,
        port=http_port,
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    DrainingServer(config, node, notice_s=0).run()
