"""Which sessions requests use at this moment (``session_activity_check``).

A request uses its session as long as it holds the object, which ends by itself however the request
ends.  So nothing has to be given back, and nothing can be forgotten to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from weakref import ref

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Activity"]


@final
class Activity:
    """The session objects that are in use. For any thread: every step is one of a dictionary's."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[ref[Session], str] = {}

    def begin(self, session: Session) -> None:
        """A request holds this object from now on."""
        self._open[ref(session, self._end)] = session.key

    def _end(self, which: ref[Session]) -> None:
        # The very object that was put in: a dead reference equals no other.
        self._open.pop(which, None)

    def keys(self) -> set[str]:
        """Return the keys of all sessions in use."""
        held = list(self._open.values())  # at once, whatever other threads do
        return set(held)

    def has(self, key: str) -> bool:
        """Tell whether a request uses a session."""
        return key in self.keys()
