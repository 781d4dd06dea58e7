"""The connections that others have made: from the door to their end.

What arrives on them is the channel's business; that a connection is let in, recognised, refused,
closed and forgotten is this file's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.channel.door import Door
from tribes.channel.outputs import LinkRejected
from tribes.channel.repeats import Repeats
from tribes.links.own_receiver import OwnReceiver
from tribes.links.plain_receiver import PlainReceiver
from tribes.wire.outputs import Close

if TYPE_CHECKING:
    from tribes.channel.outputs import Event
    from tribes.channel.protection import Protection
    from tribes.config.model import ChannelConfig
    from tribes.links.fresh import FreshLink
    from tribes.links.own_inbox import OwnInboxes
    from tribes.links.own_wire import OwnSide
    from tribes.timers import Timers
    from tribes.wire.member import Member
    from tribes.wire.outputs import NetworkOutput

__all__ = ["AcceptedLinks", "Receiver"]

Receiver = PlainReceiver | OwnReceiver
"""An accepted connection of which it is known what it speaks."""


@final
class AcceptedLinks:
    """All accepted connections of a channel.

    Args:
        config: How many there may be, how long frames may be, whether own links are spoken.
        side: What this process says of itself.
        inboxes: What is remembered of the senders.
        protection: What a key changes; None: there is none.
        timers: Where connections ask to be woken.
        entropy: Gives n random bytes.
        clock: The time of the present input.
        emit: Takes outputs and events.
        answered: Told when a sender on an own link proved to be there.
        ended: Told of each connection that is recognised and then gone.
        asked: Gets what a peer wants to know about another member, see ``OwnReceiver``.
        doubted: Told when a peer suspects this member.
        record: Gives the own record as it is now, for who asks who is here.
    """

    def __init__(
        self,
        config: ChannelConfig,
        *,
        side: OwnSide,
        inboxes: OwnInboxes,
        protection: Protection | None,
        timers: Timers,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
        emit: Callable[[NetworkOutput | Event], None],
        answered: Callable[[Member, float], None],
        ended: Callable[[Receiver], None],
        asked: Callable[[OwnReceiver, int, bytes, float], None],
        doubted: Callable[[Member, float], None],
        record: Callable[[], bytes],
    ) -> None:
        self.receivers: Final[dict[int, Receiver]] = {}
        tls = config.tls
        self.door: Final = Door(
            timers=timers,
            may_wait=self._may_be_plain,
            close=self._turn_away,
            handshake_s=None if tls is None else tls.handshake_timeout / 1000,
        )
        self.refused = 0
        """Connections for which there was no room."""
        self.rejected = 0
        """Connections that were closed for what they brought."""
        self._config = config
        self._side = side
        self._inboxes = inboxes
        self._protection = protection
        self._timers = timers
        self._entropy = entropy
        self._clock = clock
        self.repeats: Final = Repeats()
        self._emit = emit
        self._answered = answered
        self._ended = ended
        self._asked = asked
        self._doubted = doubted
        self._record = record
        self.touched: dict[Receiver, None] = {}
        """The connections that may have something to acknowledge: :meth:`flush` looks."""
        self._is_stopped = False

    def opened(self, link: int, peer: tuple[str, int], now: float) -> None:
        """A connection was accepted: let it wait, or close it."""
        count = len(self.receivers) + len(self.door)
        if (
            self._is_stopped
            or count >= self._config.receiver.max_connections
            or not self.door.admits(peer, now)
        ):
            self.refused += 1
            self._emit(Close(link))
            return
        self.door.opened(link, peer, now)

    def recognise(self, link: int, data: bytes, now: float) -> tuple[Receiver, bytes] | None:
        """Take the first bytes of a connection; once it is known, return what reads it and all of
        them. None also for connections that are not here.
        """
        known = self.door.feed(link, data, now)
        if known is None:
            return None
        fresh, is_own, data = known
        is_own = is_own and self._config.own_link
        if not is_own and not self._may_be_plain(fresh.peer[0]):
            why = "without a key, and plain_peers does not list its address"
            assert self._protection is not None
            self._turn_away(fresh, "no own link" if self._protection.links is None else why)
            return None
        receiver = self.receivers[link] = self._receiver(fresh, now, is_own=is_own)
        return receiver, data

    def closed(self, link: int) -> Receiver | None:
        """A connection ended by itself; returns what read it."""
        self.door.closed(link)
        receiver = self.receivers.pop(link, None)
        if receiver is not None:
            self._gone(receiver)
        return receiver

    def reject(self, receiver: Receiver, why: Exception) -> None:
        """Close a connection for what it brought."""
        self.rejected += 1
        del self.receivers[receiver.link]
        self._gone(receiver)
        self.tell(receiver.peer, str(why))
        self._emit(Close(receiver.link))

    def tell(self, peer: tuple[str, int], why: str) -> None:
        """Tell the operator what was wrong with a peer, unless that was told just now."""
        event = self.repeats.told(LinkRejected(peer, why), self._clock())
        if event is not None:
            self._emit(event)

    def forget(self, member: Member) -> None:
        """Close what a member has left: a machine that lost its power closes nothing."""
        for receiver in list(self.receivers.values()):
            if member in receiver.sources:
                del receiver.sources[member]
                if not receiver.sources:
                    self._close(receiver)

    def rekey(self) -> None:
        """The keys were replaced: close what was opened with one that is not accepted any more."""
        assert self._protection is not None
        links = self._protection.links
        assert links is not None
        for receiver in list(self.receivers.values()):
            key = receiver.key if isinstance(receiver, OwnReceiver) else None
            if key is not None and not links.accepts(key):
                receiver.flush()
                self._close(receiver)

    def stop(self) -> None:
        """Close all, and take no more."""
        self._is_stopped = True
        for link in sorted([*self.receivers, *self.door.clear()]):
            self._emit(Close(link, flush=True))
        for receiver in self.receivers.values():
            self._gone(receiver)
        self.receivers.clear()

    # Acknowledgements.

    def touch(self, receiver: Receiver) -> None:
        """A connection may have something to acknowledge."""
        self.touched[receiver] = None

    def answer(self, receiver: Receiver) -> None:
        """A connection has something to write now."""
        self.touch(receiver)
        self.flush()

    def flush(self) -> None:
        """Write the acknowledgements that are due."""
        for receiver in self.touched:
            if self.receivers.get(receiver.link) is receiver:
                receiver.flush()
        self.touched.clear()

    # Inside.

    def _close(self, receiver: Receiver) -> None:
        del self.receivers[receiver.link]
        self._gone(receiver)
        self._emit(Close(receiver.link, flush=True))

    def _gone(self, receiver: Receiver) -> None:
        self._ended(receiver)
        receiver.closed()

    def _may_be_plain(self, host: str) -> bool:
        return self._protection is None or self._protection.admission.may_come_plainly(host)

    def _turn_away(self, fresh: FreshLink, why: str) -> None:
        if why:
            self.rejected += 1
            self.tell(fresh.peer, why)
        self._emit(Close(fresh.link))

    def _receiver(self, fresh: FreshLink, now: float, *, is_own: bool) -> Receiver:
        body_max_bytes = self._config.receiver.frame_max_bytes
        if not is_own:
            return PlainReceiver(
                fresh.link, fresh.peer, body_max_bytes=body_max_bytes, emit=self._emit
            )
        protection = self._protection
        links = None if protection is None else protection.links
        return OwnReceiver(
            fresh.link,
            fresh.peer,
            now,
            side=self._side,
            inboxes=self._inboxes,
            keys={} if links is None else links.accepted,
            tail=bytes if protection is None else protection.life,
            record=self._record,
            body_max_bytes=body_max_bytes,
            timers=self._timers,
            entropy=self._entropy,
            emit=self._emit,
            started=self._own_started,
            ended=self._own_ended,
            asked=self._asked,
            doubted=self._doubted,
        )

    def _own_started(self, receiver: OwnReceiver, now: float) -> None:
        assert receiver.source is not None, "it is told after START"
        self._answered(receiver.source, now)

    def _own_ended(self, receiver: OwnReceiver, why: Exception, now: float) -> None:
        del now
        self.receivers.pop(receiver.link, None)
        self._gone(receiver)
        self.tell(receiver.peer, str(why))
