"""Connections that are made here: to send on, or to see whether somebody is there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import trio

from tribes.runtime.sockets import open_socket

if TYPE_CHECKING:
    from tribes.wire.outputs import Probe

__all__ = ["dial", "probe_member", "send_all"]


async def dial(address: tuple[str, int]) -> socket.socket:
    """Connect to an address; the caller bounds the time.

    Cancelling is safe: the socket is closed.

    Raises:
        OSError: There is no connection, and why.
        OverflowError: A port number that cannot be one.
        ValueError: A host that cannot be one.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = open_socket(lambda: socket.socket(family, socket.SOCK_STREAM))
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
        if code:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
        if sock.getsockname() == sock.getpeername():
            # A local port number was drawn that is the destination's: connected to itself.
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        sock.close()
        raise
    return sock


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Hand all of it to the kernel; the caller bounds the time.

    Raises:
        OSError: The connection broke.
    """
    while data:
        await trio.lowlevel.wait_writable(sock)
        with contextlib.suppress(BlockingIOError):
            data = data[sock.send(data) :]


async def probe_member(probe: Probe) -> Exception | None:
    """Perform a test: None when the member is there, else why not."""
    error: Exception = TimeoutError(f"no connection within {probe.connect_timeout:g} s")
    sock: socket.socket | None = None
    try:
        with trio.move_on_after(probe.connect_timeout):
            sock = await dial(probe.address)
        if sock is None:
            return error
        if not probe.data:
            return None
        error = TimeoutError(f"no answer within {probe.reply_timeout:g} s")
        with trio.move_on_after(probe.reply_timeout):
            await send_all(sock, probe.data)
            if not probe.expect_reply:
                return None
            await trio.lowlevel.wait_readable(sock)
            if sock.recv(64):
                return None
            return ConnectionResetError("it closed the connection instead of answering")
        return error
    except (OSError, OverflowError, ValueError) as why:
        return why
    finally:
        if sock is not None:
            sock.close()
