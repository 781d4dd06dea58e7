"""Committing a session and waiting for the members, in a thread or in an event loop.

:meth:`SessionManager.commit` changes this process's memory and never waits. Here is what a request
wants: commit, wait as long as the send options promise and ``commit_timeout`` allows, and deal with
a commit that is on too few members (:mod:`tribes.manager.policy`). While the channel can't keep up
with the requests, they are held back before their commits, for ``queue_timeout`` at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from tribes.config.model import ManagerConfig, waits_for_members
from tribes.errors import LocalProtocolError
from tribes.manager.base import SessionManager
from tribes.manager.inbox import CommitResult
from tribes.manager.policy import OnUnreplicated, check_on_unreplicated
from tribes.manager.session import Session, home_of
from tribes.runtime.waiters import ThreadWaiter, async_waiter, running_loop

if TYPE_CHECKING:
    from tribes.manager.base import CommitOutcome
    from tribes.manager.inbox import Inbox
    from tribes.runtime.waiters import AsyncioWaiter, TrioWaiter

__all__ = ["Committer", "manager_of", "report_unstored", "report_void"]

log = structlog.get_logger("tribes")

_BACKSTOP_S = 1.0
"""Added to ``commit_timeout``: the channel's thread answers within that, or it is dead."""

_SILENT = {"*": "the channel of this process does not answer"}


class Committer:
    """Commits sessions of one node and waits for the members.

    Args:
        config: Send options and times.
        on_unreplicated: What to do about a commit on too few members, instead of the
            configuration's; see `OnUnreplicated`.

    Attributes:
        waits: Whether commits wait for members at all.

    Raises:
        ConfigError: ``on_unreplicated`` cannot be used.
    """

    def __init__(
        self, config: ManagerConfig, *, on_unreplicated: OnUnreplicated | None = None
    ) -> None:
        self.waits = waits_for_members(config)
        check_on_unreplicated(on_unreplicated, waits=self.waits)
        self._on_unreplicated = on_unreplicated
        self._queue_timeout_s = config.queue_timeout / 1000
        self._wait_s = config.commit_timeout / 1000 + _BACKSTOP_S

    def commit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """Commit and block this thread until the members have it, or the time is over.

        Args:
            session: The session.
            known_failures: Names of attributes that were reported as not encodable before; new
                ones are added.
            can_refuse: False when it is too late for an error.
            waits: False not to wait for members at all; None: as the options say.

        Raises:
            LocalProtocolError: It would block an event loop.
            SessionNotReplicatedError: See `OnUnreplicated`.
        """
        manager = manager_of(session)
        must_wait = self.waits if waits is None else waits
        if manager.inbox.is_full and waits is not False:
            self._hold_back(manager.inbox)
        waiter = ThreadWaiter("await node.acommit(session)") if must_wait else None
        outcome = manager.commit(session, waiter)
        report_unstored(outcome.failed, known_failures)
        report_void(outcome)
        if waiter is None or outcome.version is None:
            return _not_waited(outcome)
        result = waiter.wait(self._wait_s)
        return self._judge(manager, outcome.version, result, can_refuse=can_refuse)

    async def acommit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """The same in a task of asyncio or trio.

        Cancelling is safe: the commit stands and goes out, its result is dropped.
        """
        manager = manager_of(session)
        must_wait = self.waits if waits is None else waits
        waiter: AsyncioWaiter | TrioWaiter | None = async_waiter() if must_wait else None
        try:
            if manager.inbox.is_full and waits is not False:
                await self._ahold_back(manager.inbox)
        finally:
            # Also when cancelled: the change shall stand.
            outcome = manager.commit(session, waiter)
        report_unstored(outcome.failed, known_failures)
        report_void(outcome)
        if waiter is None or outcome.version is None:
            return _not_waited(outcome)
        result = await waiter.wait(self._wait_s)
        return self._judge(manager, outcome.version, result, can_refuse=can_refuse)

    def _hold_back(self, inbox: Inbox) -> None:
        """Block this thread until the channel has caught up; in an event loop go on at once."""
        if running_loop() is None:
            waiter = ThreadWaiter()
            if inbox.wait_for_room(waiter):
                waiter.wait(self._queue_timeout_s)

    async def _ahold_back(self, inbox: Inbox) -> None:
        """The same in a task."""
        waiter = async_waiter()
        if inbox.wait_for_room(waiter):
            await waiter.wait(self._queue_timeout_s)

    def _judge(
        self,
        manager: SessionManager,
        version: int,
        result: CommitResult | None,
        *,
        can_refuse: bool,
    ) -> CommitResult:
        if result is None:
            result = CommitResult(version, (), _SILENT)
        manager.policy.judge(result, self._on_unreplicated, can_refuse=can_refuse)
        return result


def report_unstored(failed: Mapping[str, Exception], known: set[str] | None) -> None:
    """Log the attributes that could not be encoded, without the known ones, and add them there."""
    for name, error in failed.items():
        if known is None or name not in known:
            log.error("session attribute not stored", attribute=name, error=str(error))
    if known is not None:
        known.update(failed)


def report_void(outcome: CommitOutcome) -> None:
    """Log the attributes whose changes are lost because their session has ended meanwhile."""
    if outcome.void:
        log.warning("session had ended: changes dropped", attributes=list(outcome.void))


def manager_of(session: Session) -> SessionManager:
    """The manager that a session is from.

    Raises:
        LocalProtocolError: It is from none.
    """
    manager = home_of(session)
    if not isinstance(manager, SessionManager):
        raise LocalProtocolError("the session is from no manager of this node")
    return manager


def _not_waited(outcome: CommitOutcome) -> CommitResult:
    return CommitResult(outcome.version or 0, (), {})
