"""Notices members that end without a word, where no heartbeat tells of it.

Tomcat's ``TcpPingInterceptor`` (tribes-wire §7.8), for static members. Where a `TcpFailureDetector`
stands below, it is asked to test the members; else each gets a message that its receiver drops, so
that a broken connection is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, ReceiveNext
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ConfigError
from tribes.interceptors.failure import TcpFailureDetector
from tribes.interceptors.static import StaticMembershipInterceptor
from tribes.wire.probes import TCP_PING_PAYLOAD

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["TcpPingInterceptor"]


class TcpPingInterceptor(Interceptor):
    """Asks all members regularly.

    Args:
        interval: Milliseconds between two rounds, with ``use_thread`` (``interval``).
        use_thread: Keep an own time; False: at the channel's heartbeats (``useThread``). No thread
            is needed for it here.
        static_only: Ask only the members that a `StaticMembershipInterceptor` below has configured
            (``staticOnly``).
        option_flag: Options of the message (``optionFlag``).
    """

    def __init__(
        self,
        *,
        interval: int = 1000,
        use_thread: bool = False,
        static_only: bool = False,
        option_flag: int = 0,
    ) -> None:
        if interval < 1:
            raise ConfigError(f"must be at least 1, found {interval}", key="interval")
        self.interval = interval
        self.use_thread = use_thread
        self.static_only = static_only
        self.option_flag = option_flag

    def start(self, now: float) -> None:
        """Begin the rounds."""
        if self.use_thread:
            self.context.timers.at(now + self.interval / 1000, self._round)

    def on_heartbeat(self, now: float) -> None:
        """Ask, unless there is an own time for it."""
        if not self.use_thread:
            self._ask(now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Drop the messages of others; pass everything else on."""
        if message.message == TCP_PING_PAYLOAD and self.wants(message.options):
            return
        next(message, now)

    def _round(self, now: float) -> None:
        if not self.context.is_shut_down():
            self._ask(now)
            self.context.timers.at(now + self.interval / 1000, self._round)

    def _ask(self, now: float) -> None:
        members = self._members()
        if not members:
            return
        if any(isinstance(each, TcpFailureDetector) for each in self.below):
            for member in members:
                self.context.doubt(member, now)
            return
        data = self.context.new_message(TCP_PING_PAYLOAD, self.option_flag)
        self.send_own(Outgoing(data, members, Ticket(members)), now)

    def _members(self) -> tuple[Member, ...]:
        members = self.context.view.members
        if not self.static_only:
            return members
        static = {
            member
            for each in self.below
            if isinstance(each, StaticMembershipInterceptor)
            for member in each.members
        }
        return tuple(member for member in members if member in static)
