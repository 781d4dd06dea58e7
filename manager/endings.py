"""How the end of a session is told, once, in the order that Tomcat's applications know (§3.2).

1. the destroyed listeners, the last added first: they find the session's last content in a copy;
2. it is removed: counted, and the container's listeners are told;
3. who is logged in is logged out (``principal.logout()``, if there is such a method);
4. its attributes are taken out: values that listen are unbound, attribute listeners told.

Unlike Tomcat's, a session that is being ended is found by no request from before the first step on:
the step that takes it out of the table is what decides who tells.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final, final

from .clock import hlc_to_ms
from .listeners import tells_value
from .recent import remember
from .record import Life, header, main_of
from .session_listeners import replicated_listeners
from .watched import stored_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .clock import Clock
    from .kept_here import Kept
    from .lives import Lives
    from .record import Record
    from .session import Session
    from .table import SessionTable
    from .values import ValueCodec
    from .watched import Watch

__all__ = ["Endings"]

TOLD_MAX: Final = 10_000
"""Expired sessions whose values are remembered to be unbound; of older ones late requests are told
nothing.
"""

_LIVE: Final = int(Life.LIVE)


@final
class Endings:
    """Tells the ends of one manager's sessions.

    Args:
        context: Of the manager.
        watch: Its listeners, and what is kept here.
        lives: Counts them.
        clock: Says how long they have lived.
        codec: Reads their values.
        table: Where they are.
    """

    __slots__ = ("_clock", "_codec", "_context", "_lives", "_table", "_told", "_watch")

    def __init__(
        self,
        context: str,
        watch: Watch,
        lives: Lives,
        clock: Clock,
        codec: ValueCodec,
        table: SessionTable,
    ) -> None:
        self._context = context
        self._watch = watch
        self._lives = lives
        self._clock = clock
        self._codec = codec
        self._table = table
        # Expired, and their values are unbound; a request that came late may bring them back.
        self._told: OrderedDict[str, None] = OrderedDict()

    def claim(self, key: str) -> Record | None:
        """Return the record of a session that has expired, whose end is now to be told.

        None if a late request has brought it back: it is told of when it ends. In the same step it
        is noted for `revived`, so that either sees what the other does.
        """
        with self._table.lock:
            record = self._table.get(key)
            if record is None or main_of(record)[1] == _LIVE:
                return None
            if self._codec.tells_values:
                remember(self._told, key, None, TOLD_MAX)
        return record

    def revived(self, session: Session, before: Record) -> None:
        """A late request has brought an expired session back: its values are bound again."""
        if session.key not in self._told:
            return
        self._told.pop(session.key, None)
        for name, value in stored_values(before, self._codec):
            if tells_value(type(value)):
                self._watch.bound(session, name, value)

    def tell(self, session: Session, reason: str) -> None:
        """Tell of an end.

        Args:
            session: A copy with the last content.
            reason: See `SessionListener.session_destroyed`.
        """
        watch = self._watch
        listeners, reading = watch.listeners, session.reading
        assert reading is not None
        values, own = watch.kept.take(session.key)
        own = (*replicated_listeners(reading, self._codec), *own)
        listeners.destroyed(session, reason)
        for listener in reversed(own):
            if (call := getattr(listener, "session_destroyed", None)) is not None:
                listeners.guard(partial(call, session, reason))
        lived_ms = self._clock.wall_ms() - hlc_to_ms(header(reading.record).created)
        self._lives.end(lived_ms / 1000)
        listeners.container(self._context, "session_destroyed", session.id)
        self._log_out(session)
        session.abandoned()  # what listeners did to the copy
        self._take_out(reading.record, session, values)

    def replicated(self, session: Session) -> None:
        """Tell the listeners here that another member has ended a session."""
        listeners = self._watch.listeners
        if self._watch.rules.tells_sessions:
            listeners.destroyed(session, "replicated")
        if self._watch.rules.tells_container:
            listeners.container(self._context, "session_destroyed", session.id)

    def forget(self, session: Session) -> None:
        """Unbind what only this process has of a session that another member has ended."""
        values, _ = self._watch.kept.take(session.key)
        for name, kept in values.items():
            self._watch.unbound(session, name, kept.value)

    def _log_out(self, session: Session) -> None:
        try:
            logout = getattr(session.principal, "logout", None)
        except Exception:  # noqa: BLE001 - of a class that is not registered here: nothing to call
            return
        if callable(logout):
            self._watch.listeners.guard(logout)

    def _take_out(self, record: Record, session: Session, kept: Mapping[str, Kept]) -> None:
        watch, listeners = self._watch, self._watch.listeners
        wants = listeners.wants("attribute_removed")
        stored = []
        if wants or self._codec.tells_values:
            stored = stored_values(record, self._codec)
        values = dict(stored) | {name: each.value for name, each in kept.items()}
        for name, value in values.items():
            if tells_value(type(value)):
                watch.unbound(session, name, value)
            if wants:
                listeners.attribute_removed(session, name, value)
