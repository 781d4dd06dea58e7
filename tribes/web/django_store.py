"""Django's session engine: one request's session, as its views have it.

A session is saved when Django would save it, and of a saved one only what was changed is written:
two requests that set different keys both succeed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from tribes.errors import AttributeUnreadableError
from tribes.runtime.waiters import running_loop
from tribes.web.django_node import the_binding
from tribes.web.freshness import Written, abring, bring
from tribes.web.request_session import RequestSession

if TYPE_CHECKING:
    from tribes.manager.session import Session

__all__ = ["SessionStore"]

_MISSING: Final = object()


class SessionStore(SessionBase):  # type: ignore[misc]  # Django has no types
    """``request.session``. Values may be of every type that the codec knows, not JSON's only."""

    _session_key: str | None  # a property there

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._held: Session | None = None
        self._known: list[str] | None = None
        """Names that were loaded; None: the content is to replace all that is stored."""
        self.request = RequestSession(the_binding().manager, None)
        """What the request holds of the session; `SessionMiddleware` brings its own."""
        self.is_robots = False
        """All requests of a robot share the session, which ends as those of robots do."""
        self.is_aside = False
        """The request is answered without its session."""
        self.written: Written | None = None
        """What the client has written before, or this request: `SessionMiddleware` carries it."""
        self.has_written = False
        self._binding = the_binding()
        if running_loop() is None:
            self._join()

    def attach(self, request: RequestSession, offered: str | None) -> None:
        """Take what the middleware has found for a request.

        Args:
            request: The session, if there is one.
            offered: The id that the client sent, where there is none.
        """
        self.request = request
        self._session_key = offered if request.session is None else request.session.id

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
        if must_create or self._held is None:
            self._bring(self.session_key)
        held = self._written(content, must_create)
        has_expired = not held.is_valid
        self._binding.commit(self.request)
        self._saved(held, has_expired=has_expired)

    async def asave(self, must_create: bool = False) -> None:
        """The same in a task."""
        must_create = must_create or self.session_key is None
        content = await self._aget_session(no_load=must_create)
        await self._ajoin()
        if must_create or self._held is None:
            await self._abring(self.session_key)
        held = self._written(content, must_create)
        has_expired = not held.is_valid
        await self._binding.acommit(self.request)
        self._saved(held, has_expired=has_expired)

    def _written(self, content: dict[str, Any], must_create: bool) -> Session:
        """The session, with what is to be committed."""
        if must_create:
            if self._find(self.session_key) is not None:
                raise CreateError
            held = self._binding.manager.create()
            self._session_key = held.id
            if self.request.on_made is not None:
                self.request.on_made(held)
        else:
            found = self._held or self._find(self.session_key)
            if found is None:
                raise UpdateError
            held = found
        self._held = self.request.session = held
        for name in list(held) if self._known is None else self._known:
            if name not in content:
                held.remove_attribute(name)
        for name, value in content.items():
            # What was loaded is the very object that the session has, and is compared there.
            if held.get(name, _MISSING) is not value:
                held[name] = value
        self._known = list(content)
        age_s = self.get_expiry_age(expiry=content.get("_session_expiry"))
        if age_s <= 0:
            held.invalidate()
        elif not self.is_robots:
            held.max_inactive = int(age_s)
        return held

    def _saved(self, held: Session, *, has_expired: bool) -> None:
        if self.request.written is not None:
            self.written = self.request.written, self._binding.manager.clock.actor
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

    def _bring(self, session_key: str | None) -> None:
        """Have it here, with what the client has written; the request's own is."""
        if session_key and self._own(session_key) is None:
            bring(self._binding.manager, (session_key,), self.written)

    async def _abring(self, session_key: str | None) -> None:
        if session_key and self._own(session_key) is None:
            await abring(self._binding.manager, (session_key,), self.written)

    def _find(self, session_key: str | None) -> Session | None:
        if not session_key:
            return None
        return self._own(session_key) or self._binding.manager.find(session_key)

    def _own(self, session_key: str) -> Session | None:
        """The request's session, if that is its key."""
        own = self.request.session
        return own if own is not None and own.is_valid and own.id == session_key else None

    def _join(self) -> None:
        if self._binding.life.must_join:
            self._binding.life.join()

    async def _ajoin(self) -> None:
        if self._binding.life.must_join:
            await self._binding.life.ajoin()
