"""Long messages travel in pieces.

Tomcat's ``FragmentationInterceptor`` (tribes-wire §7.3). A message longer than ``max_size`` becomes
several, each with the id of the whole and nine bytes at its end: index, count, and a one. Every
other message gets a zero byte. A long message so needs no long frame, and short ones of other
members come between its pieces.

What is put together is bounded here, unlike Tomcat's: per message, and in all. When all is too much
the set that was begun first is given up. Pieces belong to a source and an id, so nobody can put
pieces into another member's message.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.outputs import Notice
from tribes.channel.tickets import Outgoing, divide
from tribes.errors import ConfigError, RemoteProtocolError

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["FragmentationInterceptor"]

_PIECE = struct.Struct(">iib")
_WHOLE = b"\x00"
_IS_PIECE = 1

PIECE_OVERHEAD_BYTES = 128
"""What a kept piece is counted for beyond its bytes: many tiny ones must not be free."""

LOST_MAX = 1024
"""Messages given up whose further pieces are refused."""

_SetKey = tuple["Member", bytes]


class _Set:
    """The pieces of one message that have arrived."""

    __slots__ = ("begun", "bytes", "count", "first", "pieces")

    def __init__(self, first: ChannelData, count: int, begun: float) -> None:
        # All but its bytes, which are among the pieces.
        self.first = first.with_message(b"")
        self.count = count
        self.begun = begun
        self.pieces: dict[int, bytes] = {}
        self.bytes = 0

    def put(self, index: int, piece: bytes) -> None:
        before = self.pieces.get(index)
        if before is not None:
            self.bytes -= len(before) + PIECE_OVERHEAD_BYTES
        self.pieces[index] = piece
        self.bytes += len(piece) + PIECE_OVERHEAD_BYTES


class FragmentationInterceptor(Interceptor):
    """Cuts long messages into pieces, and puts pieces together.

    Args:
        max_size: Bytes of a piece (``maxSize``).
        expire: Milliseconds after which a message is given up whose pieces have not all arrived
            (``expire``).
        max_message_size: Bytes of the longest message that is cut or put together; less where
            ``max_pending_size`` holds less. Above it sending fails.
        max_pending_size: Bytes of all pieces kept, with 128 more for each; beyond it the oldest
            messages are given up.
        option_flag: Only messages with these option bits are cut (``optionFlag``); 0: all.
    """

    def __init__(
        self,
        *,
        max_size: int = 100 * 1024,
        expire: int = 60_000,
        max_message_size: int = 64 * 1024 * 1024,
        max_pending_size: int = 256 * 1024 * 1024,
        option_flag: int = 0,
    ) -> None:
        for key, value in (("max_size", max_size), ("expire", expire)):
            if value < 1:
                raise ConfigError(f"must be at least 1, found {value}", key=key)
        if max_message_size < max_size:
            raise ConfigError(
                f"must be at least max_size, which is {max_size}, found {max_message_size}",
                key="max_message_size",
            )
        # A member with these settings must have room for the pieces of one message.
        longest = max_pending_size // (max_size + PIECE_OVERHEAD_BYTES) * max_size
        if not longest:
            raise ConfigError(
                f"must be at least {max_size + PIECE_OVERHEAD_BYTES}, one piece with what is kept "
                f"for it; found {max_pending_size}",
                key="max_pending_size",
            )
        self.max_size = max_size
        self.expire = expire
        self.max_message_size = min(max_message_size, longest)
        self.max_pending_size = max_pending_size
        self.option_flag = option_flag
        self.pending_bytes = 0
        """Bytes of the pieces that are kept."""
        self.given_up = 0
        """Messages whose pieces did not all arrive, or found no room."""
        self._sets: dict[_SetKey, _Set] = {}
        self._lost: OrderedDict[_SetKey, None] = OrderedDict()
        self._timer: Timer | None = None

    @property
    def pending(self) -> int:
        """Messages of which some pieces have arrived."""
        return len(self._sets)

    def message_max_bytes(self, below: int) -> int:
        """The longest message, now that a frame holds only a piece.

        Raises:
            ConfigError: A piece does not fit in a frame.
        """
        if self.max_size + _PIECE.size > below:
            raise ConfigError(
                f"a piece of {self.max_size} bytes does not fit in a frame; write at most "
                f"{below - _PIECE.size}, or raise channel.receiver.frame_max_bytes on all members",
                key="max_size",
            )
        return below - len(_WHOLE) if self.option_flag else self.max_message_size

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Pass on a message, or its pieces one after the other."""
        data, size = message.data, self.max_size
        whole = data.message
        if len(whole) <= size or not self.wants(data.options):
            whole_data = data.with_message(whole + _WHOLE)
            next(Outgoing(whole_data, message.destinations, message.ticket), now)
            return
        count = -(-len(whole) // size)
        tickets = divide(message.ticket, [message.destinations] * count)
        for index, ticket in enumerate(tickets):
            piece = whole[index * size : (index + 1) * size]
            data = message.data.with_message(piece + _PIECE.pack(index, count, _IS_PIECE))
            next(Outgoing(data, message.destinations, ticket), now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Pass on a whole message, or one whose last piece this is.

        Raises:
            RemoteProtocolError: The bytes at its end are none of this interceptor, or do not fit
                the pieces before.
        """
        body = message.message
        if body.endswith(_WHOLE):
            next(message.with_message(body[:-1]), now)
            return
        index, count = _place(body)
        key = message.source, message.unique_id
        if key in self._lost:
            raise RemoteProtocolError("a piece of a message that was given up")
        pieces = self._sets.get(key)
        if pieces is None:
            pieces = self._sets[key] = _Set(message, count, now)
        elif pieces.count != count:
            self._refuse(key)
            raise RemoteProtocolError(f"a piece of {count} where there were {pieces.count}")
        before = pieces.bytes
        pieces.put(index, body[: -_PIECE.size])
        self.pending_bytes += pieces.bytes - before
        self._check_size(key, pieces)
        if len(pieces.pieces) < count:
            self._make_room(key)
            self._arm()
            return
        self._drop(key)
        joined = b"".join(pieces.pieces[i] for i in range(count))
        next(pieces.first.with_message(joined), now)

    def stop(self, now: float) -> None:
        """Give up what is incomplete."""
        del now
        self._sets.clear()
        self.pending_bytes = 0

    def _check_size(self, key: _SetKey, pieces: _Set) -> None:
        # Of all but the last piece the size is known, so the whole is when the first has come; a
        # peer with smaller pieces may have as many as fit in the bound.
        if pieces.bytes - len(pieces.pieces) * PIECE_OVERHEAD_BYTES > self.max_message_size or (
            pieces.bytes > self.max_pending_size
        ):
            self._refuse(key)
            raise RemoteProtocolError(
                f"the pieces of a message are over max_message_size, {self.max_message_size} bytes"
            )

    def _make_room(self, newest: _SetKey) -> None:
        while self.pending_bytes > self.max_pending_size:
            oldest = next(key for key in self._sets if key != newest)
            self._give_up(oldest, "no room for the pieces of more messages")

    def _give_up(self, key: _SetKey, why: str) -> None:
        pieces = self._refuse(key)
        self.given_up += 1
        details: dict[str, object] = {
            "member": key[0].label,
            "why": why,
            "pieces": f"{len(pieces.pieces)} of {pieces.count}",
        }
        self.context.event(Notice("message in pieces given up", details))

    def _refuse(self, key: _SetKey) -> _Set:
        """Drop what is there, and refuse what follows: what was there has been acknowledged, so
        that the sender would take the message for received.
        """
        self._lost[key] = None
        if len(self._lost) > LOST_MAX:
            self._lost.popitem(last=False)
        return self._drop(key)

    def _drop(self, key: _SetKey) -> _Set:
        pieces = self._sets.pop(key)
        self.pending_bytes -= pieces.bytes
        return pieces

    def _arm(self) -> None:
        if self._timer is not None or not self._sets:
            return

        def expired(now: float) -> None:
            self._timer = None
            late = [k for k, each in self._sets.items() if each.begun + self._expire_s <= now]
            for key in late:
                self._give_up(key, f"not complete after {self.expire} ms")
            self._arm()

        # Sets are in the order in which they were begun.
        oldest = next(iter(self._sets.values()))
        self._timer = self.context.timers.at(oldest.begun + self._expire_s, expired)

    @property
    def _expire_s(self) -> float:
        return self.expire / 1000


def _place(body: bytes) -> tuple[int, int]:
    """The index and the count at the end of a piece."""
    if len(body) <= _PIECE.size:
        raise RemoteProtocolError(f"{len(body)} bytes are no piece of a message")
    index, count, kind = _PIECE.unpack_from(body, len(body) - _PIECE.size)
    if kind != _IS_PIECE or not 0 <= index < count:
        raise RemoteProtocolError(f"piece {index} of {count}, marked {kind}")
    return index, count
