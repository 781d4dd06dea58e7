"""Nobody handles a message before every destination has it.

Tomcat's ``TwoPhaseCommitInterceptor`` (tribes-wire §7.10): a receiver holds a message back until
the sender confirms it, and the sender confirms once all destinations have acknowledged the message.
It is delayed delivery and no transaction: there is no vote and nothing is undone, and a
confirmation that is lost leaves a message with some and not with others.

Where Tomcat names only the destinations that failed, here all are failed when one is: those that
have the message will never handle it. And messages to a member are confirmed in the order sent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, final

from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.outputs import Notice
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ChannelError, ConfigError
from tribes.wire.limits import UNIQUE_ID_MAX_BYTES

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["CONFIRMATION_END", "CONFIRMATION_START", "TwoPhaseCommitInterceptor"]

CONFIRMATION_START = bytes.fromhex("7101c602dec44bb29bf420e3206fd804")
CONFIRMATION_END = bytes.fromhex("36f35a6e2fe14be8afe32434c64d9238")
_MARKS_BYTES = len(CONFIRMATION_START) + len(CONFIRMATION_END)

MESSAGE_OVERHEAD_BYTES = 256
"""What a held message is counted for beyond its bytes."""


@final
class _Sending:
    """A message of ours between its two phases."""

    __slots__ = ("faulty", "is_decided", "message")

    def __init__(self, message: Outgoing) -> None:
        self.message = message
        self.faulty: dict[Member, Exception] = {}
        self.is_decided = False


class TwoPhaseCommitInterceptor(Interceptor):
    """Holds messages back until their sender confirms them.

    Args:
        expire: Milliseconds after which a message is dropped that was not confirmed (``expire``).
        max_held_size: Bytes of messages held; beyond it the oldest are dropped. Tomcat has no such
            bound.
        option_flag: Only messages with these option bits have two phases (``optionFlag``); 0: all.
    """

    def __init__(
        self,
        *,
        expire: int = 60_000,
        max_held_size: int = 64 * 1024 * 1024,
        option_flag: int = 0,
    ) -> None:
        for key, value in (("expire", expire), ("max_held_size", max_held_size)):
            if value < 1:
                raise ConfigError(f"must be at least 1, found {value}", key=key)
        self.expire = expire
        self.max_held_size = max_held_size
        self.option_flag = option_flag
        self.held_bytes = 0
        """Bytes of the messages that wait to be confirmed."""
        self.dropped = 0
        """Messages that were not confirmed in time, or found no room."""
        self._held: OrderedDict[tuple[Member, bytes], tuple[ChannelData, float]] = OrderedDict()
        self._timer: Timer | None = None
        self._sending: dict[Member, deque[_Sending]] = {}

    @property
    def held(self) -> int:
        """Messages that wait to be confirmed."""
        return len(self._held)

    # Sending.

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Send a message, and its confirmation when all destinations have it."""
        if not self.wants(message.data.options):
            next(message, now)
            return
        sending = _Sending(message)
        for member in message.destinations:
            self._sending.setdefault(member, deque()).append(sending)

        def decided(faulty: dict[Member, Exception], then: float) -> None:
            sending.is_decided, sending.faulty = True, faulty
            self._go_on(message.destinations, then)

        def released(_: dict[Member, Exception], then: float) -> None:
            # Queued below; or received by all, and then the caller waits for the second phase.
            if not inner.is_settled:
                message.ticket.release(then)

        inner = Ticket(
            message.destinations, settled=decided, released=released, parent=message.ticket
        )
        try:
            next(Outgoing(message.data, message.destinations, inner), now)
        except Exception as error:
            inner.fail(error, now)
            raise

    def _go_on(self, members: tuple[Member, ...], now: float) -> None:
        """Confirm what is decided and stands first with all its destinations."""
        ready = deque(members)
        while ready:
            queue = self._sending.get(ready[0])
            sending = queue[0] if queue else None
            if sending is None or not sending.is_decided or not self._is_first(sending):
                ready.popleft()
                continue
            for member in sending.message.destinations:
                self._sending[member].popleft()
                if not self._sending[member]:
                    del self._sending[member]
                if member not in ready:
                    ready.append(member)
            self._second_phase(sending, now)

    def _is_first(self, sending: _Sending) -> bool:
        return all(self._sending[member][0] is sending for member in sending.message.destinations)

    def _second_phase(self, sending: _Sending, now: float) -> None:
        message, faulty = sending.message, sending.faulty
        if not faulty:
            data = message.data
            body = CONFIRMATION_START + data.unique_id + CONFIRMATION_END
            confirmation = self.context.new_message(body, data.options)
            confirmation.timestamp = data.timestamp
            self.send_own(Outgoing(confirmation, message.destinations, message.ticket), now)
            return
        names = ", ".join(member.label for member in faulty)
        for member in message.destinations:
            error = faulty.get(member)
            message.ticket.settle(
                member, error or ChannelError(f"not confirmed, since {names} lacks it"), now
            )

    # Receiving.

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Hold a message back, or hand on the one that this confirms."""
        if not self.wants(message.options):
            next(message, now)
            return
        confirmed = _confirmed(message.message)
        if confirmed is not None:
            original = self._take(message.source, confirmed)
            if original is not None:
                next(original, now)
            return
        self._take(message.source, message.unique_id)
        self._held[message.source, message.unique_id] = (message, now)
        self.held_bytes += _size(message)
        while self.held_bytes > self.max_held_size and len(self._held) > 1:
            self._drop_first("no room for more messages that are not confirmed")
        self._arm()

    def stop(self, now: float) -> None:
        """Drop what is not confirmed."""
        del now
        self._held.clear()
        self.held_bytes = 0

    def _take(self, source: Member, unique_id: bytes) -> ChannelData | None:
        held = self._held.pop((source, unique_id), None)
        if held is None:
            return None
        self.held_bytes -= _size(held[0])
        return held[0]

    def _drop_first(self, why: str) -> None:
        _, (message, _) = self._held.popitem(last=False)
        self.held_bytes -= _size(message)
        self.dropped += 1
        details: dict[str, object] = {"member": message.source.label, "why": why}
        self.context.event(Notice("message not confirmed", details))

    def _arm(self) -> None:
        if self._timer is not None or not self._held:
            return

        def expired(now: float) -> None:
            self._timer = None
            while self._held and self._first_expires() <= now:
                self._drop_first(f"not within {self.expire} ms")
            self._arm()

        self._timer = self.context.timers.at(self._first_expires(), expired)

    def _first_expires(self) -> float:
        _, since = next(iter(self._held.values()))
        return since + self.expire / 1000


def _confirmed(body: bytes) -> bytes | None:
    """The id that a confirmation confirms; None when it is none."""
    if (
        _MARKS_BYTES <= len(body) <= _MARKS_BYTES + UNIQUE_ID_MAX_BYTES
        and body.startswith(CONFIRMATION_START)
        and body.endswith(CONFIRMATION_END)
    ):
        return body[len(CONFIRMATION_START) : -len(CONFIRMATION_END)]
    return None


def _size(message: ChannelData) -> int:
    return len(message.message) + MESSAGE_OVERHEAD_BYTES
