"""One connection of an own link's sender: bytes in, bytes out, and how far the kernel is.

What to do when it ends is decided in :mod:`tribes.links.own_sender`; which frames go over it, in
:mod:`tribes.links.own_outbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, final

from tribes.links.own_acks import ACK_BODY_MAX_BYTES, PING_FRAME, encode_seen
from tribes.wire.frame import FrameDecoder, encode_frame
from tribes.wire.outputs import NetworkOutput, Write

if TYPE_CHECKING:
    from tribes.links.link_keys import Opener
    from tribes.links.own_opening import Opened, Opening
    from tribes.links.own_outbox import Item, Outbox
    from tribes.links.own_wire import Refusal

__all__ = ["Connection"]

_WRITE_WINDOW_BYTES: Final = 256 * 1024
"""What may stand in the driver's buffer of one link, as on the plain link."""

_STEADY_S: Final = 1.0
"""A connection that lasted this long, or on which frames were acknowledged, was a good one."""


@final
class Connection:
    """A connection that was just made; writes its HELLO.

    Args:
        link: The driver's name of it.
        opening: What it begins with.
        now: Monotonic seconds.
        emit: Takes the outputs.
    """

    __slots__ = (
        "_control",
        "_decoder",
        "_emit",
        "_flushed",
        "_made_at",
        "_news",
        "_opener",
        "_opening",
        "_seal",
        "_seen",
        "_written",
        "is_open",
        "key",
        "link",
        "made_progress",
    )

    def __init__(
        self, link: int, opening: Opening, now: float, *, emit: Callable[[NetworkOutput], None]
    ) -> None:
        self.link = link
        self.is_open = False
        self.made_progress = False
        self._opening: Opening | None = opening
        self.key = opening.key
        """The key that it is opened with; None: none."""
        self._made_at = now
        self._emit = emit
        self._decoder = FrameDecoder(body_max_bytes=ACK_BODY_MAX_BYTES)
        self._seal: Callable[[bytes], bytes] | None = None
        self._opener: Opener | None = None
        self._control: list[bytes] = []  # control frames to write before the next data
        self._seen = b""  # the one among them that confirms failures
        self._news: list[bytes] = []  # the same; never taken back
        self._written = 0
        self._flushed = 0
        self._write([opening.hello])

    def answer(self, data: bytes) -> Opened | Refusal | None:
        """Take bytes of the answer to HELLO; None while it is not complete.

        Raises:
            RemoteProtocolError: The member does not speak the own link, or not properly.
        """
        assert self._opening is not None, "only what is not open yet is answered"
        return self._opening.feed(data)

    def start(self, opened: Opened) -> None:
        """Go ahead: frames may be written from here on."""
        self._write([opened.start])
        self._seal, self._opener = opened.seal, opened.opener
        self._opening = None
        self.is_open = True

    def read(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies of the frames that ``data`` completes.

        Raises:
            RemoteProtocolError: The bytes are no frames, or not sealed properly.
        """
        for piece in [data] if self._opener is None else self._opener.feed(data):
            yield from self._decoder.feed(piece)
            if self._decoder.broken is not None:
                raise self._decoder.broken

    def ping(self) -> None:
        """Ask for a sign of life with the next write."""
        if PING_FRAME not in self._control:
            self._control.append(PING_FRAME)

    def say(self, frame: bytes) -> None:
        """Write a control frame with the next write; nobody repeats it on another connection."""
        self._control.append(frame)

    def confirm(self, serial: int) -> None:
        """Confirm failures with the next write. What is not confirmed on this connection is told
        again on the next one; a later serial says all that an earlier one did.
        """
        self._control = [each for each in self._control if each is not self._seen]
        self._seen = encode_frame(encode_seen(serial))
        self._control.append(self._seen)

    def tell(self, body: bytes) -> None:
        """Tell news with the next write; see :mod:`tribes.links.news`."""
        self._news.append(encode_frame(body))

    def has_to_write(self, outbox: Outbox) -> bool:
        """Whether :meth:`pump` may have something to do."""
        return bool(self._control) or bool(self._news) or outbox.has_to_write

    def pump(self, outbox: Outbox) -> list[Item]:
        """Write what waits and the window lets through, as one output.

        Returns:
            Frames that the member would not read, taken out of the outbox.
        """
        chunks: list[bytes] = []
        written = self._written
        if self._control or self._news:
            chunks, self._control, self._news = self._control + self._news, [], []
            written += sum(map(len, chunks))
        limit = self._flushed + _WRITE_WINDOW_BYTES
        items, refused = outbox.next_to_write(chunks, written, limit)
        if not chunks:
            return refused
        if self._seal is None:
            self._written = items[-1].end if items else written
            self._emit(Write(self.link, chunks))
        else:
            self._write([self._seal(b"".join(chunks))])
            # A record is read whole or not at all, so its frames end together.
            for item in items:
                item.end = self._written
        return refused

    def flushed(self, total: int) -> None:
        """The kernel has taken ``total`` bytes so far."""
        self._flushed = total

    def was_good(self, now: float) -> bool:
        """Whether the next try may come at once. Otherwise a member that accepts and closes would
        be asked without pause.
        """
        return self.made_progress or (self.is_open and now - self._made_at >= _STEADY_S)

    def _write(self, chunks: list[bytes]) -> None:
        self._written += sum(map(len, chunks))
        self._emit(Write(self.link, chunks))
