"""What every web adapter does with a session: find it by its cookie, commit it, write the cookie.

An adapter says when a request begins, when its head leaves and when it is over; everything that
must be the same under ASGI, WSGI and each framework is here. Where a call may wait there are two
forms: one for threads, and one for tasks of asyncio or trio, whose name begins with ``a``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import structlog

from tribes.config.valves import SSO_CONTEXT
from tribes.errors import ConfigError, LocalProtocolError
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.local import LocalSessions
from tribes.runtime.native import ChannelTask
from tribes.runtime.session_locks import SessionLocks
from tribes.runtime.sso import Login
from tribes.runtime.waiters import in_thread, refuse_in_event_loop
from tribes.web.cookies import CookieSettings, cookie_values, split_route
from tribes.web.early import start_with_worker
from tribes.web.freshness import (
    TOKEN_SUFFIX,
    Written,
    abring,
    acks_all,
    bring,
    decode_token,
    encode_token,
)
from tribes.web.pipeline import Pipeline
from tribes.web.request_session import RequestSession
from tribes.web.signing import WireIds

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.inbox import CommitResult
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.request_line import RequestLine
    from tribes.manager.session import Session
    from tribes.runtime.background import BackgroundNode
    from tribes.runtime.handle import LocksHandle, NodeHandle, SessionCommitter
    from tribes.runtime.session_locks import LockMode
    from tribes.web.urls import RequestUrl

__all__ = ["SessionBinding", "Tracking"]

Tracking = Literal["cookie", "url", "both"]
"""Where the ids of sessions travel."""

log = structlog.get_logger("tribes")


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
        can_lock: Whether the adapter calls `close` at the end of each request.

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
        can_lock: bool = True,
    ) -> None:
        contexts = node.config.contexts
        if context is None:
            if len(contexts) != 1:
                raise ConfigError(
                    f"the node has the contexts {contexts!r}; say which one this application is, "
                    "for example context='app'",
                    key="context",
                )
            context = contexts[0]
        if context not in contexts:
            raise ConfigError(
                f"{context!r} is not one of the node's contexts {contexts!r}", key="context"
            )
        if route and not (route.isascii() and route.replace("-", "").replace("_", "").isalnum()):
            raise ConfigError(
                f"{route!r} must consist of letters, digits, '-' and '_'", key="route"
            )
        if tracking not in get_args(Tracking):
            raise ConfigError(
                f"must be one of {', '.join(get_args(Tracking))}, found {tracking!r}",
                key="tracking",
            )
        settings = node.config.manager
        if not isinstance(node, LocalSessions):
            settings = node.config.manager_of(context)
        lock = settings.lock
        if lock != "none" and not can_lock:
            raise ConfigError(
                f"{lock!r} cannot work under this framework, which says nothing at the end of a "
                "request; write 'none'",
                key="manager.lock",
            )
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
        if self._sign_on is not None:
            config = self._sign_on.config
            self._sso_cookie = replace(
                self.cookie, name=config.cookie_name, domain=config.cookie_domain, path="/"
            )
            self._sso_committer = cast("NodeHandle", node).sessions.committer(SSO_CONTEXT)
        if alone is not None and lock == "cluster":
            lock = "local"  # no other process has these sessions
        self.locks = self._make_locks(lock, settings.lock_timeout / 1000)
        name = self.cookie.name
        self.parameter = name.lower() if name == "JSESSIONID" else name
        """Name of the path parameter, as Tomcat's."""
        self._started_in = 0
        """The process in which the adapter started the node."""
        self._joined_in = 0
        """The process in which it has waited for the others' sessions."""
        self._refusal: ConfigError | None = None
        """Why the node could not start."""
        self._native: ChannelTask | None = None
        if not isinstance(node, GroupChannel):
            start_with_worker(self)

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
        self.bring(headers, self.cookie.name, url)
        held = self._open(headers, url, request)
        self.lock(held)
        return self.logged_in(held, headers)

    def lock(self, held: RequestSession) -> None:
        """Wait until no other request of the session runs, where that is configured.

        `close` gives the lock back.

        Raises:
            SessionLockTimeoutError: Another request of the session took too long.
        """
        if self.locks is not None and held.waiting is None and held.session is not None:
            found = held.session
            held.lock = self.locks.acquire(found.key)
            with self._or_closed(held):
                # What lies on others was read before the lock was had.
                bring(self.manager, (found.id,), None)
                self._locked(held, found)

    async def alock(self, held: RequestSession) -> None:
        """The same in a task of asyncio or trio."""
        if self.locks is not None and held.waiting is None and held.session is not None:
            found = held.session
            held.lock = await self.locks.aacquire(found.key)
            with self._or_closed(held):
                await abring(self.manager, (found.id,), None)
                self._locked(held, found)

    @contextmanager
    def _or_closed(self, held: RequestSession) -> Iterator[None]:
        """Give the lock back if the request ends here."""
        try:
            yield
        except BaseException:
            self.close(held)
            raise

    def _locked(self, held: RequestSession, found: Session) -> None:
        """Look again: the request before this one has changed the session, or ended it."""
        held.session = self.manager.find(found.id)
        if held.session is None:
            self.close(held)

    def close(self, held: RequestSession) -> None:
        """The request is over, however it ended."""
        held.release_lock()

    def bring(self, headers: Iterable[bytes], name: str, url: RequestUrl | None = None) -> None:
        """Have the session of a request brought here, with what its client has written, before
        `find`; blocks this thread for a bounded time if it must. In an event loop it does nothing.

        Args:
            headers: The values of its ``Cookie`` headers.
            name: The session cookie's name.
            url: Its URL, where ids may stand in URLs.
        """
        headers = tuple(headers)
        bring(self.manager, self._ids(headers, name, url), self.written(headers, name))

    def bring_again(self, session_id: str) -> None:
        """Have what other requests have changed meanwhile brought here, as far as it is not."""
        bring(self.manager, (session_id,), None)

    async def abring_again(self, session_id: str) -> None:
        """The same in a task of asyncio or trio."""
        await abring(self.manager, (session_id,), None)

    def written(self, headers: Iterable[bytes], name: str) -> Written | None:
        """The client's last write, if it carries a token of one."""
        for value in cookie_values(headers, name + TOKEN_SUFFIX):
            written = decode_token(value)
            if written is not None:
                return written
        return None

    def _ids(self, headers: Iterable[bytes], name: str, url: RequestUrl | None) -> list[str]:
        offered = () if url is None or not url.offered else (url.offered,)
        found = (*cookie_values(headers, name), *offered)
        return [each for each, _ in map(self.ids.read, found) if each]

    def _open(
        self, headers: tuple[bytes, ...], url: RequestUrl | None, request: RequestLine | None
    ) -> RequestSession:
        found, offered = None, ""
        if url is None or self.tracking == "both":
            found, offered = self.find(headers, self.cookie.name, request)
        if url is not None and found is not None:
            url = replace(url, offered="")
        elif url is not None and url.offered:
            found = self._find_one(url.offered, request)
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
            if any(self._is_away(value, request) for value in self._values(headers, url)):
                refuse_in_event_loop(
                    "let requestUriIgnorePattern match only requests that need no session"
                )
            found, offered = self.find(headers, self.cookie.name, request)
            if found is None and url is not None and url.offered:
                found, offered = self._find_one(url.offered, request), url.offered
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
        for value in self._values(headers, url):
            if self._is_away(value, request):
                held = await in_thread(partial(self._open, headers, url, request))
                await self.alock(held)
                return self.logged_in(held, headers)
        name = self.cookie.name
        await abring(self.manager, self._ids(headers, name, url), self.written(headers, name))
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
    ) -> tuple[int, list[tuple[str, str]]] | None:
        """Status and header fields of the answer that sends a client to another node, because a
        balancer drains this one; None: its request is served. After `open`.
        """
        return self.pipeline.away(
            held, request, headers, self.cookie, self.parameter, is_secure=is_secure
        )

    def find(
        self, headers: Iterable[bytes], name: str, request: RequestLine | None = None
    ) -> tuple[Session | None, str]:
        """The session that a request has, and what the client sent that names it.

        Of several cookies the first one that names a session counts.

        Args:
            headers: The values of its ``Cookie`` headers.
            name: The cookie's name.
            request: What it is, if the binding wants to know.
        """
        for value in cookie_values(headers, name):
            session = self._find_one(value, request)
            if session is not None:
                return session, value
        return None, ""

    def _find_one(self, value: str, request: RequestLine | None) -> Session | None:
        session_id, route = self.ids.read(value)
        if request is None:
            return self.manager.find(session_id)
        return self.manager.find(session_id, request=self._at(request, route))

    def _is_away(self, value: str, request: RequestLine | None) -> bool:
        session_id, route = self.ids.read(value)
        if request is not None:
            request = self._at(request, route)
        return self.manager.is_away(session_id, request)

    def _at(self, request: RequestLine, route: str) -> RequestLine:
        return request._replace(is_at_home=True) if route and route == self.ids.route else request

    def _values(self, headers: tuple[bytes, ...], url: RequestUrl | None) -> list[str]:
        """Everything that may name a session."""
        offered = [] if url is None or not url.offered else [url.offered]
        return [*cookie_values(headers, self.cookie.name), *offered]

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
            if held.is_filtered:
                # Nobody waits; it reaches the members before what the next request changes.
                result = self.committer.commit(
                    held.session,
                    known_failures=held.failed,
                    can_refuse=can_refuse,
                    waits=False,
                )
                held.written = result.version or held.written
            else:
                result = self.committer.commit(
                    held.session, known_failures=held.failed, can_refuse=can_refuse
                )
                self._note(held, result)
            self._sent(held, began)

    async def acommit(self, held: RequestSession, *, can_refuse: bool = True) -> None:
        """The same in a task of asyncio or trio."""
        if held.waiting is None and held.session is not None:
            entry = None if held.login is None else held.login.settle(held.session)
            if entry is not None and held.login is not None:
                await self._sso_committer.acommit(entry, can_refuse=False)
                held.login.settled()
            began = time.monotonic()
            if held.is_filtered:
                result = await self.committer.acommit(
                    held.session,
                    known_failures=held.failed,
                    can_refuse=can_refuse,
                    waits=False,
                )
                held.written = result.version or held.written
            else:
                result = await self.committer.acommit(
                    held.session, known_failures=held.failed, can_refuse=can_refuse
                )
                self._note(held, result)
            self._sent(held, began)

    def _sent(self, held: RequestSession, commit_began: float) -> None:
        if self.pipeline.replication is not None:
            self.pipeline.replication.sent(held.began, commit_began, is_included=held.is_included)

    def _note(self, held: RequestSession, result: CommitResult) -> None:
        if self.must_tell(result):
            held.written = result.version

    def must_tell(self, result: CommitResult) -> bool:
        """Whether the client must carry a token, or another node might not show it its write."""
        # What a store has is not another member's to show.
        if self._is_alone or not result.version:
            return False
        return bool(result.missing) or not self._acks_all or self.manager.has_draining

    def set_cookie(
        self,
        held: RequestSession,
        *,
        is_secure: bool,
        cookie: CookieSettings | None = None,
        max_age_s: int | None = None,
        always: bool = False,
    ) -> bytes | None:
        """The value of the ``Set-Cookie`` header that the answer needs, or None.

        Call it after the commit. From then on the request can begin no session.

        Args:
            held: From `open`.
            is_secure: Whether the request came over TLS.
            cookie: Instead of the binding's settings.
            max_age_s: How long the client shall keep it, in seconds; None: until it is closed.
            always: Also when the client has it already.
        """
        held.is_sealed = True
        if held.waiting is not None:
            return None
        cookie = cookie or self.cookie
        session = held.session
        if session is None or self.tracking == "url":
            return None
        if not session.is_valid:
            return cookie.header("", is_secure=is_secure) if held.offered else None
        value = self.ids.written(session.id)
        if value == held.offered and not always:
            return None
        if (
            self.pipeline.keeps_routes
            and not always
            and split_route(held.offered)[0] == split_route(value)[0]
        ):
            return None
        return cookie.header(value, is_secure=is_secure, max_age_s=max_age_s)

    def set_token(
        self,
        held: RequestSession,
        *,
        is_secure: bool,
        cookie: CookieSettings | None = None,
        max_age_s: int | None = None,
    ) -> bytes | None:
        """The value of the ``Set-Cookie`` header with the token of what this request has written,
        or None. Arguments as in `set_cookie`, after which it is called.
        """
        if held.written is None or held.session is None or self.tracking == "url":
            return None
        cookie = cookie or self.cookie
        token = ""
        if held.session.is_valid:
            token = encode_token(held.written, self.manager.clock.actor)
        elif not held.offered:
            return None
        named = replace(cookie, name=cookie.name + TOKEN_SUFFIX)
        return named.header(token, is_secure=is_secure, max_age_s=max_age_s)

    def set_cookies(self, held: RequestSession, *, is_secure: bool) -> list[bytes]:
        """The values of all ``Set-Cookie`` headers that the answer needs; see `set_cookie`."""
        found = [self.set_cookie(held, is_secure=is_secure)]
        found.append(self.set_token(held, is_secure=is_secure))
        found.append(self.login_cookie(held, is_secure=is_secure))
        return [each for each in found if each is not None]

    def login_cookie(self, held: RequestSession, *, is_secure: bool) -> bytes | None:
        """The value of the header for single sign-on, or None. Call it after the commit."""
        login = held.login
        if login is None:
            return None
        if login.is_new and login.entry is not None:
            return self._sso_cookie.header(login.entry.id, is_secure=is_secure)
        return self._sso_cookie.header("", is_secure=is_secure) if login.is_over else None

    # Life of the node.

    @property
    def must_join(self) -> bool:
        """Whether a request must call `join` first.

        So under a server that tells no start-up, in a forked worker, and while another request
        waits for that.
        """
        return (
            self._joined_in != os.getpid()
            or self.manager.revive is not None
            or not self.node.is_running
        )

    def join(self) -> None:
        """Start the node unless that was done, and wait until it has the others' sessions.

        Raises:
            ConfigError: The node cannot start; raised for every request.
            LocalProtocolError: It would block an event loop.
        """
        # A channel has no call that blocks.
        node = cast("NodeHandle | LocalSessions", self.node)
        if self._has_ended(node):
            return
        refuse_in_event_loop("await node.await_joined()")
        self._start(node)
        self._joined(is_complete=node.wait_joined())

    async def ajoin(self) -> None:
        """The same in a task of asyncio or trio."""
        node = self.node
        if isinstance(node, GroupChannel):
            if not node.is_running:
                self._native = self._native or ChannelTask(node)
                await self._native.start()
        elif self._has_ended(node):
            return
        else:
            await in_thread(partial(self._start, node))
        self._joined(is_complete=await node.await_joined())

    async def aleave(self) -> None:
        """Stop the node if the adapter has started it."""
        if self._native is not None:
            await self._native.stop()
        elif not isinstance(self.node, GroupChannel) and (
            self._started_in == os.getpid() and self.node.is_running
        ):
            # Not a second time: when the server has its answer it may cancel whoever still waits.
            await in_thread(self.node.stop)

    def _has_ended(self, node: NodeHandle | LocalSessions) -> bool:
        """Whether the node has ended: what is in this process's memory can still be served."""
        if self._refusal is not None:
            raise self._refusal
        return self.manager.revive is None and node.was_started and not node.is_running

    def _start(self, node: NodeHandle | LocalSessions) -> None:
        if node.was_started or self.manager.revive is not None:
            return
        try:
            node.start()
        except LocalProtocolError:
            # Another request has just started it.
            if not node.was_started:
                raise
        except ConfigError as error:
            self._refusal = error
            raise
        else:
            self._started_in = os.getpid()

    def _joined(self, *, is_complete: bool) -> None:
        self._joined_in = os.getpid()
        if not is_complete:
            log.warning("serving before all sessions have arrived")
