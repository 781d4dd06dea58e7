"""In which part of a lazy map an entry lies, and what it is on a member.

Where the parts lie is in :mod:`tribes.manager.placement`: no member has to ask where an entry is.
"""

from __future__ import annotations

import enum
from typing import Final
from zlib import crc32

from tribes.manager.placement import PARTS

__all__ = ["PARTITIONS", "EntryKind", "partition_of_entry"]

PARTITIONS: Final = PARTS


class EntryKind(enum.Enum):
    """What an entry is on one member (Tomcat's words)."""

    PRIMARY = "primary"
    BACKUP = "backup"
    PROXY = "proxy"


def partition_of_entry(name: str) -> int:
    """Return the partition of an entry, by the name of its record."""
    return crc32(name.encode()) % PARTITIONS
