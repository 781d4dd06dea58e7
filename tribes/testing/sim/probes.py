"""Clients of a node that are not its core: the connections of probes, and strangers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.testing.sim.ends import End, Mark

if TYPE_CHECKING:
    from tribes.testing.sim.driver import Driver
    from tribes.testing.sim.world import World
    from tribes.wire.outputs import Probe

__all__ = ["ProbeClient", "Stranger"]

_STRANGER_TIMEOUT_S = 10.0


class ProbeClient:
    """One probe of a node: a connection of its own, as the trio driver makes it.

    The target's core sees it like any connection and has to answer; nothing here knows whether the
    target is well.

    Args:
        node: Who asks.
        output: What its core wants to know.
    """

    def __init__(self, node: Driver, output: Probe) -> None:
        self._node = node
        self._output = output
        self._is_over = False
        self._incarnation = node.incarnation
        self._end = End(node.name, self, node.incarnation)

    def start(self) -> None:
        """Ask for the connection."""
        output = self._output
        self._node.world.streams.connect(
            self._end,
            output.address[1],
            output.connect_timeout,
            self._done,
            lambda: self._node.incarnation == self._incarnation,
        )

    def _done(self, end: End | None, error: Exception | None) -> None:
        if self._node.incarnation == self._incarnation:
            if end is not None:
                self._node.sockets.hold(end)
            self._node.enter(self._connected, error)

    def _connected(self, error: Exception | None) -> None:
        output = self._output
        if error is not None:
            self._answer(error)
        elif not output.data:
            self._answer(None)
        else:
            self._end.pending.append(output.data)
            late = TimeoutError(f"no answer within {output.reply_timeout:g} s")
            self._write()
            if not self._is_over:
                node = self._node
                node.after(output.reply_timeout, self._answer, late)
                if self._end.inbox:
                    self._read()

    def _write(self) -> None:
        if self._is_over:
            return
        self._node.world.streams.write(self._end)
        if not self._end.pending and not self._output.expect_reply:
            self._answer(None)

    def _read(self) -> None:
        self._end.is_queued = False
        if self._is_over or not self._end.inbox:
            return
        head = self._end.inbox[0]
        if isinstance(head, bytes):
            self._end.inbox.clear()
            self._end.inbox_bytes = 0
            self._answer(None)
        else:
            why = "reset it" if head is Mark.RST else "closed it"
            self._answer(ConnectionResetError(f"it was asked on a connection and {why}"))

    def _answer(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        node = self._node
        if hasattr(self._end, "other"):
            node.sockets.give_back(self._end)
        node.world.observe(node.name, "probe", (self._output.address, error))
        node.probe_answered(self._output.probe, error)

    # The end's owner.

    def readable(self, end: End) -> None:
        """The answer, or the end of the connection."""
        if self._node.incarnation == self._incarnation and not end.is_queued:
            end.is_queued = True
            self._node.enter(self._read)

    def writable(self, end: End) -> None:
        """The window opened."""
        if self._node.incarnation == self._incarnation and end.is_open:
            self._node.enter(self._write)


class Stranger:
    """A client outside the cluster, under a test's control.

    Args:
        world: Where it lives.
        port: What it connects to.
        data: What it writes once connected.
    """

    def __init__(self, world: World, port: int, data: bytes) -> None:
        self.received = bytearray()
        """What the node has answered."""
        self.error: Exception | None = None
        """Why the connection failed or ended; None while it is open or being made."""
        self.is_connected = False
        self._world = world
        self._end = End("", self, 0)
        self._data = data
        world.streams.connect(self._end, port, _STRANGER_TIMEOUT_S, self._done, lambda: True)

    def _done(self, end: End | None, error: Exception | None) -> None:
        self.error = error
        self.is_connected = end is not None
        if self._data:
            self.write(self._data)

    def write(self, data: bytes) -> None:
        """Send more."""
        if self.is_connected:
            self._end.pending.append(data)
            self._world.streams.write(self._end)

    def close(self) -> None:
        """Close the connection."""
        if self.is_connected:
            self.is_connected = False
            self._world.streams.close(self._end)

    # The end's owner.

    def readable(self, end: End) -> None:
        """Keep what the node answers."""
        while end.inbox:
            item = end.inbox.pop(0)
            if isinstance(item, bytes):
                self.received += item
                end.inbox_bytes -= len(item)
            else:
                self.error = ConnectionResetError(f"connection ended by {item.value}")
                self.close()
                return

    def writable(self, end: End) -> None:
        """Write what had to wait."""
        self._world.streams.write(end)
