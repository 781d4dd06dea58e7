"""Sessions for Django: ``SESSION_ENGINE = "tribes.web.django"``.

The node is what the setting ``TRIBES`` says, a mapping of the shape of a configuration file::

    TRIBES = {"name": "web-1", "manager": {"channel_send_options": 6}}

Django's own middleware calls `SessionStore.save` before the response head leaves, so a commit
stands by then. A session is saved when Django would save it, and of a saved one only what was
changed is written: two requests that set different keys both succeed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from tribes.config.load import config_from
from tribes.errors import AttributeUnreadableError, ConfigError, SessionNotReplicatedError
from tribes.runtime.attached import AttachedNode, open_node
from tribes.runtime.background import BackgroundNode
from tribes.runtime.waiters import running_loop
from tribes.web import refusal
from tribes.web.binding import SessionBinding
from tribes.web.freshness import TOKEN_SUFFIX, Written, abring, bring, decode_token, encode_token

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult
    from tribes.manager.session import Session
    from tribes.runtime.handle import NodeHandle

__all__ = ["SessionMiddleware", "SessionStore", "node"]

_CONTEXTS: Final = ("django",)
_MISSING: Final = object()

_lock = threading.Lock()
_binding: SessionBinding | None = None


def node() -> BackgroundNode | AttachedNode:
    """The node of this process, as ``settings.TRIBES`` says.

    The first session of a process starts it, so a server may fork as it likes.

    Raises:
        ConfigError: The setting is missing, or has a value that cannot work.
    """
    made = _the_binding().node
    assert isinstance(made, BackgroundNode | AttachedNode)
    return made


def _the_binding() -> SessionBinding:
    global _binding
    if _binding is None:
        with _lock:
            if _binding is None:
                _binding = _new_binding()
    return _binding


def _new_binding() -> SessionBinding:
    found = getattr(settings, "TRIBES", None)
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"must be a dict such as {{'name': 'web-1'}}, found {found!r}",
            key="TRIBES",
            source="Django's settings",
        )
    config = config_from({"contexts": _CONTEXTS, **found}, source="Django's settings: TRIBES")
    return bound(open_node(config))


def bound(node: NodeHandle) -> SessionBinding:
    """A node's sessions, which know Django's own type of text besides the codec's types."""
    binding = SessionBinding(node, can_lock=False)
    binding.manager.codec.register(
        SafeString, name="django.SafeString", encode=lambda text: text + "", decode=SafeString
    )
    return binding


def _forget_node(*, setting: str, **_: Any) -> None:
    """For ``override_settings`` in tests: the next session starts another node."""
    global _binding
    if setting == "TRIBES" and _binding is not None:
        old, _binding = node(), None
        old.stop()


setting_changed.connect(_forget_node)


class SessionStore(SessionBase):  # type: ignore[misc]  # Django has no types
    """``request.session``. Values may be of every type that the codec knows, not JSON's only."""

    _session_key: str | None  # a property there

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._held: Session | None = None
        self._known: list[str] | None = None
        """Names that were loaded; None: the content is to replace all that is stored."""
        self._failed: set[str] = set()
        self.written: Written | None = None
        """What the client has written before, or this request: `SessionMiddleware` carries it."""
        self.has_written = False
        self._binding = _the_binding()
        if running_loop() is None:
            self._join()

    # Reading.

    def load(self) -> dict[str, Any]:
        """The content, from this process's memory; empty if there is no such session."""
        self._join()
        self._bring(self.session_key)
        return self._loaded()

    async def aload(self) -> dict[str, Any]:
        """The same in a task."""
        await self._ajoin()
        await self._abring(self.session_key)
        return self._loaded()

    def _loaded(self) -> dict[str, Any]:
        held = self._held = self._find(self.session_key)
        if held is None:
            self._session_key = None
            return {}
        content = {}
        for name in held:
            try:
                content[name] = held[name]
            except AttributeUnreadableError:
                pass  # stays stored, for those who can read it
        self._known = list(content)
        return content

    def exists(self, session_key: str | None) -> bool:
        """Whether there is a session of that key."""
        self._join()
        self._bring(session_key)
        return self._find(session_key) is not None

    async def aexists(self, session_key: str | None) -> bool:
        """The same in a task."""
        await self._ajoin()
        await self._abring(session_key)
        return self._find(session_key) is not None

    # Writing.

    def create(self) -> None:
        """Make a session and save it."""
        self._session_key = None
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        """The same in a task."""
        self._session_key = None
        await self.asave(must_create=True)
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Commit; returns when the members have it, as the send options say.

        Args:
            must_create: Make a session. Its key is always a new one.

        Raises:
            CreateError: There is a session of this key already.
            UpdateError: The session has ended meanwhile.
            SessionNotReplicatedError: Too few members have it, and that is to be an error.
        """
        must_create = must_create or self.session_key is None
        content = self._get_session(no_load=must_create)
        self._join()
        if self._must_find(must_create=must_create):
            self._bring(self.session_key)
        held = self._written(content, must_create)
        has_expired = not held.is_valid
        result = self._binding.committer.commit(held, known_failures=self._failed)
        self._saved(held, result, has_expired=has_expired)

    async def asave(self, must_create: bool = False) -> None:
        """The same in a task."""
        must_create = must_create or self.session_key is None
        content = await self._aget_session(no_load=must_create)
        await self._ajoin()
        if self._must_find(must_create=must_create):
            await self._abring(self.session_key)
        held = self._written(content, must_create)
        has_expired = not held.is_valid
        result = await self._binding.committer.acommit(held, known_failures=self._failed)
        self._saved(held, result, has_expired=has_expired)

    def _written(self, content: dict[str, Any], must_create: bool) -> Session:
        """The session, with what is to be committed."""
        if must_create:
            if self._find(self.session_key) is not None:
                raise CreateError
            held = self._binding.manager.create()
            self._session_key = held.id
        else:
            found = self._held or self._find(self.session_key)
            if found is None:
                raise UpdateError
            held = found
        self._held = held
        for name in list(held) if self._known is None else self._known:
            if name not in content:
                held.remove_attribute(name)
        for name, value in content.items():
            # What was loaded is the very object that the session has, and is compared there.
            if held.get(name, _MISSING) is not value:
                held[name] = value
        self._known = list(content)
        age_s = self.get_expiry_age(expiry=content.get("_session_expiry"))
        if age_s > 0:
            held.max_inactive = int(age_s)
        else:
            held.invalidate()
        return held

    def _saved(self, held: Session, result: CommitResult, *, has_expired: bool) -> None:
        if self._binding.must_tell(result):
            self.written = result.version, self._binding.manager.clock.actor
            self.has_written = True
        if not held.is_valid:
            self._held = None
            if not has_expired:
                raise UpdateError

    def delete(self, session_key: str | None = None) -> None:
        """End a session, on every node; without a key this one."""
        self._join()
        self._bring(session_key or self.session_key)
        held = self._ended(session_key)
        if held is not None:
            self._binding.committer.commit(held)

    async def adelete(self, session_key: str | None = None) -> None:
        """The same in a task."""
        await self._ajoin()
        await self._abring(session_key or self.session_key)
        held = self._ended(session_key)
        if held is not None:
            await self._binding.committer.acommit(held)

    def _ended(self, session_key: str | None) -> Session | None:
        if session_key is None:
            self._held = None
        held = self._find(session_key or self.session_key)
        if held is not None:
            held.invalidate()
        return held

    def clear(self) -> None:
        """Empty it."""
        super().clear()
        self._known = None

    def cycle_key(self) -> None:
        """Take a new key, at a login; from the next ``save`` on the old one is worth nothing."""
        self._get_session()
        if self._held is None:
            self._bring(self.session_key)
        if not self._rotated():
            self.create()

    async def acycle_key(self) -> None:
        """The same in a task."""
        await self._aget_session()
        if self._held is None:
            await self._abring(self.session_key)
        if not self._rotated():
            await self.acreate()

    def _rotated(self) -> bool:
        held = self._held = self._held or self._find(self.session_key)
        if held is None or not held.is_valid:
            return False
        self._session_key = held.rotate_id(grace_s=0)
        self.modified = True
        return True

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing: the nodes end what has expired."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """Nothing either."""

    # The node.

    def _must_find(self, *, must_create: bool) -> bool:
        return must_create or self._held is None

    def _bring(self, session_key: str | None) -> None:
        if session_key:
            bring(self._binding.manager, (session_key,), self.written)

    async def _abring(self, session_key: str | None) -> None:
        if session_key:
            await abring(self._binding.manager, (session_key,), self.written)

    def _find(self, session_key: str | None) -> Session | None:
        return self._binding.manager.find(session_key) if session_key else None

    def _join(self) -> None:
        if self._binding.life.must_join:
            self._binding.life.join()

    async def _ajoin(self) -> None:
        if self._binding.life.must_join:
            await self._binding.life.ajoin()


class SessionMiddleware(DjangoSessionMiddleware):  # type: ignore[misc]  # Django has no types
    """Django's, which answers a commit that is on too few members by 503 and not by 500.

    In ``MIDDLEWARE`` instead of Django's, for ``"on_unreplicated": "error"``, and so that a client
    reads its own writes on every node: it carries the token of them, in a cookie of its own.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Make the session."""
        super().process_request(request)
        token = request.COOKIES.get(settings.SESSION_COOKIE_NAME + TOKEN_SUFFIX, "")
        if isinstance(request.session, SessionStore):
            request.session.written = decode_token(token)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Save the session and write the cookies."""
        answer = self._process_response(request, response)
        held = getattr(request, "session", None)
        if isinstance(held, SessionStore) and held.has_written and held.written is not None:
            answer.set_cookie(
                settings.SESSION_COOKIE_NAME + TOKEN_SUFFIX,
                encode_token(*held.written),
                domain=settings.SESSION_COOKIE_DOMAIN,
                path=settings.SESSION_COOKIE_PATH,
                secure=settings.SESSION_COOKIE_SECURE or None,
                httponly=settings.SESSION_COOKIE_HTTPONLY or None,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
        return answer

    def _process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
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

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """The same for what a view saves itself, such as a logout."""
        return _refusal() if isinstance(exception, SessionNotReplicatedError) else None


def _refusal() -> HttpResponse:
    return HttpResponse(refusal.BODY, status=int(refusal.STATUS[:3]), headers=dict(refusal.head()))
