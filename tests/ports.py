"""Ports of 127.0.0.1 for what a test starts.

They lie below those that the kernel gives to connections and to whoever asks for any port: of those
one that was free a moment ago is taken by another test's connection before a server can have it.
Each worker of pytest has a range of its own, and goes through it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Final

__all__ = ["free_tcp_port", "free_udp_port"]

_FIRST: Final = 10_000
_APART: Final = 20
"""From one port to the next, for what also takes those behind its own."""

_KERNELS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_tcp_port() -> int:
    """A port on which nobody listens."""
    return _free_port(socket.SOCK_STREAM)


def free_udp_port() -> int:
    """The same of UDP, for a group of members."""
    return _free_port(socket.SOCK_DGRAM)


def _free_port(kind: int) -> int:
    for port in _ports(os.getpid()):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                # All addresses: a group's port is bound to that of the group.
                sock.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("a cycle does not end")


@cache
def _ports(process: int) -> Iterator[int]:
    """A process's own way through the range; a forked child begins elsewhere."""
    del process
    mine = _range()
    apart = [port for first in range(_APART) for port in mine[first::_APART]]
    begin = secrets.randbelow(len(apart))
    return cycle((*apart[begin:], *apart[:begin]))


def _range() -> range:
    # As they are where nobody has set others.
    lowest = int(_KERNELS.read_text().split()[0]) if _KERNELS.exists() else 32_768
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (lowest - _FIRST) // workers
    assert size > 100, f"the kernel gives ports from {lowest} to connections: none are left"
    return range(_FIRST + number * size, _FIRST + (number + 1) * size)
