"""The numbers of one session manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = ["ManagerStatistics"]


@final
@dataclass(frozen=True, slots=True)
class ManagerStatistics:
    """One manager's numbers since its start; those of sessions are of this node's table.

    Attributes:
        active: Live sessions.
        max_active: The most live sessions that there were at once.
        created: Sessions created here.
        appeared: Live sessions that came into the table, created here or elsewhere.
        expired: Expired sessions that are still kept.
        destroyed: Sessions invalidated here.
        rejected: Sessions that ``max_active_sessions`` refused.
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
        listener_failures: Events whose listener raised.
        partial_reads: Sessions asked for of which only later changes have arrived here so far.
        dropped: Dead sessions forgotten.
        locks_waited: Requests that waited for another one of their session in this process.
        locks_timed_out: Requests refused because they waited too long for a session's lock.
    """

    active: int
    max_active: int
    created: int
    appeared: int
    expired: int
    destroyed: int
    rejected: int
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
    listener_failures: int
    partial_reads: int
    dropped: int
    locks_waited: int
    locks_timed_out: int
