"""A simulated machine with one node process: what tests do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tribes.ids import UniqueId
from tribes.testing.sim.disk import Disk
from tribes.testing.sim.driver import Driver
from tribes.testing.sim.process import Process, SimWaiter
from tribes.testing.sim.rpc import deliver_rpc
from tribes.testing.sim.sockets import Sockets

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.config.model import NodeConfig
    from tribes.manager.delta import DeltaManager
    from tribes.maps.lazy import LazyCore
    from tribes.maps.manager import MapManager
    from tribes.testing.sim.world import World
    from tribes.wire.data import ChannelData

__all__ = ["SimNode", "SimWaiter"]

SEND_CRASH_WAIT_S = 1.0
"""How long ``crash(during_send=True)`` waits for a write to die in, in seconds."""


class SimNode(Driver):
    """One simulated machine with one node process on it.

    Args:
        world: Where it lives.
        name: Its name.
        config: Settings of the node.
        port: Its TCP port.
        interceptors: Makes its chain; None: as configured.
        clock_offset_ms: How far its wall clock is ahead of the world's.
    """

    def __init__(
        self,
        world: World,
        name: str,
        config: NodeConfig,
        port: int,
        *,
        interceptors: Callable[[], list[Interceptor]] | None = None,
        clock_offset_ms: int = 0,
    ) -> None:
        super().__init__(world, name, port, clock_offset_ms)
        self.config = config
        """Settings of its next start."""
        self.disk: Disk = Disk()
        """Files by name; they survive every crash."""
        self._plug_in(Sockets(self, port))
        self.make_interceptors = interceptors

    # What tests do.

    @property
    def port(self) -> int:
        """Its TCP port: another one after a restart while a child holds the old one."""
        return self.sockets.port

    @property
    def clock_offset_ms(self) -> int:
        """How far its wall clock is ahead of the world's, in ms."""
        return self.clock.offset_ms

    @clock_offset_ms.setter
    def clock_offset_ms(self, offset_ms: int) -> None:
        self.clock.offset_ms = offset_ms

    @property
    def disk_full(self) -> bool:
        """While true, writes to ``disk`` raise ``OSError`` with ``ENOSPC``."""
        return self.disk.is_full

    @disk_full.setter
    def disk_full(self, is_full: bool) -> None:
        self.world.fault(self.name, f"disk full {is_full}")
        self.disk.is_full = is_full

    def start(self, *, same_id: bool = False) -> None:
        """Start the process: empty memory, and a new unique id unless ``same_id``."""
        if self.is_alive:
            self._die("killed")
        world = self.world
        old = UniqueId(self.process.local.unique_id) if same_id and self.incarnation else None
        self.incarnation += 1
        self.is_alive, self.is_paused = True, False
        self._forget()
        self.sockets.listen()
        self.process = Process(self, unique_id=old)
        self.core = self.process.core
        world.note(self.name, "start")
        world.observe(self.name, "start", self.process.local)
        self.core.start(self.clock.monotonic())
        self.pump()

    def restart(self, same_id: bool = False) -> None:
        """Start again, in good order where the process still runs: its memory is lost."""
        if self.is_alive:
            self.stop()
        self.start(same_id=same_id)

    def drain(self) -> None:
        """Compare with every member, before it is stopped; see ``NodeCore.drain``."""
        if self.is_alive and not self.is_paused:
            self.enter(lambda: self.core.drain(self.clock.monotonic()))

    def stop(self, drain: float = 0.0) -> None:
        """Leave the group in good order.

        Args:
            drain: Seconds to wait at most until every member has what is here.
        """
        if not self.is_alive:
            return
        if drain > 0:
            self.drain()
        if drain > 0 and not self.is_drained:
            self._drain_until = self.world.now + drain
            self.after(drain, self._leave)
        else:
            self._leave()

    def crash(self, keep_sockets: bool = False, during_send: bool = False) -> None:
        """``kill -9``: memory is gone, the disk stays, the machine closes the connections.

        Args:
            keep_sockets: A forked child holds the sockets, so nobody is told: connections are
                made and bytes taken, and nothing answers. ``sockets.release()`` ends the child.
            during_send: Die in the middle of the next write, with a part of its outputs done and a
                part of its bytes handed over; after ``SEND_CRASH_WAIT_S`` without a write anyway.
        """
        if not self.is_alive:
            return
        if during_send:
            self._dies_in_send = True
            incarnation = self.incarnation
            self.world.schedule(SEND_CRASH_WAIT_S, self._die_at_last, incarnation)
        else:
            self._die("crashed, sockets kept" if keep_sockets else "crashed", keep_sockets)

    def _die_at_last(self, incarnation: int) -> None:
        if incarnation == self.incarnation:
            self._die("crashed")

    def pause(self) -> None:
        """``SIGSTOP``: the machine goes on accepting, the process does nothing."""
        self.world.fault(self.name, "pause", kind="pause")
        self.is_paused = True

    def resume(self) -> None:
        """``SIGCONT``: what arrived meanwhile is worked off in order."""
        if not self.is_alive or not self.is_paused:
            return
        self.world.fault(self.name, "resume", kind="resume")
        self.is_paused = False
        if self._backlog and not self._is_working:
            self._is_working = True
            self.world.schedule(0.0, self._work, self.incarnation)

    def runs(self, context: str) -> bool:
        """Whether this node shares the sessions of a context, as a holder of copies does too."""
        return not self.config.contexts or context in self.config.replicated

    def manager(self, context: str = "app") -> DeltaManager:
        """The session manager of a context."""
        return self.process.manager(context)

    def open_map(self, name: str = "map", *, options: int = 2) -> MapManager:
        """Open a replicated map in the process as it runs now."""
        manager = self.process.open_map(name, options)
        self.pump()
        return manager

    def open_lazy_map(self, name: str = "lazy", *, options: int = 2, copies: int = 1) -> LazyCore:
        """Open a lazy map in the process as it runs now."""
        lazy = self.process.open_lazy_map(name, options, copies)
        self.pump()
        return lazy

    def send(self, payload: bytes, to: Iterable[SimNode], options: int) -> int:
        """Send a message; its outcome appears in ``done`` under the returned ticket."""
        members = [node.core.local for node in to]
        ticket, _ = self.core.send(members, payload, options, self.clock.monotonic())
        self.pump()
        return ticket

    def listen(self, data: ChannelData) -> None:
        """What the driver calls for a message: the RPC channel that it is for, and the listener."""
        deliver_rpc(self, data)
        if self.on_message is not None:
            self.on_message(data)

    def names(self) -> list[str]:
        """Names of the members that this node sees, itself included, sorted."""
        seen = [member.payload.decode() for member in self.core.view.members]
        return sorted([self.name, *seen])

    def wall_ms(self) -> int:
        """The node's wall clock, in ms since 1970."""
        return self.clock.wall_ms()
