"""Watches a world for a history: starts and ends of nodes, faults, deliveries, tickets, copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tribes.testing.history import History, Send
    from tribes.testing.sim import SimNode, World
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["MessageFailedError", "Observer", "incarnation", "payload_of"]

_MARK = b"workload"
_COPIES_S = 0.5


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

    It stands between the world's methods and their callers, so faults are noted whoever causes
    them; what does not go through ``start``, ``crash``, ``stop``, ``pause``, ``resume``,
    ``partition`` and ``heal`` must be noted with `History.fault`.

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
        for node in list(world.nodes.values()):
            self._observe(node)
            if node.is_alive:
                joined = node.core.is_joined
                history.fault(world.now, "present" if joined else "start", incarnation(node))
        self._wrap_world()
        world.at(_COPIES_S, self._compare)

    # Nodes and network.

    def _wrap_world(self) -> None:
        world, history = self.world, self.history
        start = world.start

        def starting(name: str, *args: Any, **changes: Any) -> SimNode:
            is_new = name not in world.nodes
            node = start(name, *args, **changes)
            if is_new:
                self._observe(node)
                history.fault(world.now, "start", incarnation(node))
            return node

        _replace(world, "start", starting)
        for kind in ("partition", "heal"):
            self._wrap_network(kind)

    def _wrap_network(self, kind: str) -> None:
        original = getattr(self.world, kind)

        def changed(*args: Any, **changes: Any) -> Any:
            self.history.fault(self.world.now, kind)
            return original(*args, **changes)

        _replace(self.world, kind, changed)

    def _observe(self, node: SimNode) -> None:
        self._listeners[node.name] = node.on_message
        node.on_message = lambda data: self._message(node, data)
        node.done = _Tickets(lambda ticket, faulty: self._ticket(node, ticket, faulty))
        for kind in ("start", "crash", "stop", "pause", "resume"):
            self._wrap_node(node, kind)

    def _wrap_node(self, node: SimNode, kind: str) -> None:
        original = getattr(node, kind)

        def changed(*args: Any, **changes: Any) -> Any:
            before, was_alive = incarnation(node), node.is_alive
            result = original(*args, **changes)
            if kind in ("crash", "stop"):
                if not was_alive:
                    return result
                self.history.fault(self.world.now, kind, before)
                for listener in self.died:
                    listener(before)
            else:
                if kind == "start" and was_alive:
                    self.history.fault(self.world.now, "crash", before)
                self.history.fault(self.world.now, kind, incarnation(node))
            return result

        _replace(node, kind, changed)

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


def _replace(owner: object, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)
