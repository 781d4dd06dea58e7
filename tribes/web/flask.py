"""Sessions for Flask: ``flask.session`` on every node.

Flask commits a session in ``save_session``, after the view and its ``after_request`` functions and
before the response head leaves; so does this.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flask import Response
from flask.sessions import SessionInterface, SessionMixin
from markupsafe import Markup
from werkzeug.exceptions import HTTPException, ServiceUnavailable, TooManyRequests

from tribes.errors import (
    SessionInUseError,
    SessionLockTimeoutError,
    SessionNotReplicatedError,
    StoreError,
)
from tribes.web import refusal
from tribes.web.binding import SessionBinding
from tribes.web.cookies import CookieSettings
from tribes.web.ready import ready_answer
from tribes.web.request_session import RequestSession
from tribes.web.wsgi import request_line

if TYPE_CHECKING:
    from flask import Flask, Request

    from tribes.manager.base import SessionManager
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.runtime.handle import NodeHandle
    from tribes.runtime.local import LocalSessions

__all__ = ["FlaskSession", "TribesSessions"]


class _Instead(NamedTuple):
    """An answer that is given whatever the application says."""

    status: str
    fields: list[tuple[str, str]]
    body: bytes


class FlaskSession(RequestSession, SessionMixin):
    """``flask.session``: also what :class:`RequestSession` has, such as ``rotate_id``.

    Attributes:
        modified: Something was assigned or removed. What is changed in place is found by itself,
            so nobody needs to set it.
        accessed: Somebody looked; the answer gets ``Vary: Cookie``.
    """

    def __init__(
        self, manager: SessionManager, session: Session | None, offered: str, *, is_secure: bool
    ) -> None:
        super().__init__(manager, session, offered)
        self.modified = False
        self.accessed = False
        self.is_cleared = False
        self.is_secure = is_secure
        self.instead: _Instead | None = None

    @property
    def new(self) -> bool:  # type: ignore[override]  # a plain attribute there
        """Whether the client does not have the session's id yet."""
        return self.session is None or self.session.is_new

    def __setitem__(self, name: str, value: Any) -> None:
        self.modified = True
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.modified = True

    def clear(self) -> None:
        """Start over: the id ends with this request, and the session too if it stays empty."""
        super().clear()
        self.modified = self.is_cleared = True

    def end_id_if_cleared(self) -> None:
        """Do what ``clear`` promised, before the commit."""
        session = self.session
        if session is None or not self.is_cleared or not session.is_valid:
            return
        if not session:
            session.invalidate()
        elif session.is_stored and session.rotated_from is None:
            session.rotate_id(grace_s=0)


class TribesSessions(SessionInterface):
    """Flask's session interface.

    ::

        app.session_interface = TribesSessions(BackgroundNode(NodeConfig(contexts=("shop",))))

    The node is started by the first request of each process, as under
    :class:`tribes.web.wsgi.SessionMiddleware`. An answer whose session is on too few members, if
    that is to be an error, becomes a 503.

    Args:
        node: The member of the group in this process; or an :class:`AttachedNode`, or
            :class:`LocalSessions`.
        context: Which of the node's contexts; may be left out when it has one.
        cookie: How the cookie is written; None: as Flask's ``SESSION_COOKIE_*`` settings say, with
            ``SameSite=Lax`` where they leave it open, and ``Secure`` also by itself over TLS.
        route: This node's name for a sticky balancer, appended to the id in the cookie.
        on_unreplicated: What to do when a commit is on too few members, instead of what the
            manager's configuration says; see :class:`tribes.web.asgi.SessionMiddleware`.
        ready_path: Path at which a balancer asks whether to send requests here: 200 when this node
            has the others' sessions and is not about to leave, else 503. Empty: there is none.

    Raises:
        ConfigError: See :class:`tribes.web.wsgi.SessionMiddleware`.
    """

    def __init__(
        self,
        node: NodeHandle | LocalSessions,
        *,
        context: str | None = None,
        cookie: CookieSettings | None = None,
        route: str = "",
        on_unreplicated: OnUnreplicated | None = None,
        ready_path: str = "",
    ) -> None:
        self.binding = SessionBinding(
            node, context=context, cookie=cookie, route=route, on_unreplicated=on_unreplicated
        )
        self._cookie = cookie
        self._ready_path = ready_path
        # The one type of Flask's own serializer that the codec does not have.
        self.binding.manager.codec.register(
            Markup, name="markupsafe.Markup", encode=str, decode=Markup
        )

    def open_session(self, app: Flask, request: Request) -> FlaskSession | None:
        """Find the session of a request; None: it has none, not even a new one."""
        binding = self.binding
        if self._ready_path and request.path == self._ready_path:
            return self._aside(request, *ready_answer(is_ready=binding.life.is_ready()))
        if binding.life.must_join:
            binding.life.join()
        if binding.is_filtered(request_line(request.environ).path):
            return None
        cookies = (request.environ.get("HTTP_COOKIE", "").encode("latin-1"),)
        name = self.cookie(app).name
        line = request_line(request.environ) if binding.wants_request else None
        if line is not None and binding.manager.ignores(line):
            held = FlaskSession(binding.manager, None, "", is_secure=request.is_secure)
            held.waiting = lambda: binding.lookup.find(cookies, name, line)
        else:
            try:
                binding.lookup.bring(cookies, name)
                found = binding.lookup.find(cookies, name, line)
                held = FlaskSession(binding.manager, *found, is_secure=request.is_secure)
                binding.lock(held)
            except (StoreError, SessionLockTimeoutError) as why:
                # Nobody knows whether there is a session; a new one would log the user out.
                kind = TooManyRequests if isinstance(why, SessionInUseError) else ServiceUnavailable
                error = kind(refusal.BODY.decode(), retry_after=1)
                answer = refusal.status_of(why), refusal.head(), refusal.BODY
                return self._aside(request, *answer, error)
        binding.logged_in(held, cookies)
        away = binding.away(
            held, request.environ, cookies, is_secure=request.is_secure, cookie=self.cookie(app)
        )
        if away is not None:
            return self._aside(request, str(away[0]), away[1], b"")
        path = request.environ.get("SCRIPT_NAME", "") + request.path
        binding.begin(held, path, request.environ)
        return held

    def _aside(
        self,
        request: Request,
        status: str,
        fields: list[tuple[str, str]],
        body: bytes,
        error: HTTPException | None = None,
    ) -> FlaskSession:
        """Have a request answered without its session and its view.

        An error raised in `open_session` would be a 500, so Flask raises this one in place of the
        view, and handlers of the application make a page of it. What its ``before_request`` answers
        meanwhile, of a session that seems to be empty, is replaced.
        """
        request.routing_exception = error or _Answered(status, fields, body)
        held = FlaskSession(self.binding.manager, None, "", is_secure=request.is_secure)
        held.instead = _Instead(status, fields, body)
        held.is_sealed = True
        return held

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Commit, and write the cookie."""
        held = cast("FlaskSession | None", session)
        if held is None:
            return  # it could not be opened; that error is being answered
        if held.instead is not None:
            if response.status_code != int(held.instead.status[:3]):
                _replace(response, *held.instead)
            return
        if held.waiting is not None:
            held.is_sealed = True
            return
        if held.accessed:
            response.vary.add("Cookie")
        held.end_id_if_cleared()
        is_live = held.session is not None and held.session.is_valid
        is_permanent = is_live and held.permanent
        lifetime_s = int(app.permanent_session_lifetime.total_seconds())
        if is_permanent:
            held.max_inactive = lifetime_s
        elif is_live and "_permanent" in held:
            held.max_inactive = self.binding.manager.table.max_inactive_s
        try:
            self.binding.commit(held)
        except SessionNotReplicatedError:
            _replace(response, refusal.STATUS, refusal.head(), refusal.BODY)
        cookies = self.binding.set_cookies(
            held,
            is_secure=held.is_secure,
            cookie=self.cookie(app),
            max_age_s=lifetime_s if is_permanent else None,
            always=is_permanent and self.should_set_cookie(app, held),
        )
        for header in cookies:
            response.headers.add("Set-Cookie", header.decode("latin-1"))
        if cookies:
            # No cache may give one client's cookie to another.
            response.vary.add("Cookie")
        # What a streamed body or a teardown function changes after this.
        response.call_on_close(lambda: self._end(held))
        if not response.is_streamed or response.status_code >= 400:
            # Not every client of a test closes its answers. (A page of an error looks streamed.)
            self.binding.close(held)

    def _end(self, held: FlaskSession) -> None:
        try:
            self.binding.commit(held, can_refuse=False)
        finally:
            self.binding.close(held)

    def cookie(self, app: Flask) -> CookieSettings:
        """The settings given, or those that the application's configuration makes, but as the
        context's configuration says.
        """
        if self._cookie is not None:
            return self.binding.cookie
        made = _cookie_of(
            self.get_cookie_name(app),
            self.get_cookie_path(app),
            self.get_cookie_domain(app) or "",
            self.get_cookie_httponly(app),
            (self.get_cookie_samesite(app) or "lax").lower(),
            self.get_cookie_secure(app),
            self.get_cookie_partitioned(app),
        )
        return self.binding.settle(made)


@lru_cache(maxsize=64)
def _cookie_of(
    name: str,
    path: str,
    domain: str,
    http_only: bool,
    same_site: Any,
    secure: bool,
    partitioned: bool,
) -> CookieSettings:
    return CookieSettings(
        name=name,
        path=path,
        domain=domain,
        http_only=http_only,
        same_site=same_site,
        secure=secure or None,
        partitioned=partitioned,
    )


class _Answered(HTTPException):
    """Ends a request before its view, with an answer that is no error."""

    def __init__(self, status: str, fields: list[tuple[str, str]], body: bytes) -> None:
        super().__init__(response=Response(body, status, fields))


def _replace(response: Response, status: str, fields: list[tuple[str, str]], body: bytes) -> None:
    """Turn an answer into another one."""
    close = getattr(response.response, "close", None)
    if close is not None:
        response.call_on_close(close)
    response.direct_passthrough = False
    response.status = status
    response.headers.clear()
    response.headers.extend(fields)
    response.response = [body]
