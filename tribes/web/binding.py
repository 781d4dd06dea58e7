"""What every web adapter does with a session: find it by its cookie, commit it, write the cookie.

An adapter says when a request begins, when its head leaves and when it is over; everything that
must be the same under ASGI, WSGI and each framework is here. Where a call may wait there are two
forms: one for threads, and one for tasks of asyncio or trio, whose name begins with ``a``; side by
side, so that they stay alike, which makes this file longer than most.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, MutableMapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from tribes.config.valves import SSO_CONTEXT
from tribes.errors import ConfigError
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.local import LocalSessions
from tribes.runtime.session_locks import SessionLocks
from tribes.runtime.sso import Login
from tribes.runtime.waiters import in_thread, refuse_in_event_loop
from tribes.web.answer_cookies import AnswerCookies
from tribes.web.cookies import CookieSettings, cookie_values
from tribes.web.freshness import abring, acks_all, bring
from tribes.web.lookup import SessionLookup
from tribes.web.node_life import NodeLife
from tribes.web.pipeline import Pipeline
from tribes.web.request_session import RequestSession
from tribes.web.signing import WireIds
from tribes.web.turns import await_turn, wait_turn

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.inbox import CommitResult
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.request_line import RequestLine
    from tribes.manager.session import Session
    from tribes.runtime.background import BackgroundNode
    from tribes.runtime.handle import LocksHandle, NodeHandle, SessionCommitter
    from tribes.runtime.session_locks import LockMode
    from tribes.web.urls import RequestUrl

__all__ = ["SessionBinding", "Tracking", "check_route", "context_of"]

Tracking = Literal["cookie", "url", "both"]
"""Where the ids of sessions travel."""


class SessionBinding:
    """One application's sessions on one node.

    Args:
        node: The member of the group in this process: a :class:`BackgroundNode`, or under a server
            that runs trio a :class:`GroupChannel`, which then needs no thread. The node of the host
            that this process is attached to: an :class:`AttachedNode`. Or :class:`LocalSessions`,
            which are in no group.
        context: Which of the node's contexts; may be left out when it has one.
        cookie: How the cookie is written.
        route: This node's name for a sticky balancer (Tomcat: ``jvmRoute``), appended to the id
            in the cookie after a dot.
        on_unreplicated: What to do when a commit is on too few members, see `OnUnreplicated`.
        tracking: Where ids travel: ``"cookie"``, ``"url"``, or ``"both"``; see `tribes.web.urls`.

    Raises:
        ConfigError: The node does not have that context, the route cannot be in a cookie, or
            ``on_unreplicated`` or ``tracking`` cannot be used.
    """

    def __init__(
        self,
        node: NodeHandle | GroupChannel | LocalSessions,
        *,
        context: str | None = None,
        cookie: CookieSettings | None = None,
        route: str = "",
        on_unreplicated: OnUnreplicated | None = None,
        tracking: Tracking = "cookie",
    ) -> None:
        context = context_of(node.config, context)
        check_route(route)
        _check_tracking(tracking)
        settings = node.config.manager
        if not isinstance(node, LocalSessions):
            settings = node.config.manager_of(context)
        lock = settings.lock
        self.context = context
        self.tracking = tracking
        self.node = node
        self.manager: SessionManager = node.manager(context)
        own = node.config.context.get(context)
        self._over = None if own is None else own.cookie
        self.cookie = self.settle(cookie or CookieSettings())
        self.ids = WireIds(context, route, self.cookie.signing_keys)
        self.committer: SessionCommitter
        alone: LocalSessions | None
        if isinstance(node, LocalSessions):
            self.committer, alone = node.committer(on_unreplicated), node
        else:
            self.committer = node.sessions.committer(context, on_unreplicated)
            alone = node.sessions.local.get(context)
        self._is_alone = alone is not None
        self._acks_all = alone is not None or acks_all(node.config.manager_of(context))
        self._filter = None if alone is None else alone.path_filter
        self.pipeline = Pipeline(node.config, self.manager, self.ids, is_alone=alone is not None)
        """What stands around each request."""
        self._sign_on = None if isinstance(node, LocalSessions) else node.sessions.sign_on
        sso = None
        if self._sign_on is not None:
            config = self._sign_on.config
            sso = self._sso_cookie = replace(
                self.cookie, name=config.cookie_name, domain=config.cookie_domain, path="/"
            )
            self._sso_committer = cast("NodeHandle", node).sessions.committer(SSO_CONTEXT)
        if alone is not None and lock == "cluster":
            lock = "local"  # no other process has these sessions
        self.locks = self._make_locks(lock, settings.lock_timeout / 1000)
        name = self.cookie.name
        self.parameter = name.lower() if name == "JSESSIONID" else name
        """Name of the path parameter, as Tomcat's."""
        self.lookup = SessionLookup(self.manager, self.ids)
        self.answer_cookies = AnswerCookies(self.manager, self.ids, self.pipeline, sso)
        self.life = NodeLife(node, self.manager)

    def settle(self, cookie: CookieSettings) -> CookieSettings:
        """The application's settings of the cookie, but as the context's configuration says."""
        return cookie.under(self._over)

    def _make_locks(self, mode: LockMode, timeout_s: float) -> LocksHandle | None:
        if mode == "none":
            return None
        node = self.node
        if isinstance(node, LocalSessions):
            may_wait = getattr(node.config.manager, "block_on_acquire", True)
            return SessionLocks(self.manager, "local", timeout_s, may_wait=may_wait)

        def channel() -> GroupChannel:
            return node if isinstance(node, GroupChannel) else cast("BackgroundNode", node).channel

        return node.sessions.locks(self.manager.context, mode, timeout_s, channel)

    # One request.

    def is_filtered(self, path: str) -> bool:
        """Whether requests for this path have no session (Tomcat: PersistentValve's ``filter``)."""
        return self._filter is not None and self._filter.fullmatch(path) is not None

    @property
    def wants_request(self) -> bool:
        """Whether `open` wants to know the request."""
        return self.manager.wants_request

    def open(
        self,
        headers: Iterable[bytes],
        url: RequestUrl | None = None,
        request: RequestLine | None = None,
    ) -> RequestSession:
        """What a request holds of its session.

        A cookie that names one counts before the URL.

        Args:
            headers: The values of its ``Cookie`` headers.
            url: Its URL, where ids may stand in URLs.
            request: What it is, if the binding wants to know.

        Raises:
            StoreError: It may be in a store, which does not answer.
            SessionLockTimeoutError: Another request of the session took too long.
        """
        headers = tuple(headers)
        if request is not None and self.manager.ignores(request):
            return self.logged_in(self._open_later(headers, url, request), headers)
        self.lookup.bring(headers, self.cookie.name, url)
        held = self._open(headers, url, request)
        self.lock(held)
        return self.logged_in(held, headers)

    def lock(self, held: RequestSession) -> None:
        """Wait until no other request of the session runs, where that is configured.

        `close` gives the lock back.

        Raises:
            SessionLockTimeoutError: Another request of the session took too long.
        """
        if self.locks is not None:
            wait_turn(held, self.locks, self.manager)

    async def alock(self, held: RequestSession) -> None:
        """The same in a task of asyncio or trio."""
        if self.locks is not None:
            await await_turn(held, self.locks, self.manager)

    def bring_again(self, session_id: str) -> None:
        """Have what other requests have changed meanwhile brought here, as far as it is not."""
        bring(self.manager, (session_id,), None)

    async def abring_again(self, session_id: str) -> None:
        """The same in a task of asyncio or trio."""
        await abring(self.manager, (session_id,), None)

    def close(self, held: RequestSession) -> None:
        """The request is over, however it ended."""
        held.release_lock()

    def _open(
        self, headers: tuple[bytes, ...], url: RequestUrl | None, request: RequestLine | None
    ) -> RequestSession:
        found, offered = None, ""
        if url is None or self.tracking == "both":
            found, offered = self.lookup.find(headers, self.cookie.name, request)
        if url is not None and found is not None:
            url = replace(url, offered="")
        elif url is not None and url.offered:
            found = self.lookup.find_one(url.offered, request)
            offered = url.offered if found is not None else ""
        held = RequestSession(self.manager, found, offered)
        held.url = url
        return held

    def logged_in(self, held: RequestSession, headers: tuple[bytes, ...]) -> RequestSession:
        """The same, with what single sign-on knows of the client; `open` has called it."""
        if self._sign_on is None:
            return held
        held.login = login = Login(self._sign_on, cookie_values(headers, self._sso_cookie.name))
        if held.waiting is not None:
            return held
        if held.session is not None and not login.begin(held.session):
            # Its login was ended where nobody had this session, so it is ended here.
            self.manager.invalidate(held.session)
            held.session, held.offered = None, ""
        return held

    def _open_later(
        self, headers: tuple[bytes, ...], url: RequestUrl | None, request: RequestLine
    ) -> RequestSession:
        """What a request holds that has no session unless its application asks for it."""
        held = RequestSession(self.manager, None)
        held.url = url

        def find() -> tuple[Session | None, str]:
            if any(
                self.lookup.is_away(value, request)
                for value in self.lookup.values(headers, self.cookie.name, url)
            ):
                refuse_in_event_loop(
                    "let requestUriIgnorePattern match only requests that need no session"
                )
            found, offered = self.lookup.find(headers, self.cookie.name, request)
            if found is None and url is not None and url.offered:
                found, offered = self.lookup.find_one(url.offered, request), url.offered
            return found, offered if found is not None else ""

        held.waiting = find
        return held

    async def aopen(
        self,
        headers: Iterable[bytes],
        url: RequestUrl | None = None,
        request: RequestLine | None = None,
    ) -> RequestSession:
        """The same in a task of asyncio or trio: what a store has is waited for."""
        headers = tuple(headers)
        if request is not None and self.manager.ignores(request):
            return self.logged_in(self._open_later(headers, url, request), headers)
        name = self.cookie.name
        for value in self.lookup.values(headers, name, url):
            if self.lookup.is_away(value, request):
                held = await in_thread(partial(self._open, headers, url, request))
                await self.alock(held)
                return self.logged_in(held, headers)
        await self.lookup.abring(headers, name, url)
        held = self._open(headers, url, request)
        await self.alock(held)
        return self.logged_in(held, headers)

    def begin(self, held: RequestSession, path: str, attributes: MutableMapping[str, Any]) -> None:
        """A request begins; it can commit, and the valves do and tell what they have to before it.

        Args:
            held: From `open`.
            path: Decoded, with the context's path and without the query.
            attributes: Where the application finds what belongs to its request.
        """
        held.committer = self
        self.pipeline.begin(held, path, attributes)

    def away(
        self,
        held: RequestSession,
        request: MutableMapping[str, Any],
        headers: Iterable[bytes],
        *,
        is_secure: bool,
        cookie: CookieSettings | None = None,
    ) -> tuple[int, list[tuple[str, str]]] | None:
        """Status and header fields of the answer that sends a client to another node, because a
        balancer drains this one; None: its request is served. After `open`.

        Args:
            held: From `open`.
            request: ``environ`` or ``scope``.
            headers: The values of its ``Cookie`` headers.
            is_secure: Whether the request came over TLS.
            cookie: Instead of the binding's settings.
        """
        return self.pipeline.away(
            held, request, headers, cookie or self.cookie, self.parameter, is_secure=is_secure
        )

    def commit(self, held: RequestSession, *, can_refuse: bool = True) -> None:
        """Commit what the request changed, if it has a session; block until the members have it.

        Args:
            held: From `open`.
            can_refuse: False when it is too late for an error.

        Raises:
            SessionNotReplicatedError: Too few members have it, and that is to be an error.
            LocalProtocolError: It would block an event loop.
        """
        if held.waiting is None and held.session is not None:
            entry = None if held.login is None else held.login.settle(held.session)
            if entry is not None and held.login is not None:
                self._sso_committer.commit(entry, can_refuse=False)
                held.login.settled()
            began = time.monotonic()
            result = self.committer.commit(
                held.session,
                known_failures=held.failed,
                can_refuse=can_refuse,
                waits=_waits(held),
            )
            self._committed(held, result, began)

    async def acommit(self, held: RequestSession, *, can_refuse: bool = True) -> None:
        """The same in a task of asyncio or trio."""
        if held.waiting is None and held.session is not None:
            entry = None if held.login is None else held.login.settle(held.session)
            if entry is not None and held.login is not None:
                await self._sso_committer.acommit(entry, can_refuse=False)
                held.login.settled()
            began = time.monotonic()
            result = await self.committer.acommit(
                held.session,
                known_failures=held.failed,
                can_refuse=can_refuse,
                waits=_waits(held),
            )
            self._committed(held, result, began)

    def _committed(self, held: RequestSession, result: CommitResult, began: float) -> None:
        if held.is_filtered:
            held.written = result.version or held.written
        elif self.must_tell(result):
            held.written = result.version
        valve = self.pipeline.replication
        # A commit outside of any request has no time to count from.
        if valve is not None and held.timed_until:
            held.timed_until = valve.sent(held.timed_until, began, is_included=held.is_included)

    def must_tell(self, result: CommitResult) -> bool:
        """Whether the client must carry a token, or another node might not show it its write."""
        # What a store has is not another member's to show.
        if self._is_alone or not result.version:
            return False
        return bool(result.missing) or not self._acks_all or self.manager.has_draining

    def set_cookies(
        self,
        held: RequestSession,
        *,
        is_secure: bool,
        cookie: CookieSettings | None = None,
        max_age_s: int | None = None,
        always: bool = False,
    ) -> list[bytes]:
        """The values of all ``Set-Cookie`` headers that the answer needs.

        Call it after the commit. From then on the request can begin no session.

        Args:
            held: From `open`.
            is_secure: Whether the request came over TLS.
            cookie: Instead of the binding's settings.
            max_age_s: How long the client shall keep it, in seconds; None: as the settings say.
            always: The session's also when the client has it already.
        """
        held.is_sealed = True
        if self.tracking == "url":
            login = self.answer_cookies.login(held, is_secure=is_secure)
            return [] if login is None else [login]
        return self.answer_cookies.all(
            held, cookie or self.cookie, is_secure=is_secure, max_age_s=max_age_s, always=always
        )


def context_of(config: NodeConfig, context: str | None) -> str:
    """The context of a node that is meant.

    Raises:
        ConfigError: There is none, or there are several.
    """
    contexts = config.contexts
    if context is None:
        if len(contexts) != 1:
            raise ConfigError(
                f"the node has the contexts {contexts!r}; say which one this application is, "
                "for example context='app'",
                key="context",
            )
        return contexts[0]
    if context not in contexts:
        raise ConfigError(
            f"{context!r} is not one of the node's contexts {contexts!r}", key="context"
        )
    return context


def _waits(held: RequestSession) -> bool | None:
    """Whether its commit waits for the members; None: as the options say.

    What the valve's filter matches does not: its changes reach them before the next request's.
    """
    return False if held.is_filtered else None


def check_route(route: str) -> None:
    """Refuse a route that cannot be in a cookie.

    Raises:
        ConfigError: Says what it may consist of.
    """
    if route and not (route.isascii() and route.replace("-", "").replace("_", "").isalnum()):
        raise ConfigError(f"{route!r} must consist of letters, digits, '-' and '_'", key="route")


def _check_tracking(tracking: str) -> None:
    if tracking not in get_args(Tracking):
        raise ConfigError(
            f"must be one of {', '.join(get_args(Tracking))}, found {tracking!r}",
            key="tracking",
        )
