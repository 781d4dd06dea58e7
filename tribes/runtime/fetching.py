"""Bringing a session from the members that hold it, for a request that waits in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING

from tribes.errors import ChannelClosedError, SessionUnreachableError
from tribes.runtime.waiters import refuse_in_event_loop

if TYPE_CHECKING:
    from tribes.manager.backup_core import BackupReplicator
    from tribes.runtime.shell import Shell

__all__ = ["SessionFetcher"]

_BACKSTOP_S = 1.0
"""Added to ``rpc_timeout``: the channel's thread answers within that, or it is dead."""


class SessionFetcher:
    """What `BackupManager.fetch` is on a running node.

    Args:
        core: Of the manager's context.
        shell: Runs the core.
        wake: Makes the shell's thread call a function soon, from any thread.
        timeout_s: How long one fetch may take.
    """

    def __init__(
        self,
        core: BackupReplicator,
        shell: Shell,
        wake: Callable[[Callable[[], None]], None],
        *,
        timeout_s: float,
    ) -> None:
        self._core = core
        self._shell = shell
        self._wake = wake
        self._timeout_s = timeout_s

    def __call__(self, session_id: str) -> None:
        """Block until the session is here, or is known not to exist.

        Raises:
            SessionUnreachableError: Nobody who holds it answers.
            LocalProtocolError: It would block an event loop.
        """
        refuse_in_event_loop("await in a thread, as the middleware does: manager.find(session_id)")
        future: Future[Exception | None] = Future()
        shell = self._shell

        def begin() -> None:
            self._core.fetch(session_id, future.set_result, shell.now())
            shell.pump()

        self._wake(begin)
        try:
            error = future.result(self._timeout_s + _BACKSTOP_S)
        except FutureTimeoutError:
            error = SessionUnreachableError("the channel of this process does not answer")
        # Without a channel what is in this process's memory is still served.
        if error is not None and not isinstance(error, ChannelClosedError):
            raise error
