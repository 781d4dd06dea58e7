"""The senders to all members: one each, made when first needed, given back when not.

Here is decided which kind of link a member is served by, and when it goes over to another one. What
happens to a frame that finds no room is :mod:`tribes.links.full_queues`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.errors import MemberUnreachableError
from tribes.links.base import OutFrame, QueueBounds
from tribes.links.full_queues import FullQueues
from tribes.links.own_sender import OwnSender
from tribes.links.plain import PlainSender
from tribes.links.plain_pool import PlainSenders
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.config.model import SenderConfig
    from tribes.links.base import LinkEnd, Load, PeerSender
    from tribes.links.link_keys import LinkKeyring
    from tribes.links.own_wire import Opinion, OwnSide
    from tribes.security.mark import Marker
    from tribes.timers import Timers
    from tribes.wire.member import Member
    from tribes.wire.outputs import NetworkOutput

__all__ = ["SenderPool"]

_BARRIER_OPTIONS = int(SendOptions.BYTE_MESSAGE | SendOptions.USE_ACK)

_UPGRADE_S = 1.0
"""Until a plain link that could not go over to an own one tries again."""

_STRANGER_IDLE_S = 5.0
"""How long the connection to a destination that is no member stays open without use."""


class SenderPool:
    """Finds the sender of a member, of a connection attempt, and of a connection.

    Args:
        config: Settings of every sender.
        side: What this process says of itself on own links.
        keys: What own links are opened with; None: they are not protected.
        only_own: Whether nobody is ever served as a plain member but by ``speaks_own``.
        marker: Says who we are on plain links; None: nobody does.
        barrier: Makes a frame with these options that no listener gets.
        speaks_own: Whether a member is known to speak the own link.
        entropy: Gives n random bytes.
        timers: Where senders ask to be woken.
        emit: Takes their outputs.
        new_attempt: Numbers connection attempts.
        is_member: Whether a destination is in the view; a stranger's sender is given back soon.
        lost: Told when a connection broke or could not be made.
        may_have_lost: Told when a connection broke on which not everything is sent again.
        is_suspected: Whether a member does not answer now: nobody waits for room in its queue.
        room: Told when the live queue of a member that was full is half empty again.
        told: Gets the number of a question that was asked by :meth:`ask`, and the opinion.

    Attributes:
        totals: How often queues were full.
        counts_of: See :meth:`FullQueues.counts_of`; so is ``blocked_on``.
    """

    def __init__(
        self,
        config: SenderConfig,
        *,
        side: OwnSide,
        keys: LinkKeyring | None,
        only_own: bool,
        marker: Marker | None,
        barrier: Callable[[int], bytes],
        speaks_own: Callable[[Member], bool],
        entropy: Callable[[int], bytes],
        timers: Timers,
        emit: Callable[[NetworkOutput], None],
        new_attempt: Callable[[], int],
        is_member: Callable[[Member], bool],
        lost: Callable[[Member, Exception, float], None],
        may_have_lost: Callable[[Member, float], None],
        is_suspected: Callable[[Member], bool],
        room: Callable[[Member, float], None],
        told: Callable[[int, Opinion, float], None],
    ) -> None:
        self._bounds = QueueBounds(
            config.queue_max_bytes, config.live_queue_max_bytes, config.unacked_max_bytes
        )
        self._full = full = FullQueues(
            config, self._bounds, timers=timers, is_suspected=is_suspected, room=room
        )
        self.totals = full.totals
        self.counts_of = full.counts_of
        self.blocked_on = full.blocked_on
        self._blocked = full.blocked
        self._behind = full.behind
        self._config = config
        self._side = side
        self._keys = keys
        self._only_own = only_own
        self._marker = marker
        self._barrier = barrier
        self._upgrading: set[Member] = set()
        self._speaks_own = speaks_own
        self._entropy = entropy
        self._may_have_lost = may_have_lost
        self.awake: list[OwnSender] = []
        """What waits for :meth:`flush`."""
        self._timers = timers
        self._emit = emit
        self._new_attempt = new_attempt
        self._is_member = is_member
        self._lost = lost
        self._told = told
        self._senders: dict[Member, PeerSender] = {}
        self._by_attempt: dict[int, LinkEnd] = {}
        self._by_link: dict[int, LinkEnd] = {}

    def get(self, member: Member, now: float) -> PeerSender:
        """The sender to a destination."""
        sender = self._senders.get(member)
        if sender is None:
            sender = self._senders[member] = self._make(member)
            if not self._is_member(member):
                self._watch(member, now)
        return sender

    def send(self, frame: OutFrame, member: Member, now: float) -> bool:
        """Queue a frame for a member, or do with it what is done where there is no room.

        Returns:
            False when it waits for room; ``frame.unblocked`` is called when it does not any more.
        """
        sender = self._senders.get(member) or self.get(member, now)
        is_live = frame.is_live
        if sender.has_room(len(frame.data), is_live=is_live) and (
            is_live or not self._blocked or member not in self._blocked
        ):
            sender.enqueue(frame, now)
            return True
        if is_live:
            self._full.refuse(sender, frame, now)
            return True
        return not self._full.block(member, frame, now)

    def _make(self, member: Member) -> PeerSender:
        config = self._config
        if not self._speaks_own(member):
            return self._make_plain(member)
        return OwnSender(
            member,
            side=self._side,
            timeout=config.timeout / 1000,
            bounds=self._bounds,
            keep_connected=config.keep_connected,
            key=None if self._keys is None else self._keys.current,
            timers=self._timers,
            entropy=self._entropy,
            emit=self._emit,
            connect=self._connect,
            lost=self._lost,
            not_own=self._not_own,
            told=self._told,
            wake=self.awake.append,
            # It is known to speak it: one that does not answer is stopped, not plain.
            hellos_unanswered_max=None,
            never_plain=self._only_own,
        )

    def _make_plain(self, member: Member) -> PeerSender:
        count = self._config.pool_size
        if count == 1:
            return self._plain(member)
        return PlainSenders(member, [self._plain(member) for _ in range(count)], self._bounds)

    def _plain(self, member: Member) -> PlainSender:
        sender = PlainSender(
            member,
            self._config,
            timers=self._timers,
            emit=self._emit,
            connect=lambda _: self._attempt_of(sender),
            lost=self._plain_lost,
            marker=self._marker,
        )
        return sender

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

    def upgrade(self, member: Member, now: float) -> None:
        """It became known that a member speaks the own link: go over to it.

        What the plain link has written goes first: behind it goes one more frame, and once that is
        acknowledged all before it has been read. If it fails this is tried again.
        """
        known = self._senders.get(member)
        if member in self._upgrading or not self._speaks_own(member):
            return
        if isinstance(known, PlainSenders):
            # Several connections keep no order that could be lost.
            if known.is_idle:
                self._to_own(known, [], now)
            else:
                self._upgrade_later(known, now)
            return
        if not isinstance(known, PlainSender):
            return
        if known.is_idle and not known.has_written:
            self._to_own(known, [], now)
            return

        def read(error: Exception | None, then: float) -> None:
            self._upgrading.discard(member)
            if self._senders.get(member) is not known:
                return
            if error is None:
                self._to_own(known, known.take_queue(), then)
            else:
                self._upgrade_later(known, then)

        self._upgrading.add(member)
        frame = OutFrame(self._barrier(_BARRIER_OPTIONS), needs_ack=True, settle=read)
        known.enqueue(frame, now)

    def _upgrade_later(self, known: PeerSender, now: float) -> None:
        def again(then: float) -> None:
            if self._senders.get(known.member) is known:
                self.upgrade(known.member, then)

        self._timers.at(now + _UPGRADE_S, again)

    def _to_own(self, plain: PeerSender, frames: list[OutFrame], now: float) -> None:
        member = plain.member
        own = self._senders[member] = self._make(member)
        plain.close(MemberUnreachableError("replaced by an own link"), now, abort=False)
        for frame in frames:
            own.enqueue(frame, now)
        if self._is_member(member) and self._config.keep_connected:
            own.connect(now)

    def _plain_lost(self, member: Member, why: Exception, now: float) -> None:
        self._lost(member, why, now)
        self._may_have_lost(member, now)

    def flush(self, now: float) -> None:
        """Let every sender write what was queued since the last call, in one piece each."""
        if not (self.awake or self._blocked or self._behind):
            return
        while True:
            while self.awake:
                awake, self.awake[:] = self.awake[:], []
                for sender in awake:
                    sender.flush(now)
            if self._blocked or self._behind:
                self._full.use_room(self.get, self._senders.get, now)
            if not self.awake:
                return

    def ping(self, member: Member, now: float) -> bool:
        """Ask for an answer on the open link to a member; False when there is none to ask on."""
        sender = self._senders.get(member)
        return isinstance(sender, OwnSender) and sender.idle_ping(now)

    def can_witness(self, member: Member) -> bool:
        """Whether a member can be asked for its opinion of another one."""
        sender = self._senders.get(member)
        return isinstance(sender, OwnSender) and sender.can_witness

    def ask(self, member: Member, number: int, about: bytes, now: float) -> bool:
        """Ask a member for its opinion of another one; False when it cannot be asked."""
        sender = self._senders.get(member)
        return isinstance(sender, OwnSender) and sender.ask(number, about, now)

    def doubt(self, member: Member, now: float) -> None:
        """Tell a member that it is suspected, if it can be told."""
        sender = self._senders.get(member)
        if isinstance(sender, OwnSender):
            sender.doubt(now)

    def tell(self, member: Member, news: bytes, now: float) -> bool:
        """Tell a member news; False when there is no open own link to tell it on."""
        sender = self._senders.get(member)
        return isinstance(sender, OwnSender) and sender.tell(news, now)

    def answered_elsewhere(self, member: Member, now: float) -> None:
        """A member answers, on another connection than ours: one that hangs is made anew."""
        sender = self._senders.get(member)
        if isinstance(sender, OwnSender) and sender.hangs(now):
            sender.reset(TimeoutError("the connection hangs, and the member answers"), now)

    def member_added(self, member: Member, now: float) -> None:
        """A member joined: connect to it, so that the end of the connection tells its crash."""
        # What was sent to it as to a stranger may still be under way on a plain link.
        self.upgrade(member, now)
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
        why = MemberUnreachableError(f"{member.name} is no longer a member")
        if sender is not None:
            sender.close(why, now, abort=abort)
        self._full.forget(member, why, now)

    def close(self, why: Exception, now: float) -> None:
        """Fail whatever waits, for everybody. Members with an own link are told that it is over."""
        senders, self._senders = self._senders, {}
        for sender in senders.values():
            if isinstance(sender, OwnSender):
                sender.leave(why, now)
            else:
                sender.close(why, now, abort=False)
        self._full.close(why, now)

    def round_trip(self, member: Member) -> float | None:
        """Seconds that the link to a member takes there and back, smoothed; None: not measured."""
        sender = self._senders.get(member)
        return None if sender is None else sender.round_trip_s

    def lag(self, member: Member, now: float) -> float:
        """Seconds that the oldest frame for a member has waited to be received; 0: none waits. May
        be asked from any thread.
        """
        try:
            since = self.unanswered_since(member)
        except IndexError:
            return 0.0  # the node's thread took it out of the queue at this moment: received
        return 0.0 if since is None else max(0.0, now - since)

    def unanswered_since(self, member: Member) -> float | None:
        """When the oldest thing was sent to a member that it has not answered yet."""
        sender = self._senders.get(member)
        return None if sender is None else sender.unanswered_since

    def excuse(self, member: Member, why: Exception, now: float) -> None:
        """Let go of every caller that waits for a member."""
        sender = self._senders.get(member)
        if sender is not None:
            sender.excuse(why, now)
        self._full.excuse(member, now)

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way to anybody."""
        return not self._blocked and all(s.is_idle for s in self._senders.values())

    @property
    def queued_bytes(self) -> dict[Member, int]:
        """What is on its way to each destination."""
        return {member: sender.queued_bytes for member, sender in self._senders.items()}

    @property
    def loads(self) -> dict[Member, Load]:
        """The same by kind; may be asked from any thread."""
        return {member: sender.load for member, sender in list(self._senders.items())}

    @property
    def busy_loads(self) -> dict[Member, Load]:
        """The loads of those for whom anything is kept."""
        senders = self._senders.items()
        return {member: sender.load for member, sender in senders if sender.queued_bytes}

    def live_waiting(self, member: Member) -> int:
        """Bytes of managers' messages that wait to be written to a member."""
        sender = self._senders.get(member)
        return 0 if sender is None else sender.load.live

    @property
    def blocked(self) -> dict[Member, int]:
        """How many sends wait for room in the queue of each destination with such."""
        return {member: len(blocked) for member, blocked in self._blocked.items()}

    # What the driver reports.

    def link_opened(self, attempt: int, link: int, now: float) -> None:
        """The connection of an attempt is there."""
        sender = self._by_link[link] = self._by_attempt.pop(attempt)
        sender.link_opened(link, now)

    def connect_failed(self, attempt: int, why: Exception, now: float) -> None:
        """The connection of an attempt could not be made."""
        self._by_attempt.pop(attempt).connect_failed(why, now)

    def of_link(self, link: int) -> LinkEnd | None:
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
        sender = self._senders[member]
        assert isinstance(sender, OwnSender)
        return self._attempt_of(sender)

    def _attempt_of(self, sender: LinkEnd) -> int:
        attempt = self._new_attempt()
        self._by_attempt[attempt] = sender
        return attempt

    def _watch(self, member: Member, now: float) -> None:
        def look(then: float) -> None:
            sender = self._senders.get(member)
            if sender is None or self._is_member(member):
                return
            if sender.is_idle and member not in self._blocked:
                self._drop(member, then, abort=False)
            else:
                self._watch(member, then)

        self._timers.at(now + _STRANGER_IDLE_S, look)
