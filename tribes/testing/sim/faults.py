"""Ways to spoil a piece of a stream."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.wire.frame import FRAME_START

if TYPE_CHECKING:
    from random import Random

__all__ = ["corruption"]

_HUGE = FRAME_START + struct.pack(">i", 0x7FFFFFFF)


def corruption(how: str, random: Random) -> Callable[[bytes], bytes]:
    """What happens to a piece.

    Args:
        how: ``flip`` one bit, ``truncate``: lose the second half or more of it, ``oversize``:
            the head of a frame of 2 GiB instead of the piece's first bytes.
        random: Chooses bits and lengths.

    Raises:
        ValueError: There is no such way.
    """

    def flip(data: bytes) -> bytes:
        spoilt = bytearray(data)
        bit = random.randrange(8 * len(spoilt))
        spoilt[bit // 8] ^= 1 << bit % 8
        return bytes(spoilt)

    def truncate(data: bytes) -> bytes:
        return data[: max(1, random.randrange(1 + len(data) // 2))]

    def oversize(data: bytes) -> bytes:
        return _HUGE + data[len(_HUGE) :]

    ways = {"flip": flip, "truncate": truncate, "oversize": oversize}
    if how not in ways:
        raise ValueError(f"pieces are spoilt by {', '.join(ways)}, not by {how!r}")
    return ways[how]
