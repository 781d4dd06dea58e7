"""``attach``: the node of a host, and the workers that have no member of their own.

One task reads each worker's connection, and its messages are done at once, in the channel's loop;
what they mean is in :mod:`tribes.manager.attach_service`. Bounds: connections, the time until one
has said who it is, questions under way, and bytes that a worker does not read.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

import structlog
import trio

from tribes.errors import ProtocolError, SessionInUseError, SessionLockTimeoutError
from tribes.manager.attach_service import OPEN_MAX, AttachService, WorkerLine
from tribes.manager.attach_wire import (
    BUSY,
    FRAME_MAX_BYTES,
    HELLO_MAX_BYTES,
    LOCKED,
    FrameReader,
    decode,
)
from tribes.manager.delta import DeltaManager
from tribes.runtime.attach_socket import close_socket, is_trusted, listen_unix
from tribes.runtime.session_locks import SessionLock, SessionLocks

if TYPE_CHECKING:
    import socket

    from tribes.runtime.group_channel import GroupChannel

__all__ = ["CONNECTIONS_MAX", "HELLO_S", "UNSENT_MAX_BYTES", "open_attach"]

log = structlog.get_logger("tribes")

CONNECTIONS_MAX: Final = 1000
"""One more is closed at once."""
HELLO_S: Final = 5.0
"""Within that a connection must say who it is."""
UNSENT_MAX_BYTES: Final = 4 * 1024 * 1024
"""Answers that a worker has not read; beyond, it is not read either."""
READ_BYTES: Final = 256 * 1024
END_S: Final = 1.0
"""To send the last answer of a connection that is to be closed."""


@asynccontextmanager
async def open_attach(channel: GroupChannel, path: str) -> AsyncIterator[AttachService]:
    """Serve the workers of this host while the block runs.

    Args:
        channel: Entered.
        path: Of the socket.

    Raises:
        ConfigError: The socket cannot be made.
    """
    listener = listen_unix(path)
    server = _Server(channel)
    log.info("workers may attach", socket=path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.accept, listener, nursery)
            yield server.service
            nursery.cancel_scope.cancel()
    finally:
        close_socket(listener, path)


@final
class _Server:
    def __init__(self, channel: GroupChannel) -> None:
        self.channel = channel
        config = channel.config
        self.service = AttachService(config.name, self._lookup, channel.sessions.clock, _new_actor)
        self._connections = 0

    def _lookup(self, context: str) -> DeltaManager | None:
        sessions, config = self.channel.sessions, self.channel.config
        if context not in config.contexts:
            # With hold_all this node has those that other members serve.
            return sessions.managers.get(context)
        found = sessions.listed_manager(context)
        return found if isinstance(found, DeltaManager) else None

    async def accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                made, _ = listener.accept()
            except OSError as why:
                # Out of descriptors, most likely: the others go on.
                log.warning("worker cannot attach", error=str(why))
                await trio.sleep(0.1)
                continue
            made.setblocking(False)
            if self._connections >= CONNECTIONS_MAX or not is_trusted(made):
                log.warning("worker refused", connections=self._connections)
                made.close()
                continue
            self._connections += 1
            nursery.start_soon(self._serve, made)

    async def _serve(self, sock: socket.socket) -> None:
        """A boundary: whatever a worker sends costs it its connection, and nobody else anything."""
        line = None
        try:
            async with trio.open_nursery() as nursery:
                connection = _Connection(self, sock, nursery)
                line = connection.line
                try:
                    await connection.run()
                finally:
                    connection.release_all()
                nursery.cancel_scope.cancel()
        except* ProtocolError as errors:
            log.warning("worker broke the protocol", error=str(errors.exceptions[0]))
        except* OSError:
            pass  # it has gone
        except* trio.TooSlowError:
            log.warning("worker said nothing", seconds=HELLO_S)
        except* Exception:
            log.exception("serving a worker failed")
        finally:
            self._connections -= 1
            sock.close()
            if line is not None:
                line.closed(trio.current_time())


@final
class _Connection:
    """One worker: its answers on their way, and its locks."""

    def __init__(self, server: _Server, sock: socket.socket, nursery: trio.Nursery) -> None:
        self._server = server
        self._sock = sock
        self._nursery = nursery
        self._out: list[bytes] = []
        self._unsent = 0
        self._is_broken = False
        self._news = trio.Event()
        self._sent = trio.Event()
        self._locks: dict[int, SessionLock | trio.CancelScope] = {}
        self.line = WorkerLine(server.service, self._send, self.flush, self)

    async def run(self) -> None:
        self._nursery.start_soon(self._write)
        reader = FrameReader(HELLO_MAX_BYTES)
        deadline = trio.fail_after(HELLO_S)
        with deadline as scope:
            while not self.line.is_over and not self._is_broken:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    data = self._sock.recv(READ_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    return
                reader.feed(data)
                while (body := reader.next()) is not None:
                    self.line.receive(decode(body), trio.current_time())
                    if self.line.is_over:
                        break
                    if self.line.is_welcome and reader.max_bytes != FRAME_MAX_BYTES:
                        reader.max_bytes = FRAME_MAX_BYTES
                        scope.deadline = float("inf")
                    await self._have_room()
                self.flush()
        with trio.move_on_after(END_S):
            while self._unsent and not self._is_broken:
                await self._sent.wait()

    async def _have_room(self) -> None:
        """A worker that asks faster than it reads, or than members answer, waits."""
        while (
            self._unsent > UNSENT_MAX_BYTES or self.line.open >= OPEN_MAX
        ) and not self._is_broken:
            self.flush()
            if self._unsent > UNSENT_MAX_BYTES or self.line.open >= OPEN_MAX:
                await self._sent.wait()

    # Answers.

    def _send(self, frame: bytes) -> None:
        self._out.append(frame)
        self._unsent += len(frame)

    def flush(self) -> None:
        """Send what the socket takes now; the rest when it takes more."""
        if self._out and not self._is_broken:
            data = b"".join(self._out)
            try:
                count = self._sock.send(data)
            except BlockingIOError:
                count = 0
            except OSError:
                count = len(data)
                self._is_broken = True
            self._out = [data[count:]] if count < len(data) else []
            self._unsent -= count
        sent, self._sent = self._sent, trio.Event()
        sent.set()
        if self._out:
            self._news.set()

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await trio.lowlevel.wait_writable(self._sock)
            self.flush()

    # Locks.

    def lock(self, number: int, context: str, key: str, mode: str, timeout_ms: int) -> None:
        """Get a lock, and answer the worker."""
        if number in self._locks or len(self._locks) >= OPEN_MAX:
            self.line.answer(BUSY, number, True, "this worker has too many locks")
            return
        scope = self._locks[number] = trio.CancelScope()
        manager = self.line.manager(context)
        locks = SessionLocks(
            manager, cast("Literal['local', 'cluster']", mode), timeout_ms / 1000, self._channel
        )
        self._nursery.start_soon(partial(self._wait_for, number, scope, locks, key))

    def _channel(self) -> GroupChannel:
        return self._server.channel

    async def _wait_for(
        self, number: int, scope: trio.CancelScope, locks: SessionLocks, key: str
    ) -> None:
        with scope:
            try:
                found = await locks.aacquire(key)
            except SessionLockTimeoutError as why:
                self._locks.pop(number, None)
                is_many = isinstance(why, SessionInUseError)
                self.line.answer(BUSY, number, is_many, str(why))
                self.flush()
                return
            if self._locks.get(number) is not scope:
                found.release()
                return
            self._locks[number] = found
            self.line.answer(LOCKED, number)
            self.flush()

    def unlock(self, number: int) -> None:
        """Give a lock back, or wait for it no longer."""
        _end(self._locks.pop(number, None))

    def release_all(self) -> None:
        """The worker has gone."""
        locks, self._locks = self._locks, {}
        for each in locks.values():
            _end(each)


def _end(held: Any) -> None:
    if isinstance(held, SessionLock):
        held.release()
    elif held is not None:
        held.cancel()


def _new_actor() -> int:
    return int.from_bytes(os.urandom(4), "big")
