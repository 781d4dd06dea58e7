"""What an adapter needs of a node, whichever it is: a member in this process, or one beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.inbox import CommitResult
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.local import LocalSessions
    from tribes.runtime.session_locks import LockMode, SessionLock
    from tribes.runtime.sso import SingleSignOn

__all__ = ["LocksHandle", "NodeHandle", "SessionCommitter", "SessionsHandle"]


class SessionCommitter(Protocol):
    """Commits sessions of one context, and waits as its manager's settings say."""

    def commit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """Commit; block this thread. See `Committer.commit`."""

    async def acommit(
        self,
        session: Session,
        *,
        known_failures: set[str] | None = None,
        can_refuse: bool = True,
        waits: bool | None = None,
    ) -> CommitResult:
        """The same in a task of asyncio or trio."""


class LocksHandle(Protocol):
    """Lets one request of a session run at a time. See `SessionLocks`."""

    def acquire(self, key: str) -> SessionLock: ...

    async def aacquire(self, key: str) -> SessionLock: ...


class SessionsHandle(Protocol):
    """The sessions of one node, for the requests of this process."""

    @property
    def local(self) -> Mapping[str, LocalSessions]:
        """Those of the contexts that are in no group."""

    @property
    def sign_on(self) -> SingleSignOn | None:
        """The logins that all contexts share."""

    def committer(
        self, context: str, on_unreplicated: OnUnreplicated | None = None
    ) -> SessionCommitter: ...

    def locks(
        self,
        context: str,
        mode: LockMode,
        timeout_s: float,
        channel: Callable[[], GroupChannel],
    ) -> LocksHandle:
        """The locks of a context; ``channel`` is where the group is asked, if this node asks it."""


class NodeHandle(Protocol):
    """A node as a server's start, stop and requests need it."""

    config: NodeConfig

    @property
    def sessions(self) -> SessionsHandle: ...

    @property
    def is_running(self) -> bool:
        """Whether it was started in this process and not stopped."""

    @property
    def was_started(self) -> bool:
        """Whether it was ever started in this process."""

    @property
    def is_ready(self) -> bool:
        """Whether a balancer should send requests here."""

    def manager(self, context: str) -> SessionManager: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait_joined(self, timeout: float | None = None) -> bool: ...
    async def await_joined(self, timeout: float | None = None) -> bool: ...
