"""What a table holds, as one number per partition: equal numbers, equal sessions (DESIGN §5.5).

A partition's digest is the sum (mod 2**64) of the digests of its sessions.  A change costs one
dictionary operation: it remembers, once per key, the record that the sum still counts.  Asking for
a digest settles the keys of that partition: subtracts what was counted, adds what is there now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from .merge import digest
from .record import equal_state
from .session_ids import GROUPS, PARTITIONS, partition_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .record import Record

__all__ = ["PartitionDigests", "sums_by_group"]

_MODULUS: Final = 2**64


def sums_by_group(digests: Mapping[int, int]) -> list[int]:
    """Return the sums (mod 2**64) of partitions' digests, for each group of partitions."""
    sums = [0] * GROUPS
    for partition, digest_of_it in digests.items():
        sums[partition * GROUPS // PARTITIONS] += digest_of_it
    return [each % _MODULUS for each in sums]


@final
class PartitionDigests:
    """The digests of one table.

    ``changed`` is called under the table's lock, by any thread; everything else in the core's
    thread, where ``lock`` is taken for a few dictionary operations at a time.

    Args:
        lock: The table's lock.
        get: Returns the record of a key, or None.
    """

    __slots__ = ("_get", "_lock", "_pending", "_sums", "_unsorted")

    def __init__(
        self, lock: AbstractContextManager[Any], get: Callable[[str], Record | None]
    ) -> None:
        self._lock = lock
        self._get = get
        # Only of partitions that hold something: those of a small table are few.
        self._sums: dict[int, int] = {}
        self._unsorted: dict[str, Record | None] = {}
        self._pending: dict[int, dict[str, Record | None]] = {}

    @property
    def unsettled(self) -> int:
        """How many sessions changed since the digests of their partitions were last asked for."""
        return len(self._unsorted) + sum(map(len, self._pending.values()))

    def changed(self, key: str, before: Record | None) -> None:
        """Note that a session changes, appears (before: None) or goes."""
        self._unsorted.setdefault(key, before)

    def of(self, partition: int) -> int:
        """Return the digest of one partition; an empty one has 0."""
        if self._unsorted:
            self._sort()
        if partition in self._pending:
            self._settle(partition)
        return self._sums.get(partition, 0)

    def between(self, first: int, last: int) -> dict[int, int]:
        """Return the digests of these partitions, in order; empty ones are left out."""
        if self._unsorted:
            self._sort()
        for partition in [p for p in self._pending if first <= p <= last]:
            self._settle(partition)
        sums = self._sums
        partitions = sorted(sums) if len(sums) < last - first else range(first, last + 1)
        return {p: sums[p] for p in partitions if first <= p <= last and p in sums}

    def settle(self, limit: int) -> bool:
        """Settle whole partitions until so many keys are done; tell whether some are left."""
        if self._unsorted:
            self._sort()
        for partition in list(self._pending):
            if limit <= 0:
                break
            limit -= len(self._pending[partition])
            self._settle(partition)
        return bool(self._pending)

    def total(self) -> int:
        """Return the sum of all digests. Settles everything: for tests and tools."""
        self._sort()
        for partition in list(self._pending):
            self._settle(partition)
        return sum(self._sums.values()) % _MODULUS

    def _sort(self) -> None:
        with self._lock:
            unsorted, self._unsorted = self._unsorted, {}
        for key, before in unsorted.items():
            # A key that waits already keeps its older image: that is what the sum counts.
            self._pending.setdefault(partition_of(key), {}).setdefault(key, before)

    def _settle(self, partition: int) -> None:
        total = self._sums.get(partition, 0)
        counted = self._pending.pop(partition)
        with self._lock:
            present = [self._get(key) for key in counted]
            # What changed since `_sort` is counted now; its image must not be subtracted again.
            for key in counted:
                self._unsorted.pop(key, None)
        for (key, before), now in zip(counted.items(), present, strict=True):
            if before is not None and now is not None and equal_state(before, now):
                continue
            total -= 0 if before is None else digest(key, before)
            total += 0 if now is None else digest(key, now)
        total %= _MODULUS
        if total:
            self._sums[partition] = total
        else:
            self._sums.pop(partition, None)
