"""Attributes and listeners of sessions that never leave this process (tomcat-sessions §4.12).

What a filter holds back, and listeners without the replicated marker, are kept as the objects they
are, as long as their session lives here.  Another member that serves the session does not see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["REMOVED", "Kept", "KeptHere"]


class _Mark:
    pass


REMOVED: Final = _Mark()
"""In place of a value: there is none any more."""

_NONE: Final[Mapping[str, Kept]] = {}
_NOBODY: Final[tuple[object, ...]] = ()


class Kept(NamedTuple):
    """A value, and the hlc of the commit that left it here."""

    value: Any
    hlc: int


@final
class KeptHere:
    """By session key. For any thread.

    Args:
        lock: Held for a few dictionary operations; nothing of the application runs under it.

    Attributes:
        values: By session key; each mapping is replaced, never changed. Only to be read.
    """

    __slots__ = ("_listeners", "_lock", "values")

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self.values: dict[str, dict[str, Kept]] = {}
        self._listeners: dict[str, tuple[object, ...]] = {}

    def __len__(self) -> int:
        return len(self.values.keys() | self._listeners.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.values or key in self._listeners

    def keys(self) -> list[str]:
        """Return the sessions of which something is kept."""
        return list(self.values.keys() | self._listeners.keys())

    def values_of(self, key: str) -> Mapping[str, Kept]:
        """Return a session's values; the mapping does not change any more."""
        return self.values.get(key, _NONE)

    def listeners_of(self, key: str) -> tuple[object, ...]:
        """Return a session's listeners."""
        return self._listeners.get(key, _NOBODY)

    def put(self, key: str, changes: Mapping[str, Any], hlc: int) -> list[tuple[str, Any]]:
        """Set values, or remove those that are `REMOVED`.

        Returns:
            The values that are no more, by name.
        """
        with self._lock:
            values = dict(self.values.get(key, _NONE))
            gone = []
            for name, value in changes.items():
                old = values.pop(name, None)
                if old is not None and old.value is not value:
                    gone.append((name, old.value))
                if value is not REMOVED:
                    values[name] = Kept(value, hlc)
            if values:
                self.values[key] = values
            else:
                self.values.pop(key, None)
        return gone

    def listen(self, key: str, added: tuple[object, ...], removed: tuple[object, ...]) -> None:
        """Add and remove listeners of a session; an equal one is the same."""
        while True:
            before = self.listeners_of(key)
            # Comparing them is the application's code.
            known = tuple(each for each in before if each not in removed)
            known += tuple(each for each in added if each not in known)
            with self._lock:
                if self.listeners_of(key) is not before:
                    continue
                if known:
                    self._listeners[key] = known
                else:
                    self._listeners.pop(key, None)
                return

    def take(self, key: str) -> tuple[Mapping[str, Kept], tuple[object, ...]]:
        """Return what is kept of a session, and keep it no longer."""
        with self._lock:
            return self.values.pop(key, _NONE), self._listeners.pop(key, ())
