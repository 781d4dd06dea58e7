"""Requests of one session that take turns (configuration: ``manager.lock``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tribes.web.freshness import abring, bring

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session
    from tribes.runtime.handle import LocksHandle
    from tribes.web.request_session import RequestSession

__all__ = ["await_turn", "look_again", "wait_turn"]


def wait_turn(held: RequestSession, locks: LocksHandle, manager: SessionManager) -> None:
    """Wait until no other request of the session runs; ``held.release_lock()`` ends this turn.

    Raises:
        SessionLockTimeoutError: Another request of the session took too long.
    """
    if held.waiting is None and held.session is not None:
        found = held.session
        held.lock = locks.acquire(found.key)
        with _or_released(held):
            # What lies on others was read before the lock was had.
            bring(manager, (found.id,), None)
            look_again(held, found, manager)


async def await_turn(held: RequestSession, locks: LocksHandle, manager: SessionManager) -> None:
    """The same in a task of asyncio or trio."""
    if held.waiting is None and held.session is not None:
        found = held.session
        held.lock = await locks.aacquire(found.key)
        with _or_released(held):
            await abring(manager, (found.id,), None)
            look_again(held, found, manager)


@contextmanager
def _or_released(held: RequestSession) -> Iterator[None]:
    """Give the lock back if the request ends here."""
    try:
        yield
    except BaseException:
        held.release_lock()
        raise


def look_again(held: RequestSession, found: Session, manager: SessionManager) -> None:
    """Take what the request before this one has left: the session, changed, or none."""
    held.session = manager.find(found.id)
    if held.session is None:
        held.release_lock()
