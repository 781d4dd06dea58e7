"""A simulated world: real node cores on an event heap instead of sockets and clocks.

The same :class:`NodeCore` that the trio shell drives runs here, so a whole cluster lives in one
thread, thousands of times faster than real time, and the same seed gives the same events, byte for
byte (``World.digest``). Simulated are the multicast group, TCP connections (in order, refused by a
dead process, silent across a partition), pauses, crashes and clocks with an offset.

::

    world = World(seed=1)
    a, b, c = (world.start(name) for name in "abc")
    world.run(3)
    b.crash()
    world.run(1)
    assert a.names() == ["a", "c"]
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from tribes.channel.outputs import Deliver, Event, TicketDone
from tribes.config.model import NodeConfig
from tribes.ids import make_unique_id
from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
from tribes.manager.base import SessionManager
from tribes.manager.clock import Clock
from tribes.manager.inbox import CommitResult, Inbox
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.node import NodeCore
from tribes.wire.member import Member, host_octets
from tribes.wire.outputs import Close, Connect, Datagram, Pause, Probe, Resume, Write

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.channel.core import Output
    from tribes.wire.data import ChannelData

__all__ = ["SimNode", "SimWaiter", "World"]

EPOCH_MS = 1_800_000_000_000
"""Wall clock of a world at its start; any value would do."""


class SimWaiter:
    """Notes the result of a commit."""

    def __init__(self) -> None:
        self.result: CommitResult | None = None

    @property
    def is_done(self) -> bool:
        """Whether the result is known."""
        return self.result is not None

    def resolve(self, result: CommitResult) -> None:
        """Called by the core."""
        self.result = result


class _End:
    """One end of a TCP connection: where its bytes go, and what is still under way to it."""

    __slots__ = ("arrival", "attempt", "backlog", "incarnation", "link", "node", "other", "sent")

    def __init__(self, node: SimNode, link: int) -> None:
        self.node = node
        self.incarnation = node.incarnation
        self.link = link
        self.other: _End | None = None
        self.sent = 0
        self.arrival = 0.0
        self.attempt: int | None = None
        self.backlog: deque[bytes | None] = deque()
        """What arrived at the machine and was not read yet; None is the end of the stream."""


class World:
    """Nodes, network and time.

    Args:
        seed: Everything random comes from it.
        latency: Seconds a datagram or a piece of a stream needs, at least.
        jitter: Seconds that may be added.
    """

    def __init__(self, seed: int = 0, *, latency: float = 0.0003, jitter: float = 0.0005) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.latency = latency
        self.jitter = jitter
        self.loss = 0.0
        """Share of the datagrams that get lost."""
        self.nodes: dict[str, SimNode] = {}
        self.events = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._cuts: set[tuple[str, str]] = set()
        self._links = 0
        self._log = hashlib.sha256()

    # What tests do.

    def start(self, name: str, config: NodeConfig | None = None, **changes: Any) -> SimNode:
        """Start a node, for the first time or again: memory lost, a new unique id.

        Args:
            name: Name of the node; also its payload and, by its order, its port.
            config: Its settings; contexts default to ``("app",)``.
            changes: Keywords for :class:`SimNode` (``interceptors``, ``clock_offset_ms``).
        """
        node = self.nodes.get(name)
        if node is None:
            made = config or NodeConfig(name=name, contexts=("app",))
            if not made.name:
                made = msgspec.structs.replace(made, name=name)
            node = self.nodes[name] = SimNode(self, name, made, 4000 + len(self.nodes), **changes)
        node.start()
        return node

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(self.now + seconds)

    def run_until(self, when: float, condition: Callable[[], bool] | None = None) -> bool:
        """Run until a moment, or until a condition holds; tells whether it does."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            if condition is not None and condition():
                return True
            self.now, _, event = heapq.heappop(heap)
            self.events += 1
            event()
        if condition is not None and condition():
            return True
        self.now = max(self.now, when)
        return False

    def partition(self, *groups: Iterable[SimNode]) -> None:
        """Cut the network between the groups; a node in none of them is cut off from all."""
        side = {node.name: i for i, group in enumerate(groups) for node in group}
        self._cuts = {
            (a, b)
            for a in self.nodes
            for b in self.nodes
            if a != b and side.get(a, f"-{a}") != side.get(b, f"-{b}")
        }

    def heal(self) -> None:
        """Take all cuts back; streams go on where they were."""
        self._cuts = set()
        for node in self.nodes.values():
            node.resume_streams()

    @property
    def digest(self) -> str:
        """Hash of everything that happened so far: equal seeds give equal digests."""
        return self._log.copy().hexdigest()

    # What nodes do.

    def at(self, delay: float, event: Callable[[], None]) -> None:
        """Run ``event`` after ``delay`` seconds; ties in the order in which they were set."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, event))

    def delay(self) -> float:
        """The time one transmission takes."""
        return self.latency + self.jitter * self.random.random()

    def reaches(self, source: SimNode, target: SimNode) -> bool:
        """Whether anything sent by one node can arrive at another."""
        return (source.name, target.name) not in self._cuts

    def note(self, node: str, what: str, data: bytes = b"") -> None:
        """Add to the digest."""
        self._log.update(f"{self.now!r} {node} {what} {len(data)}\n".encode())
        self._log.update(data)

    def multicast(self, source: SimNode, data: bytes) -> None:
        """One datagram to every node, the sender included."""
        for target in self.nodes.values():
            if self.reaches(source, target) and self.random.random() >= self.loss:
                incarnation = target.incarnation
                self.at(self.delay(), lambda t=target, i=incarnation: t.heard(data, i))  # type: ignore[misc]

    def next_link(self) -> int:
        """A number for one end of a connection."""
        self._links += 1
        return self._links

    def at_address(self, address: tuple[str, int]) -> SimNode | None:
        """The node that has this address, running or not."""
        for node in self.nodes.values():
            if node.port == address[1]:
                return node
        return None


class SimNode:
    """One simulated machine with one node process on it.

    Args:
        world: Where it lives.
        name: Its name.
        config: Settings of the node.
        port: Its TCP port.
        interceptors: Makes its chain; None: the default one.
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
        self.world = world
        self.name = name
        self.config = config
        self.port = port
        self.clock_offset_ms = clock_offset_ms
        self.incarnation = 0
        self.is_alive = False
        self.is_paused = False
        self.events: list[tuple[float, Event]] = []
        self.messages: list[ChannelData] = []
        """What the listeners got, over all incarnations."""
        self.on_message: Callable[[ChannelData], None] | None = None
        """A listener; may raise, as users' do."""
        self.done: dict[int, dict[Member, Exception]] = {}
        """Outcome of each ``send`` by its ticket."""
        self.core: NodeCore
        self._make_interceptors = interceptors or default_stack
        self._ends: dict[int, _End] = {}
        self._stalled: set[int] = set()
        self._waiting: list[Callable[[], None]] = []
        self._timer_at = float("inf")
        self._is_pumping = False

    # What tests do.

    def start(self) -> None:
        """Start the process: empty memory, new unique id."""
        world = self.world
        self.incarnation += 1
        self.is_alive, self.is_paused = True, False
        self._ends, self._stalled, self._waiting = {}, set(), []
        self._timer_at = float("inf")
        self._managers: dict[str, SessionManager] = {}
        self._entropy = Random(world.random.getrandbits(64))
        self._clock = Clock(self.wall_ms, self._entropy.getrandbits(32), nullcontext())
        self._inbox = Inbox(nullcontext())
        self._inbox.wake = self._wake
        local = Member(
            host=host_octets("127.0.0.1"),
            port=self.port,
            unique_id=make_unique_id(self._entropy.randbytes(16)),
            payload=self.name.encode(),
        )
        self.core = NodeCore(
            self.config,
            local,
            interceptors=self._make_interceptors(),
            make_manager=self.manager,
            wall_ms=self.wall_ms,
            entropy=self._entropy.randbytes,
            randrange=self._entropy.randrange,
        )
        world.note(self.name, "start")
        self.core.start(world.now)
        self.pump()

    def stop(self) -> None:
        """Leave the group in good order."""
        self.core.stop(self.world.now)
        self.pump()
        self._die()

    def crash(self) -> None:
        """``kill -9``: memory is gone, the machine closes the connections."""
        self._die()

    def _die(self) -> None:
        self.world.note(self.name, "die")
        self.is_alive = False
        self.incarnation += 1
        for end in list(self._ends.values()):
            self._hang_up(end)
        self._ends.clear()

    def pause(self) -> None:
        """``SIGSTOP``: the machine goes on accepting, the process does nothing."""
        self.is_paused = True

    def resume(self) -> None:
        """``SIGCONT``: what arrived meanwhile is worked off in order."""
        self.is_paused = False
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event()
        self._arm()

    def manager(self, context: str = "app") -> SessionManager:
        """The session manager of a context."""
        manager = self._managers.get(context)
        if manager is None:
            settings = self.config.manager
            manager = self._managers[context] = SessionManager(
                context,
                SessionTable(nullcontext(), self._inbox, max_inactive_s=settings.max_inactive_s),
                self._clock,
                inbox=self._inbox,
                codec=ValueCodec(),
                entropy=self._entropy.randbytes,
                monotonic=lambda: self.world.now,
                max_inactive_s=settings.max_inactive_s,
                session_id_length=settings.session_id_length,
                max_active_sessions=settings.max_active_sessions,
            )
        return manager

    def send(self, payload: bytes, to: Iterable[SimNode], options: int) -> int:
        """Send a message; its outcome appears in ``done`` under the returned ticket."""
        members = [node.core.local for node in to]
        ticket, _ = self.core.send(members, payload, options, self.world.now)
        self.pump()
        return ticket

    def names(self) -> list[str]:
        """Names of the members that this node sees, itself included, sorted."""
        seen = [member.payload.decode() for member in self.core.view.members]
        return sorted([self.name, *seen])

    def wall_ms(self) -> int:
        """The node's wall clock."""
        return EPOCH_MS + self.clock_offset_ms + int(self.world.now * 1000)

    # The driver.

    def _wake(self) -> None:
        incarnation = self.incarnation

        def drain() -> None:
            while (batch := self._inbox.take()) is not None:
                self.core.commits(batch, self.world.now)
            self.pump()

        self.world.at(0.0, lambda: self._enter(incarnation, drain))

    def _enter(self, incarnation: int, event: Callable[[], None]) -> None:
        if incarnation != self.incarnation or not self.is_alive:
            return
        if self.is_paused:
            self._waiting.append(event)
        else:
            event()

    def _arm(self) -> None:
        deadline = self.core.next_deadline
        if deadline >= self._timer_at or deadline == float("inf"):
            return
        self._timer_at = deadline
        incarnation = self.incarnation
        delay = max(0.0, deadline - self.world.now)
        self.world.at(delay, lambda: self._enter(incarnation, self._timer))

    def _timer(self) -> None:
        self._timer_at = float("inf")
        now = self.world.now
        if now >= self.core.next_deadline:
            self.world.note(self.name, "timer")
            self.core.timer(now)
        self.pump()

    def heard(self, data: bytes, incarnation: int) -> None:
        """A datagram of the group arrived at the machine."""

        def event() -> None:
            self.world.note(self.name, "datagram", data)
            self.core.datagram(data, ("127.0.0.1", 0), self.world.now)
            self.pump()

        self._enter(incarnation, event)

    def pump(self) -> None:
        """Perform the core's outputs, and the outputs of what that causes."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while outputs := self.core.take_outputs():
                for output in outputs:
                    self._perform(output)
        finally:
            self._is_pumping = False
        self._arm()

    def _perform(self, output: Output) -> None:
        match output:
            case Datagram():
                self.world.multicast(self, output.data)
            case Connect():
                self._connect(output)
            case Write():
                self._write(output)
            case Close():
                end = self._ends.pop(output.link, None)
                if end is not None:
                    self._hang_up(end)
            case Pause():
                self._stalled.add(output.link)
            case Resume():
                self._stalled.discard(output.link)
                end = self._ends.get(output.link)
                if end is not None:
                    self.world.at(0.0, lambda: self._read(end))
            case Probe():
                self._probe(output)
            case Deliver():
                self._deliver(output)
            case TicketDone():
                self.done[output.ticket] = output.faulty
            case _:
                self.world.note(self.name, output.name)
                self.events.append((self.world.now, output))

    def _deliver(self, output: Deliver) -> None:
        error: Exception | None = None
        self.messages.append(output.message)
        if self.on_message is not None:
            try:
                self.on_message(output.message)
            except Exception as why:  # noqa: BLE001 - users' code: the sender is told
                error = why
        self.core.delivered(output.token, error, self.world.now)

    # TCP.

    def _connect(self, output: Connect) -> None:
        world, incarnation = self.world, self.incarnation
        target = world.at_address(output.address)

        def failed(error: Exception) -> None:
            self.core.connect_failed(output.attempt, error, world.now)
            self.pump()

        if target is None or not (world.reaches(self, target) and world.reaches(target, self)):
            late = TimeoutError(f"no connection within {output.timeout:g} s")
            world.at(output.timeout, lambda: self._enter(incarnation, lambda: failed(late)))
            return

        def arrive() -> None:
            if incarnation != self.incarnation:
                return
            if not target.is_alive:
                refused = ConnectionRefusedError("connection refused")
                world.at(world.delay(), lambda: self._enter(incarnation, lambda: failed(refused)))
                return
            mine, theirs = _End(self, world.next_link()), _End(target, world.next_link())
            mine.other, theirs.other = theirs, mine
            mine.attempt = output.attempt
            target._ends[theirs.link] = theirs
            target._enter(target.incarnation, lambda: target._opened(theirs))
            world.at(world.delay(), lambda: self._enter(incarnation, lambda: self._opened(mine)))

        world.at(world.delay(), arrive)

    def _opened(self, end: _End) -> None:
        self._ends[end.link] = end
        self.world.note(self.name, "opened")
        self.core.link_opened(end.link, self.world.now, peer=("127.0.0.1", 0), attempt=end.attempt)
        self.pump()
        self._read(end)

    def _write(self, output: Write) -> None:
        end = self._ends.get(output.link)
        if end is None or end.other is None:
            return
        data = b"".join(output.chunks)
        end.sent += len(data)
        total, incarnation = end.sent, self.incarnation
        self._transmit(end, data)

        def taken() -> None:
            if end.link in self._ends:
                self.core.writable(end.link, total, self.world.now)
                self.pump()

        self.world.at(0.0, lambda: self._enter(incarnation, taken))

    def _transmit(self, end: _End, data: bytes | None) -> None:
        other = end.other
        if other is None:
            return
        # In order: a stream's pieces keep their sequence, whatever the jitter.
        end.arrival = max(self.world.now + self.world.delay(), end.arrival)

        def arrive() -> None:
            other.backlog.append(data)
            other.node._read(other)

        self.world.at(end.arrival - self.world.now, arrive)

    def _hang_up(self, end: _End) -> None:
        self._transmit(end, None)

    def resume_streams(self) -> None:
        """The network is whole again: read what waited."""
        for end in list(self._ends.values()):
            self._read(end)

    def _read(self, end: _End) -> None:
        if end.incarnation != self.incarnation or not self.is_alive or not end.backlog:
            return
        if self.is_paused:
            self._waiting.append(lambda: self._read(end))
            return
        if end.link not in self._ends or end.link in self._stalled or end.other is None:
            return
        if not self.world.reaches(end.other.node, self):
            return
        data = end.backlog.popleft()
        if data is None:
            del self._ends[end.link]
            self.world.note(self.name, "closed")
            self.core.link_closed(end.link, None, self.world.now)
        else:
            self.world.note(self.name, "bytes", data)
            self.core.link_bytes(end.link, data, self.world.now)
        self.pump()
        if end.backlog:
            self.world.at(0.0, lambda: self._read(end))

    def _probe(self, output: Probe) -> None:
        world, incarnation = self.world, self.incarnation
        target = world.at_address(output.address)

        def answer(error: Exception | None) -> None:
            self.core.probe_result(output.probe, error, world.now)
            self.pump()

        def reply(error: Exception | None, after: float) -> None:
            world.at(after, lambda: self._enter(incarnation, lambda: answer(error)))

        if target is None or not (world.reaches(self, target) and world.reaches(target, self)):
            late = TimeoutError(f"no connection within {output.connect_timeout:g} s")
            reply(late, output.connect_timeout)
        elif not target.is_alive:
            reply(ConnectionRefusedError("connection refused"), 2 * world.delay())
        elif target.is_paused and output.expect_reply:
            silent = TimeoutError(f"no answer within {output.reply_timeout:g} s")
            reply(silent, output.reply_timeout)
        else:
            reply(None, 2 * world.delay())


def default_stack() -> list[Interceptor]:
    """The interceptors of a simulated node unless told otherwise."""
    return [MessageDispatchInterceptor(), TcpFailureDetector()]
