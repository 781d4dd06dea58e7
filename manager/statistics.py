"""The numbers of one session manager."""

from __future__ import annotations

from collections.abc import Mapping
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
        commits_incomplete: Waited-for commits that some member lacked at the end of the wait.
        commits_served_unreplicated: Commits on too few members whose requests were answered.
        commits_refused: Commits on too few members whose requests got an error.
        attribute_failures: Attributes that could not be encoded.
        attributes_too_large: Attributes beyond a limit of size, refused or warned of.
        attributes_held_back: Assignments that a filter kept in this process.
        listener_failures: Events whose listener raised.
        news_dropped: Other members' changes that listeners here were too slow for.
        partial_reads: Sessions asked for of which only later changes have arrived here so far.
        dropped: Dead sessions forgotten.
        sent: Messages to other members by type, see `tribes.manager.traffic`.
        received: Messages from other members by type.
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
    commits_incomplete: int
    commits_served_unreplicated: int
    commits_refused: int
    attribute_failures: int
    attributes_too_large: int
    attributes_held_back: int
    listener_failures: int
    news_dropped: int
    partial_reads: int
    dropped: int
    sent: Mapping[str, int]
    received: Mapping[str, int]
