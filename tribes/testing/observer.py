"""Watches a world for a history: starts and ends of nodes, faults, deliveries, tickets, copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.channel.outputs import (
    MemberAdded,
    MemberRefuted,
    MemberRemoved,
    MemberSuspected,
    SendFailed,
)
from tribes.ids import UniqueId
from tribes.manager.backup import BackupManager
from tribes.manager.expiry import SessionExpired
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.testing.history import History, Send
    from tribes.testing.sim import SimNode, World
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["MessageFailedError", "Observer", "incarnation", "payload_of"]

_MARK = b"workload"
_COPIES_S = 0.5
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_KINDS = frozenset(("start", "crash", "pause", "resume", "fault", "event"))
_IN_ORDER = frozenset(("stopped",))
_HARMLESS = frozenset(("disk", "inject", "stranger", "mass"))
"""Nothing that healthy nodes say to each other suffers from these."""
_PAIRED = {"cut": "uncut", "clog": "unclog"}
_ENDED_BY = {end: begin for begin, end in _PAIRED.items()}
_AT_ONCE = frozenset(("bridge",))
"""What is made of cuts, which are told one by one."""


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
    blocked sets) must be noted with `History.fault`, as ``disturb`` and ``mend``. A disturbance
    that nobody mends lasts until the world's ``heal`` or ``calm``: half a stream, or a change of a
    piece that is still to come.

    Args:
        world: What to watch.
        history: Where to write.
        context: Whose sessions' copies are compared twice a second.
        is_second: Another one watches the messages of these nodes.
    """

    def __init__(
        self, world: World, history: History, context: str = "app", *, is_second: bool = False
    ) -> None:
        self.world = world
        self.history = history
        self.died: list[Callable[[str], None]] = []
        """Called with each incarnation that ends."""
        self.is_whole: Callable[[list[SimNode], str], bool] | None = None
        """Tells whether sessions that lie on some nodes lie where they should."""
        self._context = context
        self._is_second = is_second
        self._sends: dict[tuple[str, int], tuple[Send, dict[bytes, str]]] = {}
        self._early: dict[tuple[str, int], tuple[float, dict[Member, Exception]]] = {}
        self._by_id: dict[UniqueId, tuple[Send, dict[bytes, str]]] = {}
        self._early_events: list[SendFailed] = []
        self._is_sending = False
        self._incarnations: dict[bytes, str] = {}
        self._lasting: set[tuple[str, str, str]] = set()
        self._listeners: dict[str, Callable[[ChannelData], None] | None] = {}
        self._running: dict[str, str] = {}
        for node in list(world.nodes.values()):
            self._observe(node)
            if node.is_alive:
                joined = node.core.is_joined
                self._running[node.name] = incarnation(node)
                self._incarnations[node.core.local.unique_id] = incarnation(node)
                history.fault(world.now, "present" if joined else "start", incarnation(node))
        world.watch(_KINDS, self._happened)
        world.at(_COPIES_S, self._compare)

    # Nodes and network.

    def _happened(self, now: float, name: str, kind: str, detail: object) -> None:
        """Take what the world tells of these kinds."""
        if kind == "event":
            self._event(now, name, detail)
            return
        if kind == "fault":
            self._network(now, name, str(detail))
            return
        node = self.world.nodes.get(name)
        if node is None:
            return
        if name not in self._listeners:
            self._observe(node)
        if kind == "start":
            where = self._running[name] = incarnation(node)
            self._incarnations[node.core.local.unique_id] = where
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

    def _network(self, now: float, name: str, what: str) -> None:
        word, _, rest = what.partition(" ")
        if word in _HARMLESS or word in _AT_ONCE:
            return
        if word in ("partition", "heal"):
            self._lasting.clear()
            if word == "partition" or self.history.is_disturbed:
                self.history.fault(now, word)
            return
        kind = "disturb"
        other = rest.partition(" ")[0]
        if word in _PAIRED:
            kind = "jolt"
            for pair in self._pairs(name, other, word, rest):
                if pair not in self._lasting:
                    self._lasting.add(pair)
                    self.history.fault(now, "disturb")
        elif word in _ENDED_BY:
            kind = "jolt"
            for pair in self._pairs(name, other, _ENDED_BY[word], "True"):
                if pair in self._lasting:
                    self._lasting.discard(pair)
                    self.history.fault(now, "mend")
        elif word == "reset" and rest.endswith("False"):
            kind = "reset"
        ends = (self._running.get(name, name), self._running.get(other, other))
        self.history.fault(now, kind, *(ends if kind == "reset" else ()))

    @staticmethod
    def _pairs(name: str, other: str, word: str, rest: str) -> list[tuple[str, str, str]]:
        there, back = (word, name, other), (word, other, name)
        # A cut may be in both directions, and is taken back so; a clog has one.
        return [there, back] if word == "cut" and rest.endswith("True") else [there]

    def _event(self, now: float, name: str, event: object) -> None:
        where = self._running.get(name, name)
        if isinstance(event, MemberAdded):
            member = event.member
            self.history.tell(now, where, "added", self._subject(member), str(member.port))
        elif isinstance(event, MemberRemoved):
            subject = self._subject(event.member)
            self.history.tell(now, where, "removed", subject, str(event.reason))
        elif isinstance(event, MemberSuspected):
            self.history.tell(now, where, "suspected", self._subject(event.member))
        elif isinstance(event, MemberRefuted):
            self.history.tell(now, where, "refuted", self._subject(event.member))
        elif isinstance(event, SessionExpired):
            if event.context == self._context:
                self.history.tell(now, where, "expired", event.key)
        elif isinstance(event, SendFailed):
            if self._is_sending:
                self._early_events.append(event)
            else:
                self._failed_late(event)

    def _subject(self, member: Member) -> str:
        return self._incarnations.get(member.unique_id, f"{member.label}#?")

    def _failed_late(self, event: SendFailed) -> None:
        known = self._by_id.get(UniqueId(event.unique_id))
        if known is not None:
            send, targets = known
            send.late = _named(event.faulty, targets)

    def _observe(self, node: SimNode) -> None:
        if self._is_second:
            self._listeners[node.name] = None
            return
        self._listeners[node.name] = node.on_message
        node.on_message = lambda data: self._message(node, data)
        node.done = _Tickets(lambda ticket, faulty: self._ticket(node, ticket, faulty))

    def _compare(self) -> None:
        self.world.at(_COPIES_S, self._compare)
        nodes = [n for n in self.world.nodes.values() if n.is_alive and n.runs(self._context)]
        if nodes and isinstance(nodes[0].manager(self._context), BackupManager):
            if self.is_whole is not None and self.is_whole(nodes, self._context):
                self.history.equal_copies(self.world.now, *map(incarnation, nodes))
            return
        digests = (node.manager(self._context).table.root_digest() for node in nodes)
        first = next(digests, None)
        if first is not None and all(digest == first for digest in digests):
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
        members = [n.core.local for n in to]
        payload = payload_of(sender, sequence, failing)
        self._is_sending = True
        ticket, unique_id = node.core.send(members, payload, option, node.clock.monotonic())
        node.pump()
        self._is_sending = False
        if option & _ASYNC:
            self._by_id[unique_id] = made, targets
        for event in self._early_events:
            self._failed_late(event)
        self._early_events.clear()
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
        send.faulty = _named(faulty, targets)

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


def _named(faulty: dict[Member, Exception], targets: dict[bytes, str]) -> dict[str, str]:
    return {
        targets.get(m.unique_id, f"{m.label}#?"): type(why).__name__ for m, why in faulty.items()
    }
