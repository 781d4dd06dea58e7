"""The receiving end of a plain Tribes link: one accepted connection (tribes-wire §4).

Acknowledgements carry no id, so they leave in the order of the frames that asked for them, whatever
the order in which these were processed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.links.read_gate import ReadGate
from tribes.wire.frame import ACK_FRAME, FAIL_ACK_FRAME, FrameDecoder

if TYPE_CHECKING:
    from tribes.errors import RemoteProtocolError
    from tribes.wire.member import Member
    from tribes.wire.outputs import NetworkOutput

__all__ = ["AckSlot", "PlainReceiver"]


class AckSlot:
    """The place of one acknowledgement among those of its connection; filled when known."""

    __slots__ = ("frame",)

    def __init__(self) -> None:
        self.frame: bytes | None = None


class PlainReceiver:
    """An accepted connection: frames in, acknowledgements out, in the order of the frames.

    Args:
        link: The driver's name of the connection.
        peer: Where it comes from.
        body_max_bytes: Longest frame body that is read.
        emit: Takes the outputs.

    Attributes:
        sources: The members that the frames came from, tests apart: kept by who reads them.
        writable: See :meth:`ReadGate.writable`; so are ``hold`` and ``release``.
    """

    def __init__(
        self,
        link: int,
        peer: tuple[str, int],
        *,
        body_max_bytes: int,
        emit: Callable[[NetworkOutput], None],
    ) -> None:
        self.link = link
        self.peer = peer
        self.sources: dict[Member, None] = {}
        self._gate = gate = ReadGate(link, emit)
        self.writable, self.hold, self.release = gate.writable, gate.hold, gate.release
        self._decoder = FrameDecoder(body_max_bytes=body_max_bytes)
        self._slots: deque[AckSlot] = deque()
        self._ready: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The frame bodies that ``data`` completes."""
        return self._decoder.feed(data)

    @property
    def broken(self) -> RemoteProtocolError | None:
        """Why nothing can be read from this connection any more, if so."""
        return self._decoder.broken

    def expect_ack(self) -> AckSlot:
        """Reserve the next acknowledgement of this connection."""
        slot = AckSlot()
        self._slots.append(slot)
        return slot

    def answer(self, slot: AckSlot, *, ok: bool) -> None:
        """Fill a slot; :meth:`flush` writes it once all slots before it are filled."""
        slot.frame = ACK_FRAME if ok else FAIL_ACK_FRAME

    def flush(self) -> None:
        """Write the acknowledgements that are due."""
        slots = self._slots
        while slots and (frame := slots[0].frame) is not None:
            slots.popleft()
            self._ready.append(frame)
        if self._ready:
            self._gate.write(self._ready)
            self._ready = []
            self._gate.check()

    def closed(self) -> None:
        """The connection is gone."""
        self._gate.close()
