"""What a handler finds in ``scope["session"]``: the session of its request, made when first needed.

Reading from a session that does not exist finds it empty and makes none, so a page that only looks
sets no cookie. Writing, or asking for the id, makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from tribes.errors import SessionError
from tribes.manager.session import Session

if TYPE_CHECKING:
    from tribes.ids import SessionId
    from tribes.manager.base import SessionManager
    from tribes.runtime.session_locks import SessionLock
    from tribes.runtime.sso import Login
    from tribes.web.urls import RequestUrl

__all__ = ["RequestCommitter", "RequestSession"]


class RequestCommitter(Protocol):
    """What `SessionBinding` has for the commits that an application asks for."""

    def commit(self, held: RequestSession) -> None: ...

    async def acommit(self, held: RequestSession) -> None: ...

    def bring_again(self, session_id: str) -> None: ...

    async def abring_again(self, session_id: str) -> None: ...


class RequestSession(MutableMapping[str, Any]):
    """A session that may not exist yet. Everything that :class:`Session` has is here too."""

    __slots__ = (
        "_manager",
        "_session",
        "committer",
        "failed",
        "is_filtered",
        "is_included",
        "is_sealed",
        "lock",
        "login",
        "offered",
        "on_made",
        "timed_until",
        "url",
        "waiting",
        "written",
    )

    def __init__(self, manager: SessionManager, session: Session | None, offered: str = "") -> None:
        self._manager = manager
        self._session = session
        self.waiting: Callable[[], tuple[Session | None, str]] | None = None
        """Finds the session when it is first needed; None: that is done."""
        self.offered = offered
        """What the client sent that names the session, with the route; empty: nothing did."""
        self.url: RequestUrl | None = None
        """Where ids may stand in URLs: the request's; its ``offered`` only if that was used."""
        self.committer: RequestCommitter | None = None
        """Commits before the adapter does, when the application asks for it."""
        self.timed_until = 0.0
        """Up to when the valve's statistics have its time; 0: they do not count it."""
        self.is_filtered = False
        """Nobody waits for what it changes (Tomcat: ReplicationValve's ``filter``)."""
        self.is_included = False
        """The request is made by another application's, which has a session of its own."""
        self.on_made: Callable[[Session], None] | None = None
        """Called with the session that this request begins, if it does."""
        self.login: Login | None = None
        """What single sign-on knows of the client; None: there is none."""
        self.lock: SessionLock | None = None
        """The session's lock, where requests wait for each other."""
        self.failed: set[str] = set()
        """Attributes that could not be stored, as far as they were reported."""
        self.written: int | None = None
        """hlc of this request's write, if not all members have applied it."""
        self.is_sealed = False
        """Set once the response head has left: no cookie can tell of a session made later."""

    @property
    def session(self) -> Session | None:
        """The session, if there is one."""
        if self.waiting is not None:
            find, self.waiting = self.waiting, None
            self._session, self.offered = find()
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        self.waiting = None
        self._session = session

    def release_lock(self) -> None:
        """Let the next request of this session run, where requests wait for each other.

        For an answer that takes long, such as a stream of events, once its session is read: what
        is changed afterwards is merged, as without a lock.
        """
        if self.lock is not None:
            self.lock.release()

    def commit(self) -> None:
        """Commit now what was changed until here; block until the members have it.

        The adapter commits before the response head leaves and at the end of the request; between
        them, in a WebSocket or a long stream, the application says when. It then also sees what
        other requests changed meanwhile; values that it has taken out of the session before are to
        be taken again. If the session was ended, ``is_valid`` is false and every use raises.

        Raises:
            SessionNotReplicatedError: Too few members have it, and that is to be an error.
            LocalProtocolError: It would block an event loop: use `acommit`.
        """
        if self.committer is not None:
            self.committer.commit(self)
            if (session := self._to_renew()) is not None:
                self.committer.bring_again(session.id)
                self._renew(session)

    async def acommit(self) -> None:
        """The same in a task of asyncio or trio."""
        if self.committer is not None:
            await self.committer.acommit(self)
            if (session := self._to_renew()) is not None:
                await self.committer.abring_again(session.id)
                self._renew(session)

    def _to_renew(self) -> Session | None:
        session = self._session
        # A session without attributes is false; it is to be renewed all the same.
        if not self.is_sealed or session is None or not session.is_valid:
            return None
        return None if self._manager.is_away(session.id) else session

    def _renew(self, session: Session) -> None:
        """Go on from the newest content, where that can be had without a store."""
        found = self._manager.find(session.id)
        if found is None:
            session.close()
        else:
            self._session = found

    def _made(self) -> Session:
        if self.session is None:
            if self.is_sealed:
                raise SessionError(
                    "a session cannot begin after the response head was sent: store something in "
                    "it, or read its id, before the response starts"
                )
            self.session = self._manager.create()
            if self.login is not None:
                self.login.made(self.session)
            if self.on_made is not None:
                self.on_made(self.session)
        return self.session

    # Mapping.

    def __getitem__(self, name: str) -> Any:
        if self.session is None:
            raise KeyError(name)
        return self.session[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._made()[name] = value

    def __delitem__(self, name: str) -> None:
        if self.session is None:
            raise KeyError(name)
        del self.session[name]

    def __iter__(self) -> Iterator[str]:
        return iter(()) if self.session is None else iter(self.session)

    def __len__(self) -> int:
        return 0 if self.session is None else len(self.session)

    def __contains__(self, name: object) -> bool:
        return self.session is not None and name in self.session

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` where there is none or it cannot be read."""
        return default if self.session is None else self.session.get(name, default)

    def clear(self) -> None:
        """Remove every attribute; makes no session."""
        if self.session is not None:
            self.session.clear()

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self) | dict(other)

    def __ior__(self, other: Mapping[str, Any]) -> RequestSession:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """The present content."""
        return dict(self)

    # Session.

    @property
    def max_inactive(self) -> int:
        """Seconds without a request after which the session expires; 0 or less: never."""
        return self._made().max_inactive

    @max_inactive.setter
    def max_inactive(self, seconds: int) -> None:
        self._made().max_inactive = seconds

    @property
    def principal(self) -> Any:
        """Who is logged in: any value that an attribute may have, or None."""
        if self.session is None:
            return None if self.login is None else self.login.principal
        return self.session.principal

    @principal.setter
    def principal(self, value: Any) -> None:
        self._made().principal = value

    @property
    def auth_type(self) -> str | None:
        """How the principal was authenticated, or None."""
        return None if self.session is None else self.session.auth_type

    @auth_type.setter
    def auth_type(self, value: str | None) -> None:
        self._made().auth_type = value

    def __getattr__(self, name: str) -> Any:
        # Whatever else a session can do, on the session itself. A template engine asks for any
        # name as an attribute first; that must not make a session for everybody who looks.
        if name.startswith("_") or not hasattr(Session, name):
            raise AttributeError(f"a session has no attribute {name!r}")
        return getattr(self._made(), name)

    @property
    def exists(self) -> bool:
        """Whether there is a session, made by this request or before."""
        return self.session is not None

    @property
    def needs_cookie(self) -> bool:
        """Whether the client must be told a new id, or nobody can use the session.

        When a handler raises before the response head, its cookie never leaves: a session that it
        began, or a change of the id that it made, is then not stored, and neither is the rest.
        """
        session = self._session
        return session is not None and (session.is_new or session.rotated_from is not None)

    @property
    def keeps_changes(self) -> bool:
        """Whether the changes of a request that failed are to be committed."""
        return self.is_sealed or not self.needs_cookie

    def invalidate(self) -> None:
        """Log out: end the session on every node. Without one only a login that others share."""
        if self.session is None and self.login is not None and self.login.entry is not None:
            self._made()
        if self.session is not None:
            self.session.invalidate()

    def rotate_id(self, grace_s: int = 30) -> SessionId:
        """Give the session a new id, at a login with ``grace_s=0``; see :class:`Session`.

        Raises:
            SessionError: The response head was sent: no cookie could tell the client.
        """
        if self.is_sealed:
            raise SessionError(
                "the id cannot change after the response head was sent: rotate it before the "
                "response starts"
            )
        return self._made().rotate_id(grace_s)

    def __repr__(self) -> str:
        return f"RequestSession({self._session!r})"
