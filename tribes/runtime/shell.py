"""The trio driver of a :class:`NodeCore`: sockets, tasks and time, and no rule.

One reader task per connection, one writer task per connection that only runs while the kernel takes
no more, one task for the timer. Everything else happens in the task that had the input: the core is
called, then its outputs are performed, then theirs, until there are none. What one input puts on a
connection is handed to the kernel in one call, and so is what several sends of one pass put there
(:mod:`tribes.runtime.cork`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from tribes.channel.outputs import Deliver, Event, LinkRejected, TicketDone
from tribes.errors import ConfigError, LocalProtocolError
from tribes.runtime.cork import Cork
from tribes.runtime.discovery import run_service
from tribes.runtime.sockets import accept, open_socket, tune, udp_socket
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.outputs import (
    Close,
    Connect,
    Datagram,
    Pause,
    Probe,
    Resume,
    UdpDatagram,
    Write,
)

if TYPE_CHECKING:
    from tribes.channel.core import Output
    from tribes.manager.drain import DrainReport
    from tribes.manager.inbox import Inbox
    from tribes.membership.seeker import NamedHost
    from tribes.node import NodeCore
    from tribes.runtime.discovery import DiscoveryService
    from tribes.runtime.multicast import Multicast
    from tribes.runtime.tls import Tls, TlsStream
    from tribes.security.keys import KeyRing
    from tribes.wire.member import Member

__all__ = ["Listeners", "Shell"]

log = structlog.get_logger("tribes")

_READ_BYTES = 256 * 1024
_DATAGRAMS_AT_ONCE = 64
_ACCEPT_PAUSE_S = 0.1

_LINGER_RESET = struct.pack("ii", 1, 0)
"""``struct linger``: on, zero seconds. Closing then resets the connection."""


class Listeners(Protocol):
    """The users' side of a node: who gets messages and events."""

    def deliver(self, message: Deliver) -> Awaitable[None] | None:
        """Hand a message to the listeners: None when they are done, else what to wait for.

        Raises:
            Exception: A listener failed; the sender is told so if it asked.
        """

    def event(self, event: Event) -> None:
        """An event of the core, in order. Must not block."""


class _Link:
    """One TCP connection.

    ``pending`` is what the core has written and the kernel, or TLS, has not taken. With TLS what
    was taken is ``sealed``, and ``unsent`` what came out of it and has not left. A connection that
    waits for the first bytes of its handshake has none yet.
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


class _Waiter:
    """A task that waits for its send."""

    __slots__ = ("faulty", "task")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.faulty: dict[Member, Exception] | None = None


class Shell:
    """Runs one node core on real sockets.

    Args:
        core: The node.
        inbox: Where request threads leave their commits.
        listener: A listening TCP socket.
        multicast: The group's datagrams; None: there is no multicast.
        services: What finds members otherwise.
        udp: The UDP socket for messages with the option UDP; None: none are received, and one to
            send them from is opened when it is needed.
        listeners: Who gets deliveries and events.
        tls: Certificates for all connections; None: they are plain.
        now: Monotonic seconds; the core's only time.
    """

    def __init__(
        self,
        core: NodeCore,
        *,
        inbox: Inbox,
        listener: socket.socket,
        multicast: Multicast | None,
        services: Sequence[DiscoveryService] = (),
        udp: socket.socket | None = None,
        listeners: Listeners,
        tls: Tls | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = core
        self._inbox = inbox
        self.now = now
        self._listener = listener
        self._multicast = multicast
        self._services = services
        self._udp = udp
        self._listeners = listeners
        self._tls = tls
        self.tls_failures = 0
        """Connections that ended before their TLS handshake was over, for what the peer sent."""
        self._links: dict[int, _Link] = {}
        self._dirty: dict[_Link, None] = {}
        self.links_opened = 0
        """Connections so far, accepted ones included."""
        self.bytes_written = 0
        """Bytes handed over on all connections so far."""
        self._tickets: dict[int, _Waiter] = {}
        self._timer_scope: trio.CancelScope | None = None
        self._timer_at = inf
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_pumping = False
        self._cork = Cork(self.pump)
        self._is_abandoned = False
        self._changed = trio.Event()

    # Life.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the node until cancelled; it then leaves the group and closes its sockets.

        Leaving in good order, with everything sent first, is :meth:`drain` before the cancelling.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._token = trio.lowlevel.current_trio_token()
                nursery.start_soon(self._accept)
                if self._multicast is not None:
                    nursery.start_soon(self._multicast.hear, self._datagram, self.pump)
                if self._udp is not None:
                    nursery.start_soon(self._hear_udp, self._udp)
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._cork.run)
                self.core.start(self.now())
                self.pump()
                self.commits()
                for service in self._services:
                    nursery.start_soon(run_service, service, self._discovered, self._event)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._leave()

    def abandon(self) -> None:
        """In a forked child: do nothing any more. The node goes on in the parent.

        Its sockets here are closed by :mod:`tribes.runtime.sockets`. Should the fork have been made
        inside the node's own loop, the child's copy of it must not take leave of the group.
        """
        self._is_abandoned = True
        self._nursery = None
        self._links.clear()

    def _leave(self) -> None:
        if self._is_abandoned:
            return
        # No more tasks: what the core still asks for that would need one is not done.
        self._nursery = None
        self.core.stop(self.now())
        self.pump()
        for link in list(self._links.values()):
            self._close(link)
        if self._multicast is not None:
            self._multicast.close()
        for sock in (self._listener, self._udp):
            if sock is not None:
                trio.lowlevel.notify_closing(sock)
                sock.close()

    async def drain(self, timeout: float) -> bool:
        """Wait until every member has confirmed what is here; False when that took too long."""
        self.core.drain(self.now())
        self.pump()
        with trio.move_on_after(timeout):
            while len(self._inbox) or not self.core.is_drained:
                await self.changed()
            return True
        return False

    def drain_report(self) -> DrainReport:
        """How the drain stands."""
        return self.core.sessions.drain_report()._replace(unsent=len(self._inbox))

    def retire(self) -> None:
        """Tell the members that this node is about to leave; it goes on answering requests."""
        self.core.retire(self.now())
        self.pump()

    async def joined(self, timeout: float) -> bool:
        """Wait until this node has the sessions of the others; False when that took too long."""
        with trio.move_on_after(timeout):
            while not self.core.is_joined:
                await self.changed()
            return True
        return False

    async def changed(self) -> None:
        """Wait for the next input."""
        await self._changed.wait()

    # Inputs from this process.

    def commits(self) -> None:
        """The inbox has something."""
        if self._nursery is None:
            return
        batch = self._inbox.take()
        if batch is None:
            return
        self.core.commits(batch, self.now())
        self.pump()
        if len(self._inbox) and self._token is not None:
            # The network has its turn before the next batch.
            self._token.run_sync_soon(self.commits, idempotent=True)

    def set_keys(self, keys: KeyRing) -> None:
        """Replace the group's keys; see :meth:`ChannelCore.set_keys`."""
        self.core.channel.set_keys(keys, self.now())
        self.pump()

    def set_tls(self, tls: Tls) -> None:
        """Use other certificates for the connections from now on; those that are open stay.

        Raises:
            LocalProtocolError: The node was started without TLS.
        """
        if self._tls is None:
            raise LocalProtocolError(
                "this node was started without TLS; set channel.tls in its configuration and start "
                "it again"
            )
        self._tls = tls

    async def send(
        self, destinations: tuple[Member, ...], payload: bytes, options: int
    ) -> tuple[bytes, dict[Member, Exception]]:
        """Send and wait for what the options promise; returns id and faulty members.

        Cancelling is safe: the message may still arrive, and its outcome is dropped.
        """
        number, unique_id = self.core.send(destinations, payload, options, self.now())
        waiter = self._tickets[number] = _Waiter()
        if not self._cork.holds():
            self.pump()
        if waiter.faulty is None:
            waiter.task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                self._tickets.pop(number, None)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            await trio.lowlevel.checkpoint()
        return unique_id, waiter.faulty or {}

    # The pump: outputs until there are none.

    def pump(self) -> None:
        """Perform the core's outputs, and the outputs of what that causes."""
        if self._is_pumping or self._is_abandoned:
            return
        try:
            self._pump_out()
        except BaseException:
            self.core.wake_waiters()
            raise
        # Once for all commits that have ended, in whatever came of this input.
        self.core.wake_waiters()
        self._arm()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _pump_out(self) -> None:
        self._is_pumping = True
        try:
            while outputs := self.core.take_outputs():
                for output in outputs:
                    self._perform(output)
            dirty, self._dirty = self._dirty, {}
            for link in dirty:
                self._flush(link)
        finally:
            self._is_pumping = False
        if self._dirty or self.core.has_outputs:
            # A flush reported bytes as taken, and more was written.
            self._pump_out()

    def _perform(self, output: Output) -> None:
        match output:
            case Write():
                link = self._links.get(output.link)
                if link is not None:
                    link.pending.extend(output.chunks)
                    self._dirty[link] = None
            case Deliver():
                self._deliver(output)
            case TicketDone():
                self._ticket_done(output)
            case Datagram():
                if self._multicast is not None:
                    self._multicast.send(output.data)
            case Connect():
                self._start(self._connect, output)
            case UdpDatagram():
                self._udp_datagram(output)
            case Probe():
                self._start(self._probe, output)
            case Close():
                self._close_output(output)
            case Pause():
                link = self._links.get(output.link)
                if link is not None:
                    link.readable = trio.Event()
            case Resume():
                link = self._links.get(output.link)
                if link is not None:
                    link.readable.set()
            case _:
                self._listeners.event(output)

    def _start(self, task: Callable[..., Awaitable[None]], output: Connect | Probe) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(task, output)

    def _ticket_done(self, done: TicketDone) -> None:
        waiter = self._tickets.pop(done.ticket, None)
        if waiter is not None:
            waiter.faulty = done.faulty
            if waiter.task is not None:
                trio.lowlevel.reschedule(waiter.task)
                self._cork.released()

    # Time.

    def _arm(self) -> None:
        deadline = self.core.next_deadline
        if deadline != self._timer_at:
            self._timer_at = deadline
            if self._timer_scope is not None:
                self._timer_scope.deadline = self._in_trio_time(deadline)

    def _in_trio_time(self, deadline: float) -> float:
        # trio's clock has an origin of its own.
        return inf if deadline == inf else trio.current_time() + deadline - self.now()

    async def _keep_time(self) -> None:
        while True:
            deadline = self._in_trio_time(self._timer_at)
            with trio.CancelScope(deadline=deadline) as self._timer_scope:
                await trio.sleep_forever()
            now = self.now()
            if now >= self.core.next_deadline:
                self.core.timer(now)
                self.pump()
            else:
                self._timer_at = self.core.next_deadline

    # Members.

    def _datagram(self, data: bytes, addr: tuple[str, int]) -> None:
        self.core.datagram(data, addr, self.now())

    def _discovered(self, service: str, hosts: Sequence[NamedHost]) -> None:
        self.core.discovered(service, hosts, self.now())
        self.pump()

    def _event(self, event: Event) -> None:
        self._listeners.event(event)

    def announce(
        self,
        *,
        payload: bytes | None = None,
        domain: bytes | None = None,
        command: bytes | None = None,
    ) -> None:
        """Change what the own record carries; see :meth:`ChannelCore.announce`."""
        self.core.announce(self.now(), payload=payload, domain=domain, command=command)
        self.pump()

    def _udp_datagram(self, output: UdpDatagram) -> None:
        if self._udp is None:
            if self._nursery is None:
                return
            try:
                self._udp = udp_socket(self.core.channel.config.receiver)
            except (ConfigError, OSError) as error:
                log.warning("no UDP socket", error=str(error))
                return
            self._nursery.start_soon(self._hear_udp, self._udp)
        with contextlib.suppress(OSError):
            self._udp.sendto(output.data, output.address)

    async def _hear_udp(self, sock: socket.socket) -> None:
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
                self.core.udp_datagram(data, (addr[0], addr[1]), self.now())
            self.pump()

    # Connections.

    async def _accept(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                sock, addr = accept(self._listener)
            except BlockingIOError:
                continue
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Out of descriptors or memory, most likely: try again when some may be back.
                log.warning("accept failed", error=str(error))
                await trio.sleep(_ACCEPT_PAUSE_S)
                continue
            self._open(sock, addr, None)

    async def _connect(self, output: Connect) -> None:
        error: Exception = TimeoutError(f"no connection within {output.timeout:g} s")
        with trio.move_on_after(output.timeout):
            try:
                sock = await _connect_socket(output.address)
                shaken = None if self._tls is None else await self._shake_hands(sock, output)
            except (OSError, OverflowError, ValueError) as why:
                # The latter two: an address that a peer made up.
                error = why
            else:
                self._open(sock, output.address, output.attempt, shaken)
                return
        self.core.connect_failed(output.attempt, error, self.now())
        self.pump()

    async def _shake_hands(self, sock: socket.socket, output: Connect) -> tuple[TlsStream, bytes]:
        from tribes.runtime.tls import TlsStream, shake_hands

        assert self._tls is not None
        stream = TlsStream(self._tls, output.address[0], is_server=False)
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
        self._listeners.event(LinkRejected(peer, str(why)))

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
        channel = self.core.channel.config
        tune(sock, channel.receiver if attempt is None else channel.sender)
        self.links_opened += 1
        link = _Link(self.links_opened, sock, peer)
        early = b""
        if shaken is not None:
            link.tls, early = shaken
            self._dirty[link] = None
        self._links[link.number] = link
        self._nursery.start_soon(self._read, link)
        self.core.link_opened(link.number, self.now(), peer=peer, attempt=attempt)
        if early:
            self.core.link_bytes(link.number, early, self.now())
        self.pump()

    async def _read(self, link: _Link) -> None:
        why: Exception | None = None
        while link.number in self._links:
            try:
                if not link.readable.is_set():
                    await link.readable.wait()
                    # It may have been closed meanwhile.
                    continue
                await trio.lowlevel.wait_readable(link.sock)
                data = link.sock.recv(_READ_BYTES)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return
            except OSError as error:
                why = error
                break
            if not data:
                break
            if self._tls is not None:
                try:
                    data, is_ended = self._decrypt(link, data)
                except ConnectionAbortedError as error:
                    why = error
                    break
                if not data:
                    self.pump()
                    if is_ended:
                        break
                    continue
            self.core.link_bytes(link.number, data, self.now())
            self.pump()
        self._lost(link, why)

    def _decrypt(self, link: _Link, data: bytes) -> tuple[bytes, bool]:
        """Take what a connection brought; returns what it says, and whether that is all.

        Raises:
            ConnectionAbortedError: The peer is not who it should be, or broke the protocol.
        """
        from tribes.runtime.tls import TlsStream

        assert self._tls is not None
        stream = link.tls
        if stream is None:
            stream = link.tls = TlsStream(self._tls, link.peer[0], is_server=True)
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

    def _lost(self, link: _Link, why: Exception | None) -> None:
        if link.number in self._links and self._multicast is not None:
            # A leaving member says so before it closes: what was sent first is heard first.
            self._multicast.hear_waiting(self._datagram)
            self.pump()
        if link.number in self._links:
            self._close(link)
            self.core.link_closed(link.number, why, self.now())
            self.pump()

    def _flush(self, link: _Link) -> None:
        if link.writing or not link.has_to_send() or link.number not in self._links:
            return
        if self._send_now(link) and link.has_to_send() and self._nursery is not None:
            link.writing = True
            self._nursery.start_soon(self._write, link)

    def _send_now(self, link: _Link) -> bool:
        """Hand over what the kernel takes at once; False when the connection is gone."""
        if link.tls is not None:
            return self._send_sealed(link, link.tls)
        data = link.pending[0] if len(link.pending) == 1 else b"".join(link.pending)
        try:
            count = link.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            # The reader task finds the same and reports it.
            link.pending.clear()
            return False
        link.pending = [data[count:]] if count < len(data) else []
        if count:
            link.sent += count
            self.bytes_written += count
            self.core.writable(link.number, link.sent, self.now())
        return True

    def _send_sealed(self, link: _Link, stream: TlsStream) -> bool:
        if not link.unsent:
            if link.pending and stream.is_open:
                data = link.pending[0] if len(link.pending) == 1 else b"".join(link.pending)
                link.pending = []
                link.sealed += len(data)
                stream.write(data)
            link.unsent = stream.take()
        try:
            count = link.sock.send(link.unsent)
        except BlockingIOError:
            return True
        except OSError:
            # The reader task finds the same and reports it.
            link.pending.clear()
            link.unsent = b""
            return False
        self.bytes_written += count
        rest = link.unsent[count:]
        link.unsent = rest
        if not rest and link.sealed > link.sent:
            # The core counts its own bytes; they have left when all that they became has.
            link.sent = link.sealed
            self.core.writable(link.number, link.sent, self.now())
        return True

    async def _write(self, link: _Link) -> None:
        try:
            while link.has_to_send():
                await trio.lowlevel.wait_writable(link.sock)
                if not self._send_now(link):
                    return
                self.pump()
        except trio.ClosedResourceError:
            return
        finally:
            link.writing = False

    def _close_output(self, output: Close) -> None:
        link = self._links.get(output.link)
        if link is None:
            return
        if output.flush and link.has_to_send():
            self._send_now(link)
        if output.abort:
            with contextlib.suppress(OSError):
                link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self._close(link)

    def _close(self, link: _Link) -> None:
        self._links.pop(link.number, None)
        self._dirty.pop(link, None)
        link.pending.clear()
        link.unsent = b""
        trio.lowlevel.notify_closing(link.sock)
        link.sock.close()
        link.readable.set()

    async def _probe(self, output: Probe) -> None:
        # With TLS members are asked on connections of the core's own; a test frame would be plain.
        assert self._tls is None
        error = await _ask(output)
        if self._nursery is not None:
            self.core.probe_result(output.probe, error, self.now())
            self.pump()

    # Deliveries.

    def _deliver(self, output: Deliver) -> None:
        try:
            pending = self._listeners.deliver(output)
        except Exception as error:  # noqa: BLE001 - users' code: the sender is told
            self.core.delivered(output.token, error, self.now())
            return
        if pending is None:
            self.core.delivered(output.token, None, self.now())
        elif self._nursery is not None:
            self._nursery.start_soon(self._await_delivery, output.token, pending)

    async def _await_delivery(self, token: int, pending: Awaitable[None]) -> None:
        error: Exception | None = None
        try:
            await pending
        except Exception as why:  # noqa: BLE001 - users' code: the sender is told
            error = why
        self.core.delivered(token, error, self.now())
        self.pump()


async def _connect_socket(address: tuple[str, int]) -> socket.socket:
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


async def _ask(probe: Probe) -> Exception | None:
    error: Exception = TimeoutError(f"no connection within {probe.connect_timeout:g} s")
    sock: socket.socket | None = None
    try:
        with trio.move_on_after(probe.connect_timeout):
            sock = await _connect_socket(probe.address)
        if sock is None:
            return error
        if not probe.data:
            return None
        error = TimeoutError(f"no answer within {probe.reply_timeout:g} s")
        with trio.move_on_after(probe.reply_timeout):
            rest = probe.data
            while rest:
                await trio.lowlevel.wait_writable(sock)
                with contextlib.suppress(BlockingIOError):
                    rest = rest[sock.send(rest) :]
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
