"""What a server that keeps values in memory can do: memcached, and Redis or Valkey.

Every value has a *version*, which changes with every save and with nothing else, so a save that
says what it replaces never overwrites what its caller has not seen.  Reading can extend the life of
a value in the same round trip.  Locks are values of their own with the holder's token; only that
token releases or renews one.

Every call blocks for at most the server's time limit, plus one more connection if the first one
had been closed meanwhile.  After a `StoreNodeError` nobody knows whether the server did what it was
asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .protocol import Stored

__all__ = ["ABSOLUTE_FROM_S", "EXPIRES_MAX", "CacheNode", "expiry_of"]

ABSOLUTE_FROM_S: Final = 30 * 24 * 3600
"""memcached takes a greater number for seconds since 1970."""
EXPIRES_MAX: Final = 2**31 - 1
"""19 January 2038: what is greater, memcached takes for a time that has passed."""


class CacheNode(Protocol):
    """One server. For any thread."""

    @property
    def address(self) -> str:
        """Where it is, for people; no secret is in it."""

    @property
    def value_max_bytes(self) -> int:
        """The longest value that it takes."""

    def load(self, key: str, ttl_s: int | None = None) -> Stored | None:
        """Return the value of a key, or None.

        Args:
            key: Printable ASCII without blanks, at most 250 bytes.
            ttl_s: Seconds that it shall live from now on; 0: for ever; None: as before.
        """

    def peek(self, key: str, ttl_s: int | None = None) -> int | None:
        """Return the version only."""

    def save(self, key: str, data: bytes, *, expected: int, ttl_s: int) -> int:
        """Store a value and return its version.

        Args:
            key: See `load`.
            data: The value.
            expected: The version that it replaces; 0: there must be none.
            ttl_s: Seconds that it shall live; 0: for ever.

        Raises:
            StoreConflictError: There is another version, or none; nothing was changed.
            StoreLimitError: It is longer than `value_max_bytes`; nothing was sent.
        """

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """Remove a value, if it is this version; False if it is not there, or another one."""

    def lock(self, key: str, token: str, ttl_s: int) -> int:
        """Take a lock that nobody has; return what `renew` and `unlock` need, 0: somebody has it.

        Args:
            key: The lock's key.
            token: The holder's, different for each.
            ttl_s: Seconds after which it is free again.
        """

    def renew(self, key: str, token: str, held: int, ttl_s: int) -> int:
        """Keep a lock for longer; return the new ``held``, or 0 if it is not the token's."""

    def unlock(self, key: str, token: str, held: int) -> bool:
        """Release a lock; False, with nothing done, if it is not the token's (any more)."""

    def probe(self) -> str:
        """Ask for a sign of life, over a connection of its own; return the server's version."""

    def start_over(self) -> None:
        """Forget all connections without a word: they belong to the process before the fork."""

    def close(self) -> None:
        """Close all connections. The next call opens new ones."""


def expiry_of(ttl_s: int, now_s: float) -> int:
    """Return what memcached has to be told for a life of ``ttl_s`` seconds; 0: for ever."""
    if ttl_s <= 0:
        return 0
    if ttl_s <= ABSOLUTE_FROM_S:
        return ttl_s
    return min(int(now_s) + ttl_s, EXPIRES_MAX)
