"""What one process knows of a session's copies, and what a copy says of the other one.

A value on a node is the name and the version of the other copy, and the sealed record::

    u8 1 | u8 length of the name | name | u64 version | what `StoredForm` packs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tribes.errors import StoreDataError

if TYPE_CHECKING:
    from tribes.stores.ring import RingNode

    from .changes import Change
    from .node_locks import NodeLock
    from .record import Record

__all__ = ["FORMAT", "Held", "Written", "unwrapped", "wrapped"]

FORMAT: Final = 1


class Held:
    """What is known here of one session's copies; of one request, or of one session in memory.

    Attributes:
        key: The session's.
        home: The node that ids name; None: none answers.
        record: What was last read or written; None: nothing.
        versions: Of the value on each node, as far as known; 0: there is none.
        must_copy: A copy is missing, or older than the other.
        lock: That the request holds.
        is_read_only: The request has changed nothing so far.
        question: What the request is, for locks that learn.
        touched_ds: When the copies' lives were last extended.
        content: Digest of what was last saved.
        changes: Of the request, between its commit and the save.
    """

    __slots__ = (
        "__weakref__",
        "changes",
        "content",
        "home",
        "is_read_only",
        "key",
        "lock",
        "must_copy",
        "question",
        "record",
        "touched_ds",
        "versions",
    )

    def __init__(self, key: str, home: RingNode | None) -> None:
        self.key = key
        self.home = home
        self.record: Record | None = None
        self.versions: dict[RingNode, int] = {}
        self.must_copy = False
        self.lock: NodeLock | None = None
        self.is_read_only = True
        self.question = ""
        self.touched_ds = 0
        self.content = 0
        self.changes: list[Change] = []


class Written(NamedTuple):
    """Where a session was saved.

    Attributes:
        nodes: Names of the nodes that have it.
        missing: Nodes that should have it too, and why they have not.
    """

    nodes: tuple[str, ...]
    missing: dict[str, str]


def wrapped(partner: str, version: int, sealed: bytes) -> bytes:
    """Return a value: a sealed record with name and version of its other copy."""
    name = partner.encode()
    head = bytes((FORMAT, len(name)))
    return b"".join((head, name, version.to_bytes(8, "big"), sealed))


def unwrapped(data: bytes) -> tuple[str, int, bytes]:
    """Return name and version of the other copy, and the rest.

    Raises:
        StoreDataError: It is nothing that this program has written.
    """
    if len(data) < 10 or data[0] != FORMAT or len(data) < 10 + data[1]:
        raise StoreDataError("these bytes are no stored session of Tribes for Python")
    end = 2 + data[1]
    partner = data[2:end].decode("ascii", "replace")
    return partner, int.from_bytes(data[end : end + 8], "big"), data[end + 8 :]
