"""The ends of simulated connections, who holds them, and the request that makes one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tribes.testing.sim.network import Link

__all__ = ["ACCEPT_BACKLOG", "RETRY_FIRST_S", "End", "EndOwner", "Listener", "Mark", "Request"]

ACCEPT_BACKLOG = 128
"""Connections that a kernel makes for a process that doesn't accept; more get no answer."""

RETRY_FIRST_S = 0.2
"""Seconds until a segment that got lost is sent again."""

SYN_RETRY_S = 1.0
"""Seconds until an unanswered connection request is sent again; doubles."""


class Mark(Enum):
    """What ends a stream."""

    FIN = "fin"
    RST = "rst"


class EndOwner(Protocol):
    """A process that holds ends of connections."""

    def readable(self, end: End) -> None:
        """Something has arrived at the end's ``inbox``."""

    def writable(self, end: End) -> None:
        """The kernel may take more bytes."""


class End:
    """One end of a connection: the socket of one machine and the queue towards the other end."""

    __slots__ = (
        "deferred",
        "epoch",
        "flight",
        "inbox",
        "inbox_bytes",
        "incarnation",
        "is_acking",
        "is_open",
        "is_queued",
        "is_read_paused",
        "is_reset",
        "is_stalled",
        "last_arrival",
        "link",
        "lost_until",
        "machine",
        "other",
        "owner",
        "peer",
        "pending",
        "retry",
        "sent",
        "unacked",
        "way",
    )

    def __init__(self, machine: str, owner: EndOwner, incarnation: int) -> None:
        self.machine = machine
        self.owner = owner
        self.incarnation = incarnation
        self.other: End
        self.way: Link | None
        """The link to the other end's machine; None if one of them is outside the cluster."""
        self.peer = ("127.0.0.1", 0)
        self.link = 0
        """The core's name of it."""
        self.is_open = True
        self.is_reset = False
        # Towards the other end.
        self.pending: list[bytes] = []
        """What the process wants to write and the kernel has not taken."""
        self.sent = 0
        self.unacked = 0
        self.deferred = 0
        self.is_acking = False
        # Short ones, by the ten thousand in a large world: a list is a tenth of a deque.
        self.flight: list[bytes | Mark] = []
        self.last_arrival = 0.0
        self.lost_until = 0.0
        """When the last segment that got lost is there, if it is sent again."""
        self.is_stalled = False
        self.epoch = 0
        self.retry = RETRY_FIRST_S
        # From the other end.
        self.inbox: list[bytes | Mark] = []
        self.inbox_bytes = 0
        self.is_read_paused = False
        self.is_queued = False


class Listener(Protocol):
    """A listening socket, of a node or of a child that its dead process left behind."""

    machine: str

    def admit(self, port: int) -> End | None:
        """Make the accepting end of a new connection; None when the backlog is full."""

    def accept(self, end: End) -> None:
        """The connection is there."""


class Request:
    """A connection that is being made."""

    __slots__ = ("deadline", "done", "end", "is_wanted", "port", "retry", "timeout")

    def __init__(
        self,
        end: End,
        port: int,
        deadline: float,
        timeout: float,
        done: Callable[[End | None, Exception | None], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self.end = end
        self.port = port
        self.deadline = deadline
        self.timeout = timeout
        self.done = done
        self.is_wanted = is_wanted
        self.retry = SYN_RETRY_S
