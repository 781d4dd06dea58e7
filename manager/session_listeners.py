"""The listeners of one session: some travel with it, the others stay where they were added.

A listener whose class has ``is_replicated = True`` is an entry of the session's record, encoded
like a value; its name is the class and a digest, so an equal one is added once on however many
nodes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import AttributeUnreadableError

from .changes import Change
from .record import Kind, Namespace, read_entry

if TYPE_CHECKING:
    from .reading import Reading
    from .values import ValueCodec

__all__ = ["OwnListeners", "replicated_listeners"]

_LISTENER: Final = int(Namespace.LISTENER)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)


@final
class OwnListeners:
    """What one request does to the listeners of its session.

    Args:
        reading: The session as the request found it.
        codec: Encodes those that travel.
    """

    __slots__ = ("_added", "_changes", "_codec", "_reading", "_removed")

    def __init__(self, reading: Reading | None, codec: ValueCodec) -> None:
        self._reading = reading
        self._codec = codec
        self._changes: dict[bytes, Change] = {}
        self._added: list[object] = []
        self._removed: list[object] = []

    def add(self, listener: object) -> None:
        """Add one; see `Session.add_listener`."""
        if _travels(listener):
            self._write(listener, _LAST_WRITER)
        else:
            self._added.append(listener)

    def remove(self, listener: object) -> None:
        """Remove one."""
        if _travels(listener):
            self._write(listener, _TOMBSTONE)
        else:
            self._added = [each for each in self._added if each != listener]
            self._removed.append(listener)

    def _write(self, listener: object, kind: int) -> None:
        raw = self._codec.encode(listener)
        cls = type(listener)
        digest = blake2b(raw, digest_size=8).hexdigest()
        name = f"{cls.__module__}.{cls.__qualname__}#{digest}"[-512:].encode()
        value = raw if kind == _LAST_WRITER else b""
        self._changes[name] = Change(_LISTENER, name, kind, value, self._reading)

    @property
    def changes(self) -> list[Change]:
        """What goes into the record."""
        return list(self._changes.values())

    @property
    def kept(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Those that stay in this process: added, removed."""
        return tuple(self._added), tuple(self._removed)


def replicated_listeners(reading: Reading, codec: ValueCodec) -> list[Any]:
    """Return a session's listeners that travel, without those that cannot be read here."""
    found = []
    for span in reading.index(_LISTENER).values():
        if reading.main[span[0]] & 15 != _TOMBSTONE:
            try:
                found.append(codec.decode(read_entry(reading.record, span).value))
            except AttributeUnreadableError:
                continue
    return found


def _travels(listener: object) -> bool:
    return bool(getattr(listener, "is_replicated", False))
