"""What clients and nodes did in a simulated run: appended while it goes on, judged afterwards.

A history knows nothing of a world: it can be written to a file, read back and checked elsewhere, or
made by hand to test a check. Nodes are named by incarnation, ``"a#1"``; a process that starts again
is another one. Times are seconds of the world.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Set
from typing import Any, Final, TypeAlias

import msgspec

from tribes.manager.merged import MergedCounter, MergedList

__all__ = [
    "SETTLE_S",
    "Copies",
    "Delivery",
    "Fault",
    "History",
    "Op",
    "Send",
    "Told",
    "Version",
    "plain",
]

Version: TypeAlias = tuple[int, int]
"""hlc and actor of a write."""

SETTLE_S: Final = 8.0
"""Seconds after the last fault in which nothing is promised: detection, reconnection, repair."""

_SHOWN_MAX: Final = 200
_ENDS: Final = frozenset(("crash", "stop"))
_BEGINS: Final = {"disturb": "mend", "pause": "resume", "slow": "quick"}
"""What lasts, and what ends it; a heal ends all but pauses."""
_STOPS: Final = {end: begin for begin, end in _BEGINS.items()}


class Op(msgspec.Struct, array_like=True):
    """One request of a client.

    Attributes:
        number: Its place in the history; operations are numbered in the order in which they began.
        client: Who asked.
        node: The incarnation that served it, or should have.
        kind: create, write, append, counter, set_add, remove, merged_add, merged_put, merged_take,
            merged_append, merged_read, read, touch, rotate, invalidate; lost, when the session was
            not found.
        key: The session; empty if there was none.
        begin: When the node served it: reading and committing are one moment there.
        name: The attribute.
        generation: How often the id that the client sent had been rotated.
        limit: Seconds that the session may be idle; 0: for ever.
        seen: The value of the attribute before.
        seen_version: Its version.
        value: What was written.
        version: Version of the write; None if nothing was committed.
        acked: The incarnations that confirmed to have processed it.
        missing: Members that did not, with the reason; key "" for a reason of the client's.
        end: When the client got its answer or gave up.
        settled: When the commit's waiter was resolved; None: it was not, or there was none.
        outcome: open, ok, unknown (given up, or the node crashed), failed (nothing was done).
        asked: When other members were asked for the session first; None: they were not.
        is_holder: The session lay on the node.
    """

    number: int
    client: str
    node: str
    kind: str
    key: str
    begin: float
    name: str = ""
    generation: int = 0
    limit: int = 0
    seen: Any = None
    seen_version: Version | None = None
    value: Any = None
    version: Version | None = None
    acked: tuple[str, ...] = ()
    missing: dict[str, str] = {}
    end: float | None = None
    settled: float | None = None
    outcome: str = "open"
    asked: float | None = None
    is_holder: bool = True

    @property
    def is_done(self) -> bool:
        """True when a node really did something with the session: neither refused nor lost, and
        more than to hold its lock.
        """
        return self.outcome != "failed" and self.kind not in ("lost", "lock")


class Send(msgspec.Struct, array_like=True):
    """One raw message: ``sequence`` counts the messages of one sender incarnation.

    ``failing`` names the receivers (names, not incarnations) whose listener raises; ``faulty`` is
    the outcome of the ticket, by incarnation the class of the error; ``late`` is what `SendFailed`
    told after the sender had gone on.
    """

    number: int
    sender: str
    sequence: int
    targets: tuple[str, ...]
    option: int
    begin: float
    failing: tuple[str, ...] = ()
    end: float | None = None
    faulty: dict[str, str] = {}
    late: dict[str, str] = {}


class Delivery(msgspec.Struct, array_like=True, frozen=True):
    """A listener got a raw message; ``failed`` if it raised."""

    sender: str
    sequence: int
    receiver: str
    time: float
    failed: bool = False


class Fault(msgspec.Struct, array_like=True, frozen=True):
    """Something happened to nodes or network.

    Kinds: start, crash, stop, pause, resume, partition, heal; slow and quick (a throttled node, by
    its name); reset (the connections between two nodes, which are over at once); disturb (anything
    else that lasts) until a mend or the next heal; jolt (anything else that is over at once); and
    present: the node was there and joined when the history began.
    """

    time: float
    kind: str
    nodes: tuple[str, ...] = ()


class Told(msgspec.Struct, array_like=True, frozen=True):
    """An incarnation told its operator or its application something.

    Kinds: added and removed (of the view; the subject is an incarnation, ``name#?`` if no such
    process was ever started; the detail is the port, and of a removal its reason), suspected and
    refuted (the subject as before), expired (the
    destroyed event of a session is due here; the subject is its key).
    """

    time: float
    node: str
    kind: str
    subject: str
    detail: str = ""


class Copies(msgspec.Struct, array_like=True, frozen=True):
    """At this time these incarnations held the same sessions and attributes."""

    time: float
    nodes: tuple[str, ...]


class _Stored(msgspec.Struct):
    ops: list[Op]
    sends: list[Send]
    deliveries: list[Delivery]
    faults: list[Fault]
    copies: list[Copies]
    told: list[Told]


class History:
    """An append-only record of a run."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.sends: list[Send] = []
        self.deliveries: list[Delivery] = []
        self.faults: list[Fault] = []
        self.copies: list[Copies] = []
        self.told: list[Told] = []
        self.waiting: dict[int, Op] = {}
        """Operations whose commit's waiter is not resolved yet."""
        self.deaths: dict[str, float] = {}
        """When each incarnation ended."""
        self.state: dict[str, Any] = {}
        """What online checks remember; no part of the record."""
        self._noted: list[Fault] = []
        self._times: list[float] = []
        self._is_open: list[bool] = []
        self._is_split = False
        self._open: dict[str, int] = {}
        self._slow: dict[str, list[tuple[float, bool]]] = {}

    # Writing.

    def op(self, client: str, node: str, kind: str, key: str, begin: float, **fields: Any) -> Op:
        """Append an operation that begins."""
        made = Op(len(self.ops), client, node, kind, key, begin, **fields)
        self.ops.append(made)
        return made

    def finish(self, op: Op, outcome: str, end: float) -> None:
        """The client goes on; only the first call counts."""
        if op.end is None:
            op.outcome, op.end = outcome, end

    def settle(self, op: Op, acked: tuple[str, ...], missing: dict[str, str], time: float) -> None:
        """The waiter of an operation was resolved."""
        self.waiting.pop(op.number, None)
        op.acked, op.missing, op.settled = acked, missing, time

    def send(
        self,
        sender: str,
        sequence: int,
        targets: tuple[str, ...],
        option: int,
        begin: float,
        failing: tuple[str, ...] = (),
    ) -> Send:
        """Append a raw message."""
        made = Send(len(self.sends), sender, sequence, targets, option, begin, failing)
        self.sends.append(made)
        return made

    def deliver(
        self, sender: str, sequence: int, receiver: str, time: float, *, failed: bool = False
    ) -> None:
        """Append the delivery of a raw message."""
        self.deliveries.append(Delivery(sender, sequence, receiver, time, failed))

    def fault(self, time: float, kind: str, *nodes: str) -> None:
        """Append a fault, or the end of one."""
        self._note(Fault(time, kind, nodes))

    def equal_copies(self, time: float, *nodes: str) -> None:
        """Note that these incarnations hold the same now."""
        self.copies.append(Copies(time, nodes))

    def tell(self, time: float, node: str, kind: str, subject: str, detail: str = "") -> None:
        """Append what a node told its operator or its application."""
        self.told.append(Told(time, node, kind, subject, detail))

    def _note(self, fault: Fault) -> None:
        self.faults.append(fault)
        kind, nodes = fault.kind, fault.nodes
        if kind == "present":
            return
        if kind in _ENDS:
            self.deaths.update(dict.fromkeys(nodes, fault.time))
        self._count(kind, nodes, fault.time)
        self._noted.append(fault)
        self._times.append(fault.time)
        self._is_open.append(self._is_split or any(self._open.values()))

    def _count(self, kind: str, nodes: tuple[str, ...], time: float) -> None:
        if kind == "partition":
            self._is_split = True
        elif kind == "heal":
            self._is_split = False
            self._open["disturb"] = 0
        elif kind in _BEGINS:
            self._open[kind] = self._open.get(kind, 0) + 1
        elif kind in _STOPS:
            begun = _STOPS[kind]
            self._open[begun] = max(0, self._open.get(begun, 0) - 1)
        if kind in ("pause", "resume", "slow", "quick"):
            for node in nodes:
                self._slow.setdefault(node, []).append((time, kind in _BEGINS))
        elif kind in _ENDS:
            # A process that ends while it is stopped is not resumed.
            for node in nodes:
                if self._slow.get(node, [(0.0, False)])[-1][1]:
                    self._slow[node].append((time, False))
                    self._open["pause"] -= 1

    # Asking.

    @property
    def is_disturbed(self) -> bool:
        """Whether something lasts that a heal would end."""
        return self._is_split or self._open.get("disturb", 0) > 0

    @property
    def last_fault(self) -> float:
        """When the last fault began or ended."""
        return self._times[-1] if self._times else 0.0

    def is_calm(self, begin: float, end: float, *, settle: float = SETTLE_S) -> bool:
        """Whether nothing went wrong from ``settle`` seconds before ``begin`` until ``end``."""
        before = bisect_right(self._times, begin - settle)
        if before != bisect_right(self._times, end):
            return False
        return not (before and self._is_open[before - 1])

    def quiet_spans(self, until: float) -> Iterator[tuple[float, float]]:
        """The spans between two faults in which nothing lasts, and the one after the last."""
        ends = [*self._times[1:], until][: len(self._times)]
        for begin, end, is_open in zip(self._times, ends, self._is_open, strict=True):
            if end > begin and not is_open:
                yield begin, end

    def faults_in(self, begin: float, end: float) -> list[Fault]:
        """The faults of a time, its limits included."""
        return self._noted[bisect_left(self._times, begin) : bisect_right(self._times, end)]

    def was_slow(self, incarnation: str, begin: float, end: float) -> bool:
        """Whether a process was stopped or throttled at any moment of a time."""
        for name in (incarnation, incarnation.partition("#")[0]):
            state = False
            for time, is_slow in self._slow.get(name, ()):
                if time > end:
                    break
                if time >= begin and (state or is_slow):
                    return True
                state = is_slow
            if state:
                return True
        return False

    def is_dead(self, incarnation: str, time: float) -> bool:
        """Whether an incarnation had ended by a time."""
        return self.deaths.get(incarnation, float("inf")) <= time

    # Keeping.

    def to_json(self) -> bytes:
        """The record as JSON, arrays for objects."""
        stored = _Stored(self.ops, self.sends, self.deliveries, self.faults, self.copies, self.told)
        return msgspec.json.encode(stored)

    @classmethod
    def from_json(cls, data: bytes | str) -> History:
        """Read a record back.

        Raises:
            msgspec.ValidationError: It is none.
        """
        stored = msgspec.json.decode(data, type=_Stored)
        made = cls()
        made.ops, made.sends, made.deliveries = stored.ops, stored.sends, stored.deliveries
        made.copies, made.told = stored.copies, stored.told
        for fault in stored.faults:
            made._note(fault)
        return made


def plain(value: Any) -> Any:
    """A value as JSON can carry it; of a long text only its begin and its length."""
    if isinstance(value, str) and len(value) > _SHOWN_MAX:
        return f"{value[:_SHOWN_MAX].rstrip('.')}({len(value)})"
    if isinstance(value, MergedCounter):
        return value.value
    if isinstance(value, MergedList):
        return list(value)
    return sorted(value) if isinstance(value, Set) else value
