"""A simulated world: time, nodes, faults, and the log of everything that happened."""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from tribes.config.model import NodeConfig
from tribes.membership.multicast import Heartbeat, read_heartbeat
from tribes.testing.sim.faults import corruption
from tribes.testing.sim.network import Link, Network
from tribes.testing.sim.node import SimNode
from tribes.testing.sim.probes import Stranger
from tribes.testing.sim.streams import Streams

if TYPE_CHECKING:
    from tribes.testing.sim.driver import Driver

__all__ = ["Observer", "World"]

Observer = Callable[[float, str, str, object], None]
"""Called with the time, a node's name, a kind and its detail:

``start`` the member, ``crash`` how it ended, ``pause`` and ``resume`` nothing, ``datagram`` the
bytes, ``bytes`` (link, bytes), ``write`` (link, number of bytes), ``connect`` the address,
``connected`` the link, ``closed`` (link, error or None), ``refused`` (address, error), ``probe``
(address, error or None), ``deliver`` the ChannelData, ``event`` the Event, ``fault`` a text.
"""

FIRST_PORT = 4000

HEARTBEATS_READ = 1024
"""How many datagrams are remembered with the record in them."""

UNHASHED_MAX = 1000
"""Pieces of the log that wait to be hashed together."""

_WHEN = struct.Struct("<dI")


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
        """Seconds since the world began: the only true time."""
        self.latency = latency
        self.jitter = jitter
        self.loss = 0.0
        """Share of the datagrams that get lost on every link, the one to the sender included."""
        self.nodes: dict[str, SimNode] = {}
        self.events = 0
        """What was taken from the heap so far."""
        self.observers: list[Observer] = []
        """Told everything; see :meth:`watch` for who wants to know of little."""
        self.log: list[str] | None = None
        """Set it to a list to get the lines of the event log, whose hash is ``digest``."""
        self.watched: dict[str, list[Observer]] = {}
        """Who watches which kinds; see :meth:`watch`."""
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._sequence = 0
        self._links = 0
        self.read_heartbeat: Callable[[bytes], Heartbeat | None] = lru_cache(HEARTBEATS_READ)(
            read_heartbeat
        )
        """Reads a datagram, once for all nodes that hear it: records are immutable."""
        self._log = hashlib.sha256()
        self._unhashed: list[bytes] = []
        self.network = Network(self)
        self.streams = Streams(self)

    # Nodes and time.

    def start(self, name: str, config: NodeConfig | None = None, **changes: Any) -> SimNode:
        """Start a node, for the first time or again: memory lost, a new unique id.

        Args:
            name: Name of the node; also its payload and, by its order, its port.
            config: Its settings; contexts default to ``("app",)``. Those given for a node that
                exists already count from now on.
            changes: Keywords for :class:`SimNode` (``interceptors``, ``clock_offset_ms``).
        """
        node = self.nodes.get(name)
        if config is not None and not config.name:
            config = msgspec.structs.replace(config, name=name)
        if node is None:
            made = config or NodeConfig(name=name, contexts=("app",))
            port = FIRST_PORT + len(self.nodes)
            node = SimNode(self, name, made, port, **changes)
            self.network.add(node)
            self.nodes[name] = node
        elif config is not None:
            node.config = config
        node.start()
        return node

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until(self.now + seconds)

    def run_until(self, when: float, condition: Callable[[], bool] | None = None) -> bool:
        """Run until a moment, or until a condition holds; tells whether it does."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= when:
            if condition is not None and condition():
                return True
            self.now, _, event, args = pop(heap)
            self.events += 1
            event(*args)
        if condition is not None and condition():
            return True
        self.now = max(self.now, when)
        return False

    def at(self, delay: float, event: Callable[[], object]) -> None:
        """Run ``event`` after ``delay`` seconds; ties in the order in which they were set."""
        self.schedule(delay, event)

    def schedule(self, delay: float, event: Callable[..., object], *args: Any) -> None:
        """Call ``event(*args)`` after ``delay`` seconds."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, event, args))

    def schedule_at(self, when: float, event: Callable[..., object], *args: Any) -> None:
        """Call ``event(*args)`` at a time."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, event, args))

    def next_link(self) -> int:
        """A number that nothing else in this world has."""
        self._links += 1
        return self._links

    # The log.

    @property
    def digest(self) -> str:
        """Hash of everything that happened so far: equal seeds give equal digests."""
        self._hash_notes()
        return self._log.copy().hexdigest()

    def note(self, node: str, what: str, data: bytes = b"") -> None:
        """Add a line to the log, and the data to its hash."""
        unhashed = self._unhashed
        unhashed.append(_WHEN.pack(self.now, len(data)) + f"{node} {what}\n".encode() + data)
        if len(unhashed) > UNHASHED_MAX:
            self._hash_notes()
        if self.log is not None:
            self.log.append(f"{self.now!r} {node} {what} {len(data)} {data.hex()}")

    def note_heard(self, nodes: Sequence[Driver], data: bytes) -> None:
        """Add a line for each node that hears a datagram now, and tell the observers. Its bytes
        were noted when it was sent: most of what happens in a large world is that hundreds hear the
        same.
        """
        unhashed = self._unhashed
        labels = b"".join([node.hears for node in nodes])
        unhashed.append(_WHEN.pack(self.now, len(data)) + labels)
        if len(unhashed) > UNHASHED_MAX:
            self._hash_notes()
        if self.log is not None:
            for node in nodes:
                self.log.append(f"{self.now!r} {node.name} datagram {len(data)} {data.hex()}")
        if self.observers or "datagram" in self.watched:
            for node in nodes:
                self.observe(node.name, "datagram", data)

    def _hash_notes(self) -> None:
        self._log.update(b"".join(self._unhashed))
        self._unhashed.clear()

    def observe(self, node: str, kind: str, detail: object = None) -> None:
        """Tell the observers."""
        for observer in self.observers:
            observer(self.now, node, kind, detail)
        if kind in self.watched:
            for watcher in self.watched[kind]:
                watcher(self.now, node, kind, detail)

    def watch(self, kinds: Iterable[str], watcher: Observer) -> None:
        """Let somebody observe some kinds only: being told of every byte costs a run its speed."""
        for kind in kinds:
            self.watched.setdefault(kind, []).append(watcher)

    def fault(self, node: str, what: str, *, kind: str = "fault") -> None:
        """Log a fault and tell the observers."""
        self.note(node, what)
        self.observe(node, kind, what if kind == "fault" else None)

    # Faults of the network. Nodes may be given themselves or by name.

    def link(self, a: SimNode | str, b: SimNode | str) -> Link:
        """The settings of everything that ``a`` sends to ``b``."""
        return self.network.link(_name(a), _name(b))

    def every_link(self) -> Iterator[Link]:
        """The settings of every ordered pair of different nodes."""
        return self.network.links()

    def cut(self, a: SimNode | str, b: SimNode | str, both: bool = False) -> None:
        """Let nothing from ``a`` reach ``b``; nor back, if ``both``."""
        self.fault(_name(a), f"cut {_name(b)} {both}")
        self.link(a, b).is_cut = True
        if both:
            self.link(b, a).is_cut = True

    def uncut(self, a: SimNode | str, b: SimNode | str) -> None:
        """Take the cuts between two nodes back, in both directions; streams go on."""
        self.fault(_name(a), f"uncut {_name(b)}")
        self.link(a, b).is_cut = self.link(b, a).is_cut = False
        self.streams.kick()

    def partition(self, *groups: Iterable[SimNode | str]) -> None:
        """Cut the network between the groups and nowhere else; a node in none is alone."""
        named = [[_name(node) for node in group] for group in groups]
        self.fault("", f"partition {named}")
        self.network.partition(named)
        self.streams.kick()

    def bridge(
        self, middle: SimNode | str, left: Iterable[SimNode | str], right: Iterable[SimNode | str]
    ) -> None:
        """Let two sides reach a node in the middle, and not each other."""
        rights = list(right)
        self.fault(_name(middle), "bridge")
        for a in left:
            for b in rights:
                self.cut(a, b, both=True)

    def flap(
        self, a: SimNode | str, b: SimNode | str, period: float, seconds: float, both: bool = True
    ) -> None:
        """Cut a link and restore it, every ``period`` seconds, for so many seconds."""
        end = self.now + seconds

        def cut() -> None:
            if self.now < end:
                self.cut(a, b, both)
                self.at(period, restore)

        def restore() -> None:
            self.uncut(a, b)
            self.at(period, cut)

        cut()

    def heal(self) -> None:
        """Take all cuts back; streams go on where they were."""
        self.fault("", "heal")
        for link in self.every_link():
            link.is_cut = False
        self.streams.kick()

    def calm(self) -> None:
        """Take back every fault of the network: cuts, blocks, clogs, what links do to packets."""
        self.loss = 0.0
        for link in self.every_link():
            link.reset()
        self.multicast_blocked.clear()
        self.tcp_blocked.clear()
        self.streams.clogged.clear()
        self.streams.corruptions.clear()
        self.streams.cutters.clear()
        self.heal()

    @property
    def multicast_blocked(self) -> set[str]:
        """Names of the nodes whose multicast neither leaves nor arrives; change it at will."""
        return self.network.multicast_blocked

    @property
    def tcp_blocked(self) -> set[frozenset[str] | tuple[str, str]]:
        """Pairs of names between which no segment of a stream passes: a frozenset for both
        directions, a tuple for the one from the first to the second. Change it at will; streams go
        on by their next retransmission.
        """
        return self.network.tcp_blocked

    # Faults of streams.

    def clog(self, a: SimNode | str, b: SimNode | str) -> None:
        """The window of ``b`` is full: what ``a`` writes to it stays with ``a``."""
        self.fault(_name(a), f"clog {_name(b)}")
        self.streams.clogged[_name(a), _name(b)] = None

    def unclog(self, a: SimNode | str, b: SimNode | str) -> None:
        """The window opens: what waited is written."""
        self.fault(_name(a), f"unclog {_name(b)}")
        self.streams.clogged.pop((_name(a), _name(b)), None)
        self.streams.kick()

    def reset(self, a: SimNode | str, b: SimNode | str, mid_frame: bool = False) -> None:
        """Reset all connections between two nodes; with ``mid_frame`` once half of the next piece
        that ``a`` sends to ``b`` has arrived.
        """
        self.fault(_name(a), f"reset {_name(b)} {mid_frame}")
        if mid_frame:
            self.streams.cutters[_name(a), _name(b)] = None
        else:
            self.streams.reset_between(_name(a), _name(b))

    def half_open(self, a: SimNode | str, b: SimNode | str) -> None:
        """``b`` loses its connections with ``a``, and ``a`` is not told: it learns of it by the
        reset that answers its next bytes.
        """
        self.fault(_name(a), f"half open {_name(b)}")
        for end in self.streams.between(_name(a), _name(b)):
            self.streams.vanish(end)

    def corrupt_next(self, a: SimNode | str, b: SimNode | str, how: str) -> None:
        """Spoil the next piece of a stream from ``a`` to ``b``.

        Args:
            a: The sender.
            b: The receiver.
            how: ``flip`` one bit; ``truncate``: lose its end; ``oversize``: announce a frame of
                2 GiB instead.
        """
        change = corruption(how, self.random)
        self.fault(_name(a), f"corrupt {_name(b)} {how}")
        self.streams.corruptions.setdefault((_name(a), _name(b)), deque()).append(change)

    # What comes from outside.

    @property
    def recorded_datagrams(self) -> deque[bytes]:
        """The latest datagrams that nodes have sent, oldest first."""
        return self.network.recorded

    def inject_datagram(
        self, data: bytes, to: SimNode | str | Iterable[SimNode | str] | None = None
    ) -> None:
        """Let a host outside send a datagram to a node, to some, or to all."""
        if to is None:
            to = list(self.nodes)
        elif isinstance(to, SimNode | str):
            to = [to]
        self.fault("", f"inject {len(data)}")
        self.network.inject(data, [self.nodes[_name(node)] for node in to])

    def replay(self, count: int, to: SimNode | str | None = None) -> None:
        """Let a host outside send recorded datagrams again, chosen at random."""
        for _ in range(min(count, len(self.recorded_datagrams))):
            self.inject_datagram(self.random.choice(self.recorded_datagrams), to)

    def inject_stream(self, target: SimNode | str, data: bytes) -> Stranger:
        """Let a host outside connect to a node and write; returns its side of the connection."""
        node = self.nodes[_name(target)]
        self.fault(node.name, f"stranger {len(data)}")
        return Stranger(self, node.port, data)

    # Faults of several nodes.

    def mass_restart(self, nodes: Iterable[SimNode | str], seconds: float = 0.0) -> None:
        """Let nodes crash in one moment, and start all of them again after so many seconds."""
        chosen = [self.nodes[_name(node)] for node in nodes]
        self.fault("", f"mass restart of {len(chosen)}")
        for node in chosen:
            node.crash()
        for node in chosen:
            self.at(seconds, node.start)


def _name(node: SimNode | str) -> str:
    return node if isinstance(node, str) else node.name
