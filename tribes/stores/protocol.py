"""What a store of sessions can do; `file` and `sql` are two of them.

A store keeps bytes under keys, each value with a *version*: a number that no earlier value of the
key had.  Whoever replaces or deletes a value says which version he has seen, so two processes never
overwrite each other unknowingly: the later one gets a `StoreConflictError`, loads, merges and saves
again.  Beside the bytes stand the time of the last use and how long the session may be idle, so
that the store can find what has expired without opening anything.

Every method may be called from several threads at once, may block on a disk or a network, and
raises `StoreError` when the store does not answer or cannot do it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from tribes.errors import StoreLimitError

__all__ = ["VALUE_MAX_BYTES", "Store", "Stored", "check_size", "is_storable_key"]

VALUE_MAX_BYTES: Final = 16 * 1024 * 1024
"""A value may not be longer unless the setting says so: MySQL's ``max_allowed_packet``."""

_KEY: Final = re.compile(r"[0-9A-Za-z_-]{1,128}")


class Stored(NamedTuple):
    """A value and its version."""

    data: bytes
    version: int


class Store(Protocol):
    """A place for the sessions of one application."""

    @property
    def name(self) -> str:
        """What people call it, for logs and errors; no secret is in it."""

    def load(self, key: str) -> Stored | None:
        """Return the value of a key, or None; None also for a key that no session can have.

        Raises:
            StoreDataError: What is there is no value that a store wrote; see `refuse`.
        """

    def save(
        self, key: str, data: bytes, *, expected: int, last_access_ms: int, max_inactive_s: int
    ) -> int:
        """Store a value, all of it or nothing, and return its version.

        Args:
            key: Letters, digits, ``-`` and ``_``, at most 128.
            data: The value.
            expected: The version that it replaces; 0: there must be none.
            last_access_ms: Last use of the session, milliseconds since 1970.
            max_inactive_s: Seconds that it may be idle; 0 or less: for ever.

        Raises:
            StoreConflictError: There is another version, or none; nothing was changed.
            StoreLimitError: The value is too large; the old one stays.
        """

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove a value; False if there is none.

        Args:
            key: Any text.
            expected: Remove only this version; None: whatever is there.

        Raises:
            StoreConflictError: There is another version; it stays.
        """

    def refuse(self, key: str) -> None:
        """Set a value aside whose bytes cannot be used: kept for people, never loaded again."""

    def keys(self) -> Iterator[str]:
        """Go through all keys; what is saved or deleted meanwhile may be missing or there."""

    def expired(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Return up to ``limit`` keys with versions that have been idle for as long as they may."""

    def clear(self) -> None:
        """Remove all values of this application, except those set aside."""

    def close(self) -> None:
        """Give back what is open. A second call does nothing."""


def is_storable_key(key: str) -> bool:
    """Tell whether a key is of the kind that stores take."""
    return _KEY.fullmatch(key) is not None


def check_size(name: str, data: bytes, limit: int) -> None:
    """Refuse a value that is too large, before anything is sent.

    Raises:
        StoreLimitError: Says both sizes.
    """
    if len(data) > limit:
        raise StoreLimitError(
            f"a session of {len(data)} bytes is more than the {limit} that {name} takes; keep less "
            "in it, let the envelope compress it, or raise value_max_bytes"
        )
