"""What happens to connections, given to the part that each one belongs to.

There are four kinds: those of the members' senders and those that ask who is at an address, made
here; and accepted ones that are waiting at the door, or are recognised and read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from tribes.links.own_sender import OwnSender, SenderState

if TYPE_CHECKING:
    from tribes.channel.accepted import AcceptedLinks
    from tribes.channel.outbox import Outbox
    from tribes.channel.receiving import Receiving
    from tribes.channel.roster import Roster
    from tribes.links.base import LinkEnd
    from tribes.links.challenge import Challenges
    from tribes.links.pool import SenderPool

__all__ = ["Connections"]


@final
class Connections:
    """The inputs of a channel that name a connection.

    Args:
        accepted: Those that others have made.
        senders: Those that serve members.
        challenges: Those that ask.
        receiving: Reads what the members send.
        roster: Told who answers, and of trouble.
        outbox: Has the time of the input.
        is_protected: Whether the group has a key or TLS.
    """

    def __init__(
        self,
        *,
        accepted: AcceptedLinks,
        senders: SenderPool,
        challenges: Challenges,
        receiving: Receiving,
        roster: Roster,
        outbox: Outbox,
        is_protected: bool,
    ) -> None:
        self._accepted = accepted
        self._senders = senders
        self._challenges = challenges
        self._receiving = receiving
        self._roster = roster
        self._outbox = outbox
        self._is_protected = is_protected

    def opened(
        self, link: int, now: float, *, peer: tuple[str, int], attempt: int | None = None
    ) -> None:
        """A connection is there: one asked for by ``Connect(attempt)``, or an accepted one."""
        self._outbox.now = now
        if attempt is None:
            self._accepted.opened(link, peer, now)
        elif not self._challenges.link_opened(attempt, link, now):
            self._senders.link_opened(attempt, link, now)

    def connect_failed(self, attempt: int, why: Exception, now: float) -> None:
        """A connection asked for by ``Connect(attempt)`` could not be made."""
        self._outbox.now = now
        if not self._challenges.connect_failed(attempt, why, now):
            self._senders.connect_failed(attempt, why, now)

    def received(self, link: int, data: bytes, now: float) -> None:
        """Bytes arrived on a connection."""
        self._outbox.now = now
        receiver = self._accepted.receivers.get(link)
        if receiver is None:
            sender = self._senders.of_link(link)
            if sender is not None:
                self._answer(sender, data, now)
                return
            known = self._accepted.recognise(link, data, now)
            if known is None:
                self._challenges.link_bytes(link, data, now)
                return
            receiver, data = known
        self._receiving.received(receiver, data, now)

    def _answer(self, sender: LinkEnd, data: bytes, now: float) -> None:
        """Bytes on a sender's connection."""
        health = self._roster.health
        if self._is_protected and isinstance(sender, OwnSender):
            # Only what could be read is the member's: anybody can write to an open port.
            sender.received(data, now)
            if sender.state is SenderState.OPEN:
                health.answered(sender.member, now)
            return
        health.answered(sender.member, now)
        sender.received(data, now)

    def closed(self, link: int, why: Exception | None, now: float) -> None:
        """A connection ended, and not because of an output ``Close``."""
        self._outbox.now = now
        if self._challenges.link_closed(link, why, now):
            return
        receiver = self._accepted.closed(link)
        if receiver is None:
            self._senders.link_closed(link, why, now)
            return
        for source in receiver.sources:
            # Who has lost the connection to us may have lost everything.
            self._roster.trouble(source, why or ConnectionResetError("connection closed"), now)

    def writable(self, link: int, total: int, now: float) -> None:
        """The operating system has taken ``total`` bytes of this connection so far."""
        self._outbox.now = now
        receiver = self._accepted.receivers.get(link)
        if receiver is not None:
            receiver.writable(total)
            return
        sender = self._senders.of_link(link)
        if sender is not None:
            sender.writable(total, now)
