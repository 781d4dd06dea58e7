"""The way up: from the bytes of an accepted connection to the listeners.

Bytes → frames → duplicates out → interceptors in reverse → the consumers inside the core (session
managers) or a ``Deliver`` for the listeners → acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final, final

from tribes.channel.inbound import DeliveryQueue, Inbound, Outcomes
from tribes.channel.outputs import Notice
from tribes.errors import RemoteProtocolError
from tribes.links.introduction import introduction_of
from tribes.links.own_receiver import OwnReceiver
from tribes.wire.data import ChannelData, decode_body, destination_of
from tribes.wire.options import SendOptions
from tribes.wire.probes import is_probe

if TYPE_CHECKING:
    from tribes.channel.accepted import AcceptedLinks, Receiver
    from tribes.channel.acquaintances import Acquaintances
    from tribes.channel.chain import Chain
    from tribes.channel.identity import Identity
    from tribes.channel.outbox import Outbox
    from tribes.channel.protection import Protection
    from tribes.channel.statistics import ChannelStatistics
    from tribes.channel.trail import Trail
    from tribes.config.model import ReceiverConfig
    from tribes.links.plain_receiver import PlainReceiver
    from tribes.wire.member import Member

__all__ = ["SOURCES_PER_LINK_MAX", "Held", "Receiving"]

_USE_ACK = int(SendOptions.USE_ACK)
_SYNC = int(SendOptions.SYNCHRONIZED_ACK)

SOURCES_PER_LINK_MAX: Final = 64
"""Members whose frames one connection may carry. Tribes' own connections carry one member's."""


@final
class Receiving:
    """Takes what arrived, and sees to it that each message is processed and acknowledged once.

    Args:
        identity: Whom the frames must be meant for.
        config: The bounds of what waits for the listeners.
        chain: The interceptors.
        accepted: The connections.
        acquaintances: Take who shows its mark in a frame.
        protection: What a key changes; None: there is none.
        statistics: What is counted.
        outbox: Takes the outputs.
        came: Told of each member that something came from.
        news: Takes what a member told beside its messages.
        consume: Offered every message before the listeners; True when it was taken.
        trail: The span that it works for; None: nobody makes any.
    """

    def __init__(
        self,
        identity: Identity,
        config: ReceiverConfig,
        *,
        chain: Chain,
        accepted: AcceptedLinks,
        acquaintances: Acquaintances,
        protection: Protection | None,
        statistics: ChannelStatistics,
        outbox: Outbox,
        came: Callable[[Member, float], None],
        news: Callable[[Member, int, bytes, float], None],
        consume: Callable[[ChannelData, float], bool] | None,
        trail: Trail | None = None,
    ) -> None:
        self._trail = trail
        self.outcomes: Final = Outcomes()
        self.deliveries: Final = DeliveryQueue(
            config, emit=outbox.outputs.append, finished=self._frame_finished
        )
        self._identity = identity
        self._chain = chain
        self._accepted = accepted
        self._acquaintances = acquaintances
        self._protection = protection
        self._statistics = statistics
        self._outbox = outbox
        self._came = came
        self._tell_news = news
        self._consume = consume
        self._inbound: tuple[Receiver | None, Inbound] | None = None
        self._holding: Inbound | None = None

    # Bytes and frames.

    def received(self, receiver: Receiver, data: bytes, now: float) -> None:
        """Take bytes that arrived on a connection; a protocol error costs the connection."""
        self._statistics.bytes_received += len(data)
        for source in receiver.sources:
            self._came(source, now)
        try:
            if isinstance(receiver, OwnReceiver):
                frames = iter(receiver.feed(data, now))
                try:
                    for position, body in frames:
                        self._own_frame(receiver, position, body, now)
                except RemoteProtocolError as error:
                    # They count as received, and do not come again: their sender is to know.
                    for position, _ in frames:
                        receiver.inbox.done(position, error)
                    raise
                self._accepted.touch(receiver)
                if receiver.news:
                    self._news(receiver, now)
            else:
                for body in receiver.feed(data):
                    self._frame(receiver, body, now)
            if receiver.broken is not None:
                raise receiver.broken
        except RemoteProtocolError as error:
            if receiver.link in self._accepted.receivers:
                self._accepted.reject(receiver, error)

    def _news(self, receiver: OwnReceiver, now: float) -> None:
        news, receiver.news = receiver.news, []
        source = receiver.source
        assert source is not None, "nothing is told before START"
        for kind, body in news:
            self._tell_news(source, kind, body, now)

    def _own_frame(self, receiver: OwnReceiver, position: int, body: bytes, now: float) -> None:
        inbox = receiver.inbox
        inbound = Inbound()
        try:
            data = decode_body(body)
            source = receiver.source
            assert source is not None, "frames come after START"
            if data.source.key != source.key:
                raise RemoteProtocolError("a frame in another member's name")
        except RemoteProtocolError as error:
            inbox.done(position, error)
            raise
        self._statistics.frames_received += 1
        trail = self._trail
        trace = receiver.traces.pop(position, b"") if receiver.traces else b""
        if trace and trail is not None:
            with trail.following((trace,)):
                fields = {"tribes.source": data.source.label}
                trail.span("tribes.receive", fields, self.process, receiver, inbound, data, now)
        else:
            self.process(receiver, inbound, data, now)
        inbound.answer_by(inbox, position)

    def _frame(self, receiver: PlainReceiver, body: bytes, now: float) -> None:
        data = decode_body(body)
        self._statistics.frames_received += 1
        self._check_source(data, body, now)
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
            self._accepted.touch(receiver)
            if not options & _SYNC:
                receiver.answer(slot, ok=True)
                slot = None
        inbound, is_new = self.outcomes.find_or_add(data)
        if is_new:
            self.process(receiver, inbound, data, now)
        if slot is not None:
            inbound.answer_to(receiver, slot)

    def _check_source(self, data: ChannelData, body: bytes, now: float) -> None:
        """Refuse a plain frame that does not come from, or go to, whom it says."""
        local = self._identity.local
        if data.source == local:
            raise RemoteProtocolError("a frame in this member's own name")
        if self._protection is not None and not self._protection.admission.may_speak_plainly(
            data.source
        ):
            raise RemoteProtocolError("a frame without a key in the name of a member that has one")
        if data.trailer:
            destination = destination_of(data.trailer)
            if destination is not None and destination != local.unique_id:
                raise RemoteProtocolError("meant for another member, which was here before")
            introduction = introduction_of(data, body)
            if introduction is not None:
                is_test = is_probe(data.message)
                self._acquaintances.introduced(data.source, introduction, now, is_test=is_test)

    # Messages.

    def process(
        self, receiver: Receiver | None, inbound: Inbound, data: ChannelData, now: float
    ) -> None:
        """Pass a message up, and its outcome into ``inbound``; no receiver: it is a datagram."""
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
            self._accepted.tell(peer, f"message refused: {error}")
        except Exception as error:  # noqa: BLE001 - an interceptor's bug costs one message
            inbound.has_failed = True
            self._outbox.tell_bug("message not processed", error)
        finally:
            self._inbound = None
        if not inbound.pending:
            inbound.finish()

    def to_listeners(self, data: ChannelData, now: float) -> None:
        """Above the first interceptor: hand a message to its consumer, or queue it."""
        if is_probe(data.message):
            return
        trail, consume = self._trail, self._consume
        if trail is not None and trail.current and consume is not None:
            consume = partial(trail.span, "tribes.apply", {}, consume)
        if consume is not None and consume(data, now):
            return
        if self._inbound is None:
            # Released later, and the connection is gone: nobody is left to acknowledge to.
            self.deliveries.put(data, self._holding or Inbound(), None)
        else:
            receiver, inbound = self._inbound
            self.deliveries.put(data, inbound, receiver)

    def _frame_finished(self, inbound: Inbound) -> None:
        for receiver in inbound.finish():
            self._accepted.touch(receiver)

    # What interceptors hold back.

    def hold(self) -> Held:
        """Take the message that is being received; see ``ChainContext.hold``."""
        held = Held(self, *(self._inbound or (None, Inbound())))
        held.inbound.pending += 1
        if self._trail is not None:
            held.trace = self._trail.current
        return held

    def release(self, held: Held, deliver: Callable[[], None]) -> None:
        """Hand a held message on, or drop it; whatever fails, fails that message only."""
        before = self._inbound
        link = held.receiver
        is_open = link is not None and self._accepted.receivers.get(link.link) is link
        self._inbound = (link, held.inbound) if link is not None and is_open else None
        self._holding = held.inbound
        trail = self._trail
        try:
            with nullcontext() if trail is None else trail.following((held.trace,)):
                deliver()
        except RemoteProtocolError as error:
            held.inbound.has_failed = True
            self._outbox.emit(Notice("message refused", {"why": str(error)}))
        except Exception as error:  # noqa: BLE001 - an interceptor's bug costs one message
            held.inbound.has_failed = True
            self._outbox.tell_bug("message not processed", error)
        finally:
            self._inbound, self._holding = before, None
        held.inbound.pending -= 1
        if not held.inbound.pending:
            self._frame_finished(held.inbound)


@final
class Held:
    """A received message that an interceptor keeps; see ``ChainContext.hold``."""

    __slots__ = ("_receiving", "inbound", "receiver", "trace")

    def __init__(self, receiving: Receiving, receiver: Receiver | None, inbound: Inbound) -> None:
        self._receiving = receiving
        self.receiver = receiver
        self.inbound = inbound
        self.trace = b""

    def hand_on(self, deliver: Callable[[], None]) -> None:
        """Hand it on."""
        self._receiving.release(self, deliver)

    def give_up(self) -> None:
        """Drop it."""
        self.inbound.has_failed = True
        self._receiving.release(self, lambda: None)
