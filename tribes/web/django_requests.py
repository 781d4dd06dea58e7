"""Django's session middleware, with what stands around a request of other frameworks too.

In ``MIDDLEWARE`` in the place of Django's own: for routes and signed ids, valves, locks, a cookie
as the context's configuration says, ``/ready``, an answer of 503 where a session is on too few
members, and so that a client reads its own writes on every node.
"""

from __future__ import annotations

from http.cookies import Morsel
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from tribes.errors import SessionLockTimeoutError, SessionNotReplicatedError, StoreError
from tribes.web import refusal
from tribes.web.cookies import cookie_values
from tribes.web.django_node import the_binding, web_settings
from tribes.web.django_store import SessionStore
from tribes.web.freshness import TOKEN_SUFFIX, encode_token
from tribes.web.ready import ready_answer
from tribes.web.request_session import RequestSession

if TYPE_CHECKING:
    from tribes.web.binding import SessionBinding

__all__ = ["SessionMiddleware"]


class SessionMiddleware(DjangoSessionMiddleware):  # type: ignore[misc]  # Django has no types
    """Finds the session when a request begins, and writes the cookies of its answer.

    Under ASGI Django runs the two halves in a thread, so both may wait.
    """

    def __call__(self, request: HttpRequest) -> Any:
        """Run one request."""
        if self.async_mode:
            return self.__acall__(request)
        try:
            return super().__call__(request)
        finally:
            _close(request)

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        """The same in a task."""
        try:
            return await super().__acall__(request)
        finally:
            _close(request)

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Find the session; an answer means that the view is not asked."""
        ready_path = web_settings().ready_path
        if issubclass(self.SessionStore, SessionStore) and (
            ready_path and request.path_info == ready_path
        ):
            # Before there is a session, which waits until the node has joined.
            return _answer(*ready_answer(is_ready=the_binding().life.is_ready()))
        super().process_request(request)
        store = request.session
        if not isinstance(store, SessionStore):
            return None
        binding = the_binding()
        store.is_aside = True
        cookies = (request.META.get("HTTP_COOKIE", "").encode("latin-1", "replace"),)
        name = binding.cookie.name
        try:
            binding.lookup.bring(cookies, name)
            held = RequestSession(binding.manager, *binding.lookup.find(cookies, name))
            binding.lock(held)
        except (StoreError, SessionLockTimeoutError) as why:
            # Nobody knows whether there is a session; a new one would log the user out.
            return _answer(refusal.status_of(why), refusal.head(), refusal.BODY)
        request._tribes_session = held
        if away := self._away(request, binding, held, cookies):
            return away
        store.is_aside = False
        self._begin(request, binding, held, cookies)
        return None

    def _away(
        self,
        request: HttpRequest,
        binding: SessionBinding,
        held: RequestSession,
        cookies: tuple[bytes, ...],
    ) -> HttpResponse | None:
        """The answer that sends a client to another node, if a balancer drains this one."""
        # Django's paths are decoded, in META too.
        path = request.path.encode().decode("latin-1")
        environ = {**request.META, "SCRIPT_NAME": "", "PATH_INFO": path}
        found = binding.away(held, environ, cookies, is_secure=request.is_secure())
        if found is None:
            return None
        status, fields = found
        answer = HttpResponse(status=status)
        for name, value in fields:
            if name == "Set-Cookie":
                _set(answer, binding, "", max_age_s=0)
            else:
                answer.headers[name] = value
        return answer

    def _begin(
        self,
        request: HttpRequest,
        binding: SessionBinding,
        held: RequestSession,
        cookies: tuple[bytes, ...],
    ) -> None:
        name, store = binding.cookie.name, request.session
        was_known = held.session is not None
        binding.begin(held, request.path, request.META)
        store.is_robots = held.on_made is not None or (held.session is not None and not was_known)
        offered = (binding.ids.read(each)[0] for each in cookie_values(cookies, name))
        store.attach(held, next(filter(None, offered), None))
        store.written = binding.lookup.written(cookies, name)
        if held.offered and not store.is_robots:
            # Where Django looks for whether there is a cookie to take back.
            request.COOKIES[settings.SESSION_COOKIE_NAME] = held.offered

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Save the session and write the cookies."""
        store = getattr(request, "session", None)
        if not isinstance(store, SessionStore):
            return super().process_response(request, response)
        if store.is_aside:
            return response
        answer = self._saved(request, response)
        self._write_cookies(store, answer)
        return answer

    def _saved(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except SessionNotReplicatedError:
            refused = _refusal()
            # The change stands here, so this saves nothing, and only writes the cookie: Django
            # writes none with an error.
            refused.status_code = 200
            super().process_response(request, refused)
            refused.status_code = int(refusal.STATUS[:3])
            return refused

    def _write_cookies(self, store: SessionStore, answer: HttpResponse) -> None:
        """Django's cookie as this node and its configuration want it, and the token."""
        binding, held = the_binding(), store.request
        given = answer.cookies.pop(settings.SESSION_COOKIE_NAME, None)
        if given is not None and not given.value:
            _set(answer, binding, "", max_age_s=0)
        elif held.session is not None and held.session.is_valid:
            self._write_id(store, held.session.id, answer, given)
        if store.has_written and store.written is not None:
            _set(answer, binding, encode_token(*store.written), suffix=TOKEN_SUFFIX)

    def _write_id(
        self, store: SessionStore, session_id: str, answer: HttpResponse, given: Any
    ) -> None:
        """Write the session's cookie where Django has done so, or the client needs it."""
        binding, held = the_binding(), store.request
        value = binding.ids.written(session_id)
        is_news = binding.answer_cookies.is_news(held, value)
        if given is not None:
            if is_news or not store.is_robots:
                max_age_s = given["max-age"] or None
                _set(answer, binding, value if is_news else held.offered, max_age_s=max_age_s)
        elif is_news and held.offered:
            ends = store.get_expire_at_browser_close()
            _set(answer, binding, value, max_age_s=None if ends else store.get_expiry_age())
            patch_vary_headers(answer, ("Cookie",))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """The same for what a view saves itself, such as a logout."""
        return _refusal() if isinstance(exception, SessionNotReplicatedError) else None


class _Partitioned(Morsel[str]):
    """A cookie with the attribute that `http.cookies` learnt in Python 3.14 only."""

    def OutputString(self, attrs: Any = None) -> str:  # noqa: N802 - the name there
        return super().OutputString(attrs) + "; Partitioned"


def _set(
    answer: HttpResponse,
    binding: SessionBinding,
    value: str,
    *,
    max_age_s: int | None = None,
    suffix: str = "",
) -> None:
    """Set the session's cookie, or one named after it."""
    cookie = binding.cookie
    path, name = cookie.path, cookie.name + suffix
    if cookie.path_uses_trailing_slash and not path.endswith("/"):
        path += "/"
    if value and not suffix and cookie.max_age_s is not None:
        max_age_s = cookie.max_age_s
    answer.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path=path,
        domain=cookie.domain or None,
        # Browsers refuse the two without Secure.
        secure=cookie.secure or cookie.partitioned or cookie.same_site == "none",
        httponly=cookie.http_only,
        samesite=cookie.same_site.capitalize() or None,
    )
    if cookie.partitioned:
        made, plain = _Partitioned(), answer.cookies[name]
        made.set(plain.key, plain.value, plain.coded_value)
        made.update(plain)
        answer.cookies[name] = made


def _close(request: HttpRequest) -> None:
    """The request is over, however it ended: the next one of its session may run."""
    held = getattr(request, "_tribes_session", None)
    if held is not None:
        the_binding().close(held)


def _refusal() -> HttpResponse:
    return _answer(refusal.STATUS, refusal.head(), refusal.BODY)


def _answer(status: str, fields: list[tuple[str, str]], body: bytes) -> HttpResponse:
    return HttpResponse(body, status=int(status[:3]), headers=dict(fields))
