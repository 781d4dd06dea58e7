"""The numbers of one session manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from .record import Life

if TYPE_CHECKING:
    from .base import SessionManager

__all__ = ["Counts", "ManagerStatistics", "collect", "reset"]


@final
@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """One manager's numbers since its start; those of sessions are of this node's table.

    Attributes:
        active: Live sessions.
        max_active: The most live sessions that there were at once.
        session_counter: ``active`` and ``ended`` together: sessions that there were (Tomcat's).
        created: Sessions created here.
        appeared: Live sessions that came into the table, created here or elsewhere.
        expired: Expired sessions that are still kept.
        ended: Sessions whose end was told here, whatever it was (Tomcat: ``expiredSessions``). The
            sum over all nodes counts each session once.
        destroyed: Sessions invalidated here.
        evicted: Sessions chosen to go for others (``on_full``).
        rejected: Sessions that ``max_active_sessions`` refused.
        duplicates: Ids that were made again because a session had them.
        longest_life_s: Of the sessions whose end was told here, in seconds.
        average_life_s: Of the last hundred of them.
        create_rate: Sessions created here per minute, since the first of the last hundred.
        expire_rate: Sessions whose end was told here per minute, likewise.
        processing_time_ms: Time spent looking for sessions that may go.
        bytes: Content of all records.
        commits: Commits that changed something.
        commit_retries: Commits that had to be computed again because the record had changed.
        commit_conflicts: Writes that replaced another's write which their request had not seen.
        overwritten: Writes of this process that another member's write replaced which had not seen
            them; see ``SessionManager.on_conflict``.
        elements_dropped: Elements that fell out of merged sets and lists, which keep 1,024.
        commits_incomplete: Waited-for commits that some member lacked at the end of the wait.
        commits_served_unreplicated: Commits on too few members whose requests were answered.
        commits_refused: Commits on too few members whose requests got an error.
        attribute_failures: Attributes that could not be encoded.
        attributes_unreadable: Reads of attributes that could not be decoded here.
        attributes_too_large: Attributes beyond a limit of size, refused or warned of.
        attributes_held_back: Assignments that a filter kept in this process.
        listener_failures: Events whose listener raised.
        news_dropped: Other members' changes that listeners here were too slow for.
        partial_reads: Sessions asked for of which only later changes have arrived here so far.
        dropped: Dead sessions forgotten.
        sent: Messages to other members by type, see `tribes.manager.traffic`.
        received: Messages from other members by type.
        locks_waited: Requests that waited for another one of their session in this process.
        locks_timed_out: Requests refused because they waited too long for a session's lock.
    """

    active: int
    max_active: int
    session_counter: int
    created: int
    appeared: int
    expired: int
    ended: int
    destroyed: int
    evicted: int
    rejected: int
    duplicates: int
    longest_life_s: float
    average_life_s: float
    create_rate: float
    expire_rate: float
    processing_time_ms: float
    bytes: int
    commits: int
    commit_retries: int
    commit_conflicts: int
    overwritten: int
    elements_dropped: int
    commits_incomplete: int
    commits_served_unreplicated: int
    commits_refused: int
    attribute_failures: int
    attributes_unreadable: int
    attributes_too_large: int
    attributes_held_back: int
    listener_failures: int
    news_dropped: int
    partial_reads: int
    dropped: int
    locks_waited: int
    locks_timed_out: int
    sent: Mapping[str, int]
    received: Mapping[str, int]


@final
@dataclass(slots=True)
class Counts:
    """What requests count: plain numbers, of which a race of threads may cost one."""

    attribute_failures: int = 0
    attributes_unreadable: int = 0
    commit_conflicts: int = 0
    commit_retries: int = 0
    commits: int = 0
    created: int = 0
    destroyed: int = 0
    duplicates: int = 0
    elements_dropped: int = 0
    overwritten: int = 0
    partial_reads: int = 0
    rejected: int = 0


def collect(manager: SessionManager) -> ManagerStatistics:
    """Return a manager's numbers as they are now."""
    table, counts = manager.table, manager.counts
    return ManagerStatistics(
        active=table.live,
        max_active=table.live_peak,
        session_counter=table.live + manager.lives.ended,
        created=counts.created,
        appeared=table.created,
        expired=table.count(Life.EXPIRED),
        ended=manager.lives.ended,
        destroyed=counts.destroyed,
        evicted=manager.eviction.evicted,
        rejected=counts.rejected,
        duplicates=counts.duplicates,
        longest_life_s=manager.lives.longest_s,
        average_life_s=manager.lives.average_s,
        create_rate=manager.lives.create_rate,
        expire_rate=manager.lives.expire_rate,
        processing_time_ms=1000 * manager.idleness.spent_s,
        bytes=table.bytes,
        commits=counts.commits,
        commit_retries=counts.commit_retries,
        commit_conflicts=counts.commit_conflicts,
        overwritten=counts.overwritten,
        elements_dropped=counts.elements_dropped,
        commits_incomplete=manager.policy.incomplete,
        commits_served_unreplicated=manager.policy.served,
        commits_refused=manager.policy.refused,
        attribute_failures=counts.attribute_failures,
        attributes_unreadable=counts.attributes_unreadable,
        attributes_too_large=manager.sizes.exceeded,
        attributes_held_back=manager.watch.filtered,
        listener_failures=manager.watch.listeners.failures,
        news_dropped=manager.news.dropped,
        partial_reads=counts.partial_reads,
        dropped=manager.sweeper.dropped,
        locks_waited=manager.locks_waited,
        locks_timed_out=manager.locks_timed_out,
        sent=manager.traffic.sent,
        received=manager.traffic.received,
    )


def reset(manager: SessionManager) -> None:
    """Begin all counters of a manager again at zero; ``max_active`` at the present count."""
    manager.counts = Counts()
    manager.lives.reset()
    manager.traffic.reset()
    policy, watch = manager.policy, manager.watch
    policy.incomplete = policy.served = policy.refused = 0
    manager.eviction.evicted = watch.filtered = manager.news.dropped = 0
    watch.listeners.failures = manager.sweeper.dropped = manager.sizes.exceeded = 0
    manager.idleness.spent_s = 0.0
    manager.table.reset_counts()
