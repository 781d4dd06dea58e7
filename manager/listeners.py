"""Who wants to know of a context's sessions, their attributes, and what stores do with them.

A listener is any object that has one or more of the methods below; `SessionListeners.add` looks
once which ones.  Nothing is spent on a kind of event that nobody listens for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final, runtime_checkable

from tribes.errors import LocalProtocolError

if TYPE_CHECKING:
    from .session import Session

__all__ = [
    "ActivationListener",
    "AttributeListener",
    "BindingListener",
    "ContainerListener",
    "EvictionListener",
    "SessionListener",
    "SessionListeners",
    "tells_value",
]


class SessionListener(Protocol):
    """Gets the events of sessions, in the thread that causes them; never in the core's."""

    def session_created(self, session: Session) -> None:
        """A request made a session; what is set in it here is committed with the request."""

    def session_destroyed(self, session: Session, reason: str) -> None:
        """A session ended.

        Args:
            session: A copy with its last content; changing it has no effect.
            reason: ``"invalidated"``, ``"expired"``, ``"lifetime"`` (``max_lifetime_s``),
                ``"evicted"`` (``on_full``) or ``"shutdown"``; ``"replicated"`` if another member
                ended it and ``notify_session_listeners_on_replication`` is set.
        """

    def session_id_changed(self, session: Session, old_id: str) -> None:
        """A commit gave a session another id than the one that it had, ``old_id``."""


class EvictionListener(Protocol):
    """Is told that a session left this process, and lives on elsewhere."""

    def session_evicted(self, session: Session, reason: str) -> None:
        """A session is no longer served here.

        Args:
            session: A copy with its content.
            reason: ``"shutdown"``: this node stops, and the other members have it.
        """


class AttributeListener(Protocol):
    """Is told what a request does to attributes, when it does it, before the commit."""

    def attribute_added(self, session: Session, name: str, value: Any) -> None:
        """A value was set where there was none."""

    def attribute_replaced(self, session: Session, name: str, old: Any) -> None:
        """Another value was set; ``session[name]`` is the new one. ``old`` is None if it cannot be
        read here.
        """

    def attribute_removed(self, session: Session, name: str, old: Any) -> None:
        """A value was removed, or its session has ended."""


@runtime_checkable
class ActivationListener(Protocol):
    """Is told what stores do with sessions."""

    def session_will_passivate(self, session: Session) -> None:
        """A session is about to leave this process's memory for its store."""

    def session_activated(self, session: Session) -> None:
        """A session came back from its store."""


class ContainerListener(Protocol):
    """Is told what happens to a manager (Tomcat: container events)."""

    def container_event(self, context: str, kind: str, data: object) -> None:
        """Something happened.

        Args:
            context: Of the manager.
            kind: ``"session_created"``, ``"session_destroyed"`` or ``"session_id_changed"``.
            data: The session's id; old and new id for a change.
        """


class BindingListener(Protocol):
    """A value of a registered class that has these is told when it begins and ceases to be an
    attribute. Every `value_bound` has exactly one `value_unbound`.
    """

    def value_bound(self, session: Session, name: str) -> None:
        """It is about to become an attribute."""

    def value_unbound(self, session: Session, name: str) -> None:
        """It, or a copy of it that was decoded, is no attribute any more."""


_METHODS: Final = (
    "session_created",
    "session_destroyed",
    "session_id_changed",
    "session_evicted",
    "attribute_added",
    "attribute_replaced",
    "attribute_removed",
    "session_will_passivate",
    "session_activated",
    "container_event",
)
_ATTRIBUTE: Final = ("attribute_added", "attribute_replaced", "attribute_removed")


def tells_value(cls: type) -> bool:
    """Tell whether values of a class are to be told of their binding."""
    return hasattr(cls, "value_bound") or hasattr(cls, "value_unbound")


@final
class SessionListeners:
    """The listeners of one context.

    They are told in the order in which they were added, ends and removals in the reverse order, as
    Tomcat does.  What a listener raises cannot undo what has happened: it is counted and passed on,
    and the others are still called.

    Args:
        on_error: Told what a listener raised.

    Attributes:
        failures: How many calls raised.
    """

    __slots__ = ("_calls", "_listeners", "_on_error", "failures")

    def __init__(self, on_error: Callable[[Exception], None] | None) -> None:
        self._listeners: tuple[object, ...] = ()
        self._calls: dict[str, tuple[Callable[..., object], ...]] = {}
        self._on_error = on_error
        self.failures = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: object) -> None:
        """Call a listener from now on; added twice, it is called twice.

        Raises:
            LocalProtocolError: It has none of the methods.
        """
        if not any(callable(getattr(listener, name, None)) for name in _METHODS):
            raise LocalProtocolError(
                f"{listener!r} has none of the methods of a listener: {', '.join(_METHODS)}"
            )
        self._set((*self._listeners, listener))

    def remove(self, listener: object) -> None:
        """Do not call a listener any more; does nothing if it was not added."""
        self._set(tuple(other for other in self._listeners if other is not listener))

    def _set(self, listeners: tuple[object, ...]) -> None:
        self._listeners = listeners
        calls = {}
        for name in _METHODS:
            methods = [getattr(listener, name, None) for listener in listeners]
            if found := tuple(method for method in methods if callable(method)):
                calls[name] = found
        self._calls = calls

    def wants(self, *names: str) -> bool:
        """Tell whether anybody listens for one of these methods' events."""
        return any(name in self._calls for name in names)

    @property
    def wants_attributes(self) -> bool:
        """Whether anybody listens for attributes."""
        return self.wants(*_ATTRIBUTE)

    def created(self, session: Session) -> None:
        """Tell of a new session."""
        self._tell("session_created", session)

    def destroyed(self, session: Session, reason: str) -> None:
        """Tell of a session's end, in the reverse order."""
        for call in reversed(self._calls.get("session_destroyed", ())):
            self.guard(partial(call, session, reason))

    def evicted(self, session: Session, reason: str) -> None:
        """Tell that a session left this process and lives on."""
        self._tell("session_evicted", session, reason)

    def id_changed(self, session: Session, old_id: str) -> None:
        """Tell of a session's new id."""
        self._tell("session_id_changed", session, old_id)

    def attribute_added(self, session: Session, name: str, value: Any) -> None:
        """Tell of a new attribute."""
        self._tell("attribute_added", session, name, value)

    def attribute_replaced(self, session: Session, name: str, old: Any) -> None:
        """Tell of an attribute's new value."""
        self._tell("attribute_replaced", session, name, old)

    def attribute_removed(self, session: Session, name: str, old: Any) -> None:
        """Tell of an attribute that is no more."""
        self._tell("attribute_removed", session, name, old)

    def passivating(self, session: Session) -> None:
        """Tell that a session is about to leave the memory."""
        self._tell("session_will_passivate", session)

    def activated(self, session: Session) -> None:
        """Tell that a session came back."""
        self._tell("session_activated", session)

    def container(self, context: str, kind: str, data: object) -> None:
        """Tell what happened to the manager."""
        self._tell("container_event", context, kind, data)

    def _tell(self, name: str, *args: object) -> None:
        for call in self._calls.get(name, ()):
            self.guard(partial(call, *args))

    def guard(self, call: Callable[[], object]) -> None:
        """Call a function of the application: what it raises is counted and told, no more."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the application's code, see the class
            self.failures += 1
            if self._on_error is not None:
                self._on_error(error)
