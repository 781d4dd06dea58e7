"""Locks of sessions that the node has, for the workers that are attached to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from tribes.errors import (
    SessionInUseError,
    SessionLockTimeoutError,
    SessionUnreachableError,
)
from tribes.manager.attach_wire import BUSY, LOCK, LOCKED
from tribes.manager.inbox import CommitResult, Wakes
from tribes.runtime.session_locks import SessionLock
from tribes.runtime.waiters import ThreadWaiter, async_waiter

if TYPE_CHECKING:
    from tribes.manager.attach_calls import Ended
    from tribes.manager.inbox import Waiter
    from tribes.runtime.attach_client import AttachClient
    from tribes.runtime.session_locks import LockMode

__all__ = ["AttachedLocks"]

BACKSTOP_S: Final = 1.0
"""Added to ``lock_timeout`` for the node's answer."""

_NOTHING: Final = CommitResult(0, (), {})


@final
class AttachedLocks:
    """The node's locks: one request of a session at a time, of all workers of this host, or with
    ``cluster`` in the whole group. It is a `LocksHandle`.

    A worker that ends, or loses its connection, has given back what it held.
    """

    def __init__(
        self, client: AttachClient, context: str, mode: LockMode, timeout_s: float
    ) -> None:
        self._client = client
        self._context = context
        self._mode = mode
        self._timeout_s = timeout_s

    def acquire(self, key: str) -> SessionLock:
        """See `SessionLocks.acquire`.

        Raises:
            SessionLockTimeoutError: It took too long.
            SessionUnreachableError: The node is gone.
        """
        waiter = ThreadWaiter("await node.acommit(session)")
        turn = _Turn(self._client, waiter)
        turn.begin(self._context, key, self._mode, self._timeout_s)
        waiter.wait(self._timeout_s + BACKSTOP_S)
        return turn.lock()

    async def aacquire(self, key: str) -> SessionLock:
        """The same in a task of asyncio or trio. Cancelling is safe: the next one gets its turn."""
        waiter = async_waiter()
        turn = _Turn(self._client, waiter)
        turn.begin(self._context, key, self._mode, self._timeout_s)
        try:
            await waiter.wait(self._timeout_s + BACKSTOP_S)
        except BaseException:
            turn.release()
            raise
        return turn.lock()


class _Turn:
    """One request for a lock."""

    def __init__(self, client: AttachClient, waiter: Waiter) -> None:
        self._client = client
        self._waiter = waiter
        self._number = client.number()
        self._ended: Ended | None = None

    def begin(self, context: str, key: str, mode: str, timeout_s: float) -> None:
        fields = (context, key, mode, int(timeout_s * 1000))
        self._client.call(
            LOCK, fields, self._done, timeout_s=timeout_s + BACKSTOP_S, number=self._number
        )

    def _done(self, ended: Ended) -> None:
        self._ended = ended
        wakes = Wakes()
        wakes.tell(self._waiter, _NOTHING)
        wakes()

    def lock(self) -> SessionLock:
        """What was got."""
        answer = None if self._ended is None else self._ended.answer
        if answer is not None and answer.kind == LOCKED:
            return SessionLock(self.release)
        self.release()
        if answer is not None and answer.kind == BUSY:
            is_many, text = answer.fields
            raise (SessionInUseError if is_many else SessionLockTimeoutError)(text)
        why = "no answer in time" if self._ended is None else self._ended.why
        raise SessionUnreachableError(f"no lock of the session: {why}")

    def release(self) -> None:
        """Give it back, or wait for it no longer. A new connection has no locks of an old one."""
        self._client.give_back(self._number)
