"""What a receiver remembers of the members that send to it on own links (DESIGN §4.2).

Rules of this file:

1. Frames are numbered from 1 per (sender incarnation, inbox). A position is *received* once, *open*
   until its outcome is known, and *done* afterwards. The *floor* is the last position with none
   open at or below it.
2. An inbox outlives its connections: what one of them received, the next one does not take again.
3. An outcome that the sender waits for and that is a failure is kept until the sender says that it
   has seen it: the floor alone would tell it as success.
4. An inbox that is forgotten is never made again: its successor has another incarnation, by which
   the sender learns that what it had not heard of by then stays unknown.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.links.own_acks import FAILURES_PER_ACK_MAX, RUNS_PER_ACK_MAX, Ack, Failure

if TYPE_CHECKING:
    from tribes.links.own_receiver import OwnReceiver

T = TypeVar("T")

__all__ = ["FAILURES_MAX", "INBOXES_MAX", "OPEN_MAX", "OwnInbox", "OwnInboxes"]

INBOXES_MAX: Final = 1000
"""Senders remembered while they have no connection; the least recently used is forgotten."""

OPEN_MAX: Final = 4096
"""Positions that may be open at once. Beyond it the connection is not read until half are done."""

FAILURES_MAX: Final = 65_536
"""Failures that a sender may leave unconfirmed. It confirms each acknowledgement it reads, and has
at most some 31,000 frames (4 MiB, 135 bytes each) whose outcome it waits for, and as many whose
confirmation is under way: one that exceeds this does not keep to the protocol."""

REASONS_MAX: Final = 1024
"""Unconfirmed failures whose reason is kept; of more only that they failed is told."""

_NO_REASON: Final = "failed; too many failures at once to keep each reason"

_RETIRED_MAX: Final = 16
"""Incarnations of a sender that were replaced, kept to refuse their late connections."""

_WANTS_OUTCOME: Final = 0x06
"""USE_ACK and SYNCHRONIZED_ACK: the sender waits until the frame was processed."""


@final
class OwnInbox:
    """What was received from one incarnation of one sender.

    Args:
        unique_id: The sender's.
        sender: Its incarnation.
        incarnation: This inbox's own, random.
    """

    __slots__ = (
        "_early",
        "_early_all",
        "_failures",
        "_floor",
        "_open",
        "_told",
        "_told_serial",
        "attempt",
        "incarnation",
        "reasons_dropped",
        "received",
        "receiver",
        "sender",
        "serial",
        "unique_id",
    )

    def __init__(self, unique_id: bytes, sender: int, incarnation: int) -> None:
        self.unique_id = unique_id
        self.sender = sender
        self.incarnation = incarnation
        self.attempt = 0
        self.received = 0
        self.serial = 0
        self.reasons_dropped = 0
        self.receiver: OwnReceiver | None = None
        self._floor = 0
        self._open: dict[int, bool] = {}  # position: whether the sender waits for the outcome
        self._early: list[int] = []  # done above the floor, and not told on this connection
        self._early_all = False  # instead: all that are done above the floor
        self._failures: deque[Failure] = deque()  # the last one has the number `serial`
        self._told = (0, 0)
        self._told_serial = 0

    def __repr__(self) -> str:
        return (
            f"<OwnInbox received={self.received} floor={self._floor} open={len(self._open)} "
            f"unconfirmed={len(self._failures)}>"
        )

    @property
    def floor(self) -> int:
        """All positions up to here are done."""
        return self._floor

    @property
    def open_count(self) -> int:
        """Positions whose outcome is not known yet."""
        return len(self._open)

    @property
    def unconfirmed(self) -> int:
        """Failures that the sender has not confirmed."""
        return len(self._failures)

    def take(self, body: bytes) -> int:
        """Count one frame that was received and return its position, which is open now."""
        self.received += 1
        # The low byte of the options, a big-endian i32 at the start of the body.
        wants = len(body) > 3 and body[3] & _WANTS_OUTCOME == _WANTS_OUTCOME
        self._open[self.received] = wants
        return self.received

    def done(self, position: int, error: Exception | str | None) -> None:
        """Note the outcome of a position: None when it was processed, else why not.

        Raises:
            LocalProtocolError: The position is not open.
        """
        wants = self._open.pop(position, None)
        if wants is None:
            raise LocalProtocolError(f"position {position} is not open")
        if error is not None and wants:
            self.serial += 1
            reason = str(error) or type(error).__name__
            if len(self._failures) >= REASONS_MAX:
                self.reasons_dropped += 1
                reason = _NO_REASON
            # Bounded: `check_confirmed` costs a peer that never confirms its connection.
            self._failures.append((position, reason[:200]))
        if position == self._floor + 1:
            floor = position
            while floor < self.received and floor + 1 not in self._open:
                floor += 1
            self._floor = floor
        if self.receiver is not None:
            if position > self._floor:
                self._early.append(position)
            self.receiver.eased()

    def confirm(self, serial: int) -> None:
        """The sender has seen the failures up to this serial.

        Raises:
            RemoteProtocolError: It was never told that many.
        """
        if serial > self._told_serial:
            raise RemoteProtocolError(f"confirms failure {serial} of {self._told_serial}")
        while self._failures and self.serial - len(self._failures) < serial:
            self._failures.popleft()

    def check_confirmed(self) -> None:
        """Refuse a sender that does not confirm failures.

        Raises:
            RemoteProtocolError: More than ``FAILURES_MAX`` are unconfirmed.
        """
        if len(self._failures) > FAILURES_MAX:
            raise RemoteProtocolError(f"{len(self._failures)} failures were never confirmed")

    def restart(self) -> None:
        """A new connection begins: everything that its peer may not know is to be told."""
        self._told = (-1, -1)
        self._told_serial = self.serial - len(self._failures)
        self._early = []
        self._early_all = True

    def acks(self) -> Iterator[Ack]:
        """Yield the acknowledgements that are due, in order; all must be written."""
        untold = self.serial - self._told_serial
        known = (self.received, self._floor)
        if not untold and not self._early and not self._early_all:
            if known != self._told:
                self._told = known
                yield Ack(self.received, self._floor)
            return
        if self._early_all:
            early = list(self._between_open())
        else:
            early = list(_runs(sorted(p for p in self._early if p > self._floor)))
        runs = [tuple(some) for some in _cut(early, RUNS_PER_ACK_MAX)] or [()]
        failures = list(islice(self._failures, len(self._failures) - untold, None))
        # Failures go first: what is done and did not fail counts as processed.
        *first, last = [tuple(some) for some in _cut(failures, FAILURES_PER_ACK_MAX)] or [()]
        for some in first:
            self._told_serial += len(some)
            yield Ack(self.received, 0, failures=some, serial=self._told_serial)
        self._told_serial += len(last)
        yield Ack(self.received, self._floor, runs[0], last, self._told_serial if last else 0)
        for some_runs in runs[1:]:
            yield Ack(self.received, self._floor, some_runs)
        self._told = known
        self._early = []
        self._early_all = False

    def _between_open(self) -> Iterator[tuple[int, int]]:
        """Yield all runs above the floor. There may be millions of positions, not of runs."""
        if not self._open:
            return
        before = self._floor
        for position in (*self._open, self.received + 1):
            if before > self._floor and position > before + 1:
                yield before + 1, position - 1
            before = position


def _cut(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _runs(positions: list[int]) -> Iterator[tuple[int, int]]:
    """Yield ascending positions as (first, last) of those that follow one another."""
    first = last = 0
    for position in positions:
        if position != last + 1 or not first:
            if first:
                yield first, last
            first = position
        last = position
    if first:
        yield first, last


@final
class OwnInboxes:
    """The inboxes of all senders, one each.

    Those with a connection are always kept: connections have a bound of their own.

    Args:
        entropy: Gives n random bytes.
        inboxes_max: How many without a connection are remembered, and how many that were offered to
            senders which have not started yet.
    """

    def __init__(self, entropy: Callable[[int], bytes], *, inboxes_max: int = INBOXES_MAX) -> None:
        self._entropy = entropy
        self._max = inboxes_max
        self._inboxes: dict[bytes, OwnInbox] = {}
        self._resting: OrderedDict[bytes, None] = OrderedDict()
        self._offered: OrderedDict[tuple[bytes, int], OwnInbox] = OrderedDict()
        self._retired: dict[bytes, deque[int]] = {}
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._inboxes)

    def get(self, unique_id: bytes) -> OwnInbox | None:
        """The inbox of a sender, if it has one."""
        return self._inboxes.get(unique_id)

    def find(self, unique_id: bytes, sender: int) -> OwnInbox:
        """The inbox of an incarnation of a sender. A new one counts once it is adopted: whoever
        has not proved who it is must not displace anything.
        """
        known = self._inboxes.get(unique_id)
        if known is not None and known.sender == sender:
            return known
        # The same one again if the connection it was made for broke before START: another
        # incarnation would tell the sender that it was forgotten.
        offered = self._offered.get((unique_id, sender))
        if offered is None:
            offered = OwnInbox(unique_id, sender, int.from_bytes(self._entropy(8), "big"))
            self._offered[unique_id, sender] = offered
            if len(self._offered) > self._max:
                self._offered.popitem(last=False)
        return offered

    def adopt(self, inbox: OwnInbox, receiver: OwnReceiver, attempt: int) -> OwnReceiver | None:
        """``receiver`` is from now on the connection of ``inbox``; returns the one it displaces.

        Raises:
            RemoteProtocolError: A newer connection was here first, or the inbox was replaced since
                it was found.
        """
        unique_id = inbox.unique_id
        known = self._inboxes.get(unique_id)
        retired = self._retired.get(unique_id, ())
        if inbox.sender in retired:
            raise RemoteProtocolError("the connection of a sender that was replaced")
        if known is not None and known.sender == inbox.sender:
            if known is not inbox:
                raise RemoteProtocolError("another connection of this sender was first")
            if attempt <= known.attempt:
                raise RemoteProtocolError("a newer connection of this sender was first")
        displaced = known.receiver if known is not None else None
        if known is not None:
            known.receiver = None
            if known is not inbox:
                self._retired.setdefault(unique_id, deque(maxlen=_RETIRED_MAX)).append(known.sender)
        self._inboxes[unique_id] = inbox
        self._offered.pop((unique_id, inbox.sender), None)
        self._resting.pop(unique_id, None)
        inbox.receiver = receiver
        inbox.attempt = attempt
        inbox.restart()
        return displaced

    def rest(self, inbox: OwnInbox, receiver: OwnReceiver) -> None:
        """The connection of an inbox ended."""
        if inbox.receiver is not receiver:
            return
        inbox.receiver = None
        if self._inboxes.get(inbox.unique_id) is not inbox:
            return
        self._resting[inbox.unique_id] = None
        if len(self._resting) > self._max:
            oldest, _ = self._resting.popitem(last=False)
            self._drop(oldest)
            self.forgotten += 1

    def forget(self, unique_id: bytes) -> OwnReceiver | None:
        """A member was removed: forget it. Returns its connection, which must be closed."""
        inbox = self._inboxes.get(unique_id)
        self._resting.pop(unique_id, None)
        self._drop(unique_id)
        if inbox is None:
            return None
        receiver, inbox.receiver = inbox.receiver, None
        return receiver

    def _drop(self, unique_id: bytes) -> None:
        self._inboxes.pop(unique_id, None)
        self._retired.pop(unique_id, None)
