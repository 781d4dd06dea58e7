"""The senders to all members: one each, made when first needed, given back when not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.errors import MemberUnreachableError
from tribes.links.plain import PlainSender

if TYPE_CHECKING:
    from tribes.config.model import SenderConfig
    from tribes.links.base import PeerSender
    from tribes.timers import Timers
    from tribes.wire.member import Member
    from tribes.wire.outputs import NetworkOutput

__all__ = ["SenderPool"]

_STRANGER_IDLE_S = 5.0
"""How long the connection to a destination that is no member stays open without use."""


class SenderPool:
    """Finds the sender of a member, of a connection attempt, and of a connection.

    Args:
        config: Settings of every sender.
        timers: Where senders ask to be woken.
        emit: Takes their outputs.
        new_attempt: Numbers connection attempts.
        is_member: Whether a destination is in the view; a stranger's sender is given back soon.
        lost: Told when a connection broke or could not be made.
    """

    def __init__(
        self,
        config: SenderConfig,
        *,
        timers: Timers,
        emit: Callable[[NetworkOutput], None],
        new_attempt: Callable[[], int],
        is_member: Callable[[Member], bool],
        lost: Callable[[Member, Exception, float], None],
    ) -> None:
        self._config = config
        self._timers = timers
        self._emit = emit
        self._new_attempt = new_attempt
        self._is_member = is_member
        self._lost = lost
        self._senders: dict[Member, PeerSender] = {}
        self._by_attempt: dict[int, PeerSender] = {}
        self._by_link: dict[int, PeerSender] = {}

    def get(self, member: Member, now: float) -> PeerSender:
        """The sender to a destination."""
        sender = self._senders.get(member)
        if sender is None:
            # The seam for other kinds of links: what a member speaks decides what is made here.
            sender = self._senders[member] = PlainSender(
                member,
                self._config,
                timers=self._timers,
                emit=self._emit,
                connect=self._connect,
                lost=self._lost,
            )
            if not self._is_member(member):
                self._watch(member, now)
        return sender

    def member_added(self, member: Member, now: float) -> None:
        """A member joined: connect to it, so that the end of the connection tells its crash."""
        if self._config.keep_connected:
            self.get(member, now).connect(now)

    def drop(self, member: Member, now: float) -> None:
        """A member is gone: what waits for it fails, and what is on its way is taken back.

        Frames do not name their destination; late ones would reach its successor on the same port,
        behind what that was sent.
        """
        self._drop(member, now, abort=True)

    def _drop(self, member: Member, now: float, *, abort: bool) -> None:
        sender = self._senders.pop(member, None)
        if sender is not None:
            why = MemberUnreachableError(f"{member.name} is no longer a member")
            sender.close(why, now, abort=abort)

    def close(self, why: Exception, now: float) -> None:
        """Fail whatever waits, for everybody."""
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            sender.close(why, now, abort=False)

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way to anybody."""
        return all(sender.is_idle for sender in self._senders.values())

    @property
    def queued_bytes(self) -> dict[Member, int]:
        """What is on its way to each destination."""
        return {member: sender.queued_bytes for member, sender in self._senders.items()}

    # What the driver reports.

    def link_opened(self, attempt: int, link: int, now: float) -> None:
        """The connection of an attempt is there."""
        sender = self._by_link[link] = self._by_attempt.pop(attempt)
        sender.link_opened(link, now)

    def connect_failed(self, attempt: int, why: Exception, now: float) -> None:
        """The connection of an attempt could not be made."""
        self._by_attempt.pop(attempt).connect_failed(why, now)

    def of_link(self, link: int) -> PeerSender | None:
        """The sender whose connection this is."""
        return self._by_link.get(link)

    def link_closed(self, link: int, why: Exception | None, now: float) -> None:
        """A connection ended by itself; one that is no sender's is ignored."""
        sender = self._by_link.pop(link, None)
        if sender is not None:
            sender.link_closed(why, now)

    def forget_link(self, link: int) -> None:
        """This side closes a connection."""
        self._by_link.pop(link, None)

    def _connect(self, member: Member) -> int:
        attempt = self._new_attempt()
        self._by_attempt[attempt] = self._senders[member]
        return attempt

    def _watch(self, member: Member, now: float) -> None:
        def look(then: float) -> None:
            sender = self._senders.get(member)
            if sender is None or self._is_member(member):
                return
            if sender.is_idle:
                self._drop(member, then, abort=False)
            else:
                self._watch(member, then)

        self._timers.at(now + _STRANGER_IDLE_S, look)
