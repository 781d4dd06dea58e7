"""Ports of 127.0.0.1 for what a test starts."""

from __future__ import annotations

import socket

__all__ = ["free_tcp_port", "free_udp_port"]


def free_tcp_port() -> int:
    """A port that was free a moment ago; give it to a server that says so when it is taken."""
    return _free_port(socket.SOCK_STREAM)


def free_udp_port() -> int:
    """The same of UDP, for a group of members."""
    return _free_port(socket.SOCK_DGRAM)


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
