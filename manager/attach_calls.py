"""The questions that a worker has put to its node: what becomes of each, whatever the connection
does.

Rules, in the order in which they matter:

1. Each call ends exactly once: by its answer, or with a reason why there is none.
2. A commit that was sent and not answered is sent again on the next connection, as a merge of the
   very same versions: so it is applied once, whether the first one was or not. If its time is over
   before, its outcome is *unknown*, and whoever made it is told so.
3. Everything else that a lost connection leaves open is told at once, and so is every new call
   while the node is known to be gone. A call that comes between, while nobody knows yet, waits.
4. What is open is bounded, in calls and in bytes; beyond, a call is refused.

No clock, socket or thread: ``now`` comes in, and what is to be called and sent is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final, final

from tribes.errors import SessionUnreachableError

from .attach_wire import COMMIT, Message, encode

__all__ = ["CALLS_MAX", "OPEN_MAX_BYTES", "Call", "Calls", "Ended"]

CALLS_MAX: Final = 10_000
"""Open calls of one process: more than it has requests."""
OPEN_MAX_BYTES: Final = 64 * 1024 * 1024
"""Of open calls together."""


@final
@dataclass(slots=True)
class Ended:
    """How a call ended.

    Attributes:
        answer: The node's; None: there is none.
        why: The reason, in that case.
        is_unknown: The node may have done it.
    """

    answer: Message | None
    why: str = ""
    is_unknown: bool = False


Done = Callable[[Ended], None]


@final
@dataclass(slots=True)
class Call:
    """One question.

    Attributes:
        kind: Of its message.
        frame: Its bytes, for the first time.
        again: For every further time; None: it is not sent again.
        deadline: When waiting for its answer ends.
        done: Told how it ended.
        was_sent: It may have reached the node.
    """

    kind: int
    frame: bytes
    again: bytes | None
    deadline: float
    done: Done
    was_sent: bool = False


@final
class Calls:
    """The open calls of one process, over however many connections.

    Args:
        where: The node, as errors name it.

    Attributes:
        gone: Why there is no connection; None: there is one, or nobody knows yet.
        resent: Commits that were sent again.
        unknown: Calls that ended without anybody knowing what became of them.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._open: dict[int, Call] = {}
        self._bytes = 0
        self._number = 0
        self._is_up = False
        self.gone: str | None = None
        self.resent = 0
        self.unknown = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._is_up

    @property
    def next_deadline(self) -> float:
        """When `tick` has something to do; infinite if never."""
        return min((call.deadline for call in self._open.values()), default=inf)

    def number(self) -> int:
        """A number for the next message."""
        self._number += 1
        return self._number

    def begin(
        self,
        kind: int,
        fields: tuple[object, ...],
        *,
        deadline: float,
        done: Done,
        again: tuple[object, ...] | None = None,
        number: int | None = None,
    ) -> bytes:
        """Open a call; returns what is to be sent now, nothing if there is no connection yet.

        Args:
            kind: Of the message.
            fields: Of the message.
            deadline: When waiting ends.
            done: Told how it ended, once; not if this raises.
            again: Its fields when it is sent on another connection; None: it is not.
            number: From `number`, for who must know it.

        Raises:
            SessionUnreachableError: The node is gone, or too much is open.
            RemoteProtocolError: The message is too large.
            LocalProtocolError: A field cannot be sent.
        """
        if self.gone is not None:
            raise SessionUnreachableError(self._said(self.gone))
        number = self.number() if number is None else number
        frame = encode(kind, number, *fields)
        repeated = None if again is None else encode(kind, number, *again)
        size = len(frame) + len(repeated or b"")
        if len(self._open) >= CALLS_MAX or self._bytes + size > OPEN_MAX_BYTES:
            raise SessionUnreachableError(
                f"{self._where}: it does not keep up, {len(self._open)} questions are open"
            )
        self._open[number] = Call(kind, frame, repeated, deadline, done, was_sent=self._is_up)
        self._bytes += size
        return frame if self._is_up else b""

    def connected(self) -> list[bytes]:
        """There is a connection; returns what is to be sent on it, oldest first."""
        self._is_up, self.gone = True, None
        frames = []
        for call in self._open.values():
            if call.was_sent and call.again is not None:
                self.resent += 1
                frames.append(call.again)
            else:
                frames.append(call.frame)
            call.was_sent = True
        return frames

    def disconnected(self, why: str, *, is_gone: bool) -> list[Callable[[], None]]:
        """The connection broke, or could not be made; returns what is to be called.

        Args:
            why: For errors.
            is_gone: The node cannot be reached; else another connection is tried at once.
        """
        self._is_up = False
        if is_gone:
            self.gone = why
        ended = []
        for number, call in list(self._open.items()):
            if call.was_sent and call.again is not None:
                continue  # its outcome is unknown: the next connection may tell
            if call.was_sent or is_gone:
                ended.append(self._end(number, Ended(None, self._said(why))))
        return ended

    def received(self, message: Message) -> list[Callable[[], None]]:
        """An answer came; returns what is to be called. One to nobody is not looked at."""
        if message.number not in self._open:
            return []
        return [self._end(message.number, Ended(message))]

    def tick(self, now: float) -> list[Callable[[], None]]:
        """Time has passed; returns what is to be called."""
        why = "no answer in time" if self.gone is None else self.gone
        return [
            self._end(number, Ended(None, self._said(why), call.was_sent and call.kind == COMMIT))
            for number, call in list(self._open.items())
            if call.deadline <= now
        ]

    def close(self, why: str) -> list[Callable[[], None]]:
        """This side ends; returns what is to be called."""
        self._is_up, self.gone = False, why
        return [
            self._end(number, Ended(None, self._said(why), call.was_sent and call.kind == COMMIT))
            for number, call in list(self._open.items())
        ]

    def _said(self, why: str) -> str:
        return f"{self._where}: {why}"

    def _end(self, number: int, ended: Ended) -> Callable[[], None]:
        call = self._open.pop(number)
        self._bytes -= len(call.frame) + len(call.again or b"")
        self.unknown += ended.is_unknown

        def tell() -> None:
            call.done(ended)

        return tell
