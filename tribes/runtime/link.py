"""One TCP connection: what waits to be sent on it, as it is or through TLS."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from tribes.runtime.tls import TlsStream

__all__ = ["Link"]

_LINGER_RESET: Final = struct.pack("ii", 1, 0)
"""``struct linger``: on, zero seconds. Closing then resets the connection."""


@final
class Link:
    """A connection of a node.

    With TLS what was taken of ``pending`` is ``sealed``, and ``unsent`` what came out of it and has
    not left. A connection that waits for the first bytes of its handshake has no stream yet.

    Attributes:
        number: The core's name for it.
        pending: What the core has written and the kernel, or TLS, has not taken.
        readable: Set while the core wants to be given what arrives.
        sent: How many of the core's bytes the kernel has taken.
        tls: None: it is a plain one.
        writing: Whether a task waits until the kernel takes more.
    """

    __slots__ = (
        "number",
        "peer",
        "pending",
        "readable",
        "sealed",
        "sent",
        "sock",
        "tls",
        "unsent",
        "writing",
    )

    def __init__(self, number: int, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.number = number
        self.sock = sock
        self.peer = peer
        self.tls: TlsStream | None = None
        self.unsent = b""
        self.sealed = 0
        self.pending: list[bytes] = []
        self.sent = 0
        self.writing = False
        self.readable = trio.Event()
        self.readable.set()

    def has_to_send(self) -> bool:
        """Whether there is something for the kernel."""
        if self.tls is None:
            return bool(self.pending)
        return bool(self.unsent or (self.pending and self.tls.is_open) or self.tls.has_output)

    def send(self) -> int | None:
        """Hand over what the kernel takes at once.

        Returns:
            How many bytes it took; None: the connection is gone.
        """
        try:
            return self._send_plain() if self.tls is None else self._send_sealed(self.tls)
        except BlockingIOError:
            return 0
        except OSError:
            # The reader task finds the same and reports it.
            self._drop()
            return None

    def close(self) -> None:
        """Close it; a task that waits for it learns so."""
        self._drop()
        trio.lowlevel.notify_closing(self.sock)
        self.sock.close()
        self.readable.set()

    def reset_when_closed(self) -> None:
        """Let the kernel throw away what it has taken and the peer has not got."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)

    def _send_plain(self) -> int:
        data = self._joined()
        count = self.sock.send(data)
        self.pending.clear()
        if count < len(data):
            self.pending.append(data[count:])
        self.sent += count
        return count

    def _send_sealed(self, stream: TlsStream) -> int:
        if not self.unsent:
            if self.pending and stream.is_open:
                data = self._joined()
                self.pending = []
                self.sealed += len(data)
                stream.write(data)
            self.unsent = stream.take()
        count = self.sock.send(self.unsent)
        self.unsent = self.unsent[count:]
        if not self.unsent:
            # The core counts its own bytes; they have left when all that they became has.
            self.sent = self.sealed
        return count

    def _joined(self) -> bytes:
        return self.pending[0] if len(self.pending) == 1 else b"".join(self.pending)

    def _drop(self) -> None:
        self.pending.clear()
        self.unsent = b""
