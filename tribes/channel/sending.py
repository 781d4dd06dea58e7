"""The way down: from a call to one frame per destination.

``send`` or ``post`` → interceptors → one frame per destination → its sender, or a datagram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, final

from tribes.channel.outputs import SendFailed, TicketDone
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import (
    ChannelClosedError,
    LocalProtocolError,
    MemberBehindError,
    MemberSuspectedError,
    QueueFullError,
    RemoteProcessError,
)
from tribes.ids import UniqueId, make_unique_id
from tribes.links.base import OutFrame, excuse
from tribes.wire.data import ChannelData, encode_data_frame
from tribes.wire.options import SendOptions, wire_options

if TYPE_CHECKING:
    from tribes.channel.chain import Chain
    from tribes.channel.datagrams import Datagrams
    from tribes.channel.identity import Identity
    from tribes.channel.outbox import Outbox
    from tribes.channel.statistics import ChannelStatistics
    from tribes.channel.trail import Trail
    from tribes.config.model import ChannelConfig
    from tribes.links.pool import SenderPool
    from tribes.membership.view import ViewBuilder
    from tribes.wire.member import Member

__all__ = ["Sending", "not_answering"]

_USE_ACK = int(SendOptions.USE_ACK)
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_SYNC = int(SendOptions.SYNCHRONIZED_ACK)
_UDP = int(SendOptions.UDP)
_MULTICAST = int(SendOptions.MULTICAST)
_DATAGRAM = _UDP | _MULTICAST
_SAY_NOTHING = (RemoteProcessError, QueueFullError, MemberSuspectedError, MemberBehindError)
"""Failures that are no reason to ask whether the member is there."""

FRAME_ROOM_BYTES: Final = 128 * 1024
"""What a frame may need beyond its message: a member record has up to 64 KiB, and interceptors may
add to a message."""


def not_answering(member: Member) -> MemberSuspectedError:
    """Make the error of who waits for a suspected member."""
    return MemberSuspectedError(f"{member.name} does not answer now; the message may arrive yet")


@final
class Sending:
    """Takes messages, and brings them to the members' senders.

    Args:
        identity: Whose messages they are.
        config: What can be sent.
        chain: The interceptors.
        views: Who is suspected.
        senders: The queues to the members.
        datagrams: The way of UDP and multicast messages.
        statistics: What is counted.
        outbox: Takes the outputs.
        is_protected: Whether the group has a key or TLS.
        sent: Told of each member that something is sent to.
        trail: The span that it works for; None: nobody makes any.
        trouble: Told of each failure that makes one ask whether the member is there.
    """

    def __init__(
        self,
        identity: Identity,
        config: ChannelConfig,
        *,
        chain: Chain,
        views: ViewBuilder,
        senders: SenderPool,
        datagrams: Datagrams,
        statistics: ChannelStatistics,
        outbox: Outbox,
        is_protected: bool,
        sent: Callable[[Member], None],
        trouble: Callable[[Member, Exception, float], None],
        trail: Trail | None = None,
    ) -> None:
        self._trail = trail
        self.message_max_bytes: Final = chain.message_max_bytes(
            config.receiver.frame_max_bytes - FRAME_ROOM_BYTES
        )
        self._identity = identity
        self._config = config
        self._chain = chain
        self._views = views
        self._senders = senders
        self._datagrams = datagrams
        self._statistics = statistics
        self._outbox = outbox
        self._is_protected = is_protected
        self._sent = sent
        self._trouble = trouble
        self._is_stopped = False

    def stop(self) -> None:
        """Fail whatever is sent from now on."""
        self._is_stopped = True

    def send(
        self,
        destinations: Iterable[Member],
        payload: bytes,
        options: int,
        now: float,
        *,
        trace: bytes = b"",
    ) -> tuple[int, UniqueId]:
        """Send a byte message; the output ``TicketDone`` tells when the caller may go on.

        Args:
            destinations: Members; each is served once, whether or not it is in the view.
            payload: The message.
            options: See :class:`SendOptions`.
            now: Monotonic seconds.
            trace: The span that the message belongs to, if any.

        Returns:
            The ticket's number and the message's unique id.

        Raises:
            LocalProtocolError: No destination, the local member among them, or an option that is
                not supported.
        """
        number = self._identity.next_number()
        unique_id = make_unique_id(self._identity.entropy(16))
        self._post(
            destinations,
            payload,
            options,
            unique_id,
            now,
            ticket=lambda targets: self._user_ticket(number, unique_id, targets),
            trace=trace,
        )
        return number, unique_id

    def released(self, number: int) -> dict[Member, Exception] | None:
        """The members that a send has failed for, if its ``TicketDone`` is among the outputs that
        nobody has taken yet; else None.
        """
        for output in reversed(self._outbox.outputs):
            if type(output) is TicketDone and output.ticket == number:
                return output.faulty
        return None

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
        unique_id = make_unique_id(self._identity.entropy(16))
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
        trace: bytes = b"",
    ) -> Ticket:
        targets = tuple(destinations)
        if len(targets) > 1:
            targets = tuple(dict.fromkeys(targets))
        if not targets:
            raise LocalProtocolError("no destination given")
        if self._identity.local in targets:
            raise LocalProtocolError("a member does not send to itself")
        if options & _DATAGRAM and self._is_protected:
            raise LocalProtocolError(
                "a group with a key or TLS sends no messages by UDP or multicast, because nothing "
                "protects them; clear the options UDP (32) and MULTICAST (64)"
            )
        if options & _MULTICAST and not self._config.membership.multicast:
            raise LocalProtocolError(
                "this member has no multicast (channel.membership.multicast); clear the option "
                "MULTICAST (64)"
            )
        if len(payload) > self.message_max_bytes:
            raise LocalProtocolError(
                f"a message of {len(payload)} bytes does not fit: at most {self.message_max_bytes} "
                f"can be sent with receiver.frame_max_bytes = "
                f"{self._config.receiver.frame_max_bytes} and these interceptors"
            )
        self._outbox.now = now
        made = ticket(targets)
        data = ChannelData(
            wire_options(options, is_bytes=is_bytes),
            self._identity.wall_ms(),
            unique_id,
            self._identity.local,
            payload,
        )
        self._statistics.messages_sent += 1
        if self._is_stopped:
            made.fail(ChannelClosedError("the channel was stopped"), now)
        else:
            try:
                self._enter(Outgoing(data, targets, made), now, trace)
            except Exception as error:  # noqa: BLE001 - an interceptor's bug costs one message
                self._outbox.tell_bug("message not sent", error)
                made.fail(error, now)
        return made

    def _enter(self, message: Outgoing, now: float, trace: bytes) -> None:
        trail = self._trail
        if trail is None:
            self._chain.send(message, now)
            return
        # What the session managers send follows the commits in it; see `Replicator`.
        with trail.following((trace,)) if trace else nullcontext():
            fields = {"tribes.bytes": len(message.data.message)}
            trail.span("tribes.send", fields, self._chain.send, message, now)

    def _user_ticket(self, number: int, unique_id: UniqueId, targets: tuple[Member, ...]) -> Ticket:
        # Whether the caller had gone on before the outcome was known decides how failures are told.
        told: list[dict[Member, Exception]] = []

        def released(faulty: dict[Member, Exception], now: float) -> None:
            del now
            told.append(faulty)
            self._outbox.emit(TicketDone(number, faulty))

        def settled(faulty: dict[Member, Exception], now: float) -> None:
            del now
            if len(faulty) > len(told[0]):
                self._outbox.emit(SendFailed(unique_id, faulty))

        return Ticket(targets, released=released, settled=settled)

    def to_links(self, message: Outgoing, now: float) -> None:
        """Below the last interceptor: make the frame, and give it to each destination's sender."""
        data = message.data
        frame = encode_data_frame(
            data.options, data.timestamp, data.unique_id, self._identity.record, data.message
        )
        needs_ack = bool(data.options & _USE_ACK)
        waits = needs_ack and not data.options & _ASYNC
        needs_outcome = bool(data.options & _SYNC)
        suspected = self._views.suspected
        ticket, send, settler = message.ticket, self._senders.send, self._settler
        sent = self._sent
        self._statistics.frames_sent += len(message.destinations)
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
            if self._trail is not None:
                out.trace = self._trail.current
            if waits and member in suspected:
                excuse((out,), not_answering(member), now)
            if by_udp:
                self._datagrams.to_member(member, out, now)
                continue
            sent(member)
            if not send(out, member, now):
                ticket.hold()
                out.unblocked = ticket.let_go

    def _to_group(self, message: Outgoing, frame: bytes, now: float) -> None:
        error: Exception | None = None
        try:
            self._datagrams.to_group(frame)
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
