"""Channel cores piped together in memory, each with an address of its own, in lockstep."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from tribes.channel.core import ChannelCore
from tribes.channel.outputs import Deliver, Event, MemberRemoved, TicketDone
from tribes.config.model import ChannelConfig
from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
from tribes.security.keys import GroupKey, KeyRing
from tribes.wire.member import Member
from tribes.wire.outputs import Close, Connect, Datagram, Probe, Write

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.membership.view import View

ONE, TWO, THREE = (GroupKey(number, bytes([number]) * 32) for number in (1, 2, 3))
OTHER_ONE = GroupKey(1, bytes([99]) * 32)
"""Another group's key with the same id."""


def ring(*keys: GroupKey) -> KeyRing:
    return KeyRing(keys)


class Side:
    """One core with what it said."""

    def __init__(
        self,
        net: Net,
        host: str,
        port: int,
        keys: KeyRing | None,
        *,
        unique_id: bytes,
        config: ChannelConfig,
    ) -> None:
        self.net = net
        self.host = host
        self.port = port
        self.delivered: list[bytes] = []
        self.busy: list[int] | None = None
        """Deliveries that its listener is not done with; None: it is done at once."""
        self.done: dict[int, dict[Member, Exception]] = {}
        self.events: list[str] = []
        self.removals: list[MemberRemoved] = []
        self.sent: list[bytes] = []
        """Its heartbeats."""
        self.read: list[bytes] = []
        """What arrived on its connections."""
        self.answers: list[bytes] = []
        """What was answered on those that it made."""
        stack: list[Interceptor] = [MessageDispatchInterceptor(), TcpFailureDetector()]
        self.core = ChannelCore(
            Member(socket.inet_aton(host), port, unique_id, payload=b"%d" % port),
            config,
            stack,
            keys=keys,
            wall_ms=lambda: 1000,
            entropy=net.random.randbytes,
        )

    @property
    def view(self) -> View:
        return self.core.view

    @property
    def ports(self) -> list[int]:
        return sorted(member.port for member in self.core.view.members)

    def send(self, to: Side, payload: bytes, options: int = 6) -> int:
        ticket, _ = self.core.send([to.core.local], payload, options, self.net.now)
        return ticket


class Net:
    """The wires between the sides, and their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.random = Random(1)
        self.sides: dict[tuple[str, int], Side] = {}
        self._links = itertools.count(1)
        self._ends: dict[tuple[Side, int], tuple[Side | Callable[[bytes | None], None], int]] = {}
        self._written: dict[tuple[Side, int], int] = {}
        self.impostors: dict[tuple[str, int], bytes] = {}
        """Addresses where somebody reads and answers with these bytes."""
        self.hear: Callable[[Side, Side, bytes], bool] = lambda source, target, data: True
        """Whether a datagram arrives."""
        self.hung: set[tuple[Side, int]] = set()
        """Ends of connections from which nothing leaves any more, and nobody is told."""
        self.held: dict[tuple[Side, int], list[bytes]] = {}
        """What is under way on connections that are slow: it arrives with `release`."""

    def add(
        self,
        port: int,
        keys: KeyRing | None,
        *,
        host: str = "",
        unique_id: bytes = b"",
        config: ChannelConfig | None = None,
    ) -> Side:
        host = host or f"10.0.0.{port % 250}"
        side = Side(
            self,
            host,
            port,
            keys,
            unique_id=unique_id or self.random.randbytes(16),
            config=config or ChannelConfig(),
        )
        self.sides[host, port] = side
        side.core.start(self.now)
        self.pump()
        return side

    def kill(self, side: Side) -> None:
        """Its process dies; its machine closes the connections."""
        del self.sides[side.host, side.port]
        for end in [end for end in self._ends if end[0] is side]:
            self._close(end)

    def stop(self, side: Side) -> None:
        side.core.stop(self.now)
        self.pump()
        self.kill(side)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.pump()
            due = min((side.core.next_deadline for side in self.sides.values()), default=end)
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            for side in list(self.sides.values()):
                if side.core.next_deadline <= self.now:
                    side.core.timer(self.now)

    def pump(self) -> None:
        is_busy = True
        while is_busy:
            is_busy = False
            for side in list(self.sides.values()):
                is_busy = self._perform(side) or is_busy

    def datagram(self, data: bytes, host: str, *targets: Side) -> None:
        """Somebody at an address sends a datagram."""
        for side in targets:
            side.core.datagram(data, (host, 45564), self.now)
        self.pump()

    def connect(self, host: str, side: Side, data: bytes = b"") -> Stranger:
        """Somebody at an address connects and writes."""
        return Stranger(self, host, side, data)

    def accept(
        self, peer: tuple[str, int], target: Side, other: Side | Callable[[bytes | None], None]
    ) -> tuple[int, int]:
        near, far = next(self._links), next(self._links)
        self._ends[target, far] = (other, near)
        target.core.link_opened(far, self.now, peer=peer)
        return near, far

    def hang(self, side: Side) -> int:
        """Let the only connection that a core has made hang; returns it."""
        [end] = [end for end in self._ends if end[0] is side and side.core.senders.of_link(end[1])]
        self.hung.add(end)
        return end[1]

    def hold(self, side: Side) -> int:
        """Let what a core writes on its only connection take its time; returns it."""
        [end] = [end for end in self._ends if end[0] is side and side.core.senders.of_link(end[1])]
        self.held[end] = []
        return end[1]

    def release(self, side: Side, link: int) -> None:
        """What was held back arrives now."""
        for data in self.held.pop((side, link)):
            self._bring(side, link, data)
        self.pump()

    def is_open(self, side: Side, link: int) -> bool:
        return (side, link) in self._ends

    def _perform(self, side: Side) -> bool:
        outputs = side.core.take_outputs()
        for output in outputs:
            match output:
                case Datagram():
                    side.sent.append(output.data)
                    for target in list(self.sides.values()):
                        if self.hear(side, target, output.data):
                            address = (side.host, 45564)
                            target.core.datagram(output.data, address, self.now)
                case Connect():
                    self._connect(side, output)
                case Write():
                    data = b"".join(output.chunks)
                    if (side, output.link) in self._ends.keys() - self.hung:
                        total = self._written.get((side, output.link), 0) + len(data)
                        self._written[side, output.link] = total
                        side.core.writable(output.link, total, self.now)
                        self._bring(side, output.link, data)
                case Close():
                    if (side, output.link) in self._ends:
                        self._close((side, output.link))
                case Probe():
                    self._probe(side, output)
                case Deliver():
                    side.delivered.append(output.message.message)
                    if side.busy is None:
                        side.core.delivered(output.token, None, self.now)
                    else:
                        side.busy.append(output.token)
                case TicketDone():
                    side.done[output.ticket] = output.faulty
                case Event():
                    side.events.append(output.name)
                    if isinstance(output, MemberRemoved):
                        side.removals.append(output)
                case _:
                    pass
        return bool(outputs)

    def _connect(self, side: Side, output: Connect) -> None:
        target = self.sides.get(output.address)
        if target is None and output.address in self.impostors:
            link, answer = next(self._links), self.impostors[output.address]
            self._ends[side, link] = (
                lambda data: side.core.link_bytes(link, answer, self.now) if data else None,
                0,
            )
            side.core.link_opened(link, self.now, peer=output.address, attempt=output.attempt)
            return
        if target is None:
            side.core.connect_failed(output.attempt, ConnectionRefusedError(), self.now)
            return
        near, far = self.accept((side.host, 50000), target, side)
        self._ends[side, near] = (target, far)
        side.core.link_opened(near, self.now, peer=output.address, attempt=output.attempt)

    def _bring(self, side: Side, link: int, data: bytes) -> None:
        end = self._ends.get((side, link))
        if end is None:
            return
        if (side, link) in self.held:
            self.held[side, link].append(data)
            return
        other, far = end
        if isinstance(other, Side):
            other.read.append(data)
            if far not in other.core.accepted.receivers and not other.core.accepted.door.holds(far):
                other.answers.append(data)
            other.core.link_bytes(far, data, self.now)
        else:
            other(data)

    def _close(self, end: tuple[Side, int]) -> None:
        other, far = self._ends.pop(end)
        if not isinstance(other, Side):
            other(None)
        elif self._ends.pop((other, far), None) is not None:
            other.core.link_closed(far, None, self.now)

    def _probe(self, side: Side, probe: Probe) -> None:
        target = self.sides.get(probe.address)
        if target is None:
            side.core.probe_result(probe.probe, ConnectionRefusedError(), self.now)
            return
        stranger = Stranger(self, side.host, target, probe.data)
        self._perform(target)
        if stranger.answer:
            side.core.probe_result(probe.probe, None, self.now)
        else:
            side.core.probe_result(probe.probe, ConnectionResetError(), self.now)
        stranger.close()


class Stranger:
    """A connection that no core made."""

    def __init__(self, net: Net, host: str, side: Side, data: bytes) -> None:
        self.answer = b""
        self.is_open = True
        self._net = net
        self._side = side
        _, self.link = net.accept((host, 50001), side, self._got)
        if data:
            self.write(data)

    def write(self, data: bytes) -> None:
        self._side.core.link_bytes(self.link, data, self._net.now)

    def close(self) -> None:
        if self._net._ends.pop((self._side, self.link), None) is not None:
            self._side.core.link_closed(self.link, None, self._net.now)

    def _got(self, data: bytes | None) -> None:
        if data is None:
            self.is_open = False
        else:
            self.answer += data
