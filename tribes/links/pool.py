"""The senders to all members: one each, made when first needed, given back when not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.errors import MemberUnreachableError
from tribes.links.own_sender import OwnSender
from tribes.links.plain import PlainSender

if TYPE_CHECKING:
    from tribes.config.model import SenderConfig
    from tribes.links.base import PeerSender
    from tribes.links.link_keys import LinkKeyring
    from tribes.links.own_wire import OwnSide
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
        side: What this process says of itself on own links.
        keys: What own links are opened with; None: they are not protected.
        speaks_own: Whether a member is known to speak the own link.
        entropy: Gives n random bytes.
        timers: Where senders ask to be woken.
        emit: Takes their outputs.
        new_attempt: Numbers connection attempts.
        is_member: Whether a destination is in the view; a stranger's sender is given back soon.
        lost: Told when a connection broke or could not be made.
        may_have_lost: Told when a connection broke on which not everything is sent again.
    """

    def __init__(
        self,
        config: SenderConfig,
        *,
        side: OwnSide,
        keys: LinkKeyring | None,
        speaks_own: Callable[[Member], bool],
        entropy: Callable[[int], bytes],
        timers: Timers,
        emit: Callable[[NetworkOutput], None],
        new_attempt: Callable[[], int],
        is_member: Callable[[Member], bool],
        lost: Callable[[Member, Exception, float], None],
        may_have_lost: Callable[[Member, float], None],
    ) -> None:
        self._config = config
        self._side = side
        self._keys = keys
        self._speaks_own = speaks_own
        self._entropy = entropy
        self._may_have_lost = may_have_lost
        self._awake: list[OwnSender] = []
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
            sender = self._senders[member] = self._make(member)
            if not self._is_member(member):
                self._watch(member, now)
        return sender

    def _make(self, member: Member) -> PeerSender:
        config = self._config
        if not self._speaks_own(member):
            return self._make_plain(member)
        return OwnSender(
            member,
            side=self._side,
            timeout=config.timeout / 1000,
            live_queue_max_bytes=config.queue_max_bytes,
            keep_connected=config.keep_connected,
            key=None if self._keys is None else self._keys.current,
            timers=self._timers,
            entropy=self._entropy,
            emit=self._emit,
            connect=self._connect,
            lost=self._lost,
            not_own=self._not_own,
            wake=self._awake.append,
            # It is known to speak it: one that does not answer is stopped, not plain.
            hellos_unanswered_max=None,
            never_plain=self._keys is not None,
        )

    def _make_plain(self, member: Member) -> PlainSender:
        return PlainSender(
            member,
            self._config,
            timers=self._timers,
            emit=self._emit,
            connect=self._connect,
            lost=self._plain_lost,
        )

    def rekey(self, now: float) -> None:
        """The keys were replaced: open the next links with the new one, and those anew whose key is
        not accepted any more.
        """
        assert self._keys is not None
        for sender in list(self._senders.values()):
            if isinstance(sender, OwnSender):
                sender.rekey(self._keys.current, self._keys.accepts, now)

    def _not_own(self, member: Member, now: float) -> None:
        # Its heartbeats have our mark, and it answers a HELLO with something else.
        known = self._senders.get(member)
        if not isinstance(known, OwnSender):
            return
        plain = self._senders[member] = self._make_plain(member)
        for frame in known.take_queue():
            plain.enqueue(frame, now)
        if self._is_member(member) and self._config.keep_connected:
            plain.connect(now)

    def _plain_lost(self, member: Member, why: Exception, now: float) -> None:
        self._lost(member, why, now)
        self._may_have_lost(member, now)

    @property
    def is_awake(self) -> bool:
        """True when something waits for :meth:`flush`."""
        return bool(self._awake)

    def flush(self, now: float) -> None:
        """Let every sender write what was queued since the last call, in one piece each."""
        while self._awake:
            awake, self._awake[:] = self._awake[:], []
            for sender in awake:
                sender.flush(now)

    def ping(self, member: Member, now: float) -> bool:
        """Ask for an answer on the open link to a member; False when there is none to ask on."""
        sender = self._senders.get(member)
        return isinstance(sender, OwnSender) and sender.idle_ping(now)

    def tell(self, member: Member, news: bytes, now: float) -> bool:
        """Tell a member news; False when there is no open own link to tell it on."""
        sender = self._senders.get(member)
        return isinstance(sender, OwnSender) and sender.tell(news, now)

    def answered_elsewhere(self, member: Member, now: float) -> None:
        """A member answers, on another connection than ours: one that hangs is made anew."""
        sender = self._senders.get(member)
        if not isinstance(sender, OwnSender) or sender.link is None:
            return
        since = sender.unanswered_since
        if since is not None and now - since >= self._config.timeout / 1000:
            sender.reset(TimeoutError("the connection hangs, and the member answers"), now)

    def member_added(self, member: Member, now: float) -> None:
        """A member joined: connect to it, so that the end of the connection tells its crash."""
        known = self._senders.get(member)
        if isinstance(known, PlainSender) and known.is_idle and self._speaks_own(member):
            # Made for a stranger; now it is known what the member speaks.
            self._drop(member, now, abort=False)
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
        """Fail whatever waits, for everybody. Members with an own link are told that it is over."""
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            if isinstance(sender, OwnSender):
                sender.leave(why, now)
            else:
                sender.close(why, now, abort=False)

    def unanswered_since(self, member: Member) -> float | None:
        """When the oldest thing was sent to a member that it has not answered yet."""
        sender = self._senders.get(member)
        return None if sender is None else sender.unanswered_since

    def excuse(self, member: Member, why: Exception, now: float) -> None:
        """Let go of every caller that waits for a member."""
        sender = self._senders.get(member)
        if sender is not None:
            sender.excuse(why, now)

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
