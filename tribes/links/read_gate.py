"""Whether an accepted connection is read, and what is written back on it.

Who asks for acknowledgements and does not read them is not read either: beyond
`ACKS_WAITING_MAX_BYTES` that the kernel has not taken, nothing more is asked of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.wire.outputs import Pause, Resume, Write

if TYPE_CHECKING:
    from tribes.wire.outputs import NetworkOutput

__all__ = ["ACKS_WAITING_MAX_BYTES", "ReadGate"]

ACKS_WAITING_MAX_BYTES: Final = 64 * 1024
"""Acknowledgements that may wait for a peer to read them; some 3,000 of Tribes' own."""


@final
class ReadGate:
    """Of one accepted connection.

    Args:
        link: The driver's name of the connection.
        emit: Takes the outputs.
    """

    __slots__ = ("_emit", "_flushed", "_holds", "_is_clogged", "_is_closed", "_link", "_written")

    def __init__(self, link: int, emit: Callable[[NetworkOutput], None]) -> None:
        self._link = link
        self._emit = emit
        self._holds = 0
        self._written = 0
        self._flushed = 0
        self._is_clogged = False
        self._is_closed = False

    def write(self, chunks: list[bytes]) -> None:
        """Write something back."""
        self._written += sum(map(len, chunks))
        self._emit(Write(self._link, chunks))

    def check(self) -> None:
        """After acknowledgements were written: do not read on while too many have not left."""
        if self._written - self._flushed > ACKS_WAITING_MAX_BYTES and not self._is_clogged:
            self._is_clogged = True
            self.hold()

    def writable(self, total: int) -> None:
        """The kernel has taken ``total`` bytes of this connection so far."""
        self._flushed = total
        if self._is_clogged and self._written - total <= ACKS_WAITING_MAX_BYTES // 2:
            self._is_clogged = False
            self.release()

    def hold(self) -> None:
        """Do not read from this connection until as many :meth:`release`."""
        self._holds += 1
        if self._holds == 1 and not self._is_closed:
            self._emit(Pause(self._link))

    def release(self) -> None:
        """Take one :meth:`hold` back."""
        self._holds -= 1
        if not self._holds and not self._is_closed:
            self._emit(Resume(self._link))

    def close(self) -> None:
        """The connection is gone: there is nothing to pause any more."""
        self._is_closed = True
