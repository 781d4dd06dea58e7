"""The interceptor chain: what users put between their messages and the wire.

The first interceptor is the first on the way down (send) and the last on the way up (receive), as
in a Tomcat configuration. Interceptors are synchronous and own no clock, socket or randomness;
whatever they want done they say through their :class:`ChainContext`. What an interceptor itself
sends enters the chain just below it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from tribes.channel.tickets import Outgoing
from tribes.membership.change import MemberChange
from tribes.wire.data import ChannelData

if TYPE_CHECKING:
    from tribes.channel.outputs import Event
    from tribes.channel.trail import Trail
    from tribes.membership.view import View
    from tribes.timers import Timers
    from tribes.wire.member import Member

__all__ = ["Chain", "ChainContext", "Hold", "Interceptor", "Verdict"]

SendNext = Callable[[Outgoing, float], None]
ReceiveNext = Callable[[ChannelData, float], None]
MembersNext = Callable[[MemberChange, float], None]


class Hold(Protocol):
    """A received message that an interceptor keeps for a while."""

    def hand_on(self, deliver: Callable[[], None]) -> None:
        """Run ``deliver``, which hands the message on; its outcome is the message's."""

    def give_up(self) -> None:
        """The message is dropped: its sender is told that it was not processed."""


class Verdict(enum.Enum):
    """Whether a member that gave no answer may be removed."""

    GONE = "gone"
    """Yes: no other member that could be asked has an answer either."""
    ANSWERED = "answered"
    """No: it has answered here meanwhile."""
    CONTRADICTED = "contradicted"
    """No: it answers another member."""
    EARLY = "early"
    """Not yet: it has not been silent for long enough."""


class ChainContext(Protocol):
    """What an interceptor may ask of the channel it sits in."""

    timers: Timers

    @property
    def local(self) -> Member:
        """The own member record."""

    @property
    def view(self) -> View:
        """The members that users see: what all interceptors let through."""

    def wall_ms(self) -> int:
        """Wall clock in milliseconds, as messages carry it."""

    def entropy(self, size: int) -> bytes:
        """Give that many random bytes."""

    def new_message(self, message: bytes, options: int) -> ChannelData:
        """Make a message of an interceptor's own: with a new id, the time and the own record."""

    def hold(self) -> Hold:
        """Take the message that is being received: its sender learns the outcome when it was
        handed on, or given up, by the returned object. Without a message that does nothing.
        """

    def doubt(self, member: Member, now: float) -> None:
        """Ask whether a member is still there, as if a connection to it had broken."""

    def event(self, event: Event) -> None:
        """Tell the operator something."""

    def forget(self, member: Member) -> None:
        """Make the membership service forget a member: its next heartbeat makes it new."""

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
        """Ask on a connection of its own whether a member is there.

        ``answer`` gets None when it is, else why not. An empty message tests the connection alone.
        """

    def confirm(
        self, member: Member, *, is_refused: bool, answer: Callable[[Verdict, float], None]
    ) -> None:
        """Ask other members before one is removed that gave no answer.

        ``answer`` gets the verdict, maybe at once, and after a third of a second at the latest.
        With ``is_refused`` its operating system has said that it is not there; otherwise it must
        have been silent for ``drop_time``, or longer where no other member confirms it.
        """

    def is_shut_down(self) -> bool:
        """True once the channel is stopping."""


class Interceptor:
    """Base of all interceptors: passes everything on. Override what you need.

    Attributes:
        option_flag: Send options that ask for this interceptor (Tomcat: ``optionFlag``).
        down: The way to the interceptor below, for what this one sends of itself or later.
        up: The way to the interceptor above, for messages that were held back.
        report: The same for changes of the membership.
        below: The interceptors between this one and the wire, the next first.
    """

    option_flag: int = 0
    down: SendNext
    up: ReceiveNext
    report: MembersNext
    below: tuple[Interceptor, ...] = ()

    def attach(self, context: ChainContext) -> None:
        """Take the channel's context; called once, before anything else."""
        self.context = context

    def start(self, now: float) -> None:
        """The channel starts."""

    def stop(self, now: float) -> None:
        """The channel stops: give up what is held back."""

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """A message on its way down: call ``next`` to pass it on."""
        next(message, now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """A message on its way up: call ``next`` to pass it on, or not to drop it."""
        next(message, now)

    def on_members(self, change: MemberChange, now: float, next: MembersNext) -> None:  # noqa: A002
        """The membership below changed: call ``next`` to let the layers above know."""
        next(change, now)

    def on_trouble(self, member: Member, why: Exception, now: float) -> None:
        """A connection to a member broke, or a message to it failed for another reason than its
        listener. A hint only.
        """

    def on_view(self, change: MemberChange, now: float) -> None:
        """The view changed: a change has passed every interceptor."""

    def on_heartbeat(self, now: float) -> None:
        """The channel's heartbeat, every ``heartbeat_sleeptime`` ms."""

    def message_max_bytes(self, below: int) -> int:
        """The longest message that may enter here, when ``below`` is the longest that the next
        interceptor takes.
        """
        return below

    def send_own(self, message: Outgoing, now: float) -> None:
        """Send what nobody above asked for; whatever fails, fails the message only."""
        try:
            self.down(message, now)
        except Exception as error:  # noqa: BLE001 - what is below is not ours
            message.ticket.fail(error, now)

    def wants(self, options: int) -> bool:
        """Whether a message with these options asks for this interceptor (Tomcat:
        ``okToProcess``).
        """
        return not self.option_flag or options & self.option_flag == self.option_flag


class Chain:
    """Interceptors in order, ready to be walked in both directions."""

    def __init__(
        self,
        interceptors: Sequence[Interceptor],
        *,
        bottom: SendNext,
        top: ReceiveNext,
        members: MembersNext,
        trail: Trail | None = None,
    ) -> None:
        self.interceptors = tuple(interceptors)
        send, receive, change = bottom, top, members
        for place, interceptor in reversed(list(enumerate(self.interceptors))):
            interceptor.below = self.interceptors[place + 1 :]
            interceptor.down = send
            send = _send_step(interceptor, send, trail)
        for interceptor in self.interceptors:
            interceptor.up, interceptor.report = receive, change
            receive = _receive_step(interceptor, receive, trail)
            change = _members_step(interceptor, change)
        self.send: SendNext = send
        """Enter at the top, towards the wire."""
        self.receive: ReceiveNext = receive
        """Enter at the bottom, towards the listeners."""
        self.on_members: MembersNext = change
        """Enter at the bottom, towards the view."""

    @property
    def has_heartbeat(self) -> bool:
        """Whether any interceptor does something at a heartbeat."""
        return any(
            type(each).on_heartbeat is not Interceptor.on_heartbeat for each in self.interceptors
        )

    def on_heartbeat(self, now: float) -> None:
        """Tell every interceptor, the highest first, as Tomcat does."""
        for interceptor in self.interceptors:
            interceptor.on_heartbeat(now)

    def on_view(self, change: MemberChange, now: float) -> None:
        """Tell every interceptor what the view has become."""
        for interceptor in self.interceptors:
            interceptor.on_view(change, now)

    def message_max_bytes(self, at_bottom: int) -> int:
        """The longest message that may enter at the top."""
        longest = at_bottom
        for interceptor in reversed(self.interceptors):
            longest = interceptor.message_max_bytes(longest)
        return longest

    def on_trouble(self, member: Member, why: Exception, now: float) -> None:
        """Tell every interceptor, the lowest first."""
        for interceptor in reversed(self.interceptors):
            interceptor.on_trouble(member, why, now)


def _send_step(interceptor: Interceptor, following: SendNext, trail: Trail | None) -> SendNext:
    if type(interceptor).send is Interceptor.send:
        return following
    send = interceptor.send
    if trail is not None:
        name = f"tribes.send {type(interceptor).__name__}"
        return lambda message, now: trail.span(name, {}, send, message, now, following)
    return lambda message, now: send(message, now, following)


def _receive_step(
    interceptor: Interceptor, following: ReceiveNext, trail: Trail | None
) -> ReceiveNext:
    if type(interceptor).receive is Interceptor.receive:
        return following
    receive = interceptor.receive
    if trail is not None:
        name = f"tribes.receive {type(interceptor).__name__}"
        return lambda message, now: trail.span(name, {}, receive, message, now, following)
    return lambda message, now: receive(message, now, following)


def _members_step(interceptor: Interceptor, following: MembersNext) -> MembersNext:
    if type(interceptor).on_members is Interceptor.on_members:
        return following
    on_members = interceptor.on_members
    return lambda change, now: on_members(change, now, following)
