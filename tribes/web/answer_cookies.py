"""The cookies of an answer: the session's, the token of its last write, and the login's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, final

from tribes.web.cookies import split_route
from tribes.web.freshness import TOKEN_SUFFIX, encode_token

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.web.cookies import CookieSettings
    from tribes.web.pipeline import Pipeline
    from tribes.web.request_session import RequestSession
    from tribes.web.signing import WireIds

__all__ = ["AnswerCookies"]


@final
class AnswerCookies:
    """Writes them for one application.

    Args:
        manager: Of the sessions.
        ids: As clients have them.
        pipeline: The valves: one of them says whether routes follow who answers.
        sso: How the cookie of a login is written; None: there is no single sign-on.
    """

    def __init__(
        self,
        manager: SessionManager,
        ids: WireIds,
        pipeline: Pipeline,
        sso: CookieSettings | None,
    ) -> None:
        self._manager = manager
        self._ids = ids
        self._pipeline = pipeline
        self._sso = sso

    def all(
        self,
        held: RequestSession,
        cookie: CookieSettings,
        *,
        is_secure: bool,
        max_age_s: int | None = None,
        always: bool = False,
    ) -> list[bytes]:
        """The values of all ``Set-Cookie`` headers that the answer needs.

        Call it after the commit.

        Args:
            held: The request's.
            cookie: How the session's is written.
            is_secure: Whether the request came over TLS.
            max_age_s: How long the client shall keep it, in seconds; None: as the settings say.
            always: Also when the client has it already.
        """
        made = (
            self._session(held, cookie, is_secure, max_age_s, always=always),
            self._token(held, cookie, is_secure, max_age_s),
            self.login(held, is_secure=is_secure),
        )
        return [each for each in made if each is not None]

    def _session(
        self,
        held: RequestSession,
        cookie: CookieSettings,
        is_secure: bool,
        max_age_s: int | None,
        *,
        always: bool,
    ) -> bytes | None:
        session = None if held.waiting is not None else held.session
        if session is None:
            return None
        if not session.is_valid:
            return cookie.header("", is_secure=is_secure) if held.offered else None
        value = self._ids.written(session.id)
        if not self.is_news(held, value):
            if not always:
                return None
            value = held.offered  # with the route that the client is to keep
        return cookie.header(value, is_secure=is_secure, max_age_s=max_age_s)

    def is_news(self, held: RequestSession, value: str) -> bool:
        """Whether the client must be told this value: another id, or another node's route."""
        if value == held.offered:
            return False
        is_same_id = split_route(held.offered)[0] == split_route(value)[0]
        return not (self._pipeline.keeps_routes and is_same_id)

    def _token(
        self, held: RequestSession, cookie: CookieSettings, is_secure: bool, max_age_s: int | None
    ) -> bytes | None:
        if held.written is None or held.session is None:
            return None
        token = ""
        if held.session.is_valid:
            token = encode_token(held.written, self._manager.clock.actor)
        elif not held.offered:
            return None
        named = replace(cookie, name=cookie.name + TOKEN_SUFFIX)
        return named.header(token, is_secure=is_secure, max_age_s=max_age_s)

    def login(self, held: RequestSession, *, is_secure: bool) -> bytes | None:
        """The value of the header for single sign-on, or None."""
        login = held.login
        if login is None or self._sso is None:
            return None
        if login.is_new and login.entry is not None:
            return self._sso.header(login.entry.id, is_secure=is_secure)
        return self._sso.header("", is_secure=is_secure) if login.is_over else None
