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
    from tribes.timers import Timers
    from tribes.wire.member import Member

__all__ = ["Chain", "ChainContext", "Interceptor", "Verdict"]

SendNext = Callable[[Outgoing, float], None]
ReceiveNext = Callable[[ChannelData, float], None]
MembersNext = Callable[[MemberChange, float], None]


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
    """

    option_flag: int = 0

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
    ) -> None:
        self.interceptors = tuple(interceptors)
        send, receive, change = bottom, top, members
        for interceptor in reversed(self.interceptors):
            send = _send_step(interceptor, send)
        for interceptor in self.interceptors:
            receive = _receive_step(interceptor, receive)
            change = _members_step(interceptor, change)
        self.send: SendNext = send
        """Enter at the top, towards the wire."""
        self.receive: ReceiveNext = receive
        """Enter at the bottom, towards the listeners."""
        self.on_members: MembersNext = change
        """Enter at the bottom, towards the view."""

    def on_trouble(self, member: Member, why: Exception, now: float) -> None:
        """Tell every interceptor, the lowest first."""
        for interceptor in reversed(self.interceptors):
            interceptor.on_trouble(member, why, now)


def _send_step(interceptor: Interceptor, following: SendNext) -> SendNext:
    if type(interceptor).send is Interceptor.send:
        return following
    send = interceptor.send
    return lambda message, now: send(message, now, following)


def _receive_step(interceptor: Interceptor, following: ReceiveNext) -> ReceiveNext:
    if type(interceptor).receive is Interceptor.receive:
        return following
    receive = interceptor.receive
    return lambda message, now: receive(message, now, following)


def _members_step(interceptor: Interceptor, following: MembersNext) -> MembersNext:
    if type(interceptor).on_members is Interceptor.on_members:
        return following
    on_members = interceptor.on_members
    return lambda change, now: on_members(change, now, following)
