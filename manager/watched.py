"""A session's attributes where somebody wants to know of them, or where filters hold some back.

`WatchedBag` stands in for `Bag` only where it must: with attribute listeners, filters, values that
are told of their binding, or values that are kept here.

**When who is told.** Attribute listeners hear of an assignment at once, as Tomcat's do.  A value is
told that it is bound before it is put in.  It is told that it is unbound when that is certain: at
once if no commit has seen it, else by the commit that takes it out, or by whoever tells of the
session's end.  A commit replaces a record in one step and so knows what it took out; therefore each
``value_bound`` has one ``value_unbound``, whatever requests and expiries run at the same time.
Two *nodes* that write one attribute in the same moment each take out what was there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, final

from tribes.errors import AttributeUnreadableError, SessionInvalidError

from .bag import Bag, check_name
from .changes import Change
from .kept_here import REMOVED
from .listeners import tells_value
from .reading import Reading
from .record import Kind, Namespace, Record, read_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .changes import Built
    from .kept_here import KeptHere
    from .listeners import SessionListeners
    from .rules import Rules
    from .session import Session
    from .values import ValueCodec

__all__ = ["Watch", "WatchedBag", "stored_values"]

_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_REPORTED_MAX: Final = 1000
"""Names of held-back attributes that are reported, each once."""


class _Mark:
    pass


_NOTHING: Final = _Mark()


@final
class Watch:
    """What the attributes of one manager's sessions are watched for.

    Args:
        rules: What stays here, and who hears of what.
        listeners: Who hears.
        kept: What stays here.
        codec: Knows the classes whose values are told.
        report: Gets level, event and fields of a log line.

    Attributes:
        filtered: Assignments whose value was held back.
        is_on: Every session's attributes are watched.
    """

    __slots__ = (
        "_codec",
        "_report",
        "_reported",
        "filtered",
        "is_on",
        "kept",
        "listeners",
        "rules",
    )

    def __init__(
        self,
        rules: Rules,
        listeners: SessionListeners,
        kept: KeptHere,
        codec: ValueCodec,
        report: Callable[[str, str, dict[str, object]], None],
    ) -> None:
        self.rules = rules
        self.listeners = listeners
        self.kept = kept
        self.filtered = 0
        self._codec = codec
        self._report = report
        self._reported: set[str] = set()
        self.is_on = False
        self.look()

    def look(self) -> None:
        """Find out again who wants to know; the listeners have changed."""
        rules = self.rules
        self.is_on = (
            rules.has_filters or not rules.tracks_in_place or self.listeners.wants_attributes
        )

    def stays_here(self, name: str, value: object) -> bool:
        """Tell whether a value must not leave the process, and count and report it then."""
        if not self.rules.stays_here(name, value):
            return False
        self.filtered += 1
        if name not in self._reported and len(self._reported) < _REPORTED_MAX:
            self._reported.add(name)
            kind = type(value)
            level = "warning" if self.rules.warns_of_filters else "debug"
            fields: dict[str, object] = {
                "attribute": name,
                "type": f"{kind.__module__}.{kind.__qualname__}",
            }
            self._report(level, "session attribute stays in this process", fields)
        return True

    def bound(self, session: Session, name: str, value: Any) -> None:
        """Tell a value that it is about to become an attribute."""
        self._call("value_bound", session, name, value)

    def unbound(self, session: Session, name: str, value: Any) -> None:
        """Tell a value that it is none any more."""
        self._call("value_unbound", session, name, value)

    def _call(self, method: str, session: Session, name: str, value: Any) -> None:
        call = getattr(value, method, None)
        if call is not None:
            self.listeners.guard(partial(call, session, name))


@final
class WatchedBag(Bag):
    """The attributes of one request's session, watched.

    Args:
        reading: What they are read from; None: nothing yet.
        codec: Encodes and decodes them.
        watch: The manager's.
        session: Whose attributes these are.
    """

    __slots__ = (
        "_fresh",
        "_here",
        "_kept",
        "_leaving",
        "_session",
        "_watch",
    )

    def __init__(
        self, reading: Reading | None, codec: ValueCodec, watch: Watch, session: Session
    ) -> None:
        super().__init__(_ATTRIBUTE, reading, codec)
        self._watch = watch
        self._session = session
        self._kept = watch.kept.values_of(session.key)
        # What this request keeps here, or does so no longer.
        self._here: dict[str, Any] = {}
        # Told that they are bound, and not yet committed.
        self._fresh: dict[str, Any] = {}
        # Names whose committed value goes with the commit.
        self._leaving: set[str] = set()

    @classmethod
    def over(cls, bag: Bag, watch: Watch, session: Session) -> Self:
        """Go on from a bag that was not watched so far."""
        made = cls(bag._reading, bag._codec, watch, session)
        made._values, made._assigned, made._mutable = bag._values, bag._assigned, bag._mutable
        made.is_closed = bag.is_closed
        return made

    def __setitem__(self, name: str, value: Any) -> None:
        self._check_open()
        check_name(name)
        watch, rules = self._watch, self._watch.rules
        old = self._peek(name)
        is_same = old is value
        # Nothing can leave through an old value, so what is held back is decided for the new one.
        stays = watch.stays_here(name, value)
        binds = not is_same or rules.binds_unchanged
        must_tell = binds and tells_value(type(value))
        if must_tell:
            watch.bound(self._session, name, value)
            if self.is_closed:
                # It has ended the session, by itself or by waiting until somebody else had.
                watch.unbound(self._session, name, value)
                return
        if binds:
            self._leave(name)
        if must_tell:
            self._fresh[name] = value
        if stays:
            self._here[name] = value
            self._assigned.pop(name, None)
            self._mutable.pop(name, None)
            self._values[name] = value
        else:
            if name in self._kept or name in self._here:
                self._here[name] = REMOVED
            super().__setitem__(name, value)
        if old is _NOTHING:
            watch.listeners.attribute_added(self._session, name, value)
        elif not is_same or rules.tells_unchanged:
            watch.listeners.attribute_replaced(self._session, name, _or_none(old))

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        old = self._peek(name)
        self._leave(name)
        if name in self._kept or name in self._here:
            self._here[name] = REMOVED
        if super()._stored(name) is not None or name in self._assigned:
            self._remove(name)
        else:
            self._forget(name)
        self._watch.listeners.attribute_removed(self._session, name, _or_none(old))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._is_kept(name)

    def _names(self) -> list[str]:
        names = super()._names()
        known = set(names)
        here = [name for name in (*self._kept, *self._here) if self._is_kept(name)]
        return names + [name for name in dict.fromkeys(here) if name not in known]

    def _load(self, name: str) -> Any:
        if self._is_kept(name):
            value = self._here[name] if name in self._here else self._kept[name].value
            self._values[name] = value
            return value
        return super()._load(name)

    def _is_kept(self, name: object) -> bool:
        """Whether the value that counts is one that is kept here."""
        if not isinstance(name, str):
            return False
        if name in self._here:
            return self._here[name] is not REMOVED
        kept = self._kept.get(name)
        if kept is None or name in self._assigned:
            return False
        span, reading = super()._stored(name), self._reading
        # Another member may have written it since: then it is that one's.
        return span is None or reading is None or read_entry(reading.record, span).hlc < kept.hlc

    def _peek(self, name: str) -> Any:
        """The present value, for those who are told of it; `_NOTHING` if there is none."""
        if name not in self:
            return _NOTHING
        try:
            return self[name]
        except AttributeUnreadableError:
            return None

    def _leave(self, name: str) -> None:
        """The present value ceases to be the attribute."""
        if name in self._fresh:
            self._watch.unbound(self._session, name, self._fresh.pop(name))
        else:
            self._leaving.add(name)

    def _check_open(self) -> None:
        if self.is_closed:
            raise SessionInvalidError("the session was invalidated")

    # The commit.

    def changes(self, failed: dict[str, Exception]) -> list[Change]:
        """See `Bag.changes`; what moved out of the record is removed there."""
        if not self._watch.rules.tracks_in_place:
            self._mutable = {n: seen for n, seen in self._mutable.items() if n in self._assigned}
        found = super().changes(failed)
        for name, value in self._here.items():
            if value is not REMOVED and super()._stored(name) is not None:
                found.append(Change(_ATTRIBUTE, name.encode(), _TOMBSTONE, b"", self._reading))
        return found

    def committed(self, reading: Reading, changes: list[Change], built: Built) -> None:
        """See `Bag.committed`."""
        # A tombstone of what is kept here is the end of the record's value only.
        here = {name: value for name, value in self._here.items() if value is not REMOVED}
        super().committed(reading, changes, built)
        self._values.update(here)

    @property
    def has_news(self) -> bool:
        """Whether a commit has something to do besides the record's."""
        return bool(self._here or self._fresh or self._leaving)

    def settled(self, before: Record | None, hlc: int, failed: Iterable[str]) -> None:
        """A commit stands: tell the values that it took out, and keep what stays here.

        Args:
            before: The record that it replaced.
            hlc: Of the commit.
            failed: Attributes that it could not take.
        """
        session, watch = self._session, self._watch
        for name in failed:
            self._leaving.discard(name)
            if name in self._fresh:
                # Nothing can come of it: it is bound to nothing.
                value = self._fresh.pop(name)
                self._forget(name)
                watch.unbound(session, name, value)
        leaving, self._leaving, self._fresh = self._leaving, set(), {}
        if self._here:
            here, self._here = self._here, {}
            for name, value in watch.kept.put(session.key, here, hlc):
                watch.unbound(session, name, value)
            self._kept = watch.kept.values_of(session.key)
        if before is not None and leaving:
            for name, value in stored_values(before, self._codec, leaving):
                watch.unbound(session, name, value)

    def abandoned(self) -> None:
        """There will be no commit: what only this request knows is unbound."""
        fresh, self._fresh = self._fresh, {}
        for name, value in fresh.items():
            self._watch.unbound(self._session, name, value)

    def _forget(self, name: str) -> None:
        """Undo what this request assigned."""
        self._values.pop(name, None)
        self._assigned.pop(name, None)
        self._mutable.pop(name, None)


def stored_values(
    record: Record, codec: ValueCodec, names: Iterable[str] | None = None
) -> list[tuple[str, Any]]:
    """Return name and value of a record's attributes, without those that cannot be read here."""
    found = []
    reading = Reading(record)
    wanted = None if names is None else set(names)
    for raw, span in reading.index(_ATTRIBUTE).items():
        name = raw.decode()
        if reading.main[span[0]] & 15 == _TOMBSTONE or (wanted is not None and name not in wanted):
            continue
        try:
            found.append((name, codec.decode(read_entry(record, span).value)))
        except AttributeUnreadableError:
            continue
    return found


def _or_none(old: Any) -> Any:
    return None if old is _NOTHING else old
