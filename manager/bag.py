"""The values of one namespace of a session, as one request sees them.

A bag is created over an immutable record and decodes a value when it is first touched.  It keeps
what was read and might be changed in place, and what was assigned; `Bag.changes` compares the
former with the stored bytes, so ``session["cart"].append(x)`` needs no assignment, and what nobody
touched is never decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from tribes.errors import (
    AttributeNotEncodableError,
    AttributeUnreadableError,
    LocalProtocolError,
    SessionInvalidError,
    SessionLimitError,
)

from .changes import Change
from .merged import content_of, decode_content, encode_content, is_merged
from .record import NAME_MAX_BYTES, Kind, read_entry
from .values import is_immutable

if TYPE_CHECKING:
    from .changes import Built
    from .layout import Span
    from .reading import Reading
    from .values import ValueCodec

__all__ = ["Bag", "check_name"]

_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)


class _Mark:
    pass


_REMOVED: Final = _Mark()
_MISSING: Final = _Mark()


class Bag(MutableMapping[str, Any]):
    """A mapping of names to values, for one request in one thread at a time.

    A value that cannot be decoded here raises `AttributeUnreadableError` (a KeyError, so ``get``
    gives the default); its bytes stay.  A value that cannot be encoded is refused at the commit,
    and costs only itself.

    Args:
        namespace: Whose values these are.
        reading: What they are read from; None: nothing yet.
        codec: Encodes and decodes them.

    Attributes:
        is_closed: Every use raises `SessionInvalidError`.
    """

    __slots__ = (
        "_assigned",
        "_codec",
        "_index",
        "_mutable",
        "_namespace",
        "_reading",
        "_values",
        "is_closed",
    )

    def __init__(self, namespace: int, reading: Reading | None, codec: ValueCodec) -> None:
        self._namespace = namespace
        self._reading = reading
        self._codec = codec
        self._index: dict[bytes, Span] | None = None
        self._values: dict[str, Any] = {}  # decoded, assigned, or _REMOVED
        self._assigned: dict[str, None] = {}
        # Read, and perhaps changed in place since: where it was read, and as what.
        self._mutable: dict[str, tuple[Reading, bytes]] = {}
        self.is_closed = False

    def __getitem__(self, name: str) -> Any:
        if self.is_closed:
            raise SessionInvalidError("the session was invalidated")
        value = self._values.get(name, _MISSING)
        if value is _MISSING:
            return self._load(name)
        if value is _REMOVED:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        if self.is_closed:
            raise SessionInvalidError("the session was invalidated")
        if name not in self._values:
            check_name(name)
        self._values[name] = value
        self._assigned[name] = None

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._remove(name)

    def _remove(self, name: str) -> None:
        self._values[name] = _REMOVED
        self._assigned[name] = None

    def __contains__(self, name: object) -> bool:
        if self.is_closed:
            raise SessionInvalidError("the session was invalidated")
        if name in self._values:
            return self._values[name] is not _REMOVED
        return self._stored(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value, after setting it if there is none; unreadable is not none."""
        if name in self:
            return self[name]
        self[name] = default
        return default

    def clear(self) -> None:
        """Remove all, readable or not."""
        for name in self._names():
            del self[name]

    def __repr__(self) -> str:
        return f"<Bag {self._names() if not self.is_closed else 'closed'}>"

    def _names(self) -> list[str]:
        if self.is_closed:
            raise SessionInvalidError("the session was invalidated")
        values = self._values
        names = []
        for raw, span in self._spans().items():
            if self._reading is not None and self._reading.main[span[0]] & 15 != _TOMBSTONE:
                name = raw.decode()
                if values.get(name) is not _REMOVED:
                    names.append(name)
        if self._assigned:
            known = set(names)
            names += [
                name
                for name in self._assigned
                if name not in known and values[name] is not _REMOVED
            ]
        return names

    # The record.

    def _spans(self) -> dict[bytes, Span]:
        index = self._index
        if index is None:
            reading = self._reading
            index = self._index = {} if reading is None else reading.index(self._namespace)
        return index

    def _stored(self, name: object) -> Span | None:
        """Find an entry that has a value."""
        reading = self._reading
        if reading is None or not isinstance(name, str):
            return None
        index = self._index
        if index is None:
            index = self._spans()
        try:
            span = index.get(name.encode())
        except UnicodeEncodeError:
            return None
        return None if span is None or reading.main[span[0]] & 15 == _TOMBSTONE else span

    def _load(self, name: str) -> Any:
        reading = self._reading
        span = self._stored(name)
        if span is None or reading is None:
            raise KeyError(name)
        kind = reading.main[span[0]] & 15
        if is_merged(kind):
            return self._load_merged(name, kind, reading, span)
        if kind != _LAST_WRITER:
            raise AttributeUnreadableError(f"{name!r} has the merge kind {kind}, unknown here")
        if span[4] < 0:
            raw = reading.main[span[2] : span[3]]
        else:
            raw = read_entry(reading.record, span).value
        try:
            value = self._codec.decode(raw)
        except AttributeUnreadableError as error:
            raise AttributeUnreadableError(f"{name!r}: {error}") from error
        self._values[name] = value
        if not is_immutable(value):
            self._mutable[name] = reading, raw
        return value

    def _load_merged(self, name: str, kind: int, reading: Reading, span: Span) -> Any:
        try:
            content = content_of(read_entry(reading.record, span), self._codec)
            value = decode_content(kind, content, self._codec)
        except AttributeUnreadableError as error:
            raise AttributeUnreadableError(f"{name!r}: {error}") from error
        self._values[name] = value
        self._mutable[name] = reading, content
        return value

    def _encode(self, value: object) -> tuple[int, bytes]:
        merged = encode_content(value, self._codec)
        return (_LAST_WRITER, self._codec.encode(value)) if merged is None else merged

    # The commit.

    def changes(self, failed: dict[str, Exception]) -> list[Change]:
        """Return what is to be written; what cannot be encoded goes to ``failed`` instead."""
        found: list[Change] = []
        values, namespace, encode = self._values, self._namespace, self._encode
        for name in self._assigned:
            value = values[name]
            seen_in = self._mutable[name][0] if name in self._mutable else self._reading
            if value is _REMOVED:
                found.append(Change(namespace, name.encode(), _TOMBSTONE, b"", seen_in))
                continue
            try:
                kind, raw = encode(value)
            except AttributeNotEncodableError as error:
                failed[name] = error
            else:
                found.append(Change(namespace, name.encode(), kind, raw, seen_in))
        for name, (seen_in, seen) in self._mutable.items():
            if name in self._assigned:
                continue
            try:
                kind, raw = encode(values[name])
            except AttributeNotEncodableError as error:
                failed[name] = error
                continue
            if raw != seen and (self._codec.is_canonical or raw != self._canonical(kind, seen)):
                found.append(Change(namespace, name.encode(), kind, raw, seen_in))
        return found

    def _canonical(self, kind: int, raw: bytes) -> bytes:
        # A node with another version of a registered class may have written it differently, with
        # fewer fields.  Reading alone must not rewrite it.
        if is_merged(kind):
            return self._encode(decode_content(kind, raw, self._codec))[1]
        return self._codec.encode(self._codec.decode(raw))

    def committed(self, reading: Reading, changes: list[Change], built: Built) -> None:
        """Go on from the record that was committed.

        What was read and might be changed in place stays as it was read, with the version it had;
        what was joined with another request's change is read again when it is touched.
        """
        values = self._values
        for change in changes:
            if change.namespace != self._namespace:
                continue
            name = change.name.decode()
            self._assigned.pop(name, None)
            self._mutable.pop(name, None)
            if change.kind == _TOMBSTONE or (change.namespace, change.name) in built.joined:
                values.pop(name, None)
            elif name in values and not is_immutable(values[name]):
                self._mutable[name] = reading, change.value
        self._reading = reading
        self._index = None


def check_name(name: object) -> None:
    """Refuse what cannot be the name of an attribute.

    Raises:
        LocalProtocolError: It is no text, or empty.
        SessionLimitError: It is too long.
    """
    if not isinstance(name, str) or not name:
        raise LocalProtocolError(f"an attribute's name is a text that is not empty: {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"an attribute's name is no valid text: {name!r}") from error
    if size > NAME_MAX_BYTES:
        raise SessionLimitError(f"an attribute's name has {size} bytes, the most is 1,024")
