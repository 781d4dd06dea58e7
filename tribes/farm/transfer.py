"""One archive on its way here: which pieces there are, and whom to ask for the others.

Pieces are asked for, never pushed, a window at a time from one holder. A piece may come twice, late
and in any order; what does not come is asked for again, from another holder if there is one. The
pieces that were written survive the process, so a transfer goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final, final

from tribes.farm.messages import WINDOW, Chunk

__all__ = ["REQUEST_S", "Part", "Transfer"]

REQUEST_S: Final = 5.0
"""A holder that sends nothing for so long is asked no more, while there is another one."""


@final
@dataclass(frozen=True, slots=True)
class Part:
    """Pieces of a content that an earlier process has written.

    Attributes:
        size: Of the whole.
        chunk_bytes: Of a piece.
        have: Which there are, one byte each.
    """

    size: int
    chunk_bytes: int
    have: bytearray


@final
class Transfer:
    """The pieces of one content.

    Args:
        key: Of the content.
        size: Its bytes.
        chunk_bytes: Of a piece; the last one is shorter.
        have: Which pieces were written before, one byte each; None: none.
        now: Monotonic seconds.

    Attributes:
        source: Unique id of the holder that is asked; None: nobody has it.
        sources: All who were asked so far.
        progress_at: When a piece was last written.
        asked_at: When a piece was last asked for in vain, or came.
        duplicates: Pieces that came twice, or that nobody had asked for.
    """

    def __init__(
        self, key: bytes, size: int, chunk_bytes: int, have: bytearray | None, now: float
    ) -> None:
        self.key = key
        self.size = size
        self.chunk_bytes = chunk_bytes
        self.total = -(-size // chunk_bytes)
        resumes = have is not None and len(have) == self.total
        self._have = have if have is not None and resumes else bytearray(self.total)
        self.written = sum(map(bool, self._have))
        self.source: bytes | None = None
        self.sources: set[bytes] = set()
        self.progress_at = now
        self.asked_at = now
        self.duplicates = 0
        self._outstanding: set[int] = set()
        self._writing: set[int] = set()
        self._tried: set[bytes] = set()
        self._next = 0

    @property
    def is_complete(self) -> bool:
        """Whether every piece is written."""
        return self.written == self.total

    @property
    def received(self) -> int:
        """Bytes that are written, the last piece counted as a whole one."""
        return min(self.written * self.chunk_bytes, self.size)

    @property
    def next_deadline(self) -> float:
        """When the holder has been silent for too long; infinity while nothing is asked."""
        return self.asked_at + REQUEST_S if self._outstanding and self.source else inf

    @property
    def part(self) -> Part:
        """What there is of it, to go on later."""
        return Part(self.size, self.chunk_bytes, self._have)

    def ask(self, holders: Collection[bytes], now: float) -> tuple[int, ...]:
        """Which pieces to ask `source` for now; chooses another source where it must.

        Args:
            holders: Who has the content, as unique ids.
            now: Monotonic seconds.
        """
        if self.source not in holders or now >= self.next_deadline:
            self._choose(holders, now)
        if self.source is None:
            return ()
        wanted = []
        while len(self._outstanding) + len(self._writing) < WINDOW:
            index = self._have.find(0, self._next)
            if index < 0:
                break
            self._next = index + 1
            if index not in self._outstanding and index not in self._writing:
                self._outstanding.add(index)
                wanted.append(index)
        if wanted and len(wanted) == len(self._outstanding):
            self.asked_at = now
        return tuple(wanted)

    def _choose(self, holders: Collection[bytes], now: float) -> None:
        if self.source is not None:
            self._tried.add(self.source)
        fresh = [each for each in holders if each not in self._tried]
        if not fresh:
            # Everybody was slow once: all over again, with somebody else than just now.
            fresh = [each for each in holders if each != self.source] or list(holders)
            self._tried.clear()
        # By key and id, so that several receivers do not all ask the same one.
        self.source = min(fresh, key=self._distance, default=None)
        if self.source is not None:
            self.sources.add(self.source)
        self._outstanding.clear()
        self._next = 0
        self.asked_at = now

    def _distance(self, holder: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(holder, self.key, strict=False))

    def avoid(self, holder: bytes) -> None:
        """Ask another one: it does not have it after all, or is gone."""
        if self.source == holder:
            self._tried.add(holder)
            self.source = None

    def arrived(self, chunk: Chunk, now: float) -> bool:
        """Whether a piece is to be written: it was asked for, and is whole."""
        index = chunk.index
        if chunk.chunk_bytes != self.chunk_bytes or index not in self._outstanding:
            self.duplicates += 1
            return False
        length = min(self.chunk_bytes, self.size - index * self.chunk_bytes)
        if len(chunk.data) != length:
            return False
        self._outstanding.discard(index)
        self._writing.add(index)
        self.asked_at = now
        return True

    def wrote(self, index: int, now: float) -> None:
        """A piece is on the disk."""
        if index in self._writing:
            self._writing.discard(index)
            self._have[index] = 1
            self.written += 1
            self.progress_at = now
