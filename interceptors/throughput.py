"""Counts what passes, and tells it now and then.

Tomcat's ``ThroughputInterceptor`` (tribes-wire §7.12). It measures what passes the place where it
stands: above a compressor the messages as they are meant, below it as they travel. It may so stand
in several places of one chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.outputs import Event
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["Throughput", "ThroughputInterceptor"]

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Throughput(Event):
    """What passed a `ThroughputInterceptor` since its start. A message to three members is sent
    three times, of which ``sent_messages`` tells nothing.

    Attributes:
        sent_messages: Messages sent.
        sent_bytes: Their bytes.
        sent_to_all_bytes: Their bytes, once for each destination.
        failures: Messages that some destination did not get.
        busy_s: Seconds in which at least one message was on its way.
        received_messages: Messages received.
        received_bytes: Their bytes.
        seconds: Since the start.
    """

    sent_messages: int
    sent_bytes: int
    sent_to_all_bytes: int
    failures: int
    busy_s: float
    received_messages: int
    received_bytes: int
    seconds: float

    @property
    def name(self) -> str:
        """``throughput``."""
        return "throughput"

    def fields(self) -> dict[str, object]:
        """The counters with what they give in MB per second."""
        return {
            "sent": self.sent_messages,
            "sent_mb": round(self.sent_bytes / _MB, 2),
            "sent_to_all_mb": round(self.sent_to_all_bytes / _MB, 2),
            "sent_mb_per_s": _rate(self.sent_to_all_bytes, self.seconds),
            "sent_mb_per_busy_s": _rate(self.sent_to_all_bytes, self.busy_s),
            "failures": self.failures,
            "received": self.received_messages,
            "received_mb": round(self.received_bytes / _MB, 2),
            "received_mb_per_s": _rate(self.received_bytes, self.seconds),
        }


def _rate(size: int, seconds: float) -> float:
    return round(size / _MB / seconds, 3) if seconds > 0 else 0.0


class ThroughputInterceptor(Interceptor):
    """Counts messages, bytes and failures.

    Args:
        interval: Messages sent, or received, after which the counters are told as an event
            (``interval``).
        option_flag: Has no effect (``optionFlag``).
    """

    def __init__(self, *, interval: int = 10_000, option_flag: int = 0) -> None:
        if interval < 1:
            raise ConfigError(f"must be at least 1, found {interval}", key="interval")
        self.interval = interval
        self.option_flag = option_flag
        self._begun = 0.0
        self._sent = self._sent_bytes = self._sent_to_all = self._failures = 0
        self._received = self._received_bytes = 0
        self._on_their_way = 0
        self._busy_since = self._busy_s = 0.0

    def start(self, now: float) -> None:
        """Rates are from here on."""
        self._begun = now

    def statistics(self, now: float) -> Throughput:
        """The counters by now."""
        busy = now - self._busy_since if self._on_their_way else 0.0
        return Throughput(
            self._sent,
            self._sent_bytes,
            self._sent_to_all,
            self._failures,
            self._busy_s + busy,
            self._received,
            self._received_bytes,
            now - self._begun,
        )

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Count a message, and how it ends."""
        size, outer = len(message.data.message), message.ticket
        self._sent += 1
        self._sent_bytes += size
        self._sent_to_all += size * len(message.destinations)
        if not self._on_their_way:
            self._busy_since = now
        self._on_their_way += 1

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            self._failures += bool(faulty)
            self._on_their_way -= 1
            if not self._on_their_way:
                self._busy_s += then - self._busy_since

        def released(_: dict[Member, Exception], then: float) -> None:
            outer.release(then)

        inner = Ticket(
            message.destinations,
            released=released,
            settled=settled,
            each=outer.settle,
            parent=outer,
        )
        try:
            next(Outgoing(message.data, message.destinations, inner), now)
        except Exception as error:
            inner.fail(error, now)
            raise
        if self._sent % self.interval == 0:
            self.context.event(self.statistics(now))

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Count a message."""
        self._received += 1
        self._received_bytes += len(message.message)
        if self._received % self.interval == 0:
            self.context.event(self.statistics(now))
        next(message, now)
