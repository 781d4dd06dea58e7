"""A stage for interceptors: a chain between a scripted wire and a scripted application.

What a unit test of an interceptor needs: messages go in at either end and are noted at the other,
the membership changes when told, and time passes when told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from tribes.channel.chain import Chain, Interceptor, Verdict
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import RemoteProtocolError
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.membership.view import View, ViewBuilder
from tribes.timers import Timers
from tribes.wire.data import ChannelData
from tribes.wire.member import Member

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

__all__ = ["Stage", "StageHold", "stage_member"]


def stage_member(number: int, *, domain: bytes = b"") -> Member:
    """Member ``number`` of a made-up group; number 0 is usually the own one."""
    return Member(
        host=b"\x7f\x00\x00\x01", port=4000 + number, unique_id=bytes([number]) * 16, domain=domain
    )


class StageHold:
    """Notes what became of a held message: ``outcome`` is None while it is held."""

    def __init__(self) -> None:
        self.outcome: str | None = None

    def hand_on(self, deliver: Callable[[], None]) -> None:
        """Hand it on; a refusal is noted, as the channel does."""
        try:
            deliver()
        except RemoteProtocolError as error:
            self.outcome = str(error)
        else:
            self.outcome = "processed"

    def give_up(self) -> None:
        """Note it."""
        self.outcome = "given up"


class Stage:
    """A chain with nothing around it; implements ``ChainContext``.

    Args:
        interceptors: From the first to the last.
        local: The own record.
        wall_ms: What the wall clock says at the time 0.
        seed: Of its random bytes; members that talk to each other need different ones.

    Attributes:
        sent: What reached the wire.
        got: What reached the application.
        changes: What reached the view.
        events: What the operator was told.
        probes: Members that were asked, with the function to answer by.
        holds_taken: What became of the messages that interceptors kept.
        doubted: Members that the channel was asked to test.
        now: The time, in seconds.
        refuse: Destinations that the wire cannot reach; their messages fail at once.
        holds: Whether the wire leaves tickets open instead of settling them at once.
    """

    def __init__(
        self,
        *interceptors: Interceptor,
        local: Member | None = None,
        wall_ms: int = 10**12,
        seed: int = 0,
    ) -> None:
        self.timers = Timers()
        self.local = stage_member(0) if local is None else local
        self.wall_base = wall_ms
        self.now = 0.0
        self.sent: list[Outgoing] = []
        self.got: list[ChannelData] = []
        self.changes: list[MemberChange] = []
        self.events: list[Event] = []
        self.probes: list[tuple[Member, Callable[[Exception | None, float], None]]] = []
        self.doubted: list[Member] = []
        self.holds_taken: list[StageHold] = []
        self.forgotten: list[Member] = []
        self.refuse: dict[Member, Exception] = {}
        self.holds = False
        self.is_stopped = False
        self._views = ViewBuilder()
        self._random = Random(seed)
        self.chain = Chain(
            interceptors, bottom=self._to_wire, top=self._to_application, members=self._to_view
        )
        for interceptor in interceptors:
            interceptor.attach(self)

    # What interceptors ask.

    @property
    def view(self) -> View:
        """The members that came through."""
        return self._views.current

    def wall_ms(self) -> int:
        """The wall clock."""
        return self.wall_base + round(self.now * 1000)

    def entropy(self, size: int) -> bytes:
        """Repeatable bytes."""
        return self._random.randbytes(size)

    def new_message(self, message: bytes, options: int) -> ChannelData:
        """A message of an interceptor's own."""
        return ChannelData(options, self.wall_ms(), self.entropy(16), self.local, message)

    def hold(self) -> StageHold:
        """Note what becomes of the message."""
        held = StageHold()
        self.holds_taken.append(held)
        return held

    def doubt(self, member: Member, now: float) -> None:
        """Note it."""
        del now
        self.doubted.append(member)

    def event(self, event: Event) -> None:
        """Note it."""
        self.events.append(event)

    def forget(self, member: Member) -> None:
        """Note it."""
        self.forgotten.append(member)

    def confirm(
        self, member: Member, *, is_refused: bool, answer: Callable[[Verdict, float], None]
    ) -> None:
        """Nobody else has an answer of the member either."""
        del member, is_refused
        answer(Verdict.GONE, self.now)

    def is_shut_down(self) -> bool:
        """True once `stop` was called."""
        return self.is_stopped

    def probe(
        self,
        member: Member,
        message: bytes,
        *,
        options: int,
        expect_reply: bool,
        connect_timeout: float,
        reply_timeout: float,
        answer: Callable[[Exception | None, float], None],
    ) -> None:
        """Note whom, and the way to answer."""
        del message, options, expect_reply, connect_timeout, reply_timeout
        self.probes.append((member, answer))

    # What tests do.

    def start(self) -> None:
        """Start the chain."""
        for interceptor in self.chain.interceptors:
            interceptor.start(self.now)

    def stop(self) -> None:
        """Stop it, as the channel does."""
        self.is_stopped = True
        for interceptor in self.chain.interceptors:
            interceptor.stop(self.now)

    def send(
        self,
        message: bytes,
        *to: Member,
        options: int = 1,
        timestamp: int | None = None,
        unique_id: bytes = b"",
    ) -> Ticket:
        """Send from the application; to member 1 unless told otherwise."""
        ticket = Ticket(to or (stage_member(1),))
        data = ChannelData(
            options,
            self.wall_ms() if timestamp is None else timestamp,
            unique_id or self.entropy(16),
            self.local,
            message,
        )
        self.chain.send(Outgoing(data, to or (stage_member(1),), ticket), self.now)
        return ticket

    def receive(self, data: ChannelData) -> list[bytes]:
        """Let a message arrive; what the application got by that."""
        before = len(self.got)
        self.chain.receive(data, self.now)
        return [each.message for each in self.got[before:]]

    def arrive(
        self,
        message: bytes,
        source: Member | None = None,
        *,
        options: int = 1,
        unique_id: bytes = b"",
    ) -> list[bytes]:
        """Let bytes arrive, from member 1 unless told otherwise."""
        origin = stage_member(1) if source is None else source
        identity = unique_id or self.entropy(16)
        return self.receive(ChannelData(options, self.wall_ms(), identity, origin, message))

    def add(self, *members: Member) -> None:
        """Members appear below the chain."""
        for member in members:
            self.chain.on_members(MemberChange(ChangeKind.ADDED, member), self.now)

    def remove(self, member: Member, reason: RemovalReason = RemovalReason.SILENT) -> None:
        """A member disappears below the chain."""
        self.chain.on_members(MemberChange(ChangeKind.REMOVED, member, reason), self.now)

    def pass_time(self, seconds: float) -> None:
        """Run every timer that is due in that time, at its time."""
        end = self.now + seconds
        while self.timers.next_deadline <= end:
            self.now = self.timers.next_deadline
            self.timers.run_due(self.now)
        self.now = end

    def heartbeat(self) -> None:
        """The channel's heartbeat."""
        self.chain.on_heartbeat(self.now)

    @property
    def wire(self) -> list[bytes]:
        """The messages that reached the wire."""
        return [each.data.message for each in self.sent]

    @property
    def messages(self) -> list[bytes]:
        """The messages that reached the application."""
        return [each.message for each in self.got]

    def told(self, name: str) -> list[dict[str, object]]:
        """The fields of all events of a name."""
        return [event.fields() for event in self.events if event.name == name]

    def carry_to(self, other: Stage, numbers: Sequence[int] | None = None) -> list[bytes]:
        """Let what reached this wire arrive at another stage; what its application got by that.

        Args:
            other: The receiver.
            numbers: Which messages, in what order; None: all.
        """
        before = len(other.got)
        for number in range(len(self.sent)) if numbers is None else numbers:
            other.receive(self.sent[number].data)
        return [each.message for each in other.got[before:]]

    def _to_wire(self, message: Outgoing, now: float) -> None:
        self.sent.append(message)
        if self.holds:
            return
        for member in message.destinations:
            message.ticket.settle(member, self.refuse.get(member), now)

    def _to_application(self, message: ChannelData, now: float) -> None:
        del now
        self.got.append(message)

    def _to_view(self, change: MemberChange, now: float) -> None:
        self.changes.append(change)
        if change.kind is ChangeKind.REMOVED:
            self._views.remove(change.member)
        else:
            self._views.add(change.member, now)
        self.chain.on_view(change, now)
