"""Sessions for every WSGI application: one middleware.

As under ASGI, what a request changed is committed *before* the response head leaves. WSGI leaves
its own moment for that: ``start_response`` only notes the head, and it goes to the server with the
first bytes of the body, however these come: as a list, from a generator, or by ``write``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tribes.errors import SessionLockTimeoutError, SessionNotReplicatedError, StoreError
from tribes.manager.request_line import RequestLine
from tribes.web import refusal
from tribes.web.binding import SessionBinding, Tracking
from tribes.web.ready import ready_answer
from tribes.web.request_session import RequestSession
from tribes.web.urls import strip_environ

if TYPE_CHECKING:
    from tribes.manager.policy import OnUnreplicated
    from tribes.runtime.handle import NodeHandle
    from tribes.runtime.local import LocalSessions
    from tribes.web.cookies import CookieSettings

__all__ = ["SESSION", "SessionMiddleware", "request_line"]

SESSION: Final = "tribes.session"
"""The key of the session in ``environ``."""

Environ: TypeAlias = MutableMapping[str, Any]
Write: TypeAlias = Callable[[bytes], object]
StartResponse: TypeAlias = Callable[..., Write]
WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]
ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]


class SessionMiddleware:
    """Gives ``environ["tribes.session"]`` to a WSGI application.

    ::

        node = BackgroundNode(NodeConfig(name="web-1", contexts=("shop",)))
        application = SessionMiddleware(application, node)

    The node is started by the first request of each process, so that a server may fork as it
    likes (gunicorn ``--preload``), or before by ``node.start()``. That request, and those that come
    meanwhile, wait until this node has the others' sessions, at most
    ``state_transfer_timeout_s``. The node is stopped when the process ends.

    A request blocks its own thread until the members have its changes, as the send options promise.
    If too few have them and that is to be an error, it is answered by 503 with its cookie. What a
    generator changes after its first bytes is committed when the server closes it, and can no
    longer be refused.

    Args:
        app: The application.
        node: The member of the group in this process; or an :class:`AttachedNode`, or
            :class:`LocalSessions`.
        context: Which of the node's contexts; may be left out when it has one.
        cookie: How the cookie is written.
        route: This node's name for a sticky balancer (Tomcat: ``jvmRoute``), appended to the id
            in the cookie after a dot.
        on_unreplicated: What to do when a commit is on too few members, instead of what the
            manager's configuration says; see :class:`tribes.web.asgi.SessionMiddleware`. A function
            is called in the thread of the request.
        tracking: Where ids travel: ``"cookie"``; ``"url"``, as ``;jsessionid=…`` in links that the
            application makes by `encode_url`; or ``"both"``, where a client without cookies needs
            the links.
        ready_path: Path at which a balancer asks whether to send requests here: 200 when this node
            has the others' sessions and is not about to leave, else 503. Empty: there is none.

    Raises:
        ConfigError: The node does not have that context, the route cannot be in a cookie, or
            ``on_unreplicated`` or ``tracking`` cannot be used.
    """

    def __init__(
        self,
        app: WSGIApp,
        node: NodeHandle | LocalSessions,
        *,
        context: str | None = None,
        cookie: CookieSettings | None = None,
        route: str = "",
        on_unreplicated: OnUnreplicated | None = None,
        tracking: Tracking = "cookie",
        ready_path: str = "",
    ) -> None:
        self.app = app
        self._ready_path = ready_path
        self.binding = SessionBinding(
            node,
            context=context,
            cookie=cookie,
            route=route,
            on_unreplicated=on_unreplicated,
            tracking=tracking,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run one request."""
        binding = self.binding
        if self._ready_path and environ.get("PATH_INFO") == self._ready_path:
            status, headers, text = ready_answer(is_ready=binding.life.is_ready())
            start_response(status, headers)
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [text]
        if binding.life.must_join:
            binding.life.join()
        if binding.is_filtered(request_line(environ).path):
            return self.app(environ, start_response)
        cookies = environ.get("HTTP_COOKIE", "").encode("latin-1")
        url = None
        if binding.tracking != "cookie":
            url = strip_environ(environ, binding.parameter, binding.ids)
        line = request_line(environ) if binding.wants_request else None
        try:
            held = binding.open((cookies,), url, line)
        except (StoreError, SessionLockTimeoutError) as why:
            # Nobody knows whether there is a session; a new one would log the user out.
            start_response(refusal.status_of(why), refusal.head())
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [refusal.BODY]
        is_secure = environ.get("wsgi.url_scheme") == "https"
        if away := binding.away(held, environ, (cookies,), is_secure=is_secure):
            start_response(f"{away[0]} {HTTPStatus(away[0]).phrase}", away[1])
            return []
        held.is_included = isinstance(environ.get(SESSION), RequestSession)
        environ[SESSION] = held
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        binding.begin(held, path.encode("latin-1").decode("utf-8", "replace"), environ)
        answer = _Answer(binding, held, environ, start_response)
        try:
            body = self.app(environ, answer.start)
        except BaseException:
            answer.end()
            raise
        if answer.has_head and not answer.is_sent and _is_inert(body, environ):
            # Nothing of the application runs from here on. The server gets the very object, of
            # which it may know the length, or send it as a file.
            try:
                answer.send_head()
            except BaseException:
                _close(body)
                raise
            finally:
                binding.close(held)
            if not answer.is_refused:
                return body
            _close(body)
            return [] if answer.is_head else [refusal.BODY]
        return _Body(answer, body)


def request_line(environ: Environ) -> RequestLine:
    """What a manager may want to know of a request."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    return RequestLine(
        environ.get("REQUEST_METHOD", ""),
        path.decode("utf-8", "replace"),
        environ.get("QUERY_STRING", ""),
    )


def _is_inert(body: Iterable[bytes], environ: Environ) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return type(body) in (list, tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


class _Answer:
    """The head of one response, kept back until the session is committed.

    Attributes:
        is_head: The client wants no body.
        is_sent: The head is with the server.
        is_refused: It was that of the refusal.
    """

    def __init__(
        self,
        binding: SessionBinding,
        held: RequestSession,
        environ: Environ,
        start_response: StartResponse,
    ) -> None:
        self._binding = binding
        self._held = held
        self._is_secure = environ.get("wsgi.url_scheme") == "https"
        self.is_head = environ.get("REQUEST_METHOD") == "HEAD"
        self._start_response = start_response
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._write: Write | None = None
        self._is_over = False
        self.is_sent = False
        self.is_refused = False

    @property
    def has_head(self) -> bool:
        """Whether the application has called ``start_response``."""
        return self._head is not None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Write:
        """The application's ``start_response``."""
        if exc_info is None:
            assert self._head is None, "start_response was called twice without exc_info"
        elif self.is_sent:
            # For the server: if bytes are out it raises what exc_info says.
            self._start_response(status, headers, exc_info)
        self._head = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """The application's ``write``."""
        if not self.is_sent and data:
            self.send_head()
            if self.is_refused and not self.is_head:
                self._write_out(refusal.BODY)
        if data and not self.is_refused:
            self._write_out(data)

    def _write_out(self, data: bytes) -> None:
        assert self._write is not None
        self._write(data)

    def send_head(self) -> None:
        """Commit, and give the server the head: the application's, or the refusal's."""
        assert self._head is not None, "the application did not call start_response"
        status, headers = self._head
        try:
            self._binding.commit(self._held)
        except SessionNotReplicatedError:
            self.is_refused = True
            status, headers = refusal.STATUS, refusal.head()
        cookies = self._binding.set_cookies(self._held, is_secure=self._is_secure)
        headers = [*headers, *(("Set-Cookie", each.decode("latin-1")) for each in cookies)]
        if cookies:
            # No cache may give one client's cookie to another.
            headers.append(("Vary", "Cookie"))
        self.is_sent = True
        self._write = self._start_response(status, headers)

    def end(self) -> None:
        """Commit what was changed since the head, or of a request that failed before it."""
        if not self._is_over:
            self._is_over = True
            try:
                if self._held.keeps_changes:
                    self._binding.commit(self._held, can_refuse=False)
            finally:
                self._binding.close(self._held)


class _Body:
    """The body of one response; sends the head with its first bytes."""

    def __init__(self, answer: _Answer, body: Iterable[bytes]) -> None:
        self._answer = answer
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        answer = self._answer
        if answer.is_refused:
            raise StopIteration
        if self._chunks is None:
            self._chunks = iter(self._body)
        for chunk in self._chunks:
            if not answer.is_sent:
                # An empty one must not send the head, and cannot be passed on without it.
                if not chunk:
                    continue
                return self._first(chunk)
            if answer.is_refused:
                break  # by a call of write in between
            return chunk
        if answer.has_head and not answer.is_sent:
            return self._first(b"")
        raise StopIteration

    def _first(self, chunk: bytes) -> bytes:
        answer = self._answer
        answer.send_head()
        if not answer.is_refused:
            return chunk
        if answer.is_head:
            raise StopIteration
        return refusal.BODY

    def close(self) -> None:
        """Called by the server in any case, when it has everything or wants no more."""
        try:
            _close(self._body)
        finally:
            self._answer.end()
