"""The sockets of a node: opened with the options of its configuration, closed by who opened
them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.model import MembershipConfig, ReceiverConfig, SenderConfig

__all__ = [
    "accept",
    "listen",
    "multicast_receiver",
    "multicast_sender",
    "open_pair",
    "open_socket",
    "tune",
    "udp_socket",
]

_BACKLOG = 128
_INTERFACES = Path("/proc/net/if_inet6")

# Every socket of this process's nodes. A forked child closes its copies at once: while it holds
# them, the parent's port stays taken and its connections stay up after the parent was killed, and
# the other members would take it for a process that hangs. (Programs that are started get none:
# Python opens sockets close-on-exec.)
_open: WeakSet[socket.socket] = WeakSet()
_opening = threading.RLock()
"""Held while a socket is opened and noted, so that no fork comes between."""


def open_socket(make: Callable[[], socket.socket]) -> socket.socket:
    """Open a socket that a forked child closes."""
    with _opening:
        sock = make()
        _open.add(sock)
    return sock


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Open two sockets that are connected with each other, and that a forked child closes."""
    with _opening:
        pair = socket.socketpair()
        _open.update(pair)
    return pair


def accept(listener: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """Take a connection that a forked child closes, and where it comes from.

    Raises:
        OSError: As ``socket.accept``.
    """
    with _opening:
        sock, address = listener.accept()
        _open.add(sock)
    return sock, (address[0], address[1])


def _after_fork_in_child() -> None:
    _opening.release()
    for sock in list(_open):
        sock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_opening.acquire,
        after_in_parent=_opening.release,
        after_in_child=_after_fork_in_child,
    )


def listen(config: ReceiverConfig) -> socket.socket:
    """Listen on the first free port of ``port … port + auto_bind - 1``.

    Raises:
        ConfigError: No port is free, or the address is not one of this machine.
    """
    family = _family(config.address)
    first = config.port
    last = first + max(config.auto_bind, 1) - 1 if first else first
    for port in range(first, min(last, 65535) + 1):
        sock = open_socket(lambda: socket.socket(family, socket.SOCK_STREAM))
        try:
            # A port in TIME_WAIT may be used again; one that somebody listens on may not.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((config.address, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise ConfigError(
                f"cannot listen on {config.address}: {error.strerror}; write an address of this "
                "machine",
                key="channel.receiver.address",
            ) from error
        sock.setblocking(False)
        return sock
    raise ConfigError(
        f"no free port from {first} to {last} on {config.address}; end what uses them, or set "
        "another port or a larger auto_bind",
        key="channel.receiver.port",
    )


def udp_socket(config: ReceiverConfig) -> socket.socket:
    """The UDP socket for messages: on the first free port from ``udp_port``, or on any.

    Raises:
        ConfigError: No port is free.
    """
    family = _family(config.address)
    first = max(config.udp_port, 0)
    last = first + max(config.auto_bind, 1) - 1 if first else first
    for port in range(first, min(last, 65535) + 1):
        sock = open_socket(lambda: socket.socket(family, socket.SOCK_DGRAM))
        try:
            sock.bind((config.address, port))
        except OSError:
            sock.close()
            continue
        _set_buffers(sock, config.udp_rx_buf_size, config.udp_tx_buf_size)
        sock.setblocking(False)
        return sock
    raise ConfigError(
        f"no free UDP port from {first} to {last} on {config.address}; set another one or a larger "
        "auto_bind",
        key="channel.receiver.udp_port",
    )


def tune(sock: socket.socket, config: ReceiverConfig | SenderConfig) -> None:
    """Set a connection's options as configured. One that is gone already is left as it is."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, config.tcp_no_delay)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, config.so_keep_alive)
        _set_buffers(sock, config.rx_buf_size, config.tx_buf_size)
        if config.so_traffic_class >= 0:
            if sock.family == socket.AF_INET6:
                level, option = socket.IPPROTO_IPV6, socket.IPV6_TCLASS
            else:
                level, option = socket.IPPROTO_IP, socket.IP_TOS
            sock.setsockopt(level, option, config.so_traffic_class)


def _set_buffers(sock: socket.socket, receive: int, send: int) -> None:
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    if send:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)


def multicast_receiver(config: MembershipConfig) -> socket.socket:
    """A UDP socket that gets the datagrams of the group, on the configured interface only.

    Raises:
        ConfigError: The group cannot be joined.
    """
    group = ipaddress.ip_address(config.address)
    sock = open_socket(lambda: socket.socket(_family(config.address), socket.SOCK_DGRAM))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT") and not _is_linux_multicast_reuse():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Bound to the group's own address, nothing else that uses the port is heard.
        if group.version == 4:
            sock.bind((config.address, config.port))
            sock.setsockopt(
                socket.IPPROTO_IP,
                socket.IP_ADD_MEMBERSHIP,
                socket.inet_aton(config.address) + socket.inet_aton(config.bind),
            )
        else:
            index = _interface_index(config.bind)
            sock.bind((config.address, config.port, 0, index))
            request = group.packed + struct.pack("@I", index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot join {config.address}:{config.port} on the interface of {config.bind}: "
            f"{error.strerror}; set bind to the address of an interface that can multicast",
            key="channel.membership.bind",
        ) from error
    return sock


def multicast_sender(config: MembershipConfig) -> socket.socket:
    """A UDP socket for heartbeats, sending through the configured interface.

    Raises:
        ConfigError: The interface cannot be used.
    """
    bind = ipaddress.ip_address(config.bind)
    # On loopback nothing may leave the machine, whatever the routing table says.
    ttl = config.ttl if config.ttl is not None else (0 if bind.is_loopback else 1)
    sock = open_socket(lambda: socket.socket(_family(config.address), socket.SOCK_DGRAM))
    try:
        if bind.version == 4:
            sock.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(config.bind)
            )
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        else:
            index = _interface_index(config.bind)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        sock.bind((config.bind, 0) if bind.version == 4 else (str(bind), 0, 0, index))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot send multicast through the interface of {config.bind}: {error.strerror}; "
            "set bind to the address of an interface that can multicast",
            key="channel.membership.bind",
        ) from error
    return sock


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_linux_multicast_reuse() -> bool:
    # Linux delivers a group's datagram to every socket with SO_REUSEADDR; the BSDs, and so macOS,
    # want SO_REUSEPORT as well.
    import sys

    return sys.platform.startswith("linux")


def _interface_index(address: str) -> int:
    """The number of the interface that has an IPv6 address.

    Raises:
        OSError: There is none.
    """
    parsed = ipaddress.ip_address(address)
    scope = getattr(parsed, "scope_id", None)
    if scope:
        return socket.if_nametoindex(scope)
    if parsed.is_loopback:
        for name in ("lo", "lo0"):
            try:
                return socket.if_nametoindex(name)
            except OSError:
                continue
    try:
        # Linux: address in hexadecimal, number of the interface in hexadecimal, …
        for line in _INTERFACES.read_text().splitlines():
            octets, index = line.split()[:2]
            if bytes.fromhex(octets) == parsed.packed:
                return int(index, 16)
    except OSError:
        return 0  # elsewhere the system chooses: name the interface as in fe80::1%en0
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
