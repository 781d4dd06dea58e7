"""The servers that hold sessions, in their configured order, and which of them answer.

**A node that fails is left alone.**  The request that met the failure pays for it, once; from then
on the node is down for this process, and calls to it fail at once, until a probe gets an answer.
Probes run in the background (`Ring.probe`), also of nodes that are up, so that a hung node is often
found before a request meets it.  What a single value causes (too large, another version) says
nothing about its node.

**A node that was down is doubted** for a while after it is back: it may lack what was written
meanwhile, or have an older copy.  Who reads there asks the other nodes too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar, final

from tribes.errors import ConfigError, StoreError, StoreNodeError

if TYPE_CHECKING:
    from .cache import CacheNode

__all__ = ["DOUBT_S", "NodeHealth", "Ring", "RingNode"]

DOUBT_S: Final = 1800.0
"""As long as most sessions live."""

_T = TypeVar("_T")


@final
@dataclass(eq=False, slots=True)
class RingNode:
    """One server of a ring.

    Attributes:
        name: In ids of sessions; empty: the only one, and not named there.
        client: Speaks to it.
        is_failover: Used only when no other one answers.
        is_gone: It is in no ring any more, though somebody may still have it in hand.
    """

    name: str
    client: CacheNode
    is_failover: bool = False
    is_up: bool = True
    is_gone: bool = False
    failures: int = 0
    outages: int = 0
    doubted_until: float = field(default=0.0)


@final
@dataclass(frozen=True, slots=True)
class NodeHealth:
    """What is known of one node.

    Attributes:
        name: Its name.
        address: Where it is.
        is_up: Whether calls are made to it.
        is_failover: Used only when no other one answers.
        failures: Calls and probes without answer.
        outages: How often it went down.
    """

    name: str
    address: str
    is_up: bool
    is_failover: bool
    failures: int
    outages: int


@final
class Ring:
    """See the module. For any thread.

    Args:
        nodes: In the order of the configuration.
        monotonic: Reads the monotonic clock in seconds.
        choose: Returns a random number below its argument, for new sessions.
        on_change: Told of a node that went down (with why) or came back (None).
        doubt_s: How long a node that is back is doubted.
    """

    def __init__(
        self,
        nodes: Iterable[RingNode],
        *,
        monotonic: Callable[[], float],
        choose: Callable[[int], int],
        on_change: Callable[[str, str | None], None] | None = None,
        doubt_s: float = DOUBT_S,
    ) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._choose = choose
        self._on_change = on_change or (lambda name, why: None)
        self._doubt_s = doubt_s
        self._nodes: tuple[RingNode, ...] = ()
        self.replace(nodes)

    # Which.

    @property
    def nodes(self) -> tuple[RingNode, ...]:
        """All nodes, in order."""
        return self._nodes

    def get(self, name: str) -> RingNode | None:
        """The node of a name."""
        return next((node for node in self._nodes if node.name == name), None)

    def pick(self, *, avoid: RingNode | None = None) -> RingNode | None:
        """Choose a node for a session: a primary that answers, else such a failover node."""
        for is_failover in (False, True):
            usable = [
                node
                for node in self._nodes
                if node.is_up and node.is_failover is is_failover and node is not avoid
            ]
            if usable:
                return usable[self._choose(len(usable))]
        return None

    def after(self, node: RingNode | None) -> list[RingNode]:
        """All other nodes in the order of asking them: primaries from there on, then failovers."""
        nodes = self._nodes
        at = nodes.index(node) if node in nodes else -1
        turned = [*nodes[at + 1 :], *nodes[: max(at, 0)]]
        return [each for each in turned if not each.is_failover] + [
            each for each in turned if each.is_failover
        ]

    def targets(self, home: RingNode | None, copies: int) -> list[RingNode]:
        """Where a session's copies go: home if it answers, and the next primaries that do."""
        first = home if home is not None and home.is_up and home in self._nodes else self.pick()
        if first is None:
            return []
        others = [node for node in self.after(first) if node.is_up and not node.is_failover]
        return [first, *others[: copies - 1]]

    def is_doubted(self, node: RingNode) -> bool:
        """Whether it may have missed something."""
        return self._monotonic() < node.doubted_until

    # Calls and probes.

    def call(self, node: RingNode, work: Callable[[CacheNode], _T]) -> _T:
        """Ask a node for something.

        Raises:
            StoreNodeError: It is down, or was found to be by this call.
            StoreError: What ``work`` raises otherwise.
        """
        if not node.is_up:
            raise StoreNodeError(f"{node.name or node.client.address} is down")
        try:
            return work(node.client)
        except StoreNodeError as why:
            self._failed(node, why)
            raise
        finally:
            if node.is_gone:
                # Taken off the list after it was seen to be up: nobody else closes what this has
                # opened.
                node.client.close()

    def probe(self) -> None:
        """Ask every node for a sign of life. Blocks for each that does not give one."""
        for node in self._nodes:
            try:
                self._ask(node)
            except StoreError as why:
                self._failed(node, why)
            else:
                self._answered(node)

    def _ask(self, node: RingNode) -> None:
        try:
            node.client.probe()
        except StoreError:
            if not node.is_up:
                raise
            # Perhaps it was this process that did not get to read the answer in time.
            node.client.probe()

    def _failed(self, node: RingNode, why: StoreError) -> None:
        with self._lock:
            node.failures += 1
            if not node.is_up:
                return
            node.is_up = False
            node.outages += 1
        node.client.close()
        self._on_change(node.name, str(why))

    def _answered(self, node: RingNode) -> None:
        with self._lock:
            if node.is_up or node.is_gone:
                return
            node.doubted_until = self._monotonic() + self._doubt_s
            node.is_up = True
        self._on_change(node.name, None)

    # Changes.

    def replace(self, nodes: Iterable[RingNode]) -> None:
        """Go on with other nodes. Those of a name and address that stay keep what is known of them.

        Raises:
            ConfigError: There is none, or none that is no failover node.
        """
        wanted = tuple(nodes)
        if all(node.is_failover for node in wanted):
            raise ConfigError(
                "leaves no node for normal use; take one off the list", key="failoverNodes"
            )
        known = {(node.name, node.client.address): node for node in self._nodes}
        kept = []
        for node in wanted:
            old = known.pop((node.name, node.client.address), None)
            if old is not None and old is not node:
                old.is_failover = node.is_failover
                node.client.close()
            kept.append(old or node)
        self._nodes = tuple(kept)
        for gone in known.values():
            with self._lock:
                gone.is_gone, gone.is_up = True, False  # for requests that still have it in hand
            gone.client.close()

    def health(self) -> tuple[NodeHealth, ...]:
        """What is known of every node."""
        return tuple(
            NodeHealth(
                node.name,
                node.client.address,
                node.is_up,
                node.is_failover,
                node.failures,
                node.outages,
            )
            for node in self._nodes
        )

    def start_over(self) -> None:
        """In a forked child: no connection is this process's."""
        self._lock = threading.Lock()
        for node in self._nodes:
            node.client.start_over()

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            node.client.close()
