"""The sessions of one context on this node, readable from any thread without a lock (DESIGN §5.4).

Records are immutable, and a session's record is only ever replaced by `SessionTable.swap`, which
compares by identity under the lock: whoever computed a new record from an old one learns whether
the old one is still the present one.  So no write is lost, and nobody ever sees half of one::

    while True:
        current = table.get(key)                 # no lock
        new = ...                                # computed, however long it takes
        if table.swap(key, current, new, commit):
            break

Under the same lock the delta goes to the inbox, so the order of deltas is the order of records, and
a handful of dictionary operations keep what the core needs: ids, keys by partition, counts, and
which partitions' digests are out of date.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import RemoteProtocolError, SessionLimitError
from tribes.ids import SessionKey

from .aliases import Aliases
from .container import facts_of
from .digests import PartitionDigests, sums_by_group
from .merge import digest, merge
from .placement import PARTS, part_of
from .record import HAS_CONTAINER, Life, Record, header, main_of, size, with_access
from .session_ids import PARTITIONS, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .inbox import Commit, Inbox

__all__ = ["EXPIRED_KEPT_S", "MAX_INACTIVE_S", "PARTITIONS", "SessionTable", "partition_of"]

MAX_INACTIVE_S: Final = 1800
"""Tomcat's default, 30 minutes."""
EXPIRED_KEPT_S: Final = 600
"""How long an expired session is kept, for late uses and for its destroyed event."""

_LIVE: Final = int(Life.LIVE)
_EXPIRED: Final = int(Life.EXPIRED)
_DESTROYED: Final = int(Life.DESTROYED)


@final
class SessionTable:
    """The records of one context.

    ``get`` is the dictionary's own: one look-up, safe in any thread.

    Args:
        lock: Guards writes; held for a few dictionary operations.
        inbox: Gets the commits; its lock is taken within this one.
        max_inactive_s: Idle time of sessions that do not say their own.

    Attributes:
        watch: Told each change, under the lock, as ``watch("swap", key, new, has_container,
            now_ds)``, ``watch("touch", key, new)`` or ``watch("drop", key)``; for recordings.
        bytes: Content of all records.
        lock: As given; others may hold it for a few dictionary operations of their own.
        created: Sessions that appeared here live, by a commit or from a peer.
        destroyed_horizon: hlc; destroyed sessions that ended before it are forgotten.
        live_in: How many live sessions each part has, see :mod:`tribes.manager.placement`.
        live_peak: The most live sessions that there ever were.
        marked: Keys that were marked to go, with the hlc of the mark; it counts as long as the
            session was not used since (`tribes.manager.eviction`).
    """

    __slots__ = (
        "_aliases",
        "_dead",
        "_digests",
        "_inbox",
        "_limits",
        "_lock",
        "_partitions",
        "_records",
        "bytes",
        "created",
        "destroyed_horizon",
        "get",
        "live_in",
        "live_peak",
        "lock",
        "marked",
        "max_inactive_s",
        "watch",
    )

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        inbox: Inbox,
        *,
        max_inactive_s: int = MAX_INACTIVE_S,
    ) -> None:
        self._lock = self.lock = lock
        self.marked: dict[str, int] = {}
        self._inbox = inbox
        self._records: dict[str, Record] = {}
        self.get = self._records.get
        self._aliases = Aliases()
        self._digests = PartitionDigests(lock, self.get)
        # Tuples, because the garbage collector does not look into tuples of text again and again.
        self._partitions: dict[int, tuple[str, ...]] = {}
        # The keys that are not live, by life, in the order in which they died.
        self._dead: dict[int, dict[str, None]] = {_EXPIRED: {}, _DESTROYED: {}}
        self._limits: dict[str, int] = {}
        self.max_inactive_s = max_inactive_s
        self.destroyed_horizon = 0
        self.bytes = 0
        self.created = 0
        self.live_peak = 0
        self.live_in = [0] * PARTS
        self.watch: Callable[..., None] | None = None

    # Reading, in any thread.

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    @property
    def live(self) -> int:
        """How many sessions are live."""
        return len(self._records) - len(self._dead[_EXPIRED]) - len(self._dead[_DESTROYED])

    def count(self, life: Life) -> int:
        """Return how many records have this life."""
        return self.live if life is Life.LIVE else len(self._dead[life])

    def keys(self) -> list[str]:
        """Return all keys, of live and of dead sessions, as they are now."""
        return list(self._records)

    def keys_of(self, partition: int) -> list[str]:
        """Return the keys of one partition as they are now."""
        return list(self._partitions.get(partition, ()))

    def dead_keys(self, life: Life, limit: int) -> list[str]:
        """Return up to ``limit`` keys of expired or destroyed sessions, the longest dead first."""
        with self._lock:
            return list(islice(self._dead[life], limit))

    def resolve(self, session_id: str, now_ds: int) -> SessionKey | None:
        """Return the key of the session that an id means now, or None; any text may be asked."""
        return self._aliases.resolve(session_id, self._records, now_ds)

    def limit_of(self, key: str) -> int:
        """Return how many seconds a session may be idle; 0 or less: for ever."""
        return self._limits.get(key, self.max_inactive_s)

    def is_forgettable(self, record: Record, now_ds: int | None) -> bool:
        """Tell whether a record is dead for so long that nobody needs to remember it.

        A destroyed one by its time and `destroyed_horizon`.  An expired one by how long it has been
        idle: `EXPIRED_KEPT_S` beyond its limit, which comes out the same on all nodes.
        """
        life = main_of(record)[1]
        if life == _LIVE:
            return False
        known = header(record)
        if life == _DESTROYED:
            return known.access < self.destroyed_horizon
        limit = facts_of(record).max_inactive_s or self.max_inactive_s
        kept_s = EXPIRED_KEPT_S + (limit if limit > 0 else MAX_INACTIVE_S)
        return now_ds is not None and now_ds - known.last_seen >= 10 * kept_s

    # Writing, in any thread.

    def swap(
        self, key: str, expected: Record | None, new: Record, commit: Commit | None = None
    ) -> bool:
        """Replace a session's record if it still is ``expected``, and leave the commit.

        Args:
            key: The session's key.
            expected: The very object that ``new`` was computed from; None: there was none.
            new: The record from now on.
            commit: Goes to the inbox in the same moment.

        Returns:
            False, with nothing done, if the record is another one by now.
        """
        change = main_of(new) if commit is None else commit.delta
        return self._swap(key, expected, new, commit, change[2] & HAS_CONTAINER, None)

    def touch(self, key: str, access: int, last_seen: int) -> bool:
        """Note a use of a live session, here only; False if it is not live (any more)."""
        while True:
            current = self.get(key)
            if current is None:
                return False
            known = header(current)
            if known.life != _LIVE:
                return False
            new = with_access(current, max(access, known.access), max(last_seen, known.last_seen))
            with self._lock:
                if self.get(key) is current:
                    self._records[key] = new
                    if self.watch is not None:
                        self.watch("touch", key, new)
                    return True

    def drop(self, key: str, expected: Record) -> bool:
        """Forget a session, without a trace, if its record still is ``expected``."""
        main = main_of(expected)
        facts = facts_of(expected)
        with self._lock:
            if self.get(key) is not expected:
                return False
            self._digests.changed(key, expected)
            if self.watch is not None:
                self.watch("drop", key)
            del self._records[key]
            partition = partition_of(key)
            keys = self._partitions[partition]
            at = keys.index(key)
            self._partitions[partition] = keys[:at] + keys[at + 1 :]
            if main[1]:
                del self._dead[main[1]][key]
            else:
                self.live_in[part_of(key)] -= 1
            self._limits.pop(key, None)
            self.marked.pop(key, None)
            self._aliases.forget(SessionKey(key), facts)
            self.bytes -= size(expected)
        return True

    def repeat(self, change: str, key: str, *args: Any) -> None:
        """Make a change that `watch` was told of elsewhere."""
        current = self.get(key)
        if change == "swap":
            new, has_container, now_ds = args
            self._swap(key, current, new, None, has_container, now_ds)
        elif change == "touch" and current is not None:
            self._records[key] = args[0]
        elif change == "drop" and current is not None:
            self.drop(key, current)

    # For the core's thread.

    def merge_in(
        self, key: str, incoming: Record, now_ds: int | None = None
    ) -> tuple[Record | None, Record, bool]:
        """Merge a peer's delta or copy, however the record changes meanwhile.

        What is dead for so long that this node forgets it does not come back from a slower one.

        Args:
            key: The session's key.
            incoming: What `record.from_wire` accepted and whose ``access`` the clock observed.
            now_ds: When ids that it retires were learned of; by default its ``last_seen``.

        Returns:
            The record before, the record after, and whether something changed.

        Raises:
            RemoteProtocolError: Together they would have too many entries; nothing is changed.
        """
        incoming_main = main_of(incoming)
        has_container = incoming_main[2] & HAS_CONTAINER
        while True:
            before = self.get(key)
            if before is None:
                if incoming_main[1] != _LIVE and self.is_forgettable(incoming, now_ds):
                    return None, incoming, False
                after = incoming
            else:
                try:
                    after = merge(before, incoming)
                except SessionLimitError as error:
                    raise RemoteProtocolError(f"merging a delta: {error}") from error
                if after is before:
                    return before, after, False
            if self._swap(key, before, after, None, has_container, now_ds):
                return before, after, True

    def partition_digest(self, partition: int) -> int:
        """Return a u64 that equals another node's if both hold the same sessions; 0 if empty.

        Costs a hash or two per session that changed since the last time. In the core's thread.
        """
        return self._digests.of(partition)

    def partition_digests(self, first: int = 0, last: int = PARTITIONS - 1) -> dict[int, int]:
        """Return the digests of a range of partitions, without the empty ones."""
        return self._digests.between(first, last)

    def group_digests(self) -> list[int]:
        """Return the sums of the partitions' digests by group of partitions."""
        return sums_by_group(self.partition_digests())

    def settle_digests(self, limit: int) -> bool:
        """Hash up to about so many of the sessions that changed; tell whether some are left."""
        return self._digests.settle(limit)

    def session_digests(self, partition: int) -> list[tuple[int, str]]:
        """Return the digest and key of every session of a partition; costs a hash for each."""
        found = []
        for key in self.keys_of(partition):
            record = self.get(key)
            if record is not None:
                found.append((digest(key, record), key))
        return found

    def root_digest(self) -> int:
        """Return the sum of all partitions' digests. In the core's thread; may take long."""
        return self._digests.total()

    def reset_counts(self) -> None:
        """Count sessions that appear from here on, and the most from the present number."""
        with self._lock:
            self.created = 0
            self.live_peak = self.live

    def sweep_ids(self, now_ds: int) -> None:
        """Forget the ids whose grace is over."""
        with self._lock:
            self._aliases.sweep(now_ds)

    def _swap(
        self,
        key: str,
        expected: Record | None,
        new: Record,
        commit: Commit | None,
        has_container: int,
        now_ds: int | None,
    ) -> bool:
        if isinstance(new, bytes):
            life, added = new[1], len(new)
        else:
            life, added = new[0][1], size(new)
        if isinstance(expected, bytes):
            was, added = expected[1], added - len(expected)
        elif expected is not None:
            was, added = expected[0][1], added - size(expected)
        else:
            was = _LIVE
        # Whatever needs a look into the records is read before the lock is taken.
        must_learn = has_container or (life == _DESTROYED != was)
        facts = facts_of(new) if must_learn else None
        facts_before = facts_of(expected) if must_learn and expected is not None else None
        learned_ds = header(new).last_seen if must_learn and now_ds is None else now_ds or 0
        with self._lock:
            if self.get(key) is not expected:
                return False
            self._records[key] = new
            if self.watch is not None:
                self.watch("swap", key, new, has_container, now_ds)
            must_wake = commit is not None and self._inbox.put(commit)
            self._digests.changed(key, expected)
            self.bytes += added
            if expected is None or life != was:
                self._file(key, expected, was, life)
            if facts is not None:
                if facts_before is not None and life == _DESTROYED:
                    self._limits.pop(key, None)
                    self._aliases.forget(SessionKey(key), facts_before)
                if facts.ids:
                    self._aliases.learn(SessionKey(key), facts_before, facts, learned_ds)
                if facts.evict_hlc is not None and life == _LIVE:
                    self.marked[key] = facts.evict_hlc
                if facts.max_inactive_s in (None, self.max_inactive_s):
                    self._limits.pop(key, None)
                else:
                    self._limits[key] = facts.max_inactive_s
        if must_wake:
            self._inbox.call_wake()
        return True

    def _file(self, key: str, expected: Record | None, was: int, life: int) -> None:
        """Keep the lists of keys: a session appeared or changed its life."""
        if life == _LIVE or (expected is not None and was == _LIVE):
            self.live_in[part_of(key)] += 1 if life == _LIVE else -1
        if expected is None:
            partition = partition_of(key)
            self._partitions[partition] = (*self._partitions.get(partition, ()), key)
            self.created += life == _LIVE
        elif was != _LIVE:
            del self._dead[was][key]
        if life != _LIVE:
            self._dead[life][key] = None
            self.marked.pop(key, None)
        else:
            live = self.live
            if live > self.live_peak:
                self.live_peak = live
