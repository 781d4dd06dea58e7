"""A replicated map on this member: entries as records, readable and writable from any thread.

**An entry is a record** whose one attribute is the value. Setting it makes the record live with a
newer version; removing it makes the record *expired* at a version, which is what the life of
sessions has for "gone, unless somebody used it later": a later write brings the entry back, an
earlier one that arrives late does not. So entries merge by version (hlc, actor), in any order, any
number of times, to the same state on all members.

**Bounded memory.** An expired record is forgotten `REMOVED_KEPT_S` after its removal, on all
members at about the same time. A member that was cut off for longer may bring removed entries back
that it still has.

**Whole deltas.** Every write says all there is to know of its entry, so it needs no entry to be
there, and a lost one costs nothing once a later one has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from tribes.config.model import ManagerConfig
from tribes.errors import LocalProtocolError, MapFullError
from tribes.manager.container import MAX_INACTIVE, encode_idle
from tribes.manager.delta import DeltaManager
from tribes.manager.inbox import Commit
from tribes.manager.merge import merge
from tribes.manager.messages import NAME_MAX_CHARS
from tribes.manager.placed_messages import part_context
from tribes.manager.reading import Reading
from tribes.manager.record import (
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    header,
    life_and_access,
    main_of,
    pack,
    pack_delta,
    read_entry,
    to_wire,
)
from tribes.maps.changes import ChangeKind, EntryChange, MapMemberChange
from tribes.maps.keys import MapKey, decode_key, encode_key

if TYPE_CHECKING:
    from tribes.manager.inbox import Waiter
    from tribes.wire.member import Member

__all__ = [
    "CONTEXT_PREFIX",
    "ENTRIES_MAX",
    "REMOVED_KEPT_S",
    "VALUE_MAX_BYTES",
    "MapManager",
    "map_context",
]

CONTEXT_PREFIX: Final = "map:"
"""The context of a map is this and its name: no application's sessions get there."""

LAZY_PREFIX: Final = "lazy"

NAME_MAX_CHARS_OF_MAPS: Final = NAME_MAX_CHARS - 16
"""Room for what stands before a name in its contexts."""

ENTRIES_MAX: Final = 1_000_000
"""Entries of one map, unless it is made with another number."""

VALUE_MAX_BYTES: Final = 512 * 1024
"""Longest encoded value: what fits in a message with every allowed ``frame_max_bytes``."""

REMOVED_KEPT_S: Final = 2400
"""How long a removal is remembered: what `SessionTable.is_forgettable` says of records without a
limit, 1,800 + 600 s."""

_VALUE: Final = b"v"
_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)
_CONTAINER: Final = int(Namespace.CONTAINER)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_LIVE: Final = int(Life.LIVE)
_DESTROYED: Final = int(Life.DESTROYED)
_FOR_EVER: Final = encode_idle(0)
"""In every record: a node that only holds copies must never expire them."""


def map_context(name: str, *, partition: int | None = None, is_lazy: bool = False) -> str:
    """Return the context that a map of this name replicates in.

    Args:
        name: Of the map.
        partition: Of a lazy map; None: the one by which members find each other.
        is_lazy: Whether it is a lazy map.

    Raises:
        LocalProtocolError: It cannot be a name.
    """
    if not 0 < len(name) <= NAME_MAX_CHARS_OF_MAPS:
        raise LocalProtocolError(
            f"the name of a map has 1 to {NAME_MAX_CHARS_OF_MAPS} characters, not {len(name)}"
        )
    if is_lazy:
        whole = f"{LAZY_PREFIX}:{name}"
        return whole if partition is None else part_context(whole, partition)
    return CONTEXT_PREFIX + name


class MapManager(DeltaManager):
    """One map on one member. Arguments are those of `SessionManager`.

    Attributes:
        config: How its changes are sent and waited for.
        max_entries: Entries beyond which `put` refuses new keys; what others have is always taken.
        on_change: Told every change of an entry or of the map's members, in any thread; it must be
            quick. None: nobody wants to know.
    """

    config: ManagerConfig = ManagerConfig(channel_send_options=2)
    max_entries: int = ENTRIES_MAX
    on_change: Callable[[EntryChange | MapMemberChange], None] | None = None

    # Reading, in any thread.

    def value_of(self, key: object) -> Any:
        """Return a copy of the value of a key.

        Raises:
            KeyError: There is no such entry; also when no entry can have such a key.
            AttributeUnreadableError: It cannot be decoded here; a KeyError too.
        """
        try:
            name = encode_key(key)
        except LocalProtocolError:
            raise KeyError(key) from None
        found = self.entry_of(name)
        if found is None:
            raise KeyError(key)
        return self.codec.decode(found.value)

    def has(self, key: object) -> bool:
        """Tell whether there is an entry, readable or not."""
        try:
            return self.entry_of(encode_key(key)) is not None
        except LocalProtocolError:
            return False

    def entry_count(self) -> int:
        """Return how many entries there are here."""
        if self.revive is not None:
            self.revive()
        return self.table.live

    def entry_keys(self) -> Iterator[MapKey]:
        """Go through the keys as they are now; those that go meanwhile are left out."""
        if self.revive is not None:
            self.revive()
        table = self.table
        names = table.keys()
        for name in names:
            key = decode_key(name)
            if key is not None and _value_in(table.get(name)) is not None:
                yield key

    def entry_of(self, name: str) -> Entry | None:
        """Return the present entry of a record's name, with its encoded value."""
        found = _value_in(self.table.get(name))
        if found is None and self.revive is not None:
            self.revive()
            found = _value_in(self.table.get(name))
        return found

    # Writing, in any thread.

    def put(self, key: MapKey, value: object, waiter: Waiter | None = None) -> int:
        """Set an entry, here at once and at the others soon.

        Args:
            key: Of the entry.
            value: Anything that a session's attribute can be.
            waiter: Told when the other members have it.

        Returns:
            The hlc of the write.

        Raises:
            LocalProtocolError: The key cannot be one, or the value is too long.
            AttributeNotEncodableError: The value has a type that no codec knows.
            MapFullError: The key is new, and there are ``max_entries`` entries.
        """
        name = encode_key(key)
        data = self.codec.encode(value)
        if len(data) > VALUE_MAX_BYTES:
            raise LocalProtocolError(
                f"the value of {key!r} has {len(data)} bytes; a map's has at most {VALUE_MAX_BYTES}"
            )
        if self.revive is not None:
            self.revive()
        if self.table.live >= self.max_entries and _value_in(self.table.get(name)) is None:
            raise MapFullError(f"the map {self.context!r} has {self.max_entries} entries")
        return self.write(name, data, waiter)

    def remove(self, key: object, waiter: Waiter | None = None) -> int:
        """Remove an entry, here at once and at the others soon.

        Returns:
            The hlc of the removal.

        Raises:
            KeyError: There is no such entry here. Nobody is told then.
        """
        if not self.has(key):
            raise KeyError(key)
        return self.write(encode_key(key), None, waiter)

    def write(self, name: str, data: bytes | None, waiter: Waiter | None) -> int:
        """Set or remove (None) an entry by its record's name; returns the hlc."""
        table, clock = self.table, self.clock
        while True:
            current = table.get(name)
            hlc = clock.next()
            base = 0
            created = hlc
            if current is not None:
                life, access = life_and_access(current)
                if life == _DESTROYED:
                    raise LocalProtocolError(f"{name!r} was destroyed by something that is no map")
                if hlc <= access:
                    # Merged by somebody who did not tell the clock.
                    clock.observe(access)
                    continue
                created = header(current).created
                seen = Reading(current).entry(_ATTRIBUTE, _VALUE)
                base = 0 if seen is None else seen.hlc
            delta = self._delta(created, hlc, base, data)
            record = delta if current is None else merge(current, delta)
            commit = Commit(self.context, name, hlc, to_wire(delta, self.now_ds()), waiter)
            if table.swap(name, current, record, commit):
                self._tell(name, current, record, is_local=True)
                return hlc

    def _delta(self, created: int, hlc: int, base: int, data: bytes | None) -> Record:
        actor, now_ds = self.clock.actor, self.now_ds()
        limit = Entry(_CONTAINER, _LAST_WRITER, MAX_INACTIVE, _FOR_EVER, hlc, actor, base)
        if data is not None:
            value = Entry(_ATTRIBUTE, _LAST_WRITER, _VALUE, data, hlc, actor, base)
            return pack_delta(created, hlc, actor, now_ds, WHOLE, [value, limit])
        gone = Parsed(int(Life.EXPIRED), WHOLE, created, hlc, now_ds, {})
        gone.put(Entry(_ATTRIBUTE, _TOMBSTONE, _VALUE, b"", hlc, actor, base))
        gone.put(limit)
        return pack(gone)

    # Telling.

    def merged(self, key: str, before: Record | None, after: Record) -> None:
        """A peer's change was merged into the table."""
        self._tell(key, before, after, is_local=False)

    def member_changed(self, member: Member, *, is_added: bool) -> None:
        """A member began or ceased to have this map."""
        if self.on_change is not None:
            self.on_change(MapMemberChange(member, is_added))

    def _tell(self, name: str, before: Record | None, after: Record, *, is_local: bool) -> None:
        if self.on_change is None:
            return
        was, now = _value_in(before), _value_in(after)
        key = decode_key(name)
        if key is None or (was is None and now is None):
            return
        if was is not None and now is not None and (was.hlc, was.actor) == (now.hlc, now.actor):
            return
        kind = ChangeKind.UPDATED
        if was is None:
            kind = ChangeKind.ADDED
        elif now is None:
            kind = ChangeKind.REMOVED
        old, new = None if was is None else was.value, None if now is None else now.value
        self.on_change(EntryChange(kind, key, new, old, is_local))


def _value_in(record: Record | None) -> Entry | None:
    """Return the entry with the value, if the record is a present one."""
    if record is None or main_of(record)[1] != _LIVE:
        return None
    span = Reading(record).attributes.get(_VALUE)
    if span is None:
        return None
    entry = read_entry(record, span)
    return None if entry.kind == _TOMBSTONE else entry
