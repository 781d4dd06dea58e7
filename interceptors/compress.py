"""Messages are compressed on their way.

Tomcat's ``GzipInterceptor`` (tribes-wire §7.4). A message longer than ``compression_min_size``
becomes a gzip stream and its options get ``option_flag``, which says to the receiver that it is
one. The flag is a mark and no condition: Tomcat compresses everything.

A few kilobytes can claim to be gigabytes, so what comes out is bounded, here and nowhere in Tomcat.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.outputs import Event
from tribes.channel.tickets import Outgoing
from tribes.errors import ConfigError, LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData

__all__ = ["GzipInterceptor", "GzipStatistics", "compress", "decompress"]

GZIP_FLAG = 0x100
"""Tomcat's default option flag of compressed messages."""

MAX_INFLATED_SIZE = 64 * 1024 * 1024
"""Bytes that a message may become, unless another bound is set."""

# What Java writes: no time, no name, and the mark of an unknown system.
_HEADER = bytes.fromhex("1f8b08000000000000ff")
_MEMBER = b"\x1f\x8b\x08"
_TRAILER = struct.Struct("<II")
_MEMBER_MIN_BYTES = 19
"""Fewer bytes behind a stream are not looked at, as Java does not."""
_STREAMS_MAX = 32
"""Streams in one message. Java and Python write one; many tiny ones only cost time."""

_RAW, _GZIP = -15, 31
_LEVEL = 6
_GROWTH_BYTES = 64
"""What an incompressible message may grow by beyond a thousandth, generously."""


def compress(message: bytes) -> bytes:
    """Return a gzip stream with the header that Java writes."""
    squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    trailer = _TRAILER.pack(zlib.crc32(message), len(message) & 0xFFFFFFFF)
    return b"".join((_HEADER, squeeze.compress(message), squeeze.flush(), trailer))


def decompress(data: bytes, *, max_bytes: int) -> bytes:
    """Return what a gzip stream holds; several in a row are one, as Java reads them.

    Args:
        data: Bytes that begin with a stream. What follows the last one is ignored.
        max_bytes: How long the result may be.

    Raises:
        RemoteProtocolError: It is no whole, correct stream, or holds more.
    """
    parts: list[bytes] = []
    room = max_bytes
    while len(parts) < _STREAMS_MAX:
        stream = zlib.decompressobj(_GZIP)
        try:
            # One more than there is room for tells a full result from one that goes on.
            part = stream.decompress(data, room + 1)
        except zlib.error as why:
            raise RemoteProtocolError(f"compressed message is malformed: {why}") from why
        room -= len(part)
        if room < 0:
            raise RemoteProtocolError(f"compressed message holds more than {max_bytes} bytes")
        if not stream.eof:
            raise RemoteProtocolError("compressed message is cut short")
        parts.append(part)
        data = stream.unused_data
        if len(data) < _MEMBER_MIN_BYTES or not data.startswith(_MEMBER):
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise RemoteProtocolError(f"compressed message has more than {_STREAMS_MAX} streams")


@dataclass(frozen=True, slots=True)
class GzipStatistics(Event):
    """What a `GzipInterceptor` did so far; sizes in bytes.

    Attributes:
        sent: Messages sent.
        sent_compressed: Those of them that were compressed.
        sent_size: Bytes of all messages before compression.
        sent_wire_size: Bytes of all messages after it.
        received: Messages received.
        received_compressed: Those of them that were compressed.
        received_size: Bytes of all messages after they were decompressed.
        received_wire_size: Bytes of all messages before.
        refused: Messages that could not be decompressed.
    """

    sent: int = 0
    sent_compressed: int = 0
    sent_size: int = 0
    sent_wire_size: int = 0
    received: int = 0
    received_compressed: int = 0
    received_size: int = 0
    received_wire_size: int = 0
    refused: int = 0

    @property
    def name(self) -> str:
        """``gzip statistics``."""
        return "gzip statistics"

    def fields(self) -> dict[str, object]:
        """All counters."""
        return {each: getattr(self, each) for each in GzipStatistics.__dataclass_fields__}


class GzipInterceptor(Interceptor):
    """Compresses what goes out, decompresses what comes in.

    Args:
        compression_min_size: Bytes up to which a message goes out as it is
            (``compressionMinSize``).
        stats_enabled: Count (``statsEnabled``).
        interval: Messages, sent and received, after which the counters are told as an event
            (``interval``); 0: never.
        max_inflated_size: Bytes that a message may become when decompressed. A longer one is not
            sent either, since nobody would take it.
        option_flag: Marks compressed messages (``optionFlag``); must be the same on all members.
    """

    def __init__(
        self,
        *,
        compression_min_size: int = 0,
        stats_enabled: bool = False,
        interval: int = 0,
        max_inflated_size: int = MAX_INFLATED_SIZE,
        option_flag: int = GZIP_FLAG,
    ) -> None:
        for key, value, least in (
            ("compression_min_size", compression_min_size, 0),
            ("interval", interval, 0),
            ("max_inflated_size", max_inflated_size, 1),
            ("option_flag", option_flag, 1),
        ):
            if value < least:
                raise ConfigError(f"must be at least {least}, found {value}", key=key)
        self.compression_min_size = compression_min_size
        self.stats_enabled = stats_enabled
        self.interval = interval
        self.max_inflated_size = max_inflated_size
        self.option_flag = option_flag
        self._counts = dict.fromkeys(GzipStatistics.__dataclass_fields__, 0)

    def statistics(self) -> GzipStatistics:
        """The counters; without ``stats_enabled`` all but ``refused`` are zero."""
        return GzipStatistics(**self._counts)

    def message_max_bytes(self, below: int) -> int:
        """What fits when it cannot be compressed, and whoever gets it will take."""
        return min(self.max_inflated_size, below - below // 1000 - _GROWTH_BYTES)

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Compress a message, once for all destinations.

        Raises:
            LocalProtocolError: No receiver with these settings would decompress it.
        """
        data = message.data
        size = len(data.message)
        is_compressed = size > self.compression_min_size
        if is_compressed:
            if size > self.max_inflated_size:
                raise LocalProtocolError(
                    f"a message of {size} bytes is over max_inflated_size of the GzipInterceptor, "
                    f"{self.max_inflated_size}"
                )
            data = data.with_message(compress(data.message), data.options | self.option_flag)
            message = Outgoing(data, message.destinations, message.ticket)
        if self.stats_enabled:
            self._count("sent", size, len(data.message), is_compressed)
        next(message, now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Decompress a message that is marked; the mark stays for those above.

        Raises:
            RemoteProtocolError: It is marked and cannot be decompressed. Tomcat drops it and tells
                its sender that it was processed.
        """
        wire_size = len(message.message)
        is_compressed = bool(message.options & self.option_flag)
        if is_compressed:
            try:
                inflated = decompress(message.message, max_bytes=self.max_inflated_size)
            except RemoteProtocolError:
                self._counts["refused"] += 1
                raise
            message = message.with_message(inflated)
        if self.stats_enabled:
            self._count("received", len(message.message), wire_size, is_compressed)
        next(message, now)

    def _count(self, way: str, size: int, wire_size: int, is_compressed: bool) -> None:
        counts = self._counts
        counts[way] += 1
        counts[f"{way}_compressed"] += is_compressed
        counts[f"{way}_size"] += size
        counts[f"{way}_wire_size"] += wire_size
        if self.interval and (counts["sent"] + counts["received"]) % self.interval == 0:
            self.context.event(self.statistics())
