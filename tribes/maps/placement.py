"""Where the entries of a lazy map lie: a rule that every member computes for itself (DESIGN §5.5).

A map is cut into `PARTITIONS`. The members that have the map are ordered by a hash of their unique
id and the partition; the first is the partition's primary, the next ``copies`` are its backups, and
for all others its entries are proxies. No member has to ask where an entry is, and when one comes
or goes only the partitions move that gain or lose it (rendezvous hashing).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["PARTITIONS", "EntryKind", "order_of", "partition_of_entry"]

PARTITIONS: Final = 64
"""Each is a context of its own, and a node has at most 1,024 of them: 15 lazy maps."""


class EntryKind(enum.Enum):
    """What an entry is on one member (Tomcat's words)."""

    PRIMARY = "primary"
    BACKUP = "backup"
    PROXY = "proxy"


def partition_of_entry(name: str) -> int:
    """Return the partition of an entry, by the name of its record."""
    return crc32(name.encode()) % PARTITIONS


def order_of(partition: int, members: Iterable[Member]) -> list[Member]:
    """Return the members in the order in which they hold a partition; equal on all members."""
    mark = partition.to_bytes(2, "big")
    return sorted(
        members,
        key=lambda m: (blake2b(m.unique_id + mark, digest_size=8).digest(), m.unique_id),
    )
