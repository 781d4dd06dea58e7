"""The TCP sockets of a simulated machine, and what becomes of them when its process dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.testing.sim.ends import ACCEPT_BACKLOG, End, Mark

if TYPE_CHECKING:
    from tribes.testing.sim.driver import Driver
    from tribes.wire.outputs import Close, Connect, Pause, Resume, Write

__all__ = ["Sockets"]

READ_BYTES = 256 * 1024
"""What one read takes from a connection, as the trio shell's."""

_NEXT_PORT = 100
"""How far the port is away that a process takes while its own one is held."""


class _Child:
    """A forked child that holds its dead parent's sockets and does nothing with them."""

    def __init__(self, machine: str, ends: list[End]) -> None:
        self.machine = machine
        self.ends = ends
        self.waiting = 0
        for end in ends:
            end.owner = self
            end.pending.clear()

    def admit(self, port: int) -> End | None:
        """The kernel makes connections for it until the backlog is full."""
        del port
        if self.waiting >= ACCEPT_BACKLOG:
            return None
        self.waiting += 1
        return End(self.machine, self, 0)

    def accept(self, end: End) -> None:
        """Nobody accepts."""
        self.ends.append(end)

    def readable(self, end: End) -> None:
        """Nobody reads."""

    def writable(self, end: End) -> None:
        """Nobody writes."""


class Sockets:
    """Listener and connections of one node.

    Args:
        node: Whose they are.
        port: Where it listens.
    """

    def __init__(self, node: Driver, port: int) -> None:
        self.machine = node.name
        self.port = port
        self.ends: dict[int, End] = {}
        """The connections that its core knows, by link."""
        self._node = node
        self._streams = node.world.streams
        self._held: dict[End, None] = {}
        """Open ends that its core doesn't know: probes', and those not accepted yet."""
        self._waiting = 0
        self._child: _Child | None = None

    # Life.

    def listen(self) -> None:
        """A process starts; on another port if somebody still holds this one."""
        streams = self._streams
        while self.port in streams.listeners:
            self.port += _NEXT_PORT
        streams.machines[self.port] = self.machine
        streams.listeners[self.port] = self
        self.ends, self._held, self._waiting = {}, {}, 0

    def orphan(self, keep: bool) -> None:
        """The process is dead: its sockets are closed, or kept by a child."""
        self.release()
        ends = [*self.ends.values(), *self._held]
        self.ends, self._held, self._waiting = {}, {}, 0
        if keep:
            self._child = _Child(self.machine, ends)
            self._streams.listeners[self.port] = self._child
            return
        del self._streams.listeners[self.port]
        for end in ends:
            self._streams.close(end, abort=not end.link and end.owner is self)

    def release(self) -> None:
        """The child that holds a dead process's sockets ends too."""
        child, self._child = self._child, None
        if child is not None:
            listeners = self._streams.listeners
            for port in [port for port, who in listeners.items() if who is child]:
                del listeners[port]
            for end in child.ends:
                self._streams.close(end)

    # The kernel's side.

    def admit(self, port: int) -> End | None:
        """See :class:`Listener`."""
        del port
        if self._waiting >= ACCEPT_BACKLOG:
            return None
        self._waiting += 1
        return End(self.machine, self, self._node.incarnation)

    def accept(self, end: End) -> None:
        """See :class:`Listener`."""
        self._held[end] = None
        self._node.enter(self._accepted, end)

    def readable(self, end: End) -> None:
        """See :class:`EndOwner`."""
        if end.is_queued or end.is_read_paused or end.link not in self.ends:
            return
        end.is_queued = True
        self._node.enter(self._read, end)

    def writable(self, end: End) -> None:
        """See :class:`EndOwner`."""
        if end.link in self.ends:
            self._node.enter(self._write_more, end)

    # The process's side: inputs.

    def _accepted(self, end: End) -> None:
        self._waiting -= 1
        del self._held[end]
        self._opened(end, None)

    def _connected(self, output: Connect, end: End | None, error: Exception | None) -> None:
        node, world = self._node, self._node.world
        if end is not None:
            del self._held[end]
            end.peer = output.address
            self._opened(end, output.attempt)
        elif error is not None:
            world.note(node.name, "refused", str(error).encode())
            world.observe(node.name, "refused", (output.address, error))
            node.core.connect_failed(output.attempt, error, node.clock.monotonic())
            node.pump()

    def _opened(self, end: End, attempt: int | None) -> None:
        node, world = self._node, self._node.world
        end.link = world.next_link()
        self.ends[end.link] = end
        world.note(node.name, "opened")
        world.observe(node.name, "connected", end.link)
        node.core.link_opened(end.link, node.clock.monotonic(), peer=end.peer, attempt=attempt)
        node.pump()
        if end.inbox:
            self.readable(end)

    def _read(self, end: End) -> None:
        end.is_queued = False
        inbox = end.inbox
        if not inbox or end.is_read_paused or end.link not in self.ends:
            return
        item = inbox.pop(0)
        if isinstance(item, Mark):
            self._ended(end, item)
            return
        if inbox and not isinstance(inbox[0], Mark):
            pieces, size = [item], len(item)
            while inbox and not isinstance(inbox[0], Mark) and size + len(inbox[0]) <= READ_BYTES:
                piece = inbox.pop(0)
                assert isinstance(piece, bytes)
                pieces.append(piece)
                size += len(piece)
            item = b"".join(pieces)
        end.inbox_bytes -= len(item)
        self._streams.window_opened(end)
        node, world = self._node, self._node.world
        world.note(node.name, "bytes", item)
        if world.observers or "bytes" in world.watched:
            world.observe(node.name, "bytes", (end.link, item))
        node.core.link_bytes(end.link, item, node.clock.monotonic())
        node.pump()
        if inbox:
            self.readable(end)

    def _ended(self, end: End, mark: Mark) -> None:
        node, world = self._node, self._node.world
        node.hear_waiting()
        node.pump()
        if self.ends.pop(end.link, None) is None:
            return
        self._streams.close(end)
        error = ConnectionResetError("connection reset by peer") if mark is Mark.RST else None
        world.note(node.name, "closed", mark.value.encode())
        world.observe(node.name, "closed", (end.link, error))
        node.core.link_closed(end.link, error, node.clock.monotonic())
        node.pump()

    def _write_more(self, end: End) -> None:
        self._node.mark_dirty(end)
        self._node.pump()

    # The process's side: outputs.

    def connect(self, output: Connect) -> None:
        """Open a connection for the core."""
        node = self._node
        incarnation = node.incarnation
        node.world.observe(node.name, "connect", output.address)

        def done(end: End | None, error: Exception | None) -> None:
            if node.incarnation == incarnation:
                if end is not None:
                    self._held[end] = None
                node.enter(self._connected, output, end, error)

        self._streams.connect(
            End(self.machine, self, incarnation),
            output.address[1],
            output.timeout,
            done,
            lambda: node.incarnation == incarnation,
        )

    def write(self, output: Write) -> None:
        """Collect what is written until the pump flushes it."""
        end = self.ends.get(output.link)
        if end is not None:
            end.pending.extend(output.chunks)
            self._node.mark_dirty(end)

    def flush(self, end: End) -> None:
        """Hand over what the kernel takes, and report it."""
        taken = self._streams.write(end)
        if taken and end.link in self.ends:
            node = self._node
            world = node.world
            if world.observers or "write" in world.watched:
                world.observe(node.name, "write", (end.link, taken))
            node.core.writable(end.link, end.sent, node.clock.monotonic())

    def close(self, output: Close) -> None:
        """Close a connection for the core."""
        end = self.ends.pop(output.link, None)
        if end is not None:
            if output.flush:
                self._streams.write(end)
            self._streams.close(end, abort=output.abort)

    def pause(self, output: Pause) -> None:
        """Stop reading."""
        end = self.ends.get(output.link)
        if end is not None:
            end.is_read_paused = True

    def resume(self, output: Resume) -> None:
        """Read again."""
        end = self.ends.get(output.link)
        if end is not None and end.is_read_paused:
            end.is_read_paused = False
            self._node.after(0.0, self.readable, end)

    # Connections beside the core's.

    def hold(self, end: End) -> None:
        """Keep an end that a probe has opened."""
        self._held[end] = None

    def give_back(self, end: End) -> None:
        """Close it."""
        self._held.pop(end, None)
        self._streams.close(end)
