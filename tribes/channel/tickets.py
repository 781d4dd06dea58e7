"""The outcome of one send, gathered from its destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["Outgoing", "Ticket", "divide"]


class Ticket:
    """Waits for every destination of one message and tells the outcome once.

    A ticket has up to two ends: it is *released* when the caller may go on, which an asynchronous
    send is before any member has the message, and *settled* when the last destination succeeded or
    failed.

    Args:
        destinations: Who has to answer.
        released: Called with the faulty members known by then, exactly once, never after settled.
        settled: Called with all faulty members, exactly once.
        each: Called with each destination as soon as it succeeded (None) or failed.
        parent: The ticket that this one's frames wait for as well, and that says whether it is
            live; for an interceptor that puts its own in between.
        is_live: A session manager's: nobody is blocked when a member's queue is full.

    Attributes:
        held: Frames of the message that still wait for room in a member's queue.
        on_free: Called when there are none any more.
    """

    __slots__ = (
        "_on_each",
        "_on_released",
        "_on_settled",
        "_open",
        "faulty",
        "held",
        "is_live",
        "is_released",
        "on_free",
        "parent",
    )

    def __init__(
        self,
        destinations: Iterable[Member],
        *,
        released: Callable[[dict[Member, Exception], float], None] | None = None,
        settled: Callable[[dict[Member, Exception], float], None] | None = None,
        each: Callable[[Member, Exception | None, float], None] | None = None,
        is_live: bool = False,
        parent: Ticket | None = None,
    ) -> None:
        # In the order given: that of a set would be another one in every process.
        self._open = dict.fromkeys(destinations)
        self._on_released = released
        self._on_settled = settled
        self._on_each = each
        self.parent = parent
        self.is_live: bool = is_live if parent is None else parent.is_live
        self.held = 0
        self.on_free: Callable[[float], None] | None = None
        self.faulty: dict[Member, Exception] = {}
        self.is_released = False

    @property
    def waiting(self) -> frozenset[Member]:
        """The destinations that have neither succeeded nor failed."""
        return frozenset(self._open)

    @property
    def is_settled(self) -> bool:
        """True when every destination succeeded or failed."""
        return not self._open

    def release(self, now: float) -> None:
        """Let the caller go on."""
        if not self.is_released:
            self.is_released = True
            if self._on_released is not None:
                self._on_released(dict(self.faulty), now)

    def hold(self) -> None:
        """One of the message's frames waits for room."""
        self.held += 1
        if self.parent is not None:
            self.parent.hold()

    def let_go(self, now: float) -> None:
        """It does not any more: it was queued, or has failed."""
        self.held -= 1
        if not self.held and self.on_free is not None:
            self.on_free(now)
        if self.parent is not None:
            self.parent.let_go(now)

    def settle(self, member: Member, error: Exception | None, now: float) -> None:
        """Note the outcome at one destination; a second word on the same one is ignored."""
        if self._open.pop(member, self) is self:
            return  # each has None there
        if error is not None:
            self.faulty[member] = error
        if self._on_each is not None:
            self._on_each(member, error, now)
        if not self._open:
            self.release(now)
            if self._on_settled is not None:
                self._on_settled(self.faulty, now)

    def fail(self, error: Exception, now: float) -> None:
        """Fail every destination that has not answered yet with one error."""
        for member in list(self._open):
            self.settle(member, error, now)


def divide(ticket: Ticket, parts: Sequence[Iterable[Member]]) -> list[Ticket]:
    """Return a ticket for each part of one message, for an interceptor that sends several.

    A destination of the whole succeeds when all its parts did, and fails with the first that fails.
    The caller is released when every part has let it go on.

    Args:
        ticket: Of the whole message.
        parts: The destinations of each part; together those of the whole.
    """
    missing: dict[Member, int] = {}
    held = len(parts)

    def each(member: Member, error: Exception | None, now: float) -> None:
        missing[member] -= 1
        if error is not None or not missing[member]:
            ticket.settle(member, error, now)

    def released(_: dict[Member, Exception], now: float) -> None:
        nonlocal held
        held -= 1
        if not held:
            ticket.release(now)

    divided = []
    for part in parts:
        destinations = tuple(part)
        for member in destinations:
            missing[member] = missing.get(member, 0) + 1
        divided.append(Ticket(destinations, released=released, each=each, parent=ticket))
    return divided


class Outgoing:
    """A message on its way down the chain: what, to whom, and where the outcome goes.

    Interceptors may pass on the same object, or several others that settle the same ticket.
    """

    __slots__ = ("data", "destinations", "ticket")

    def __init__(self, data: ChannelData, destinations: tuple[Member, ...], ticket: Ticket) -> None:
        self.data = data
        self.destinations = destinations
        self.ticket = ticket
