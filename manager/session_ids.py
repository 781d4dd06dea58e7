"""Session ids: upper-case hexadecimal digits of random bytes, like Tomcat's (tomcat-sessions §7.1).

The first three digits of an id name the session's partition.  A rotated id keeps them, so every
node can tell from any of a session's ids where the session is kept, without knowing its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, final
from zlib import crc32

from tribes.errors import ConfigError
from tribes.ids import SESSION_ID_MAX_BYTES, SESSION_ID_MIN_BYTES, SessionId

__all__ = ["GROUPS", "PARTITIONS", "SessionIds", "is_possible_id", "partition_of"]

PARTITIONS: Final = 4096
GROUPS: Final = 64
"""Groups of partitions, which are compared first: 64 partitions each."""

_DIGITS: Final = 3
_PARTITIONS: Final = {f"{number:03X}": number for number in range(PARTITIONS)}
_POSSIBLE: Final = re.compile(f"[0-9A-F]{{{2 * SESSION_ID_MIN_BYTES},{2 * SESSION_ID_MAX_BYTES}}}")


def partition_of(session_id: str) -> int:
    """Return the partition of a session, 0 to 4,095, from its key or any other of its ids.

    An id of another kind, that does not start with three hexadecimal digits, is hashed.
    """
    prefix = session_id[:_DIGITS]
    partition = _PARTITIONS.get(prefix)
    if partition is None:
        partition = _PARTITIONS.get(prefix.upper())
    if partition is None:
        partition = crc32(session_id.encode("utf-8", "surrogatepass")) % PARTITIONS
    return partition


def is_possible_id(text: str) -> bool:
    """Tell whether any generator of the group can have made this id; the length may differ."""
    return _POSSIBLE.fullmatch(text) is not None


@final
class SessionIds:
    """Makes ids.

    Args:
        entropy: Returns n random bytes fit for secrets.
        length: Random bytes of an id, 2 to 64 (``sessionIdLength``, default 16).

    Raises:
        ConfigError: The length is out of range.
    """

    __slots__ = ("_entropy", "_length")

    def __init__(self, entropy: Callable[[int], bytes], length: int = 16) -> None:
        if not SESSION_ID_MIN_BYTES <= length <= SESSION_ID_MAX_BYTES:
            raise ConfigError(
                f"a session id has {SESSION_ID_MIN_BYTES} to {SESSION_ID_MAX_BYTES} random bytes, "
                f"not {length}; write 16, the default",
                key="manager.session_id_length",
            )
        self._entropy = entropy
        self._length = length

    def new(self) -> SessionId:
        """Make the first id of a session, its key."""
        return SessionId(self._entropy(self._length).hex().upper())

    def rotated(self, key: str) -> SessionId:
        """Make one more id for the session of that key, in the same partition."""
        fresh = self._entropy(self._length).hex().upper()
        return SessionId(f"{partition_of(key):03X}{fresh[_DIGITS:]}")
