r"""Values that are longer than one item of a memcached: cut in pieces, and a list of them.

The list is the value's item, with the version, the condition and the life of every other; it names
its pieces by a random token, so those of two saves never mix.  Pieces are written before the list
and removed after it was replaced.  Whoever finds a piece missing (evicted, or just replaced) reads
the list again; if it is still the same, the value is lost, as if it had been evicted as a whole.

The list, in an item whose flags are `FLAGS`::

    magic   89 54 53 50 ("\x89TSP")
    format  u8, 1
    token   6 bytes
    number  u16, of pieces
    length  u32, of the value
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["FLAGS", "PIECES_MAX", "Pieces"]

FLAGS: Final = 1
"""Client flags of a list; other values have none."""
PIECES_MAX: Final = 999
"""More would not fit into a key's length, at 250 bytes, beside prefix, id and token."""

_MAGIC: Final = b"\x89TSP"
_LIST: Final = Struct(">4sB6sHI")


class Pieces(NamedTuple):
    """Where the pieces of one value are.

    Attributes:
        token: In their keys.
        number: How many.
        length: Of the value.
    """

    token: bytes
    number: int
    length: int

    @classmethod
    def of(cls, data: bytes, piece_bytes: int) -> Pieces:
        """Cut a value, under a new token."""
        return cls(os.urandom(6), -(-len(data) // piece_bytes), len(data))

    @classmethod
    def read(cls, item: bytes) -> Pieces | None:
        """Read a list; None if it is none that `pack` made."""
        if len(item) != _LIST.size:
            return None
        magic, version, token, number, length = _LIST.unpack(item)
        if magic != _MAGIC or version != 1 or not 0 < number <= PIECES_MAX:
            return None
        return cls(token, number, length)

    def pack(self) -> bytes:
        """Return the list as its item's value."""
        return _LIST.pack(_MAGIC, 1, self.token, self.number, self.length)

    def keys(self, key: str) -> list[str]:
        """The keys of the pieces of the value of a key, in order."""
        return [f"{key}:{self.token.hex()}:{place}" for place in range(self.number)]
