"""Which session an id means: the ids that rotation gave and took (DESIGN §5.3).

A look-up of an id that was never rotated costs two failed dictionary look-ups, one of a rotated id
one successful.  Written under the table's lock, read without one: each value is replaced whole.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, final

from tribes.ids import SessionKey

if TYPE_CHECKING:
    from .container import Facts

__all__ = ["Aliases"]


@final
class Aliases:
    """The ids of one context's sessions other than the keys, and the keys that are retired."""

    __slots__ = ("_active", "_retired", "_retired_keys")

    def __init__(self) -> None:
        self._active: dict[str, SessionKey] = {}
        self._retired: dict[str, tuple[SessionKey, int]] = {}
        self._retired_keys: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._active) + len(self._retired)

    def resolve(self, session_id: str, keys: Container[str], now_ds: int) -> SessionKey | None:
        """Return the key of the session that an id means at this moment, if any.

        Args:
            session_id: Any text.
            keys: The keys that exist.
            now_ds: The local monotonic clock in deciseconds.
        """
        key = self._active.get(session_id)
        if key is not None:
            return key
        if session_id in keys:
            until = self._retired_keys.get(session_id)
            return SessionKey(session_id) if until is None or now_ds < until else None
        retired = self._retired.get(session_id)
        return retired[0] if retired is not None and now_ds < retired[1] else None

    def learn(self, key: SessionKey, before: Facts | None, facts: Facts, now_ds: int) -> None:
        """Take over what a record says of its ids.

        The grace of an id starts when its retirement is first learned of, ``now_ds``; what was
        known to be retired ``before`` gets no second one.
        """
        known = {} if before is None else before.ids
        for session_id, grace_s in facts.ids.items():
            if grace_s is None:
                if session_id != key:
                    self._active[session_id] = key
            elif known.get(session_id) is None:
                until = now_ds + 10 * grace_s
                if session_id == key:
                    self._retired_keys[key] = until
                else:
                    self._retired[session_id] = key, until
                    self._active.pop(session_id, None)

    def forget(self, key: SessionKey, facts: Facts) -> None:
        """Drop the ids of a session that ended or left."""
        self._retired_keys.pop(key, None)
        for session_id in facts.ids:
            if self._active.get(session_id) == key:
                del self._active[session_id]
            self._retired.pop(session_id, None)

    def sweep(self, now_ds: int) -> None:
        """Drop what is past its grace, oldest first; a long one may hold up those behind it."""
        while self._retired:
            oldest = next(iter(self._retired))
            if now_ds < self._retired[oldest][1]:
                return
            del self._retired[oldest]
