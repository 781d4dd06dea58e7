"""All TCP connections of a node: accepted, made, read, written and closed.

One reader task per connection, and one writer task that only runs while the kernel takes no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import structlog
import trio

from tribes.channel.outputs import LinkRejected
from tribes.errors import LocalProtocolError
from tribes.runtime.dialing import dial
from tribes.runtime.link import Link
from tribes.runtime.sockets import accept, tune

if TYPE_CHECKING:
    import socket

    from tribes.channel.outputs import Event
    from tribes.node import NodeCore
    from tribes.runtime.tls import Tls, TlsStream
    from tribes.wire.outputs import Close, Connect, Write

__all__ = ["Links"]

log = structlog.get_logger("tribes")

_READ_BYTES: Final = 256 * 1024
_ACCEPT_PAUSE_S: Final = 0.1


@final
class Links:
    """The connections, and the listening socket that accepts them.

    Args:
        core: Told what happens to them.
        listener: A listening TCP socket.
        tls: Certificates for all connections; None: they are plain.
        now: Monotonic seconds.
        pump: Performs the core's outputs after an input.
        event: Takes events.
        before_loss: Called when a connection has ended, before the core is told.

    Attributes:
        open: The connections by number.
        opened: Connections so far, accepted ones included.
        bytes_written: Bytes handed over on all connections so far.
        tls_failures: Connections that ended before their TLS handshake was over, for what the peer
            sent.
    """

    def __init__(
        self,
        core: NodeCore,
        listener: socket.socket,
        *,
        tls: Tls | None,
        now: Callable[[], float],
        pump: Callable[[], None],
        event: Callable[[Event], None],
        before_loss: Callable[[], None],
    ) -> None:
        self.open: Final[dict[int, Link]] = {}
        self.tls = tls
        self.opened = 0
        self.bytes_written = 0
        self.tls_failures = 0
        self._core = core
        self._listener = listener
        self._now = now
        self._pump = pump
        self._event = event
        self._before_loss = before_loss
        self._dirty: dict[Link, None] = {}
        self._nursery: trio.Nursery | None = None
        # All readers share it: to have `recv` make so large an object for each read costs several
        # times the read itself, since memory of that size comes from the system and goes back.
        self._buffer = bytearray(_READ_BYTES)

    # Life.

    def start(self, nursery: trio.Nursery) -> None:
        """Accept connections, with tasks in this nursery."""
        self._nursery = nursery
        nursery.start_soon(self._accept)

    def stop(self) -> None:
        """No more tasks: what would need one is not done."""
        self._nursery = None

    def abandon(self) -> None:
        """In a forked child: they are the parent's."""
        self._nursery = None
        self.open.clear()

    def close(self) -> None:
        """Close all connections, and the listening socket."""
        for link in list(self.open.values()):
            self._close(link)
        trio.lowlevel.notify_closing(self._listener)
        self._listener.close()

    def set_tls(self, tls: Tls) -> None:
        """Use other certificates for the connections from now on; those that are open stay.

        Raises:
            LocalProtocolError: The node was started without TLS.
        """
        if self.tls is None:
            raise LocalProtocolError(
                "this node was started without TLS; set channel.tls in its configuration and start "
                "it again"
            )
        self.tls = tls

    # Outputs of the core.

    def write(self, output: Write) -> None:
        """Take what is to be sent; :meth:`flush` hands it to the kernel."""
        link = self.open.get(output.link)
        if link is not None:
            link.pending.extend(output.chunks)
            self._dirty[link] = None

    @property
    def has_to_flush(self) -> bool:
        """Whether :meth:`flush` has something to do."""
        return bool(self._dirty)

    def flush(self) -> bool:
        """Send what was written since the last call; False: nothing was."""
        if not self._dirty:
            return False
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            self._flush(link)
        return True

    def pause(self, number: int) -> None:
        """Do not read a connection."""
        link = self.open.get(number)
        if link is not None:
            link.readable = trio.Event()

    def resume(self, number: int) -> None:
        """Read it again."""
        link = self.open.get(number)
        if link is not None:
            link.readable.set()

    def close_one(self, output: Close) -> None:
        """Close a connection as the core wants it closed."""
        link = self.open.get(output.link)
        if link is None:
            return
        if output.flush and link.has_to_send():
            self._send(link)
        if output.abort:
            link.reset_when_closed()
        self._close(link)

    async def connect(self, output: Connect) -> None:
        """Make a connection, or tell the core why there is none."""
        error: Exception = TimeoutError(f"no connection within {output.timeout:g} s")
        with trio.move_on_after(output.timeout):
            try:
                sock = await dial(output.address)
                shaken = None if self.tls is None else await self._shake_hands(sock, output)
            except (OSError, OverflowError, ValueError) as why:
                # The latter two: an address that a peer made up.
                error = why
            else:
                self._open(sock, output.address, output.attempt, shaken)
                return
        self._core.connect_failed(output.attempt, error, self._now())
        self._pump()

    # The beginning of a connection.

    async def _accept(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                sock, addr = accept(self._listener)
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:
                # Out of descriptors or memory, most likely: try again when some may be back.
                log.warning("accept failed", error=str(error))
                await trio.sleep(_ACCEPT_PAUSE_S)
                continue
            self._open(sock, addr, None)

    async def _shake_hands(self, sock: socket.socket, output: Connect) -> tuple[TlsStream, bytes]:
        from tribes.runtime.tls import TlsStream, shake_hands

        assert self.tls is not None
        stream = TlsStream(self.tls, output.address[0], is_server=False)
        try:
            return stream, await shake_hands(sock, stream)
        except ConnectionAbortedError as why:
            sock.close()
            self._tell_refused(output.address, why)
            raise
        except BaseException:
            sock.close()
            raise

    def _tell_refused(self, peer: tuple[str, int], why: Exception) -> None:
        # Whoever set certificates up wrongly would find no other trace of it.
        self.tls_failures += 1
        self._event(LinkRejected(peer, str(why)))

    def _open(
        self,
        sock: socket.socket,
        peer: tuple[str, int],
        attempt: int | None,
        shaken: tuple[TlsStream, bytes] | None = None,
    ) -> None:
        if self._nursery is None:
            sock.close()
            return
        sock.setblocking(False)
        channel = self._core.channel.config
        tune(sock, channel.receiver if attempt is None else channel.sender)
        self.opened += 1
        link = Link(self.opened, sock, peer)
        early = b""
        if shaken is not None:
            link.tls, early = shaken
            self._dirty[link] = None
        self.open[link.number] = link
        self._nursery.start_soon(self._read, link)
        self._core.link_opened(link.number, self._now(), peer=peer, attempt=attempt)
        if early:
            self._core.link_bytes(link.number, early, self._now())
        self._pump()

    # Reading.

    async def _read(self, link: Link) -> None:
        why: Exception | None = None
        while link.number in self.open:
            try:
                if not link.readable.is_set():
                    await link.readable.wait()
                    # It may have been closed meanwhile.
                    continue
                await trio.lowlevel.wait_readable(link.sock)
                count = link.sock.recv_into(self._buffer)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return
            except OSError as error:
                why = error
                break
            if not count:
                break
            data = bytes(memoryview(self._buffer)[:count])
            if self.tls is not None:
                try:
                    data, is_ended = self._decrypt(link, data)
                except ConnectionAbortedError as error:
                    why = error
                    break
                if not data:
                    self._pump()
                    if is_ended:
                        break
                    continue
            self._core.link_bytes(link.number, data, self._now())
            self._pump()
        self._lost(link, why)

    def _decrypt(self, link: Link, data: bytes) -> tuple[bytes, bool]:
        """Take what a connection brought; returns what it says, and whether that is all.

        Raises:
            ConnectionAbortedError: The peer is not who it should be, or broke the protocol.
        """
        from tribes.runtime.tls import TlsStream

        assert self.tls is not None
        stream = link.tls
        if stream is None:
            stream = link.tls = TlsStream(self.tls, link.peer[0], is_server=True)
        was_open = stream.is_open
        try:
            return stream.feed(data), stream.is_ended
        except ConnectionAbortedError as why:
            if not was_open:
                self._tell_refused(link.peer, why)
            raise
        finally:
            if stream.has_output:
                self._flush(link)

    def _lost(self, link: Link, why: Exception | None) -> None:
        if link.number in self.open:
            self._before_loss()
        if link.number in self.open:
            self._close(link)
            self._core.link_closed(link.number, why, self._now())
            self._pump()

    # Writing.

    def _flush(self, link: Link) -> None:
        if link.writing or not link.has_to_send() or link.number not in self.open:
            return
        if self._send(link) and link.has_to_send() and self._nursery is not None:
            link.writing = True
            self._nursery.start_soon(self._write, link)

    def _send(self, link: Link) -> bool:
        """Hand over what the kernel takes at once; False when the connection is gone."""
        before = link.sent
        count = link.send()
        if count is None:
            return False
        self.bytes_written += count
        if link.sent != before:
            self._core.writable(link.number, link.sent, self._now())
        return True

    async def _write(self, link: Link) -> None:
        try:
            while link.has_to_send():
                await trio.lowlevel.wait_writable(link.sock)
                if not self._send(link):
                    return
                self._pump()
        except trio.ClosedResourceError:
            return
        finally:
            link.writing = False

    # The end.

    def _close(self, link: Link) -> None:
        self.open.pop(link.number, None)
        self._dirty.pop(link, None)
        link.close()
