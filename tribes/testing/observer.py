"""Watches a world for a history: starts and ends of nodes, faults, deliveries, tickets, copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.testing.history import History, Send
    from tribes.testing.sim import SimNode, World
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["MessageFailedError", "Observer", "incarnation", "payload_of"]

_MARK = b"workload"
_COPIES_S = 0.5
_KINDS = frozenset(("start", "crash", "pause", "resume", "fault"))
_IN_ORDER = frozenset(("stopped",))
_HARMLESS = frozenset(("disk", "inject", "stranger", "mass"))
"""Nothing that healthy nodes say to each other suffers from these."""


class MessageFailedError(Exception):
    """A listener of the workload failed on purpose."""


def incarnation(node: SimNode) -> str:
    """The name of a node's present process."""
    return f"{node.name}#{node.incarnation}"


def payload_of(sender: str, sequence: int, failing: tuple[str, ...] = ()) -> bytes:
    """The raw message that an observer recognises."""
    return b" ".join((_MARK, sender.encode(), b"%d" % sequence, ",".join(failing).encode()))


class _Tickets(dict[int, "dict[Member, Exception]"]):
    """A node's outcomes, told to an observer the moment they come."""

    def __init__(self, told: Callable[[int, dict[Member, Exception]], None]) -> None:
        super().__init__()
        self._told = told

    def __setitem__(self, ticket: int, faulty: dict[Member, Exception]) -> None:
        super().__setitem__(ticket, faulty)
        self._told(ticket, faulty)


class Observer:
    """Writes what happens to nodes and network into a history.

    The world tells it of starts, ends, pauses and of all faults that are methods of the world, so
    these are noted whoever causes them; what is set directly (``loss``, the fields of a link, its
    blocked sets) must be noted with `History.fault`, as ``disturb``. A disturbance lasts until the
    world's ``heal`` or ``calm``.

    Args:
        world: What to watch.
        history: Where to write.
        context: Whose sessions' copies are compared twice a second.
    """

    def __init__(self, world: World, history: History, context: str = "app") -> None:
        self.world = world
        self.history = history
        self.died: list[Callable[[str], None]] = []
        """Called with each incarnation that ends."""
        self._context = context
        self._sends: dict[tuple[str, int], tuple[Send, dict[bytes, str]]] = {}
        self._early: dict[tuple[str, int], tuple[float, dict[Member, Exception]]] = {}
        self._is_sending = False
        self._listeners: dict[str, Callable[[ChannelData], None] | None] = {}
        self._running: dict[str, str] = {}
        for node in list(world.nodes.values()):
            self._observe(node)
            if node.is_alive:
                joined = node.core.is_joined
                self._running[node.name] = incarnation(node)
                history.fault(world.now, "present" if joined else "start", incarnation(node))
        world.observers.append(self._happened)
        world.at(_COPIES_S, self._compare)

    # Nodes and network.

    def _happened(self, now: float, name: str, kind: str, detail: object) -> None:
        """Take what the world tells; it tells far more than this, so the common case leaves."""
        if kind not in _KINDS:
            return
        if kind == "fault":
            self._network(now, str(detail))
            return
        node = self.world.nodes.get(name)
        if node is None:
            return
        if name not in self._listeners:
            self._observe(node)
        if kind == "start":
            where = self._running[name] = incarnation(node)
            self.history.fault(now, kind, where)
        elif kind == "crash":
            ended = self._running.pop(name, None)
            if ended is not None:
                left = str(detail) in _IN_ORDER
                self.history.fault(now, "stop" if left else "crash", ended)
                for listener in self.died:
                    listener(ended)
        elif name in self._running:
            self.history.fault(now, kind, self._running[name])

    def _network(self, now: float, what: str) -> None:
        word = what.partition(" ")[0]
        if word in ("partition", "heal"):
            self.history.fault(now, word)
        elif word not in _HARMLESS:
            self.history.fault(now, "disturb")

    def _observe(self, node: SimNode) -> None:
        self._listeners[node.name] = node.on_message
        node.on_message = lambda data: self._message(node, data)
        node.done = _Tickets(lambda ticket, faulty: self._ticket(node, ticket, faulty))

    def _compare(self) -> None:
        self.world.at(_COPIES_S, self._compare)
        nodes = [node for node in self.world.nodes.values() if node.is_alive]
        if nodes and len({n.manager(self._context).table.root_digest() for n in nodes}) == 1:
            self.history.equal_copies(self.world.now, *map(incarnation, nodes))

    # Raw messages.

    def send(self, node: SimNode, to: list[SimNode], option: int, failing: tuple[str, ...]) -> Send:
        """Send a numbered message and note what becomes of it."""
        sender = incarnation(node)
        sequences = self.history.state.setdefault("sequences", {})
        sequence = sequences[sender] = sequences.get(sender, 0) + 1
        targets = {n.core.local.unique_id: incarnation(n) for n in to}
        made = self.history.send(
            sender, sequence, tuple(targets.values()), option, self.world.now, failing
        )
        self._is_sending = True
        ticket = node.send(payload_of(sender, sequence, failing), to, option)
        self._is_sending = False
        early = self._early.pop((sender, ticket), None)
        self._early.clear()
        if early is None:
            self._sends[sender, ticket] = made, targets
        else:
            self._outcome(made, targets, *early)
        return made

    def _ticket(self, node: SimNode, ticket: int, faulty: dict[Member, Exception]) -> None:
        place = incarnation(node), ticket
        known = self._sends.pop(place, None)
        if known is not None:
            self._outcome(*known, self.world.now, faulty)
        elif self._is_sending:
            # Asynchronous sends are done before their number is known here.
            self._early[place] = self.world.now, faulty

    def _outcome(
        self,
        send: Send,
        targets: dict[bytes, str],
        time: float,
        faulty: dict[Member, Exception],
    ) -> None:
        send.end = time
        send.faulty = {
            targets.get(m.unique_id, f"{m.label}#?"): type(why).__name__
            for m, why in faulty.items()
        }

    def _message(self, node: SimNode, data: ChannelData) -> None:
        if not data.message.startswith(_MARK + b" "):
            listener = self._listeners[node.name]
            if listener is not None:
                listener(data)
            return
        sender, sequence, failing = data.message[len(_MARK) + 1 :].decode().split(" ")
        fails = node.name in failing.split(",")
        self.history.deliver(sender, int(sequence), incarnation(node), self.world.now, failed=fails)
        if fails:
            raise MessageFailedError(f"message {sequence} of {sender} fails on purpose")
