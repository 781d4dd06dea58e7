"""The channel as one deterministic machine: membership, connections, interceptors, deliveries.

It owns no socket, clock, thread or randomness. Its driver gives it inputs (the public methods) with
the time, and after each one takes and performs the outputs; see :mod:`tribes.wire.outputs` and
:mod:`tribes.channel.outputs`. An input never re-enters.

The way down is :class:`Sending`, the way up :class:`Receiving`, who is there :class:`Roster`; what
is here joins them and gives each input to whom it is for. It is longer than most files, by the list
of who is joined with whom: cut in two, nobody could see it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, final

from tribes.channel.accepted import AcceptedLinks
from tribes.channel.acquaintances import Acquaintances
from tribes.channel.chain import Chain, Interceptor
from tribes.channel.connections import Connections
from tribes.channel.context import Context
from tribes.channel.datagrams import Datagrams
from tribes.channel.discovery import static_hosts
from tribes.channel.identity import Identity
from tribes.channel.outbox import Outbox, Output
from tribes.channel.outputs import Deliver, Event, Notice
from tribes.channel.protection import Protection
from tribes.channel.receiving import Receiving
from tribes.channel.roster import Roster
from tribes.channel.sending import Sending
from tribes.channel.statistics import ChannelStatistics
from tribes.channel.trail import Trail
from tribes.errors import ChannelClosedError, LocalProtocolError
from tribes.links.challenge import Challenges
from tribes.links.own_inbox import OwnInboxes
from tribes.links.own_wire import FEATURE_TRACE
from tribes.links.pool import SenderPool
from tribes.membership.view import View, ViewBuilder
from tribes.security.mark import Marker
from tribes.timers import Timers
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

if TYPE_CHECKING:
    from tribes.channel.trail import Tracing
    from tribes.config.model import ChannelConfig
    from tribes.membership.change import MemberChange
    from tribes.membership.seeker import NamedHost
    from tribes.security.keys import KeyRing
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["ChannelCore", "Output"]


@final
class ChannelCore:
    """One member of a group, without its sockets.

    Args:
        local: The own record, with the address and port that others connect to.
        config: Membership, receiver and sender settings.
        interceptors: The chain, first to last as in a Tomcat configuration.
        keys: The group's keys; None: nothing is protected but by ``config.tls``. Where that is set
            the driver brings connections that have proved who is at their other end.
        wall_ms: Wall clock in milliseconds, for the timestamps that messages carry.
        entropy: Gives n random bytes.
        product: Version of the program, for who asks.
        consume: Offered every message before the listeners; True when it was taken. Runs inside
            the core, so it is for this package's managers only. It may raise RemoteProtocolError.
        members_changed: Told every change of the view, inside the core.
        suspicion: Told when a member stops answering (True) and when it answers again, inside the
            core.
        link_lost: Told when a connection to a member broke, inside the core: what was sent without
            acknowledgement may not have arrived.
        tracing: Makes spans of what messages pass; None: nobody does.
        room: Told when a member that was behind can be sent changes again, inside the core.

    Attributes:
        senders: The queues to the members; to look at.
        send: See :meth:`Sending.send`; so are ``released``, ``post`` and the inputs
            ``link_opened``, ``connect_failed``, ``link_bytes``, ``link_closed`` and ``writable`` of
            :class:`Connections`, called without a step in between.
    """

    def __init__(
        self,
        local: Member,
        config: ChannelConfig,
        interceptors: Sequence[Interceptor] = (),
        *,
        keys: KeyRing | None = None,
        wall_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
        product: str = "",
        consume: Callable[[ChannelData, float], bool] | None = None,
        members_changed: Callable[[MemberChange, float], None] | None = None,
        link_lost: Callable[[Member, float], None] | None = None,
        suspicion: Callable[[Member, bool, float], None] | None = None,
        room: Callable[[Member, float], None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.config = config
        self.timers = Timers()
        self.trail = trail = None if tracing is None else Trail(tracing)
        self._identity = identity = Identity(
            local,
            wall_ms=wall_ms,
            entropy=entropy,
            product=product,
            features=0 if trail is None else FEATURE_TRACE,
        )
        self._outbox = outbox = Outbox(lambda link: self.senders.forget_link(link))
        self._views = views = ViewBuilder()
        self._link_lost = link_lost
        self._is_stopped = False
        self._chain = chain = Chain(
            interceptors,
            bottom=lambda message, now: self._sending.to_links(message, now),
            top=lambda message, now: self._receiving.to_listeners(message, now),
            members=lambda change, now: self._roster.changed(change, now),
            trail=trail,
        )
        self._inboxes = OwnInboxes(entropy)
        marker = None
        if config.own_link or keys is not None:
            marker = Marker(int.from_bytes(entropy(8), "big") or 1, keys=keys)
        self.protection = self._make_protection(keys, marker)
        self._challenges = self._make_challenges()
        self._acquaintances = Acquaintances(
            own_link=config.own_link,
            protection=self.protection,
            inboxes=self._inboxes,
            is_marked=lambda member: self.membership.table.is_marked(member),
            came=lambda member, now: self.health.came(member, now),
            upgrade=lambda member, now: self.senders.upgrade(member, now),
            met=lambda member, now: self.discovery.came(member, now),
        )
        self.senders = SenderPool(
            config.sender,
            side=identity.side,
            keys=None if self.protection is None else self.protection.links,
            only_own=self.protection is not None,
            marker=marker,
            barrier=lambda options: identity.new_frame(FAILURE_DETECTOR_PAYLOAD, options),
            speaks_own=self._acquaintances.speaks_own,
            entropy=entropy,
            timers=self.timers,
            emit=outbox.emit,
            new_attempt=identity.next_number,
            is_member=views.__contains__,
            lost=lambda member, why, now: self._roster.link_broke(member, why, now),
            may_have_lost=self._may_have_lost,
            is_suspected=lambda member: member in views.suspected,
            room=room or (lambda member, now: None),
            told=lambda number, opinion, now: self.witnesses.told(number, opinion, now),
        )
        self._roster = roster = Roster(
            identity,
            config,
            views=views,
            chain=chain,
            senders=self.senders,
            protection=self.protection,
            challenges=self._challenges,
            marker=marker,
            timers=self.timers,
            outbox=outbox,
            has_inbox=lambda member: self._inboxes.get(member.unique_id) is not None,
            members_changed=members_changed,
            suspicion=suspicion,
            forget=self._forget,
            respond=lambda receiver: self.accepted.answer(receiver),
        )
        self.health = roster.health
        self.membership = roster.membership
        self.witnesses = roster.witnesses
        self.discovery = roster.discovery
        self.doubted_by: dict[Member, float] = {}
        """Members of the view that have said that this one seems not to answer, and when last."""
        self.accepted = AcceptedLinks(
            config,
            side=identity.side,
            inboxes=self._inboxes,
            protection=self.protection,
            timers=self.timers,
            entropy=entropy,
            clock=lambda: outbox.now,
            emit=outbox.emit,
            answered=self._acquaintances.came_by_own_link,
            record=self._member_record,
            ended=lambda receiver: self.deliveries.link_closed(receiver),
            asked=self.witnesses.asked,
            doubted=self._doubted,
        )
        self.statistics = ChannelStatistics(self.accepted, self.senders)
        self._receiving = receiving = Receiving(
            identity,
            config.receiver,
            chain=chain,
            accepted=self.accepted,
            acquaintances=self._acquaintances,
            protection=self.protection,
            statistics=self.statistics,
            outbox=outbox,
            came=self.health.came,
            news=self.discovery.news,
            consume=consume,
            trail=trail,
        )
        self.deliveries = receiving.deliveries
        self.datagrams = Datagrams(
            local,
            config.sender,
            timers=self.timers,
            emit=outbox.emit,
            rejected=self.accepted.tell,
            outcomes=receiving.outcomes,
            deliveries=receiving.deliveries,
            process=lambda inbound, data, now: receiving.process(None, inbound, data, now),
        )
        self._sending = Sending(
            identity,
            config,
            chain=chain,
            views=views,
            senders=self.senders,
            datagrams=self.datagrams,
            statistics=self.statistics,
            outbox=outbox,
            is_protected=self.protection is not None,
            sent=self.health.sent,
            trouble=roster.trouble,
            trail=trail,
        )
        self.send = self._sending.send
        self.released = self._sending.released
        self.post = self._sending.post
        connections = Connections(
            accepted=self.accepted,
            senders=self.senders,
            challenges=self._challenges,
            receiving=receiving,
            roster=roster,
            outbox=outbox,
            is_protected=self.protection is not None,
        )
        self.link_opened = connections.opened
        self.connect_failed = connections.connect_failed
        self.link_bytes = connections.received
        self.link_closed = connections.closed
        self.writable = connections.writable
        context = Context(
            identity,
            timers=self.timers,
            views=views,
            roster=roster,
            receiving=receiving,
            outbox=outbox,
            is_stopped=self.is_shut_down,
        )
        for interceptor in chain.interceptors:
            interceptor.attach(context)

    def _make_protection(self, keys: KeyRing | None, marker: Marker | None) -> Protection | None:
        if keys is None and self.config.tls is None:
            return None
        assert marker is not None
        return Protection(
            keys,
            self.local,
            self.config,
            side=self._identity.side,
            marker=marker,
            timers=self.timers,
            entropy=self._identity.entropy,
            emit=self._outbox.emit,
            new_attempt=self._identity.next_number,
            admit=lambda member, now: self.membership.admit(member, now),
            replace=lambda member, now: self.membership.replace(member, now),
            touch=lambda member, now: self.membership.touch(member, now),
            left=lambda member, now: self.membership.left(member, now),
            record=self._member_record,
            refused=self._heartbeat_refused,
        )

    def _heartbeat_refused(self, host: str, why: str, more: int) -> None:
        details: dict[str, object] = {"host": host, "why": why}
        if more:
            details["repeats"] = more
        self._outbox.emit(Notice("heartbeat refused", details))

    def _make_challenges(self) -> Challenges:
        if self.protection is not None:
            return self.protection.challenges
        return Challenges(
            side=self._identity.side,
            keys=None,
            timers=self.timers,
            entropy=self._identity.entropy,
            emit=self._outbox.emit,
            new_attempt=self._identity.next_number,
        )

    def _doubted(self, member: Member, now: float) -> None:
        if member in self._views:
            self.doubted_by[member] = now
            self.health.doubted(now)

    def _member_record(self) -> bytes:
        return self.membership.record(self.now)

    # What people ask.

    @property
    def local(self) -> Member:
        """The own member record."""
        return self._identity.local

    @property
    def message_max_bytes(self) -> int:
        """The longest message that fits in a frame, given that the others are set like this one."""
        return self._sending.message_max_bytes

    @property
    def now(self) -> float:
        """Monotonic seconds of the latest input."""
        return self._outbox.now

    @property
    def view(self) -> View:
        """The other members, as an immutable snapshot."""
        return self._views.current

    def up_since(self, member: Member) -> float | None:
        """When a member of the view was started, as it says: monotonic seconds of this node."""
        return self._views.up_since(member)

    @property
    def suspected(self) -> frozenset[Member]:
        """The members of the view that do not answer now."""
        return self._views.suspected

    def has_proved(self, member: Member) -> bool:
        """Whether a member had to show the group's key to speak; False where there is none."""
        return self.protection is not None and self._acquaintances.speaks_own(member)

    def has_member(self, member: Member) -> bool:
        """Whether a member is in the view."""
        return member in self._views

    @property
    def next_deadline(self) -> float:
        """Monotonic seconds at which :meth:`timer` wants to be called; infinity for never."""
        return self.timers.next_deadline

    @property
    def is_idle(self) -> bool:
        """True when no message is on its way to any member."""
        return self.senders.is_idle and self.datagrams.is_idle

    def live_waiting(self, member: Member) -> int:
        """Bytes of :meth:`post` that wait to be written to a member."""
        return self.senders.live_waiting(member)

    @property
    def queued_bytes(self) -> dict[Member, int]:
        """What is on its way to each member, in bytes."""
        return self.senders.queued_bytes

    @property
    def interceptors(self) -> tuple[Interceptor, ...]:
        """The chain, first to last."""
        return self._chain.interceptors

    @property
    def duplicates(self) -> int:
        """Frames that were received more than once and processed once."""
        return self._receiving.outcomes.duplicates

    @property
    def has_outputs(self) -> bool:
        """True when ``take_outputs`` has something."""
        return bool(self._outbox.outputs or self.senders.awake or self.accepted.touched)

    def take_outputs(self) -> list[Output]:
        """The outputs since the last call. The driver must act on all of them, in order, and call
        again until there are none: what is done with a delivery is acknowledged then, in one
        with its receipt.
        """
        outbox = self._outbox
        self.senders.flush(outbox.now)
        if self.accepted.touched:
            for output in outbox.outputs:
                if type(output) is Deliver:
                    break
            else:
                self.accepted.flush()
        return outbox.take()

    # Inputs.

    def start(self, now: float) -> None:
        """Join the group: the first heartbeat goes out."""
        self._outbox.now = now
        for interceptor in self._chain.interceptors:
            interceptor.start(now)
        if self._chain.has_heartbeat:
            self._heartbeat_at(now)
        self.membership.start(now)
        self.discovery.discovered("static", static_hosts(self.config.membership.static), now)

    def stop(self, now: float) -> None:
        """Leave the group in good order. What is still queued fails; wait for ``is_idle`` before
        to lose nothing.
        """
        self._outbox.now = now
        self._is_stopped = True
        self._sending.stop()
        self._roster.close()
        for interceptor in self._chain.interceptors:
            interceptor.stop(now)
        # What interceptors say last is written before the connections are closed.
        self.senders.flush(now)
        self._roster.stop(now)
        why = ChannelClosedError("the channel was stopped")
        self.senders.close(why, now)
        self.datagrams.stop(why, now)
        self._challenges.stop()
        self.accepted.flush()
        self.accepted.stop()

    def _heartbeat_at(self, now: float) -> None:
        def beat(then: float) -> None:
            if not self._is_stopped:
                self._heartbeat_at(then)
                self._chain.on_heartbeat(then)

        self.timers.at(now + self.config.heartbeat_sleeptime / 1000, beat)

    def set_keys(self, keys: KeyRing, now: float) -> None:
        """Replace the group's keys; see :class:`KeyRing` for the order of steps that loses nothing.

        Links go on, but for those that were opened with a key that is not among the new ones: they
        are opened anew, and what they had not delivered goes by the new ones.

        Raises:
            LocalProtocolError: The channel was made without a key.
        """
        if self.protection is None or self.protection.links is None:
            raise LocalProtocolError(
                "this channel was started without a key; members with one would not understand it: "
                "set the key in its configuration and start it again"
            )
        self._outbox.now = now
        self.protection.set_keys(keys)
        self.accepted.rekey()
        self.senders.rekey(now)

    def datagram(self, data: bytes, addr: tuple[str, int], now: float) -> None:
        """A datagram of the membership group arrived."""
        self._outbox.now = now
        if self.datagrams.is_frame(data) and self.protection is None and not self._is_stopped:
            self.datagrams.group_received(data, addr, now)
        else:
            self.membership.datagram(data, now, host=addr[0])
        if self.accepted.touched:
            self.accepted.flush()

    def udp_datagram(self, data: bytes, addr: tuple[str, int], now: float) -> None:
        """A datagram arrived at the own UDP port."""
        self._outbox.now = now
        if self.protection is None and not self._is_stopped:
            self.datagrams.received(data, addr, now)

    def probe_result(self, probe: int, error: Exception | None, now: float) -> None:
        """The answer to an output ``Probe``: None when the member is there, else why not."""
        self._outbox.now = now
        self._roster.questions.answered(probe, error, now)
        self.accepted.flush()

    def delivered(self, token: int, error: Exception | None, now: float) -> None:
        """The listeners are done with ``Deliver(token)``; ``error`` is what one of them raised."""
        self._outbox.now = now
        self.deliveries.delivered_one(token, error)

    def timer(self, now: float) -> None:
        """``next_deadline`` has come."""
        self._outbox.now = now
        self.timers.run_due(now)
        self.accepted.flush()

    # Members beyond multicast.

    def discovered(self, service: str, hosts: Iterable[NamedHost], now: float) -> None:
        """A service names hosts: all of them that it knows now."""
        self._outbox.now = now
        self.discovery.discovered(service, hosts, now)

    def announce(
        self,
        now: float,
        *,
        payload: bytes | None = None,
        domain: bytes | None = None,
        command: bytes | None = None,
    ) -> None:
        """Change what the own record carries; the members are told at once.

        Args:
            now: Monotonic seconds.
            payload: Bytes of the application; None: as before, like the others.
            domain: The domain.
            command: The command. That of a farewell is not for here: stop the channel.

        Raises:
            LocalProtocolError: The record would be too long, or the command is the farewell's.
        """
        self._identity.announce(payload=payload, domain=domain, command=command)
        self._outbox.now = now
        self.membership.set_local(self.local, now)
        self.discovery.announce(self.membership.record(now), now)

    def event(self, event: Event) -> None:
        """Tell the operator something."""
        self._outbox.emit(event)

    def is_shut_down(self) -> bool:
        """True once the channel was stopped."""
        return self._is_stopped

    def _may_have_lost(self, member: Member, now: float) -> None:
        if self._link_lost is not None and member in self._views:
            self._link_lost(member, now)

    def _forget(self, member: Member, now: float) -> None:
        self._acquaintances.forget(member)
        self.doubted_by.pop(member, None)
        self.senders.drop(member, now)
        self._inboxes.forget(member.unique_id)
        self.accepted.forget(member)
