"""Who wants to know of a context's sessions: created, ended, id changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, final, runtime_checkable

if TYPE_CHECKING:
    from .session import Session

__all__ = ["ActivationListener", "SessionListener", "SessionListeners"]


class SessionListener(Protocol):
    """Gets the events of sessions, in the thread that causes them; never in the core's."""

    def session_created(self, session: Session) -> None:
        """A request made a session; what is set in it here is committed with the request."""

    def session_destroyed(self, session: Session, reason: str) -> None:
        """A session ended.

        Args:
            session: A copy with its last content; changing it has no effect.
            reason: ``"invalidated"``, or what `SessionManager.notify_destroyed` was told.
        """

    def session_id_changed(self, session: Session, old_id: str) -> None:
        """A commit gave a session another id than the one that it had, ``old_id``."""


@runtime_checkable
class ActivationListener(Protocol):
    """A `SessionListener` that has these too is told what stores do with sessions."""

    def session_will_passivate(self, session: Session) -> None:
        """A session is about to leave this process's memory for its store."""

    def session_activated(self, session: Session) -> None:
        """A session came back from its store."""


@final
class SessionListeners:
    """The listeners of one context.

    Creations and id changes are told in the order in which the listeners were added, ends in the
    reverse order, as Tomcat does.  What a listener raises cannot undo what has happened: it is
    counted and passed on, and the others are still called.

    Args:
        on_error: Told what a listener raised.

    Attributes:
        failures: How many calls raised.
    """

    __slots__ = ("_listeners", "_on_error", "failures")

    def __init__(self, on_error: Callable[[Exception], None] | None) -> None:
        self._listeners: tuple[SessionListener, ...] = ()
        self._on_error = on_error
        self.failures = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: SessionListener) -> None:
        """Call a listener from now on; added twice, it is called twice."""
        self._listeners = (*self._listeners, listener)

    def remove(self, listener: SessionListener) -> None:
        """Do not call a listener any more; does nothing if it was not added."""
        self._listeners = tuple(other for other in self._listeners if other is not listener)

    def created(self, session: Session) -> None:
        """Tell of a new session."""
        for listener in self._listeners:
            self._guard(partial(listener.session_created, session))

    def destroyed(self, session: Session, reason: str) -> None:
        """Tell of a session's end."""
        for listener in reversed(self._listeners):
            self._guard(partial(listener.session_destroyed, session, reason))

    def id_changed(self, session: Session, old_id: str) -> None:
        """Tell of a session's new id."""
        for listener in self._listeners:
            self._guard(partial(listener.session_id_changed, session, old_id))

    def passivating(self, session: Session) -> None:
        """Tell that a session is about to leave the memory."""
        for listener in self._listeners:
            if isinstance(listener, ActivationListener):
                self._guard(partial(listener.session_will_passivate, session))

    def activated(self, session: Session) -> None:
        """Tell that a session came back."""
        for listener in self._listeners:
            if isinstance(listener, ActivationListener):
                self._guard(partial(listener.session_activated, session))

    def call(self, call: Callable[[], None]) -> None:
        """Call another function of the application, with the same care."""
        self._guard(call)

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the application's code, see the class
            self.failures += 1
            if self._on_error is not None:
                self._on_error(error)
