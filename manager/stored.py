"""A session as a store holds it: the record as peers get it, and the time at which it was written.

::

    u8 kind: "R" | u64 wall clock of the saving process, ms | the record in wire form
    u8 kind: "L" | u64 wall clock, ms                       | the key that this id belongs to

The record's age counts on while it lies in the store, by the wall clock, since no other clock
survives a restart.  A clock that was set back makes a session younger, never older than it is.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.errors import RemoteProtocolError, StoreDataError

from .record import Record, from_wire, to_wire
from .session_ids import is_possible_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.stores.envelope import Envelope

__all__ = ["Link", "StoredForm"]

_HEAD: Final = Struct(">cQ")
_RECORD: Final = b"R"
_LINK: Final = b"L"


class Link(NamedTuple):
    """Where a later id of a session leads."""

    key: str
    saved_ms: int


@final
class StoredForm:
    """Turns records into what stores keep, and back.

    Args:
        envelope: Seals and opens it.
        wall_ms: Reads the wall clock, milliseconds since 1970.
        now_ds: Reads the monotonic clock in deciseconds.
    """

    def __init__(
        self, envelope: Envelope, *, wall_ms: Callable[[], int], now_ds: Callable[[], int]
    ) -> None:
        self._envelope = envelope
        self._wall_ms = wall_ms
        self._now_ds = now_ds

    def pack(self, key: str, record: Record) -> bytes:
        """Return the bytes that stand for a record under its key."""
        content = _HEAD.pack(_RECORD, self._wall_ms()) + to_wire(record, self._now_ds())
        return self._envelope.seal(key, content)

    def pack_link(self, session_id: str, key: str) -> bytes:
        """Return the bytes that lead from a later id to a session's key."""
        content = _HEAD.pack(_LINK, self._wall_ms()) + key.encode()
        return self._envelope.seal(session_id, content)

    def unpack(self, key: str, sealed: bytes) -> Record | Link:
        """Return what was packed under this key.

        Raises:
            StoreDataError: It was not, or not here, or is damaged.
        """
        content = self._envelope.open(key, sealed)
        if len(content) < _HEAD.size:
            raise StoreDataError("it is cut short")
        kind, saved_ms = _HEAD.unpack_from(content)
        rest = content[_HEAD.size :]
        if kind == _LINK:
            target = rest.decode("ascii", "replace")
            if not is_possible_id(target):
                raise StoreDataError("it leads to no session")
            return Link(target, saved_ms)
        if kind != _RECORD:
            raise StoreDataError(f"a newer version wrote it (kind {kind!r})")
        elapsed_ds = max(self._wall_ms() - saved_ms, 0) // 100
        try:
            return from_wire(rest, self._now_ds() - elapsed_ds)
        except RemoteProtocolError as why:
            raise StoreDataError(f"it holds no session: {why}") from why
