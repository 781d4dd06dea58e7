"""The channel as one deterministic machine: membership, connections, interceptors, deliveries.

It owns no socket, clock, thread or randomness. Its driver gives it inputs (the public methods) with
the time, and after each one takes and performs the outputs; see :mod:`tribes.wire.outputs` and
:mod:`tribes.channel.outputs`. An input never re-enters.

The way down: ``send`` → interceptors → one frame per destination → its :class:`PeerSender`.
The way up: ``link_bytes`` → frames → duplicates out → interceptors in reverse → the consumers
inside the core (session managers) or a ``Deliver`` for the listeners → acknowledgement.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, final

from tribes.channel.accepted import AcceptedLinks, Receiver
from tribes.channel.chain import Chain, Interceptor, Verdict
from tribes.channel.datagrams import Datagrams
from tribes.channel.discovery import Discovery, static_hosts
from tribes.channel.inbound import DeliveryQueue, Inbound, Outcomes
from tribes.channel.outputs import (
    ChannelOutput,
    Deliver,
    Event,
    MemberAdded,
    MemberRefuted,
    MemberRemoved,
    MemberSuspected,
    MemberUpdated,
    Notice,
    SendFailed,
    TicketDone,
)
from tribes.channel.protection import Protection
from tribes.channel.questions import Questions
from tribes.channel.statistics import ChannelStatistics
from tribes.channel.tickets import Outgoing, Ticket
from tribes.channel.witnesses import Witnesses
from tribes.errors import (
    ChannelClosedError,
    LocalProtocolError,
    MemberBehindError,
    MemberSuspectedError,
    QueueFullError,
    RemoteProcessError,
    RemoteProtocolError,
)
from tribes.ids import UniqueId, make_unique_id
from tribes.links.base import OutFrame, excuse
from tribes.links.challenge import Challenges
from tribes.links.introduction import Introduction, introduction_of
from tribes.links.own_inbox import OwnInboxes
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import OwnSender, SenderState
from tribes.links.own_wire import FEATURE_NEWS, WITNESSES, OwnSide
from tribes.links.pool import SenderPool
from tribes.membership.change import ChangeKind, MemberChange
from tribes.membership.health import HealthMonitor
from tribes.membership.multicast import MulticastMembership
from tribes.membership.view import View, ViewBuilder
from tribes.security.mark import Marker
from tribes.timers import Timers
from tribes.wire.data import ChannelData, decode_body, destination_of, encode_data_frame
from tribes.wire.member import SHUTDOWN_COMMAND, Member, encode_member
from tribes.wire.options import SendOptions, wire_options
from tribes.wire.outputs import Close, NetworkOutput
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD, is_probe

if TYPE_CHECKING:
    from tribes.config.model import ChannelConfig
    from tribes.links.plain import PlainReceiver
    from tribes.membership.seeker import NamedHost
    from tribes.security.keys import KeyRing

__all__ = ["ChannelCore", "Output"]

Output = NetworkOutput | ChannelOutput

_USE_ACK = int(SendOptions.USE_ACK)
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_SYNC = int(SendOptions.SYNCHRONIZED_ACK)
_UDP = int(SendOptions.UDP)
_MULTICAST = int(SendOptions.MULTICAST)
_DATAGRAM = _UDP | _MULTICAST
_SAY_NOTHING = (RemoteProcessError, QueueFullError, MemberSuspectedError, MemberBehindError)
"""Failures that are no reason to ask whether the member is there."""

SOURCES_PER_LINK_MAX = 64
"""Members whose frames one connection may carry. Tribes' own connections carry one member's."""

INTRODUCED_MAX = 1024
"""Members that are remembered for having shown their mark on a connection."""

FRAME_ROOM_BYTES = 128 * 1024
"""What a frame may need beyond its message: a member record has up to 64 KiB, and interceptors may
add to a message."""


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
        consume: Offered every message before the listeners; True when it was taken. Runs inside
            the core, so it is for this package's managers only. It may raise RemoteProtocolError.
        members_changed: Told every change of the view, inside the core.
        suspicion: Told when a member stops answering (True) and when it answers again, inside the
            core.
        link_lost: Told when a connection to a member broke, inside the core: what was sent without
            acknowledgement may not have arrived.
        room: Told when a member that was behind can be sent changes again, inside the core.
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
        consume: Callable[[ChannelData, float], bool] | None = None,
        members_changed: Callable[[MemberChange, float], None] | None = None,
        link_lost: Callable[[Member, float], None] | None = None,
        suspicion: Callable[[Member, bool, float], None] | None = None,
        room: Callable[[Member, float], None] | None = None,
    ) -> None:
        self.timers = Timers()
        self._local = local
        self.config = config
        self._wall_ms = wall_ms
        self._entropy = entropy
        self._consume = consume
        self._members_changed = members_changed
        self._link_lost = link_lost
        self._suspicion = suspicion
        self._record = encode_member(local)
        self._introduced: OrderedDict[Member, None] = OrderedDict()
        self._side = OwnSide(self._record, local.unique_id, features=WITNESSES | FEATURE_NEWS)
        self._inboxes = OwnInboxes(entropy)
        self._now = 0.0
        self._outputs: list[Output] = []
        self._views = ViewBuilder()
        self._chain = Chain(
            interceptors, bottom=self._to_links, top=self._to_listeners, members=self._to_view
        )
        self._message_max_bytes = self._chain.message_max_bytes(
            config.receiver.frame_max_bytes - FRAME_ROOM_BYTES
        )
        marker = None
        if config.own_link or keys is not None:
            marker = Marker(int.from_bytes(entropy(8), "big") or 1, keys=keys)
        self.protection: Protection | None = None
        if keys is not None or config.tls is not None:
            assert marker is not None
            self.protection = Protection(
                keys,
                local,
                config,
                side=self._side,
                marker=marker,
                timers=self.timers,
                entropy=entropy,
                emit=self._emit,
                new_attempt=self._next_number,
                admit=lambda member, now: self.membership.admit(member, now),
                replace=lambda member, now: self.membership.replace(member, now),
                touch=lambda member, now: self.membership.touch(member, now),
                left=lambda member, now: self.membership.left(member, now),
                record=lambda: self.membership.record(self._now),
            )
        self._senders = SenderPool(
            config.sender,
            side=self._side,
            keys=None if self.protection is None else self.protection.links,
            only_own=self.protection is not None,
            marker=marker,
            barrier=self._barrier,
            speaks_own=self._speaks_own,
            entropy=entropy,
            timers=self.timers,
            emit=self._emit,
            new_attempt=self._next_number,
            is_member=self._views.__contains__,
            lost=self._link_broke,
            may_have_lost=self._may_have_lost,
            is_suspected=lambda member: member in self.view.suspected,
            room=room or (lambda member, now: None),
            told=lambda number, opinion, now: self.witnesses.told(number, opinion, now),
        )
        suspect_after = config.membership.suspect_after
        self.health = HealthMonitor(
            suspect_after / 1000 if suspect_after else inf,
            timers=self.timers,
            unanswered=self._senders.unanswered_since,
            ping=self._ping,
            changed=self._suspect,
            remove_after=config.membership.drop_time / 1000,
            hopeless=self._give_up_on,
            hung=self._senders.answered_elsewhere,
        )
        self.membership = MulticastMembership(
            local,
            config.membership,
            marker=marker,
            timers=self.timers,
            emit=self._outputs.append,
            changed=self._chain.on_members,
            heard=self.health.heard,
            admission=None if self.protection is None else self.protection.admission,
            answered=lambda member: self.health.last_answer(member),
        )
        self.witnesses = Witnesses(
            local.unique_id,
            timers=self.timers,
            health=self.health,
            others=self._witnesses,
            ask=self._senders.ask,
            find=self._find,
            probe=self._observe,
            respond=self._respond,
        )
        self.accepted = AcceptedLinks(
            config,
            side=self._side,
            inboxes=self._inboxes,
            protection=self.protection,
            timers=self.timers,
            entropy=entropy,
            clock=lambda: self._now,
            emit=self._emit,
            answered=self._came_by_own_link,
            record=lambda: self.membership.record(self._now),
            ended=lambda receiver: self.deliveries.link_closed(receiver),
            asked=self.witnesses.asked,
            doubted=lambda member, now: self.health.doubted(now),
        )
        self._receivers = self.accepted.receivers
        if self.protection is not None:
            self._challenges = self.protection.challenges
        else:
            self._challenges = Challenges(
                side=self._side,
                keys=None,
                timers=self.timers,
                entropy=entropy,
                emit=self._emit,
                new_attempt=self._next_number,
            )
        self.discovery = Discovery(
            local,
            config,
            challenges=self._challenges,
            protection=self.protection,
            membership=self.membership,
            timers=self.timers,
            view=lambda: self.view,
            tell=self._senders.tell,
        )
        self.statistics = ChannelStatistics(self.accepted, self._senders)
        self._outcomes = Outcomes()
        self.deliveries = DeliveryQueue(
            config.receiver, emit=self._outputs.append, finished=self._frame_finished
        )
        self._questions = Questions(
            self._record,
            wall_ms=wall_ms,
            entropy=entropy,
            emit=self._emit,
            new_number=self._next_number,
            protection=self.protection,
            marker=marker,
        )
        self.datagrams = Datagrams(
            local,
            config.sender,
            timers=self.timers,
            emit=self._emit,
            rejected=self.accepted.tell,
            outcomes=self._outcomes,
            deliveries=self.deliveries,
            process=lambda inbound, data, now: self._process(None, inbound, data, now),
        )
        self._counter = 0
        self._inbound: tuple[Receiver | None, Inbound] | None = None
        self._holding: Inbound | None = None
        self._is_stopped = False
        for interceptor in self._chain.interceptors:
            interceptor.attach(self)

    # What people ask.

    @property
    def local(self) -> Member:
        """The own member record."""
        return self._local

    @property
    def message_max_bytes(self) -> int:
        """The longest message that fits in a frame, given that the others are set like this one."""
        return self._message_max_bytes

    @property
    def now(self) -> float:
        """Monotonic seconds of the latest input."""
        return self._now

    @property
    def view(self) -> View:
        """The other members, as an immutable snapshot."""
        return self._views.current

    @property
    def suspected(self) -> frozenset[Member]:
        """The members of the view that do not answer now."""
        return self._views.suspected

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
        return self._senders.is_idle and self.datagrams.is_idle

    @property
    def queued_bytes(self) -> dict[Member, int]:
        """What is on its way to each member, in bytes."""
        return self._senders.queued_bytes

    @property
    def interceptors(self) -> tuple[Interceptor, ...]:
        """The chain, first to last."""
        return self._chain.interceptors

    @property
    def senders(self) -> SenderPool:
        """The queues to the members; to look at."""
        return self._senders

    @property
    def duplicates(self) -> int:
        """Frames that were received more than once and processed once."""
        return self._outcomes.duplicates

    @property
    def has_outputs(self) -> bool:
        """True when ``take_outputs`` has something."""
        return bool(self._outputs or self._senders.awake or self.accepted.touched)

    def take_outputs(self) -> list[Output]:
        """The outputs since the last call. The driver must act on all of them, in order, and call
        again until there are none: what is done with a delivery is acknowledged then, in one
        with its receipt.
        """
        self._senders.flush(self._now)
        outputs = self._outputs
        if self.accepted.touched and not any(type(output) is Deliver for output in outputs):
            self.accepted.flush()
        taken = outputs[:]
        outputs.clear()
        return taken

    # Inputs.

    def start(self, now: float) -> None:
        """Join the group: the first heartbeat goes out."""
        self._now = now
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
        self._now = now
        self._is_stopped = True
        for interceptor in self._chain.interceptors:
            interceptor.stop(now)
        # What interceptors say last is written before the connections are closed.
        self._senders.flush(now)
        self.membership.stop(now)
        self.discovery.stop()
        self.health.stop()
        self.witnesses.stop()
        why = ChannelClosedError("the channel was stopped")
        self._senders.close(why, now)
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
        self._now = now
        self.protection.set_keys(keys)
        self.accepted.rekey()
        self._senders.rekey(now)

    def send(
        self,
        destinations: Iterable[Member],
        payload: bytes,
        options: int,
        now: float,
    ) -> tuple[int, UniqueId]:
        """Send a byte message; the output ``TicketDone`` tells when the caller may go on.

        Args:
            destinations: Members; each is served once, whether or not it is in the view.
            payload: The message.
            options: See :class:`SendOptions`.
            now: Monotonic seconds.

        Returns:
            The ticket's number and the message's unique id.

        Raises:
            LocalProtocolError: No destination, the local member among them, or an option that is
                not supported.
        """
        number = self._next_number()
        unique_id = make_unique_id(self._entropy(16))
        self._post(
            destinations,
            payload,
            options,
            unique_id,
            now,
            ticket=lambda targets: self._user_ticket(number, unique_id, targets),
        )
        return number, unique_id

    def post(
        self,
        destinations: Iterable[Member],
        payload: bytes,
        options: int,
        now: float,
        *,
        settled: Callable[[dict[Member, Exception], float], None] | None = None,
        each: Callable[[Member, Exception | None, float], None] | None = None,
        is_bytes: bool = True,
    ) -> Ticket:
        """Send like :meth:`send` for a consumer inside the core.

        It goes by the members' live queues: where one is full, that member fails at once with
        :class:`MemberBehindError`.

        Args:
            destinations: As in :meth:`send`.
            payload: As in :meth:`send`.
            options: As in :meth:`send`.
            now: Monotonic seconds.
            settled: Gets all faulty members when the last destination is done; may run before this
                method returns.
            each: Gets every destination as soon as it is done; may run before this method returns.
            is_bytes: False for a message in Java's serialisation.

        Returns:
            The ticket, which tells who has not answered yet.
        """
        unique_id = make_unique_id(self._entropy(16))
        return self._post(
            destinations,
            payload,
            options,
            unique_id,
            now,
            ticket=lambda targets: Ticket(targets, settled=settled, each=each, is_live=True),
            is_bytes=is_bytes,
        )

    def _post(
        self,
        destinations: Iterable[Member],
        payload: bytes,
        options: int,
        unique_id: UniqueId,
        now: float,
        *,
        ticket: Callable[[tuple[Member, ...]], Ticket],
        is_bytes: bool = True,
    ) -> Ticket:
        unique = dict.fromkeys(destinations)
        targets = tuple(unique)
        if not targets:
            raise LocalProtocolError("no destination given")
        if self._local in unique:
            raise LocalProtocolError("a member does not send to itself")
        if options & _DATAGRAM and self.protection is not None:
            raise LocalProtocolError(
                "a group with a key or TLS sends no messages by UDP or multicast, because nothing "
                "protects them; clear the options UDP (32) and MULTICAST (64)"
            )
        if options & _MULTICAST and not self.config.membership.multicast:
            raise LocalProtocolError(
                "this member has no multicast (channel.membership.multicast); clear the option "
                "MULTICAST (64)"
            )
        if len(payload) > self.message_max_bytes:
            raise LocalProtocolError(
                f"a message of {len(payload)} bytes does not fit: at most {self.message_max_bytes} "
                f"can be sent with receiver.frame_max_bytes = "
                f"{self.config.receiver.frame_max_bytes} and these interceptors"
            )
        self._now = now
        made = ticket(targets)
        data = ChannelData(
            wire_options(options, is_bytes=is_bytes),
            self._wall_ms(),
            unique_id,
            self._local,
            payload,
        )
        self.statistics.messages_sent += 1
        if self._is_stopped:
            made.fail(ChannelClosedError("the channel was stopped"), now)
        else:
            try:
                self._chain.send(Outgoing(data, targets, made), now)
            except Exception as error:  # noqa: BLE001 - an interceptor's bug costs one message
                self._emit(_bug("message not sent", error))
                made.fail(error, now)
        return made

    def _user_ticket(self, number: int, unique_id: UniqueId, targets: tuple[Member, ...]) -> Ticket:
        # Whether the caller had gone on before the outcome was known decides how failures are told.
        told: list[dict[Member, Exception]] = []

        def released(faulty: dict[Member, Exception], now: float) -> None:
            del now
            told.append(faulty)
            self._emit(TicketDone(number, faulty))

        def settled(faulty: dict[Member, Exception], now: float) -> None:
            del now
            if len(faulty) > len(told[0]):
                self._emit(SendFailed(unique_id, faulty))

        return Ticket(targets, released=released, settled=settled)

    def datagram(self, data: bytes, addr: tuple[str, int], now: float) -> None:
        """A datagram of the membership group arrived."""
        self._now = now
        if self.datagrams.is_frame(data) and self.protection is None and not self._is_stopped:
            self.datagrams.group_received(data, addr, now)
        else:
            self.membership.datagram(data, now, host=addr[0])
        if self.accepted.touched:
            self.accepted.flush()

    def udp_datagram(self, data: bytes, addr: tuple[str, int], now: float) -> None:
        """A datagram arrived at the own UDP port."""
        self._now = now
        if self.protection is None and not self._is_stopped:
            self.datagrams.received(data, addr, now)

    def link_opened(
        self, link: int, now: float, *, peer: tuple[str, int], attempt: int | None = None
    ) -> None:
        """A connection is there: one asked for by ``Connect(attempt)``, or an accepted one."""
        self._now = now
        if attempt is not None:
            if not self._challenges.link_opened(attempt, link, now):
                self._senders.link_opened(attempt, link, now)
            return
        self.accepted.opened(link, peer, now)

    def connect_failed(self, attempt: int, why: Exception, now: float) -> None:
        """A connection asked for by ``Connect(attempt)`` could not be made."""
        self._now = now
        if not self._challenges.connect_failed(attempt, why, now):
            self._senders.connect_failed(attempt, why, now)

    def link_bytes(self, link: int, data: bytes, now: float) -> None:
        """Bytes arrived on a connection."""
        self._now = now
        receiver = self._receivers.get(link)
        if receiver is None:
            known = self.accepted.recognise(link, data, now)
            if known is None:
                self._answer_bytes(link, data, now)
                return
            receiver, data = known
        self.statistics.bytes_received += len(data)
        for source in receiver.sources:
            self.health.came(source, now)
        try:
            if isinstance(receiver, OwnReceiver):
                for position, body in receiver.feed(data, now):
                    self._own_frame(receiver, position, body, now)
                self.accepted.touch(receiver)
            else:
                for body in receiver.feed(data):
                    self._frame(receiver, body, now)
            if isinstance(receiver, OwnReceiver) and receiver.news:
                self._news(receiver, now)
            if receiver.broken is not None:
                raise receiver.broken
        except RemoteProtocolError as error:
            if receiver.link in self._receivers:
                self.accepted.reject(receiver, error)

    def _answer_bytes(self, link: int, data: bytes, now: float) -> None:
        """Bytes on a connection that was made here."""
        if self._challenges.link_bytes(link, data, now):
            return
        sender = self._senders.of_link(link)
        if sender is None:
            return
        if self.protection is not None and isinstance(sender, OwnSender):
            # Only what could be read is the member's: anybody can write to an open port.
            sender.received(data, now)
            if sender.state is SenderState.OPEN:
                self.health.answered(sender.member, now)
            return
        self.health.answered(sender.member, now)
        sender.received(data, now)

    def link_closed(self, link: int, why: Exception | None, now: float) -> None:
        """A connection ended, and not because of an output ``Close``."""
        self._now = now
        if self._challenges.link_closed(link, why, now):
            return
        receiver = self.accepted.closed(link)
        if receiver is not None:
            for source in receiver.sources:
                # Who has lost the connection to us may have lost everything.
                self._trouble(source, why or ConnectionResetError("connection closed"), now)
            return
        self._senders.link_closed(link, why, now)

    def writable(self, link: int, total: int, now: float) -> None:
        """The operating system has taken ``total`` bytes of this connection so far."""
        self._now = now
        receiver = self._receivers.get(link)
        if receiver is not None:
            receiver.writable(total)
            return
        sender = self._senders.of_link(link)
        if sender is not None:
            sender.writable(total, now)

    def probe_result(self, probe: int, error: Exception | None, now: float) -> None:
        """The answer to an output ``Probe``: None when the member is there, else why not."""
        self._now = now
        self._questions.answered(probe, error, now)
        self.accepted.flush()

    def delivered(self, token: int, error: Exception | None, now: float) -> None:
        """The listeners are done with ``Deliver(token)``; ``error`` is what one of them raised."""
        self._now = now
        self.deliveries.delivered_one(token, error)

    def timer(self, now: float) -> None:
        """``next_deadline`` has come."""
        self._now = now
        self.timers.run_due(now)
        self.accepted.flush()

    # What interceptors may ask (ChainContext).

    def wall_ms(self) -> int:
        """Wall clock in milliseconds."""
        return self._wall_ms()

    def entropy(self, size: int) -> bytes:
        """Give that many random bytes."""
        return self._entropy(size)

    def new_message(self, message: bytes, options: int) -> ChannelData:
        """Make a message of an interceptor's own."""
        unique_id = make_unique_id(self._entropy(16))
        return ChannelData(options, self._wall_ms(), unique_id, self._local, message)

    def hold(self) -> Held:
        """Take the message that is being received; see :class:`ChainContext`."""
        held = Held(self, *(self._inbound or (None, Inbound())))
        held.inbound.pending += 1
        return held

    def release(self, held: Held, deliver: Callable[[], None]) -> None:
        """Hand a held message on, or drop it; whatever fails, fails that message only."""
        before = self._inbound
        link = held.receiver
        is_open = link is not None and self._receivers.get(link.link) is link
        self._inbound = (link, held.inbound) if link is not None and is_open else None
        self._holding = held.inbound
        try:
            deliver()
        except RemoteProtocolError as error:
            held.inbound.has_failed = True
            self._emit(Notice("message refused", {"why": str(error)}))
        except Exception as error:  # noqa: BLE001 - an interceptor's bug costs one message
            held.inbound.has_failed = True
            self._emit(_bug("message not processed", error))
        finally:
            self._inbound, self._holding = before, None
        held.inbound.pending -= 1
        if not held.inbound.pending:
            self._frame_finished(held.inbound)

    def doubt(self, member: Member, now: float) -> None:
        """Ask whether a member is still there."""
        self._trouble(member, TimeoutError("asked by an interceptor"), now)

    def event(self, event: Event) -> None:
        """Tell the operator something."""
        self._emit(event)

    def forget(self, member: Member) -> None:
        """Make the membership service forget a member; its next heartbeat makes it new."""
        self.membership.forget(member)

    def is_shut_down(self) -> bool:
        """True once the channel was stopped."""
        return self._is_stopped

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
        """Ask on a fresh connection whether a member is there; see :class:`ChainContext`."""

        def answered(error: Exception | None, now: float) -> None:
            if error is None and expect_reply:
                self.health.answered(member, now)
            answer(error, now)

        if expect_reply:
            self.health.asked(member, self._now)
        self._questions.ask(
            member,
            message,
            options=options,
            expect_reply=expect_reply,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            answer=answered,
        )

    def confirm(
        self, member: Member, *, is_refused: bool, answer: Callable[[Verdict, float], None]
    ) -> None:
        """Ask others before a member is removed; see :class:`ChainContext`."""
        self.witnesses.confirm(member, is_refused=is_refused, answer=answer, now=self._now)

    # The way down.

    def _to_links(self, message: Outgoing, now: float) -> None:
        data = message.data
        frame = encode_data_frame(
            data.options, data.timestamp, data.unique_id, self._record, data.message
        )
        needs_ack = bool(data.options & _USE_ACK)
        waits = needs_ack and not data.options & _ASYNC
        needs_outcome = bool(data.options & _SYNC)
        suspected = self._views.suspected
        ticket, send, settler = message.ticket, self._senders.send, self._settler
        sent = self.health.sent
        self.statistics.frames_sent += len(message.destinations)
        if data.options & _MULTICAST:
            self._to_group(message, frame, now)
            return
        by_udp = bool(data.options & _UDP)
        for member in message.destinations:
            out = OutFrame(
                frame,
                needs_ack=needs_ack,
                settle=settler(ticket, member),
                waits=waits,
                needs_outcome=needs_outcome,
                is_live=ticket.is_live,
            )
            if waits and member in suspected:
                excuse((out,), _not_answering(member), now)
            if by_udp:
                self.datagrams.to_member(member, out, now)
                continue
            sent(member)
            if not send(out, member, now):
                ticket.hold()
                out.unblocked = ticket.let_go

    def _to_group(self, message: Outgoing, frame: bytes, now: float) -> None:
        error: Exception | None = None
        try:
            self.datagrams.to_group(frame)
        except LocalProtocolError as why:
            error = why
        for member in message.destinations:
            message.ticket.settle(member, error, now)

    def _settler(self, ticket: Ticket, member: Member) -> Callable[[Exception | None, float], None]:
        def settle(error: Exception | None, now: float) -> None:
            ticket.settle(member, error, now)
            if error is not None and not isinstance(error, _SAY_NOTHING):
                self._trouble(member, error, now)

        return settle

    # The way up.

    def _frame(self, receiver: PlainReceiver, body: bytes, now: float) -> None:
        data = decode_body(body)
        self.statistics.frames_received += 1
        if data.source == self._local:
            raise RemoteProtocolError("a frame in this member's own name")
        if self.protection is not None and not self.protection.admission.may_speak_plainly(
            data.source
        ):
            raise RemoteProtocolError("a frame without a key in the name of a member that has one")
        if data.trailer:
            destination = destination_of(data.trailer)
            if destination is not None and destination != self._local.unique_id:
                raise RemoteProtocolError("meant for another member, which was here before")
            introduction = introduction_of(data, body)
            if introduction is not None:
                is_test = is_probe(data.message)
                self._on_introduction(data.source, introduction, now, is_test=is_test)
        if not is_probe(data.message):
            # The end of a connection that only tested us says nothing about its member; asking
            # back would make it ask again, and so on for ever.
            receiver.sources[data.source] = None
            if len(receiver.sources) > SOURCES_PER_LINK_MAX:
                raise RemoteProtocolError(
                    f"frames of more than {SOURCES_PER_LINK_MAX} members on one connection"
                )
        options = data.options
        slot = receiver.expect_ack() if options & _USE_ACK else None
        if slot is not None:
            self.accepted.touch(receiver)
            if not options & _SYNC:
                receiver.answer(slot, ok=True)
                slot = None
        inbound, is_new = self._outcomes.find_or_add(data)
        if is_new:
            self._process(receiver, inbound, data, now)
        if slot is not None:
            inbound.answer_to(receiver, slot)

    def _on_introduction(
        self, source: Member, introduction: Introduction, now: float, *, is_test: bool
    ) -> None:
        covered, mark = introduction
        if self.protection is not None:
            if self.protection.introduced(source, covered, mark, now) and not is_test:
                self.discovery.came(source, now)
        elif self.config.own_link and not mark.key_id:
            # Who signs speaks with those who have its key, and to others as a plain member.
            self._introduced[source] = None
            self._introduced.move_to_end(source)
            if len(self._introduced) > INTRODUCED_MAX:
                self._introduced.popitem(last=False)
            self._senders.upgrade(source, now)
            if not is_test:
                self.discovery.came(source, now)

    def _came_by_own_link(self, member: Member, now: float) -> None:
        self.health.came(member, now)
        if self.protection is not None:
            self.protection.opened(member)
        self._senders.upgrade(member, now)
        self.discovery.came(member, now)

    def _barrier(self, options: int) -> bytes:
        unique_id = make_unique_id(self._entropy(16))
        message = FAILURE_DETECTOR_PAYLOAD
        return encode_data_frame(options, self._wall_ms(), unique_id, self._record, message)

    def _process(
        self, receiver: Receiver | None, inbound: Inbound, data: ChannelData, now: float
    ) -> None:
        if is_probe(data.message):
            # Written to the socket, past the sender's interceptors, which ours would look for.
            inbound.finish()
            return
        self._inbound = (receiver, inbound)
        try:
            self._chain.receive(data, now)
        except RemoteProtocolError as error:
            inbound.has_failed = True
            peer = data.source.address if receiver is None else receiver.peer
            self.accepted.tell(peer, f"message refused: {error}")
        except Exception as error:  # noqa: BLE001 - an interceptor's bug costs one message
            inbound.has_failed = True
            self._emit(_bug("message not processed", error))
        finally:
            self._inbound = None
        if not inbound.pending:
            inbound.finish()

    def _own_frame(self, receiver: OwnReceiver, position: int, body: bytes, now: float) -> None:
        inbox = receiver.inbox
        inbound = Inbound()
        try:
            data = decode_body(body)
            if data.source != receiver.source:
                raise RemoteProtocolError("a frame in another member's name")
        except RemoteProtocolError as error:
            inbox.done(position, error)
            raise
        self.statistics.frames_received += 1
        self._process(receiver, inbound, data, now)
        inbound.answer_by(inbox, position)

    def _to_listeners(self, data: ChannelData, now: float) -> None:
        if is_probe(data.message):
            return
        if self._consume is not None and self._consume(data, now):
            return
        if self._inbound is None:
            # Released later, and the connection is gone: nobody is left to acknowledge to.
            self.deliveries.put(data, self._holding or Inbound(), None)
        else:
            receiver, inbound = self._inbound
            self.deliveries.put(data, inbound, receiver)

    def _frame_finished(self, inbound: Inbound) -> None:
        for receiver in inbound.finish():
            self.accepted.touch(receiver)

    # Membership.

    def _to_view(self, change: MemberChange, now: float) -> None:
        member = change.member
        if change.kind is ChangeKind.REMOVED:
            if not self._views.remove(member):
                return
            self.discovery.gone(member, change.reason, now)
            self.health.removed(member)
            self._introduced.pop(member, None)
            if self.protection is not None:
                change = self.protection.explained(change, now)
                self.protection.admission.forget(member)
            self._emit(MemberRemoved(member, change.reason, self._views.number))
            self._notify(change, now)
            self._senders.drop(member, now)
            self._inboxes.forget(member.unique_id)
            self.accepted.forget(member)
            return
        if not self._views.add(member, now):
            self._emit(MemberUpdated(member))
            self._notify(change, now)
            return
        self.health.added(member, now)
        if self.protection is not None:
            self.protection.admission.joined(member, now)
            if self._inboxes.get(member.unique_id) is not None:
                self.protection.opened(member)
        self._emit(MemberAdded(member, self._views.number))
        self._senders.member_added(member, now)
        self.discovery.joined(member, now)
        self._notify(change, now)

    # Members beyond multicast.

    def discovered(self, service: str, hosts: Iterable[NamedHost], now: float) -> None:
        """A service names hosts: all of them that it knows now."""
        self._now = now
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
        if command == SHUTDOWN_COMMAND:
            raise LocalProtocolError("this command says that a member leaves: stop the channel")
        changes = {"payload": payload, "domain": domain, "command": command}
        local = self._local.replace(**{k: v for k, v in changes.items() if v is not None})
        record = encode_member(local)
        self._now = now
        self._local, self._record, self._side.record = local, record, record
        self.membership.set_local(local, now)
        self.discovery.announce(self.membership.record(now), now)

    def _news(self, receiver: OwnReceiver, now: float) -> None:
        news, receiver.news = receiver.news, []
        source = receiver.source
        assert source is not None, "nothing is told before START"
        for kind, body in news:
            self.discovery.news(source, kind, body, now)

    # Health.

    def _ping(self, member: Member, now: float) -> None:
        is_quiet = self._senders.unanswered_since(member) is None
        if is_quiet and not self.health.is_suspected(member) and self._senders.ping(member, now):
            return

        def answer(error: Exception | None, then: float) -> None:
            if error is None:
                self._senders.answered_elsewhere(member, then)

        self._test(member, self.config.membership.suspect_after / 1000, answer)

    def _test(
        self, member: Member, timeout: float, answer: Callable[[Exception | None, float], None]
    ) -> None:
        self.probe(
            member,
            FAILURE_DETECTOR_PAYLOAD,
            options=int(SendOptions.BYTE_MESSAGE | SendOptions.USE_ACK),
            expect_reply=True,
            connect_timeout=timeout,
            reply_timeout=timeout,
            answer=answer,
        )

    def _witnesses(self) -> Iterable[Member]:
        view, can_witness = self.view, self._senders.can_witness
        return (m for m in view.members if m not in view.suspected and can_witness(m))

    def _find(self, unique_id: bytes) -> Member | None:
        return next((m for m in self.view.members if m.unique_id == unique_id), None)

    def _observe(
        self,
        member: Member,
        timeout: float,
        answer: Callable[[Exception | None, float], None],
        now: float,
    ) -> None:
        def answered(error: Exception | None, then: float) -> None:
            answer(error, then)
            if isinstance(error, ConnectionRefusedError):
                # The question has told this member too.
                self._trouble(member, error, then)

        self._senders.ping(member, now)
        self._test(member, timeout, answered)

    def _respond(self, receiver: OwnReceiver) -> None:
        self.accepted.touch(receiver)
        self.accepted.flush()

    def _link_broke(self, member: Member, why: Exception, now: float) -> None:
        self.witnesses.lost(member, now)
        self._trouble(member, why, now)

    def _give_up_on(self, member: Member, now: float) -> None:
        self._trouble(member, TimeoutError("no answer for a long time"), now)

    def _suspect(self, member: Member, silent: float | None, now: float) -> None:
        self._views.suspect(member, is_suspected=silent is not None)
        known = self._views.get(member) or member
        if silent is None:
            self._emit(MemberRefuted(known))
            self.discovery.answers_again(known, now)
        else:
            self._emit(MemberSuspected(known, silent))
        if self._suspicion is not None:
            self._suspicion(member, silent is not None, now)
        if silent is not None:
            self._senders.doubt(member, now)
            self._senders.excuse(member, _not_answering(member), now)

    def _notify(self, change: MemberChange, now: float) -> None:
        self._chain.on_view(change, now)
        if self._members_changed is not None:
            self._members_changed(change, now)

    def _speaks_own(self, member: Member) -> bool:
        if self.protection is not None:
            # Also strangers: nothing is sent to those who do not prove the key.
            return not self.protection.admission.is_plain(member)
        return self.config.own_link and (
            self.membership.table.is_marked(member)
            or member in self._introduced
            or self._inboxes.get(member.unique_id) is not None
        )

    def _may_have_lost(self, member: Member, now: float) -> None:
        if self._link_lost is not None and member in self._views:
            self._link_lost(member, now)

    def _trouble(self, member: Member, why: Exception, now: float) -> None:
        if not self._is_stopped and member in self._views:
            self._chain.on_trouble(self._views.get(member) or member, why, now)

    def _next_number(self) -> int:
        self._counter += 1
        return self._counter

    def _emit(self, output: Output) -> None:
        if isinstance(output, Close):
            self._senders.forget_link(output.link)
        self._outputs.append(output)


@final
class Held:
    """A received message that an interceptor keeps; see ``ChainContext.hold``."""

    __slots__ = ("_core", "inbound", "receiver")

    def __init__(self, core: ChannelCore, receiver: Receiver | None, inbound: Inbound) -> None:
        self._core = core
        self.receiver = receiver
        self.inbound = inbound

    def hand_on(self, deliver: Callable[[], None]) -> None:
        """Hand it on."""
        self._core.release(self, deliver)

    def give_up(self) -> None:
        """Drop it."""
        self.inbound.has_failed = True
        self._core.release(self, lambda: None)


def _not_answering(member: Member) -> MemberSuspectedError:
    return MemberSuspectedError(f"{member.name} does not answer now; the message may arrive yet")


def _bug(what: str, error: Exception) -> Notice:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    where = ""
    if traceback is not None:
        where = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
    return Notice(what, {"error": repr(error), "at": where})
