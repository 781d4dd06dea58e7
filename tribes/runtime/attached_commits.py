"""Committing a session by the node that this process is attached to, and waiting for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import structlog

from tribes.config.model import waits_for_members
from tribes.errors import SessionNotReplicatedError, SessionUnreachableError
from tribes.manager.changes import attributes_of
from tribes.manager.inbox import CommitResult
from tribes.manager.policy import check_on_unreplicated
from tribes.runtime.commits import report_unstored, report_void
from tribes.runtime.waiters import ThreadWaiter, async_waiter

if TYPE_CHECKING:
    from tribes.config.managers import ManagerConfig
    from tribes.manager.attached import AttachedManager
    from tribes.manager.attached_work import Work
    from tribes.manager.inbox import Waiter
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session

__all__ = ["AttachedCommitter"]

log = structlog.get_logger("tribes")

BACKSTOP_S: Final = 1.0
"""Added to ``commit_timeout`` for the node's answer; as long again for the thread that reads it."""

_NOTHING: Final = CommitResult(0, (), {})


@final
class AttachedCommitter:
    """Commits sessions by the node. It is a `SessionCommitter`.

    Args:
        manager: Whose sessions.
        config: Send options and times.
        on_unreplicated: What to do about a commit on too few members, instead of the
            configuration's.

    Raises:
        ConfigError: ``on_unreplicated`` cannot be used.
    """

    def __init__(
        self,
        manager: AttachedManager,
        config: ManagerConfig,
        on_unreplicated: OnUnreplicated | None = None,
    ) -> None:
        self._manager = manager
        self._waits = waits_for_members(config)
        check_on_unreplicated(on_unreplicated, waits=self._waits)
        self._on_unreplicated = on_unreplicated
        self._timeout_s = config.commit_timeout / 1000 + BACKSTOP_S

    def commit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """See `Committer.commit`. A commit that the node does not take is refused as one that is on
        too few members, whatever ``on_unreplicated`` says: nobody has it.
        """
        result = _NOTHING
        # A second round where it is unknown what became of the last commit.
        for _ in range(2):
            work = self._manager.prepare(session)
            if work is None:
                return result
            was_unknown = work.is_unknown
            if work.version:
                waiter = ThreadWaiter("await node.acommit(session)")
                self._send(work, waiter, waits)
                waiter.wait(self._timeout_s + BACKSTOP_S)
            result = self._finish(session, work, known_failures, can_refuse=can_refuse)
            if not was_unknown or work.is_unknown:
                break
        return result

    async def acommit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: the commit goes on."""
        result = _NOTHING
        for _ in range(2):
            work = self._manager.prepare(session)
            if work is None:
                return result
            was_unknown = work.is_unknown
            if work.version:
                waiter = async_waiter()
                self._send(work, waiter, waits)
                await waiter.wait(self._timeout_s + BACKSTOP_S)
            result = self._finish(session, work, known_failures, can_refuse=can_refuse)
            if not was_unknown or work.is_unknown:
                break
        return result

    def _send(self, work: Work, waiter: Waiter, waits: bool | None) -> None:
        must_wait = self._waits if waits is None else waits
        self._manager.send(work, waiter, timeout_s=self._timeout_s, waits=must_wait)

    def _finish(
        self, session: Session, work: Work, known: set[str] | None, *, can_refuse: bool
    ) -> CommitResult:
        try:
            outcome = self._manager.finish(session, work)
        except SessionUnreachableError as why:
            result = CommitResult(work.version, (), {"node": str(why)})
            if can_refuse:
                raise SessionNotReplicatedError(result) from why
            log.error(
                "session changes not stored",
                attributes=list(attributes_of(work.changes)),
                is_end=work.is_end,
                is_unknown=work.is_unknown,
                why=str(why),
            )
            return result
        report_unstored(outcome.failed, known)
        report_void(outcome)
        if outcome.version is None:
            return _NOTHING
        result = CommitResult(outcome.version, work.acked, work.missing)
        if work.waits:
            self._manager.policy.judge(result, self._on_unreplicated, can_refuse=can_refuse)
        return result
