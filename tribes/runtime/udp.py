"""Messages with the option UDP: one socket, for both ways."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog
import trio

from tribes.errors import ConfigError
from tribes.runtime.sockets import udp_socket
from tribes.wire.limits import DATAGRAM_MAX_BYTES

if TYPE_CHECKING:
    import socket

    from tribes.node import NodeCore
    from tribes.wire.outputs import UdpDatagram

__all__ = ["UdpPort"]

log = structlog.get_logger("tribes")

_DATAGRAMS_AT_ONCE: Final = 64


class UdpPort:
    """Hears datagrams for the core, and sends those that it asks for.

    Args:
        core: The node.
        sock: Where messages are heard; None: they are not, and one to send from is opened when it
            is needed. What comes there is heard from then on.
        now: Monotonic seconds.
        pump: Performs what the core asks for.
    """

    def __init__(
        self,
        core: NodeCore,
        sock: socket.socket | None,
        *,
        now: Callable[[], float],
        pump: Callable[[], None],
    ) -> None:
        self._core = core
        self._sock = sock
        self._now = now
        self._pump = pump
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to hear."""
        self._nursery = nursery
        if self._sock is not None:
            nursery.start_soon(self._hear, self._sock)

    def stop(self) -> None:
        """Open nothing any more; what is open still sends."""
        self._nursery = None

    def close(self) -> None:
        """Close the socket."""
        if self._sock is not None:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def send(self, output: UdpDatagram) -> None:
        """Send a datagram; it may get lost on the way, and here as well."""
        if self._sock is None:
            if self._nursery is None:
                return
            try:
                self._sock = udp_socket(self._core.channel.config.receiver)
            except (ConfigError, OSError) as error:
                log.warning("no UDP socket", error=str(error))
                return
            self._nursery.start_soon(self._hear, self._sock)
        with contextlib.suppress(OSError):
            self._sock.sendto(output.data, output.address)

    async def _hear(self, sock: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(_DATAGRAMS_AT_ONCE):
                try:
                    data, addr = sock.recvfrom(DATAGRAM_MAX_BYTES)
                except BlockingIOError:
                    break
                except OSError:
                    # What an earlier datagram of ours met at its destination.
                    continue
                self._core.udp_datagram(data, (addr[0], addr[1]), self._now())
            self._pump()
