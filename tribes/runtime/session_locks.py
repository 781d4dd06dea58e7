"""One request at a time per session, where an application wants that (``manager.lock``).

``local``: in this process, in threads and in the tasks of any event loop, in the order in which
they asked.  ``cluster``: in the whole group, see :mod:`tribes.manager.locks`; requests of one
process queue here first, so that the group is asked once for however many wait.

A lock is given back by whoever holds it, in any thread, and by itself if its request is forgotten.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, final
from weakref import WeakKeyDictionary

from tribes.errors import ChannelClosedError, SessionInUseError, SessionLockTimeoutError
from tribes.manager.inbox import CommitResult
from tribes.runtime.crossing import call_in_run
from tribes.runtime.waiters import ThreadWaiter, async_waiter

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.waiters import AsyncioWaiter, TrioWaiter

    Waiter = ThreadWaiter | AsyncioWaiter | TrioWaiter

__all__ = ["LockMode", "SessionLock", "SessionLocks"]

LockMode = Literal["none", "local", "cluster"]

WAITING_MAX: Final = 1000
"""Requests that may wait for one session; further ones are refused at once."""

_GRANTED: Final = CommitResult(0, (), {})


class _Turn:
    """One request's place in a queue; the first one has the lock."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter | None) -> None:
        self.waiter = waiter


@final
class SessionLock:
    """A lock that a request holds; given back once, by `release` or when nobody has it any more."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    __del__ = release


class _Queues:
    """Who waits for which session in this process, shared by all that serve one manager."""

    def __init__(self) -> None:
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queues: dict[str, deque[_Turn]] = {}
        self._given_back: deque[tuple[str, _Turn]] = deque()
        """Turns that are over and are to be taken out of their queues."""

    def __len__(self) -> int:
        return len(self._queues)

    def enter(self, key: str, make: Callable[[], Waiter]) -> _Turn | None:
        """Take a place; with a waiter unless it is the first. None: too many wait."""
        if self._pid != os.getpid():
            self._start_over()
        try:
            with self._lock:
                queue = self._queues.setdefault(key, deque())
                if len(queue) > WAITING_MAX:
                    return None
                turn = _Turn(make() if queue else None)
                queue.append(turn)
                return turn
        finally:
            self._take_back()

    def give_up(self, key: str, turn: _Turn) -> bool:
        """Give up a place; False, and nothing is done, if it is the first: then it is the lock."""
        try:
            with self._lock:
                queue = self._queues.get(key)
                if queue is None or turn not in queue:
                    return True
                if queue[0] is turn:
                    return False
                queue.remove(turn)
                return True
        finally:
            self._take_back()

    def give_back(self, key: str, turn: _Turn) -> None:
        """Give back the lock, or give up a place.

        Never waits, and may be called in the middle of any other method here: a lock that nobody
        has any more is given back by the garbage collector, which runs where it likes.
        """
        self._given_back.append((key, turn))
        self._take_back()

    def _take_back(self) -> None:
        # Who finds the lock taken leaves it to the one who has it: everybody ends with this.
        while self._given_back and self._lock.acquire(blocking=False):
            try:
                waiter = self._next_after(*self._given_back.popleft())
            except IndexError:
                waiter = None  # another thread was quicker
            finally:
                self._lock.release()
            if waiter is not None:
                _resolve(waiter)

    def _next_after(self, key: str, turn: _Turn) -> Waiter | None:
        """Take a turn out; returns who has the lock now, if that is somebody else."""
        queue = self._queues.get(key)
        if queue is None or turn not in queue:
            return None
        if queue[0] is not turn:
            queue.remove(turn)
            return None
        queue.popleft()
        if queue:
            return queue[0].waiter
        del self._queues[key]
        return None


_queues: WeakKeyDictionary[SessionManager, _Queues] = WeakKeyDictionary()
_queues_lock = threading.Lock()


def _resolve(waiter: Waiter) -> None:
    wake = waiter.resolve(_GRANTED)
    if wake is not None:
        wake()


@final
class SessionLocks:
    """The locks of one application's sessions.

    Args:
        manager: Whose sessions.
        mode: ``local`` or ``cluster``.
        timeout_s: Seconds that a request waits at most.
        may_wait: Whether a request waits at all for another one of this process; else it is
            refused at once.
        channel: Gives the running channel, for ``cluster``; raises ChannelClosedError where none
            runs: then the lock is one of this process.
    """

    def __init__(
        self,
        manager: SessionManager,
        mode: LockMode,
        timeout_s: float,
        channel: Callable[[], GroupChannel] | None = None,
        *,
        may_wait: bool = True,
    ) -> None:
        self._manager = manager
        self._may_wait = may_wait
        self._timeout_s = timeout_s
        self._channel = channel if mode == "cluster" else None
        with _queues_lock:
            self._queues = _queues.setdefault(manager, _Queues())

    @property
    def keys(self) -> int:
        """How many sessions are locked in this process."""
        return len(self._queues)

    def acquire(self, key: str) -> SessionLock:
        """Block this thread until the session's lock is ours.

        Raises:
            SessionLockTimeoutError: It took too long, or too many wait.
            SessionInUseError: Another request has it, and nobody may wait.
            LocalProtocolError: It would block an event loop.
        """
        end = time.monotonic() + self._timeout_s
        turn = self._enter(key, ThreadWaiter)
        if isinstance(turn.waiter, ThreadWaiter):
            self._check(key, turn, turn.waiter.wait(self._timeout_s))
        lock = SessionLock(lambda: self._queues.give_back(key, turn))
        ask = self._ask(key, ThreadWaiter)
        if ask is None:
            return lock
        lock = SessionLock(lambda lock=lock: _end(ask, lock))  # type: ignore[misc]
        if isinstance(ask.waiter, ThreadWaiter):
            self._check_group(lock, ask.waiter.wait(max(0.0, end - time.monotonic())))
        return lock

    async def aacquire(self, key: str) -> SessionLock:
        """The same in a task of asyncio or trio. Cancelling is safe: the next one gets its turn."""
        end = time.monotonic() + self._timeout_s
        turn = self._enter(key, async_waiter)
        lock = SessionLock(lambda: self._queues.give_back(key, turn))
        try:
            if turn.waiter is not None and not isinstance(turn.waiter, ThreadWaiter):
                self._check(key, turn, await turn.waiter.wait(self._timeout_s))
            ask = self._ask(key, async_waiter)
            if ask is not None and not isinstance(ask.waiter, ThreadWaiter):
                lock = SessionLock(lambda lock=lock: _end(ask, lock))  # type: ignore[misc]
                left = max(0.0, end - time.monotonic())
                self._check_group(lock, await ask.waiter.wait(left))
        except BaseException:
            lock.release()
            raise
        return lock

    def _enter(self, key: str, make: Callable[[], Waiter]) -> _Turn:
        turn = self._queues.enter(key, make)
        if turn is None:
            raise self._too_late(f"{WAITING_MAX} requests wait for this session already")
        if turn.waiter is not None and not self._may_wait:
            self._manager.locks_timed_out += 1
            # Given up, or given to it in this very moment: then it passes on.
            self._queues.give_back(key, turn)
            raise SessionInUseError(
                "another request of this session runs here, and manager.block_on_acquire is false"
            )
        if turn.waiter is not None:
            self._manager.locks_waited += 1
        return turn

    def _check(self, key: str, turn: _Turn, result: CommitResult | None) -> None:
        if result is None and self._queues.give_up(key, turn):
            raise self._too_late("another request of this session runs here")

    def _check_group(self, lock: SessionLock, result: CommitResult | None) -> None:
        if result is None:
            lock.release()
            raise self._too_late("another member serves a request of this session")

    def _too_late(self, why: str) -> SessionLockTimeoutError:
        self._manager.locks_timed_out += 1
        return SessionLockTimeoutError(
            f"no lock of the session within {self._timeout_s:g} s: {why} (manager.lock_timeout)"
        )

    def _ask(self, key: str, make: Callable[[], Any]) -> _Ask | None:
        """Ask the group, if it is to be asked and there is one."""
        if self._channel is None:
            return None
        try:
            ask = _Ask(self._channel(), self._manager.context, key, make())
            ask.begin()
        except ChannelClosedError:
            return None
        return ask


class _Ask:
    """One question to the group, from outside the channel's thread."""

    def __init__(self, channel: GroupChannel, context: str, key: str, waiter: Waiter) -> None:
        self.waiter = waiter
        self._channel = channel
        self._context = context
        self._key = key
        self._number: int | None = None

    def begin(self) -> None:
        """Ask.

        Raises:
            ChannelClosedError: The channel does not run.
        """
        call_in_run(self._channel.token, self._acquire)

    def end(self) -> None:
        """Give the lock back, or wait for it no longer."""
        try:
            # What is called in a run is called in this order: it has its number by then.
            call_in_run(self._channel.token, self._release)
        except ChannelClosedError:
            return

    def _acquire(self) -> None:
        shell = self._channel.shell
        self._number = shell.core.acquire_lock(
            self._context, self._key, lambda: _resolve(self.waiter), shell.now()
        )
        shell.pump()

    def _release(self) -> None:
        shell = self._channel.shell
        if self._number is not None:
            shell.core.release_lock(self._context, self._number, shell.now())
            shell.pump()


def _end(ask: _Ask, lock: SessionLock) -> None:
    # The group first: the next one here asks it anew.
    ask.end()
    lock.release()
