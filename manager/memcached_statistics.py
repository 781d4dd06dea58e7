"""The numbers of a Memcached manager (msm-sessions §11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tribes.stores.ring import NodeHealth

    from .memcached import MemcachedManager

__all__ = ["MemcachedCounters", "MemcachedStatistics"]


@final
@dataclass(slots=True)
class MemcachedCounters:
    """What one manager counts; see `MemcachedStatistics`."""

    found: int = 0
    not_found: int = 0
    ignored: int = 0
    unchanged: int = 0
    loads: int = 0
    load_failures: int = 0
    saves: int = 0
    save_failures: int = 0
    touch_failures: int = 0
    takeovers: int = 0
    relocations: int = 0
    stale: int = 0
    ended_elsewhere: int = 0
    oversize: int = 0


@final
@dataclass(frozen=True, slots=True)
class MemcachedStatistics:
    """One manager's numbers since its start.

    Attributes:
        found: Requests whose session was there.
        not_found: Requests with an id that means no session.
        ignored: Requests that the pattern left without one.
        unchanged: Commits of requests that changed nothing.
        loads: Look-ups on nodes.
        load_failures: Of these, those that no node answered.
        saves: Sessions written.
        save_failures: Sessions that no node took.
        touch_failures: Lives that could not be extended.
        takeovers: Sessions that came from a node into this process's memory.
        relocations: Sessions that got another home because theirs was down.
        node_failovers: Sessions found on another node than the one that their id names.
        repaired: Sessions of which a missing copy was written again.
        stale: Sessions in memory of which a node had a newer copy.
        ended_elsewhere: Sessions that another request had ended meanwhile.
        conflicts: Saves that found another version, and merged.
        refused: Stored values that cannot be used.
        oversize: Sessions that were too large.
        locks_acquired: Locks taken.
        locks_waited: Of these, those that somebody else had at first.
        lock_wait_s: Time that requests waited for locks that they got, in all.
        lock_timeouts: Locks that were not to be had in time.
        lock_failures: Locks whose node did not answer.
        locks_renewed: How often a request outlived a third of its lock's time.
        locks_lost: Locks that were not there any more when they were to be released or renewed.
        read_only: Requests that needed no lock because they are known to change nothing, or that
            matched the pattern.
        nodes: What is known of every node.
    """

    found: int
    not_found: int
    ignored: int
    unchanged: int
    loads: int
    load_failures: int
    saves: int
    save_failures: int
    touch_failures: int
    takeovers: int
    relocations: int
    node_failovers: int
    repaired: int
    stale: int
    ended_elsewhere: int
    conflicts: int
    refused: int
    oversize: int
    locks_acquired: int
    locks_waited: int
    lock_wait_s: float
    lock_timeouts: int
    lock_failures: int
    locks_renewed: int
    locks_lost: int
    read_only: int
    nodes: tuple[NodeHealth, ...]

    @classmethod
    def of(cls, manager: MemcachedManager) -> MemcachedStatistics:
        """Read them."""
        counters, copies, locks = manager.counters, manager.copies, manager.locks
        own = {name: getattr(counters, name) for name in MemcachedCounters.__slots__}
        return cls(
            **own,
            node_failovers=copies.node_failovers,
            repaired=copies.repaired,
            conflicts=copies.conflicts,
            refused=copies.refused,
            locks_acquired=locks.acquired,
            locks_waited=locks.waited,
            lock_wait_s=locks.wait_total_s,
            lock_timeouts=locks.timeouts,
            lock_failures=locks.failures,
            locks_renewed=locks.renewed,
            locks_lost=locks.lost,
            read_only=locks.matched,
            nodes=copies.ring.health(),
        )
