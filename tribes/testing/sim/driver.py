"""The driver of a :class:`NodeCore` in virtual time.

It does what the trio shell does, in the same order: an input, then the core's outputs, then the
bytes they put on connections, until there is nothing left. What a process can't do while it is
stopped or slow waits in its machine's kernel, with a kernel's bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from tribes.channel.outputs import Deliver, Event, TicketDone
from tribes.manager.expiry import SessionExpired
from tribes.testing.sim.clocks import MachineClock
from tribes.testing.sim.probes import ProbeClient
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
    from tribes.node import NodeCore
    from tribes.testing.sim.ends import End
    from tribes.testing.sim.process import Process
    from tribes.testing.sim.sockets import Sockets
    from tribes.testing.sim.world import World
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["Driver"]

INPUT_COST_S = 50e-6
"""CPU time of one input, in seconds, times ``throttle``."""

DATAGRAM_QUEUE = 256
"""Datagrams that a kernel keeps for a process that doesn't read; more are dropped."""


_SOMEBODY = ("127.0.0.1", 0)


class Driver:
    """Inputs and outputs of the process on a simulated machine.

    Args:
        world: Where it lives.
        name: Its name.
        port: Its TCP port.
        clock_offset_ms: How far its wall clock is ahead of the world's.
    """

    def __init__(self, world: World, name: str, port: int, clock_offset_ms: int) -> None:
        self.world = world
        self.name = name
        self.hears = f"{name} datagram\n".encode()
        """What a world's log says of it in most lines."""
        self.clock = MachineClock(lambda: world.now, clock_offset_ms)
        """Its wall clock and its monotonic clock."""
        self.incarnation = 0
        """Goes up with every start and every end of the process."""
        self.is_alive = False
        self.is_paused = False
        self.throttle = 1.0
        """How many times slower than normal its processor is. At 1.0 inputs cost no time; else
        each costs ``INPUT_COST_S`` times this, and the next one waits."""
        self.delivery_s = 0.0
        """Seconds that its listeners take for a message."""
        self.datagrams_dropped = 0
        """Datagrams that its kernel had no room for."""
        self.events: list[tuple[float, Event]] = []
        self.messages: list[ChannelData] = []
        """What the listeners got, over all incarnations."""
        self.on_message: Callable[[ChannelData], None] | None = None
        """A listener; may raise, as users' do."""
        self.done: dict[int, dict[Member, Exception]] = {}
        """Outcome of each ``send`` by its ticket."""
        self.process: Process
        self.core: NodeCore
        self.sockets: Sockets
        self._backlog: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_working = False
        self._datagrams: deque[bytes] = deque()
        self._dirty: dict[End, None] = {}
        self._timer_at = inf
        self._is_pumping = False
        self._perform: dict[type, Callable[[Any], None]] = {}
        self._dies_in_send = False
        self._drain_until: float | None = None

    def _forget(self) -> None:
        # A new process: nothing of the old one is left.
        self._backlog.clear()
        self._datagrams.clear()
        self._dirty = {}
        self._timer_at = inf
        self._is_working = self._dies_in_send = False
        self._drain_until = None

    # Its end, by which some outputs are cut short.

    @property
    def is_drained(self) -> bool:
        """True when it has begun to leave, and everybody has what is here.

        A slow process begins later than it is told to.
        """
        core = self.core
        return core.sessions.is_retired and not len(self.process.inbox) and core.is_drained

    def _leave(self) -> None:
        self._drain_until = None
        self.core.stop(self.clock.monotonic())
        self.pump()
        if self.is_alive:
            self._die("stopped")

    def _die(self, how: str, keep_sockets: bool = False) -> None:
        self.world.note(self.name, "die", how.encode())
        self.world.observe(self.name, "crash", how)
        self.is_alive = False
        self.incarnation += 1
        self._forget()
        self.sockets.orphan(keep_sockets)

    # Inputs: at once, or in their turn when the process is stopped or slow.

    @property
    def is_free(self) -> bool:
        """Whether an input is taken in at once."""
        return not (self.is_paused or self._backlog or self._is_working or self.throttle != 1.0)

    def enter(self, work: Callable[..., None], *args: Any) -> None:
        """Let the process do something now, or when it can."""
        if not self.is_alive:
            return
        if self.is_free:
            work(*args)
            return
        self._backlog.append((work, args))
        if not self.is_paused and not self._is_working:
            self._is_working = True
            self._next_work()

    def _next_work(self) -> None:
        delay = 0.0
        if self.throttle != 1.0:
            delay = INPUT_COST_S * self.throttle
        self.world.schedule(delay, self._work, self.incarnation)

    def _work(self, incarnation: int) -> None:
        if incarnation != self.incarnation:
            return
        if self.is_paused:
            self._is_working = False
            return
        while self._backlog:
            work, args = self._backlog.popleft()
            work(*args)
            if incarnation != self.incarnation:
                return
            if self.throttle != 1.0 and self._backlog:
                self._next_work()
                return
        self._is_working = False

    def after(self, delay: float, work: Callable[..., None], *args: Any) -> None:
        """Let the process do something later, if it is still the same one then."""
        self.world.schedule(delay, self._later, self.incarnation, work, args)

    def _later(self, incarnation: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
        if incarnation == self.incarnation:
            self.enter(work, *args)

    def wake(self) -> None:
        """A request thread has left something in the inbox."""
        self.after(0.0, self._commits)

    def _commits(self) -> None:
        while (batch := self.process.inbox.take()) is not None:
            self.core.commits(batch, self.clock.monotonic())
        self.pump()

    def heard(self, data: bytes, incarnation: int) -> None:
        """A datagram of the group arrived at the machine."""
        if incarnation != self.incarnation:
            return
        if self.is_free:
            self.world.note_heard((self,), data)
            self.take_in(data)
        elif len(self._datagrams) >= DATAGRAM_QUEUE:
            self.datagrams_dropped += 1
        else:
            self._datagrams.append(data)
            self.enter(self._hear_next)

    def _hear_next(self) -> None:
        if self._datagrams:
            self._hear(self._datagrams.popleft())
            self.pump()

    def take_in(self, data: bytes) -> None:
        """Give a datagram of the group to the process, which is free and alive."""
        channel, clock = self.core.channel, self.clock
        timers = channel.timers
        set_before = timers.count
        channel.datagram(data, _SOMEBODY, self.world.now if clock.is_exact else clock.monotonic())
        # Hardly any heartbeat of a large group changes anything.
        if channel.has_outputs or self._dirty:
            self.pump()
        elif timers.count != set_before:
            self._arm()

    def _hear(self, data: bytes) -> None:
        self.world.note_heard((self,), data)
        self.core.datagram(data, _SOMEBODY, self.clock.monotonic())

    def heard_udp(self, data: bytes, sender: tuple[str, int], incarnation: int) -> None:
        """A datagram arrived at the machine's UDP port."""
        if incarnation == self.incarnation:
            self.enter(self._hear_udp, data, sender)

    def _hear_udp(self, data: bytes, sender: tuple[str, int]) -> None:
        self.world.note(self.name, "udp", data)
        self.core.udp_datagram(data, sender, self.clock.monotonic())
        self.pump()

    def hear_waiting(self) -> None:
        """Take in the datagrams that wait: a leaving member says so before it closes."""
        while self._datagrams:
            self._hear(self._datagrams.popleft())

    def probe_answered(self, probe: int, error: Exception | None) -> None:
        """A probe of this process has its result."""
        self.world.note(self.name, "probe", str(error).encode())
        self.core.probe_result(probe, error, self.clock.monotonic())
        self.pump()

    def mark_dirty(self, end: End) -> None:
        """Something waits to be written; :meth:`pump` does it."""
        self._dirty[end] = None

    # Time.

    def _arm(self) -> None:
        deadline = self.core.channel.timers.next_deadline
        if deadline >= self._timer_at:
            return
        self._timer_at = deadline
        delay = max(0.0, self.clock.true_time_of(deadline) - self.world.now)
        self.world.schedule(delay, self._timer_due, self.incarnation, deadline)

    def _timer_due(self, incarnation: int, deadline: float) -> None:
        # One that was set before an earlier one is nobody's any more.
        if deadline == self._timer_at and incarnation == self.incarnation:
            self.enter(self._timer, deadline)

    def _timer(self, deadline: float) -> None:
        if deadline != self._timer_at:
            return
        self._timer_at = inf
        now, deadline = self.clock.monotonic(), self.core.next_deadline
        if deadline - now < 1e-9:
            # Not before its time, but for rounding.
            self.world.note(self.name, "timer")
            self.core.timer(max(now, deadline))
            self.pump()
        else:
            self._arm()

    # Outputs.

    def _plug_in(self, sockets: Sockets) -> None:
        self.sockets = sockets
        self._perform = {
            Datagram: self._datagram,
            UdpDatagram: self._udp_datagram,
            Write: sockets.write,
            Connect: sockets.connect,
            Close: sockets.close,
            Pause: sockets.pause,
            Resume: sockets.resume,
            Probe: self._ask,
            Deliver: self._deliver,
            TicketDone: self._ticket_done,
        }

    def pump(self) -> None:
        """Perform the core's outputs, and the outputs of what that causes."""
        if self._is_pumping or not self.is_alive:
            return
        self._is_pumping = True
        core, incarnation = self.core.channel, self.incarnation
        perform, event = self._perform, self._event
        try:
            while True:
                while outputs := core.take_outputs():
                    for output in outputs:
                        perform.get(type(output), event)(output)
                        if incarnation != self.incarnation:
                            return
                if not self._dirty:
                    break
                dirty, self._dirty = self._dirty, {}
                if self._dies_in_send:
                    self._die_in_send(list(dirty))
                    return
                for end in dirty:
                    self.sockets.flush(end)
        finally:
            self._is_pumping = False
        self.core.wake_waiters()
        if self._drain_until is not None and self.is_drained:
            self._leave()
        else:
            self._arm()

    def _die_in_send(self, dirty: list[End]) -> None:
        random = self.world.random
        last = random.randrange(len(dirty))
        for end in dirty[:last]:
            self.sockets.flush(end)
        end = dirty[last]
        data = b"".join(end.pending)
        if data:
            end.pending[:] = [data[: random.randrange(len(data))]]
            self.world.streams.write(end)
        self._die("crashed during a send")

    def _event(self, output: Any) -> None:
        self.world.note(self.name, output.name)
        self.world.observe(self.name, "event", output)
        self.events.append((self.world.now, output))
        if isinstance(output, SessionExpired):
            self.after(self.delivery_s, self._tell_expired, output)

    def _tell_expired(self, event: SessionExpired) -> None:
        self.process.manager(event.context).notify_destroyed(event.key, "expired")

    def _datagram(self, output: Datagram) -> None:
        self.world.network.multicast(self, output.data)

    def _udp_datagram(self, output: UdpDatagram) -> None:
        world = self.world
        name = world.streams.machines.get(output.address[1])
        if name is not None:
            world.network.unicast(self, world.nodes[name], output.data)

    def _ticket_done(self, output: TicketDone) -> None:
        self.done[output.ticket] = output.faulty

    def _ask(self, output: Probe) -> None:
        ProbeClient(self, output).start()

    def _deliver(self, output: Deliver) -> None:
        error: Exception | None = None
        incarnation = self.incarnation
        self.world.observe(self.name, "deliver", output.message)
        self.messages.append(output.message)
        try:
            self.listen(output.message)
        except Exception as why:  # noqa: BLE001 - users' code: the sender is told
            error = why
        if incarnation != self.incarnation:
            return
        if self.delivery_s:
            self.after(self.delivery_s, self._delivered, output.token, error)
        else:
            self.core.delivered(output.token, error, self.clock.monotonic())

    def listen(self, data: ChannelData) -> None:
        """Give a message to the process's listeners; may raise, as users' do."""
        if self.on_message is not None:
            self.on_message(data)

    def _delivered(self, token: int, error: Exception | None) -> None:
        self.core.delivered(token, error, self.clock.monotonic())
        self.pump()
