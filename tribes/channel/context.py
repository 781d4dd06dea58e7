"""What interceptors may ask of the channel: the :class:`ChainContext` of a real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tribes.channel.identity import Identity
    from tribes.channel.outbox import Outbox
    from tribes.channel.outputs import Event
    from tribes.channel.receiving import Held, Receiving
    from tribes.channel.roster import Roster
    from tribes.membership.view import View, ViewBuilder
    from tribes.timers import Timers
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["Context"]


@final
class Context:
    """Passes each question on to the part that answers it.

    Args:
        identity: Who this is.
        timers: Where interceptors ask to be woken.
        views: The members.
        roster: Knows and asks who is there.
        receiving: Has the message that is being received.
        outbox: Takes events.
        is_stopped: Whether the channel was stopped.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        timers: Timers,
        views: ViewBuilder,
        roster: Roster,
        receiving: Receiving,
        outbox: Outbox,
        is_stopped: Callable[[], bool],
    ) -> None:
        self.timers = timers
        self._identity = identity
        self._views = views
        self._roster = roster
        self._receiving = receiving
        self._outbox = outbox
        self.is_shut_down = is_stopped
        self.probe = roster.probe
        self.confirm = roster.confirm

    @property
    def local(self) -> Member:
        """The own member record."""
        return self._identity.local

    @property
    def view(self) -> View:
        """The other members."""
        return self._views.current

    def wall_ms(self) -> int:
        """Wall clock in milliseconds."""
        return self._identity.wall_ms()

    def entropy(self, size: int) -> bytes:
        """Give that many random bytes."""
        return self._identity.entropy(size)

    def new_message(self, message: bytes, options: int) -> ChannelData:
        """Make a message of an interceptor's own."""
        return self._identity.new_message(message, options)

    def hold(self) -> Held:
        """Take the message that is being received."""
        return self._receiving.hold()

    def doubt(self, member: Member, now: float) -> None:
        """Ask whether a member is still there."""
        self._roster.trouble(member, TimeoutError("asked by an interceptor"), now)

    def event(self, event: Event) -> None:
        """Tell the operator something."""
        self._outbox.emit(event)

    def forget(self, member: Member) -> None:
        """Make the membership service forget a member; its next heartbeat makes it new."""
        self._roster.membership.forget(member)
