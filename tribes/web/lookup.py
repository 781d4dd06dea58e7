"""Which session a request means: what its cookies and its URL say, and whether that is here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from tribes.web.cookies import cookie_values
from tribes.web.freshness import TOKEN_SUFFIX, Written, abring, bring, decode_token

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.request_line import RequestLine
    from tribes.manager.session import Session
    from tribes.web.signing import WireIds
    from tribes.web.urls import RequestUrl

__all__ = ["SessionLookup"]


@final
class SessionLookup:
    """Finds the sessions of one application.

    Args:
        manager: Of the sessions.
        ids: As clients have them.
    """

    def __init__(self, manager: SessionManager, ids: WireIds) -> None:
        self._manager = manager
        self._ids = ids

    def bring(self, headers: Iterable[bytes], name: str, url: RequestUrl | None = None) -> None:
        """Have the session of a request brought here, with what its client has written, before
        `find`; blocks this thread for a bounded time if it must. In an event loop it does nothing.

        Args:
            headers: The values of its ``Cookie`` headers.
            name: The session cookie's name.
            url: Its URL, where ids may stand in URLs.

        Raises:
            StoreError: It may be where nobody answers.
        """
        headers = tuple(headers)
        bring(self._manager, self._offered(headers, name, url), self.written(headers, name))

    async def abring(
        self, headers: Iterable[bytes], name: str, url: RequestUrl | None = None
    ) -> None:
        """The same in a task of asyncio or trio."""
        headers = tuple(headers)
        await abring(self._manager, self._offered(headers, name, url), self.written(headers, name))

    def written(self, headers: Iterable[bytes], name: str) -> Written | None:
        """The client's last write, if it carries a token of one."""
        for value in cookie_values(headers, name + TOKEN_SUFFIX):
            written = decode_token(value)
            if written is not None:
                return written
        return None

    def _offered(self, headers: Iterable[bytes], name: str, url: RequestUrl | None) -> list[str]:
        found = (self._ids.read(each)[0] for each in self.values(headers, name, url))
        return [each for each in found if each]

    def values(self, headers: Iterable[bytes], name: str, url: RequestUrl | None) -> list[str]:
        """Everything that may name a session, with routes and signatures; arguments as `bring`."""
        offered = [] if url is None or not url.offered else [url.offered]
        return [*cookie_values(headers, name), *offered]

    def find(
        self, headers: Iterable[bytes], name: str, request: RequestLine | None = None
    ) -> tuple[Session | None, str]:
        """The session that a request has, and what the client sent that names it.

        Of several cookies the first one that names a session counts.

        Args:
            headers: The values of its ``Cookie`` headers.
            name: The cookie's name.
            request: What it is, if the manager wants to know.
        """
        for value in cookie_values(headers, name):
            session = self.find_one(value, request)
            if session is not None:
                return session, value
        return None, ""

    def find_one(self, value: str, request: RequestLine | None) -> Session | None:
        """The session that one cookie's value, or the id in a URL, names."""
        session_id, route = self._ids.read(value)
        if request is None:
            return self._manager.find(session_id)
        return self._manager.find(session_id, request=self._at(request, route))

    def is_away(self, value: str, request: RequestLine | None) -> bool:
        """Whether a store must be asked for it."""
        session_id, route = self._ids.read(value)
        if request is not None:
            request = self._at(request, route)
        return self._manager.is_away(session_id, request)

    def _at(self, request: RequestLine, route: str) -> RequestLine:
        return request._replace(is_at_home=True) if route and route == self._ids.route else request
