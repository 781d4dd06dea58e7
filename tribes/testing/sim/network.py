"""Who reaches whom, how fast, and what becomes of datagrams.

Everything is set per ordered pair of machines: what holds from a to b says nothing about b to a.
Machines are named; the empty name is a host outside the cluster, which reaches everybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.testing.sim.driver import Driver
    from tribes.testing.sim.world import World

__all__ = ["Link", "Network"]

REORDER_HOLD_S = 2.0
"""How long a held datagram waits for another one to overtake it."""

TOGETHER_FROM = 32
"""Machines from which on those that hear a datagram do so in a few groups, each at one moment: a
world of hundreds is for what becomes of numbers, a small one for every order of events."""

GROUPS = 4
"""How many groups: a power of two, up to 256."""

RECORDED_DATAGRAMS = 4096
"""How many datagrams ``World.recorded_datagrams`` keeps for replays."""


class Link:
    """What the network does with everything that one machine sends to another.

    Attributes:
        delay: Seconds added to every transmission.
        jitter: Seconds, up to which a random time is added to every transmission.
        loss: Share of the datagrams that get lost; a segment of a stream is sent again instead,
            after a retransmission timeout.
        duplicate: Share of the datagrams that arrive twice.
        reorder: Share of the datagrams that are held back until a later one has overtaken them.
    """

    __slots__ = (
        "delay",
        "duplicate",
        "held",
        "is_cut",
        "jitter",
        "loss",
        "reorder",
        "source",
        "target",
    )

    def __init__(self, source: Driver, target: Driver) -> None:
        self.source = source
        self.target = target
        self.delay = 0.0
        self.jitter = 0.0
        self.loss = 0.0
        self.duplicate = 0.0
        self.reorder = 0.0
        self.is_cut = False
        self.held: deque[bytes] = deque()

    def reset(self) -> None:
        """Take everything back but the cut."""
        self.delay = self.jitter = self.loss = self.duplicate = self.reorder = 0.0


class Network:
    """Links between machines, and the multicast group.

    Args:
        world: Its time, randomness and nodes.
    """

    def __init__(self, world: World) -> None:
        self.multicast_blocked: set[str] = set()
        self.tcp_blocked: set[frozenset[str] | tuple[str, str]] = set()
        self.recorded: deque[bytes] = deque(maxlen=RECORDED_DATAGRAMS)
        self._world = world
        self._links: dict[tuple[str, str], Link] = {}
        self._routes: dict[str, list[Link]] = {}

    # Links.

    def add(self, node: Driver) -> None:
        """A machine is plugged in."""
        for other in [*self._world.nodes.values(), node]:
            self._connect(node, other)
            if other is not node:
                self._connect(other, node)

    def _connect(self, source: Driver, target: Driver) -> None:
        link = self._links[source.name, target.name] = Link(source, target)
        self._routes.setdefault(source.name, []).append(link)

    def link(self, source: str, target: str) -> Link:
        """The link from one machine to another."""
        return self._links[source, target]

    def way(self, source: str, target: str) -> Link | None:
        """The same for any two hosts; None if one of them is outside the cluster."""
        return self._links.get((source, target))

    def links(self) -> Iterator[Link]:
        """Every link between two different machines, in the order of their start."""
        return (link for link in self._links.values() if link.source is not link.target)

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Cut exactly the links between the groups; who is in none is alone."""
        side = {name: i for i, group in enumerate(groups) for name in group}
        for (a, b), link in self._links.items():
            link.is_cut = a != b and side.get(a, f"-{a}") != side.get(b, f"-{b}")

    def reaches(self, source: str, target: str) -> bool:
        """Whether a packet from one machine arrives at another."""
        link = self._links.get((source, target))
        return link is None or not link.is_cut

    def reaches_by_tcp(self, source: str, target: str) -> bool:
        """Whether a segment of a stream does."""
        return self.carries_segments(self._links.get((source, target)))

    def carries_segments(self, link: Link | None) -> bool:
        """Whether a segment of a stream passes a link; None: one with a host outside."""
        if link is None:
            return True
        if link.is_cut:
            return False
        blocked = self.tcp_blocked
        if not blocked:
            return True
        ends = link.source.name, link.target.name
        return ends not in blocked and frozenset(ends) not in blocked

    def delay(self, source: str, target: str) -> float:
        """Seconds that one transmission takes."""
        return self.transit(self._links.get((source, target)))

    def transit(self, link: Link | None) -> float:
        """Seconds that something that is not lost takes over a link."""
        world = self._world
        random = world.random.random
        delay = world.latency + world.jitter * random()
        if link is not None:
            delay += link.delay
            if link.jitter:
                delay += link.jitter * random()
        return delay

    def loses(self, link: Link | None) -> bool:
        """Whether the next segment on a link gets lost, and so has to be sent again."""
        return link is not None and bool(link.loss) and self._world.random.random() < link.loss

    # Datagrams.

    def multicast(self, source: Driver, data: bytes) -> None:
        """Send one datagram to every machine, the sender's included."""
        self.recorded.append(data)
        self._world.note(source.name, "multicast", data)
        blocked = self.multicast_blocked
        if source.name in blocked:
            return
        world = self._world
        random, schedule = world.random.random, world.schedule
        latency, jitter, everywhere = world.latency, world.jitter, world.loss
        routes = self._routes[source.name]
        is_together = len(routes) >= TOGETHER_FROM
        groups: list[list[tuple[Driver, int]]] = [[] for _ in range(GROUPS)]
        choices = world.random.randbytes(len(routes)) if is_together else bytes(len(routes))
        for link, choice in zip(routes, choices, strict=True):
            target = link.target
            if link.is_cut or not target.is_alive or (blocked and target.name in blocked):
                continue
            loss = everywhere + link.loss
            if loss and random() < loss:
                continue
            if link.reorder or link.duplicate or link.jitter or link.held:
                self._send(link, data)
            elif is_together and not link.delay:
                groups[choice % GROUPS].append((target, target.incarnation))
            else:
                delay = latency + jitter * random() + link.delay
                schedule(delay, target.heard, data, target.incarnation)
        for group in groups:
            if group:
                schedule(latency + jitter * random(), self._arrive, data, group)

    def _arrive(self, data: bytes, group: list[tuple[Driver, int]]) -> None:
        free = [node for node, life in group if node.incarnation == life and node.is_free]
        if len(free) < len(group):
            for node, life in group:
                if not node.is_free:
                    node.heard(data, life)
        self._world.note_heard(free, data)
        for node in free:
            node.take_in(data)

    def _send(self, link: Link, data: bytes) -> None:
        world, target = self._world, link.target
        random = world.random.random
        if link.reorder and random() < link.reorder:
            link.held.append(data)
            world.schedule(REORDER_HOLD_S, self._release, link, data)
            return
        delay = world.latency + world.jitter * random() + link.delay
        if link.jitter:
            delay += link.jitter * random()
        world.schedule(delay, target.heard, data, target.incarnation)
        if link.duplicate and random() < link.duplicate:
            again = delay + world.latency * random()
            world.schedule(again, target.heard, data, target.incarnation)
        if link.held:
            # Behind the one that overtakes, whatever its way took.
            for late in link.held:
                world.schedule(delay + world.latency, target.heard, late, target.incarnation)
            link.held.clear()

    def unicast(self, source: Driver, target: Driver, data: bytes) -> None:
        """Send one datagram to the UDP port of a machine."""
        world, link = self._world, self.way(source.name, target.name)
        if link is None or link.is_cut or not target.is_alive:
            return
        random = world.random.random
        loss = world.loss + link.loss
        if loss and random() < loss:
            return
        address = source.process.local.address
        copies = 2 if link.duplicate and random() < link.duplicate else 1
        for _ in range(copies):
            # Each takes its own way, so they overtake each other.
            delay = world.latency + (world.jitter + link.jitter) * random() + link.delay
            world.schedule(delay, target.heard_udp, data, address, target.incarnation)

    def _release(self, link: Link, data: bytes) -> None:
        # Nothing came that could have overtaken it. The oldest equal one is meant: order is kept.
        for held in link.held:
            if held is data:
                link.held.remove(held)
                link.target.heard(data, link.target.incarnation)
                return

    def inject(self, data: bytes, targets: Iterable[Driver]) -> None:
        """A datagram from a host outside the cluster."""
        self._world.note("", "multicast", data)
        for target in targets:
            if target.is_alive and target.name not in self.multicast_blocked:
                delay = self.delay("", target.name)
                self._world.schedule(delay, target.heard, data, target.incarnation)
