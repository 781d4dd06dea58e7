"""What a request holds of a session: a mapping of attributes, and what the container keeps.

A session object is created over one immutable record, reads only from that, and gathers what the
request does; nothing is visible to others before `SessionManager.commit`.  It belongs to one
request, in one thread at a time.

It is longer than other files because an application finds all that a session can do in one class;
the work is done in `bag`, `container` and `changes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from tribes.errors import AttributeUnreadableError, SessionInvalidError
from tribes.ids import SessionId, SessionKey

from .bag import Bag
from .changes import Built, Change
from .clock import hlc_to_ms
from .container import (
    AUTH_TYPE,
    ID_ACTIVE,
    MAX_INACTIVE,
    PRINCIPAL,
    active_ids,
    encode_idle,
    id_entry_name,
    retired_value,
)
from .reading import Reading
from .record import Kind, Namespace, Record, header
from .rules import LOCAL_NAMES
from .session_listeners import OwnListeners
from .watched import WatchedBag

if TYPE_CHECKING:
    from .held import Held
    from .session_ids import SessionIds
    from .statistics import Counts
    from .values import ValueCodec
    from .watched import Watch

__all__ = ["Session", "SessionHome", "home_of"]

_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)
_CONTAINER: Final = int(Namespace.CONTAINER)
_NOTE: Final = int(Namespace.NOTE)
_LAST_WRITER: Final = int(Kind.LAST_WRITER)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)
_PRINCIPAL: Final = PRINCIPAL.decode()
_AUTH_TYPE: Final = AUTH_TYPE.decode()


class SessionHome(Protocol):
    """What a session needs of its manager."""

    codec: ValueCodec
    counts: Counts
    ids: SessionIds
    watch: Watch

    def used_ms(self, record: Record) -> int:
        """Return when a session was last used, as the settings count, in ms since 1970."""

    def limit_of(self, key: str) -> int:
        """Return how many seconds the session may be idle."""


@final
class Session(MutableMapping[str, Any]):
    """One session, as one request sees and changes it.

    As a mapping it has the attributes.  Values may be changed in place; a value of None is a value
    (`set_attribute` with None removes, as in Tomcat).  After `invalidate` every use raises
    `SessionInvalidError`, except of ``id``, ``key`` and ``is_valid``.

    Attributes:
        key: The first id, which never changes.
        begun_ds: When its request began, on the monotonic clock; 0 where that does not count.
        first_hlc: hlc of the creation, if this object is where the session was created.
        is_new: The client has not sent the id back yet.
        is_watched: Somebody wants to know what becomes of its attributes.
        reading: The record that this object reads; None while the session is not in the table.
        rotated_from: The id before `rotate_id`, until the commit.
        suffix: What the manager appends to ids that clients get.
        held: For the manager: what it knows of the session's copies.
        epoch: Where members own sessions: of which owner's time the record is; else 0.
    """

    __slots__ = (
        "__weakref__",
        "_attributes",
        "_container",
        "_home",
        "_id",
        "_ids",
        "_is_valid",
        "_limit",
        "_listeners",
        "_notes",
        "_own_changes",
        "begun_ds",
        "epoch",
        "failures",
        "first_hlc",
        "held",
        "is_new",
        "is_watched",
        "key",
        "reading",
        "rotated_from",
        "suffix",
    )

    def __init__(
        self,
        home: SessionHome,
        key: SessionKey,
        record: Record | None,
        *,
        session_id: str | None = None,
        created: int = 0,
        limit: int | None = None,
    ) -> None:
        """Make the session of a key; managers do.

        Args:
            home: Its manager.
            key: The session's key.
            record: From the table, live; None for a new session.
            session_id: The id that the client sent.
            created: hlc of the creation of a new session.
            limit: Seconds that it may be idle, where the manager does not know by the key.
        """
        self.key = key
        self.reading = None if record is None else Reading(record)
        self.is_new = record is None
        self.rotated_from: str | None = None
        self.failures: frozenset[str] = frozenset()
        """Attributes that a commit could not encode, and has counted."""
        self.suffix = ""
        self.held: Held | None = None
        self.epoch = 0
        self._home = home
        self.first_hlc = created
        self._id = session_id
        self._ids: list[str] | None = None
        self._is_valid = True
        self.begun_ds = 0
        watch, codec = home.watch, home.codec
        if watch.is_on or codec.tells_values or key in watch.kept.values:
            self.is_watched = True
            self._attributes: Bag = WatchedBag(self.reading, codec, watch, self)
        else:
            self.is_watched = False
            self._attributes = Bag(_ATTRIBUTE, self.reading, codec)
        self._listeners: OwnListeners | None = None
        self._notes: Bag | None = None
        self._container: Bag | None = None
        self._limit = limit
        self._own_changes: dict[bytes, Change] | None = None

    # Two objects may show one session with different changes: they are equal to themselves only.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # Attributes.

    def __getitem__(self, name: str) -> Any:
        try:
            return self._attributes[name]
        except AttributeUnreadableError:
            self._home.counts.attributes_unreadable += 1
            raise

    def __setitem__(self, name: str, value: Any) -> None:
        if name in LOCAL_NAMES and not isinstance(self._attributes, WatchedBag):
            self._attributes = WatchedBag.over(self._attributes, self._home.watch, self)
            self.is_watched = True
        self._attributes[name] = value

    def __delitem__(self, name: str) -> None:
        del self._attributes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._attributes

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value, after setting it if there is none; unreadable is not none."""
        return self._attributes.setdefault(name, default)

    def clear(self) -> None:
        """Remove all attributes, readable or not."""
        self._attributes.clear()

    def get_attribute(self, name: str) -> Any:
        """Return the value, or None if there is none that can be read."""
        return self.get(name)

    def set_attribute(self, name: str, value: Any) -> None:
        """Set a value; None removes it."""
        if value is None:
            self.remove_attribute(name)
        else:
            self[name] = value

    def remove_attribute(self, name: str) -> None:
        """Remove a value, if there is one."""
        if name in self._attributes:
            del self._attributes[name]

    def attribute_names(self) -> list[str]:
        """Return the names of all attributes, also of those that cannot be read here."""
        return list(self._attributes)

    @property
    def notes(self) -> MutableMapping[str, Any]:
        """Values of the container that the application does not see as attributes."""
        if self._notes is None:
            self._notes = Bag(_NOTE, self.reading, self._home.codec)
            self._notes.is_closed = not self._is_valid
        return self._notes

    # What the container keeps.

    @property
    def is_valid(self) -> bool:
        """False after `invalidate`, and when a commit found that somebody else had."""
        return self._is_valid

    @property
    def is_stored(self) -> bool:
        """True when the session was in the table, or has been committed."""
        return self.reading is not None

    @property
    def created(self) -> int:
        """The hlc of the creation."""
        return self.first_hlc if self.reading is None else header(self.reading.record).created

    @property
    def created_ms(self) -> int:
        """When the session was created, in milliseconds since 1970."""
        self._check()
        return hlc_to_ms(self.created)

    @property
    def last_accessed_ms(self) -> int:
        """When the request before this one was, in milliseconds since 1970.

        It is that request's end, or with ``session_last_access_at_start`` its beginning.
        """
        self._check()
        reading = self.reading
        return hlc_to_ms(self.first_hlc) if reading is None else self._home.used_ms(reading.record)

    @property
    def max_inactive(self) -> int:
        """Seconds without a request after which the session expires; 0 or less: never."""
        self._check()
        return self._home.limit_of(self.key) if self._limit is None else self._limit

    @max_inactive.setter
    def max_inactive(self, seconds: int) -> None:
        self._check()
        if seconds != self.max_inactive:
            self._limit = seconds
            self._write(MAX_INACTIVE, _LAST_WRITER, encode_idle(seconds))

    @property
    def principal(self) -> Any:
        """Who is logged in: any value that an attribute may have, or None."""
        return self._container_values().get(_PRINCIPAL)

    @principal.setter
    def principal(self, value: Any) -> None:
        self._set_container_value(_PRINCIPAL, value)

    @property
    def auth_type(self) -> str | None:
        """How the principal was authenticated, or None."""
        value = self._container_values().get(_AUTH_TYPE)
        return value if isinstance(value, str) else None

    @auth_type.setter
    def auth_type(self, value: str | None) -> None:
        self._set_container_value(_AUTH_TYPE, value)

    def _container_values(self) -> Bag:
        if self._container is None:
            self._container = Bag(_CONTAINER, self.reading, self._home.codec)
            self._container.is_closed = not self._is_valid
        return self._container

    def _set_container_value(self, name: str, value: Any) -> None:
        values = self._container_values()
        if value is not None:
            values[name] = value
        elif name in values:
            del values[name]

    @property
    def listeners(self) -> OwnListeners:
        """Who is told of this session alone."""
        if self._listeners is None:
            self._listeners = OwnListeners(self.reading, self._home.codec)
            self.is_watched = True
        return self._listeners

    def add_listener(self, listener: object) -> None:
        """Tell a listener of this session's end and of its id, from the commit on.

        It stays in this process, unless its class says ``is_replicated = True`` and is registered
        with the codec: then it is a part of the session, and told wherever that ends
        (Tomcat: ``ReplicatedSessionListener``).

        Args:
            listener: Has `session_destroyed` or `session_id_changed` of `SessionListener`.

        Raises:
            AttributeNotEncodableError: It is to be replicated, and no codec knows its class.
        """
        self._check()
        self.listeners.add(listener)

    def remove_listener(self, listener: object) -> None:
        """Tell it no longer, from the commit on; an equal one is the same."""
        self._check()
        self.listeners.remove(listener)

    # Identity and life.

    @property
    def id(self) -> SessionId:
        """The id that the client is to send from now on."""
        ids = self._valid_ids()
        session_id = self._id if self._id in ids else ids[0]
        return SessionId(f"{session_id}{self.suffix}" if self.suffix else session_id)

    def rotate_id(self, grace_s: int = 30) -> SessionId:
        """Give the session a new id and retire those it has; its data and its key stay.

        Args:
            grace_s: Seconds, up to an hour, in which parallel requests may still use the old ids;
                0 at a login.
        """
        self._check()
        ids = self._valid_ids()
        if self.rotated_from is None:
            self.rotated_from = self.id
        new = self._home.ids.rotated(self.key)
        for old in ids:
            name = id_entry_name(old)
            if self._own_changes is not None and self._own_changes.pop(name, None) is not None:
                continue  # made by this request, and known to nobody
            kind = _LAST_WRITER if old == self.key else _TOMBSTONE
            self._write(name, kind, retired_value(grace_s))
        self._write(id_entry_name(new), _LAST_WRITER, ID_ACTIVE)
        self._ids = [new]
        self._id = new
        return self.id

    def invalidate(self) -> None:
        """End the session, for all; the commit tells the others. A second call raises."""
        self._check()
        self.close()

    def close(self) -> None:
        """Make every further use raise `SessionInvalidError`."""
        self._is_valid = False
        for bag in (self._attributes, self._notes, self._container):
            if bag is not None:
                bag.is_closed = True

    def _valid_ids(self) -> list[str]:
        if self._ids is None:
            reading = self.reading
            ids = [] if reading is None else active_ids(self.key, reading.record)
            self._ids = ids or [self.key]
        return self._ids

    def _check(self) -> None:
        if not self._is_valid:
            raise SessionInvalidError("the session was invalidated")

    # The commit.

    def changes(self, failed: dict[str, Exception]) -> list[Change]:
        """Return what this request wants to write; what cannot be encoded goes to ``failed``."""
        changes = self._attributes.changes(failed)
        if self._notes is not None:
            changes += self._notes.changes(failed)
        if self._container is not None:
            changes += self._container.changes(failed)
        if self._own_changes is not None:
            changes += self._own_changes.values()
        if self._listeners is not None:
            changes += self._listeners.changes
        if self.reading is None and MAX_INACTIVE not in (self._own_changes or ()):
            idle = encode_idle(self.max_inactive)
            changes.append(Change(_CONTAINER, MAX_INACTIVE, _LAST_WRITER, idle, None))
        return changes

    def committed(self, changes: list[Change], built: Built) -> None:
        """Go on from the record that was committed."""
        self.reading = reading = Reading(built.record)
        self.rotated_from = None
        self._own_changes = None
        self._ids = None
        self._attributes.committed(reading, changes, built)
        if self._notes is not None:
            self._notes.committed(reading, changes, built)
        if self._container is not None:
            self._container.committed(reading, changes, built)

    def settled(self, before: Record | None, hlc: int, failed: Iterable[str]) -> None:
        """A commit stands that replaced ``before``: tell and keep what no record has."""
        if isinstance(self._attributes, WatchedBag) and self._attributes.has_news:
            self._attributes.settled(before, hlc, failed)
        if self._listeners is not None:
            added, removed = self._listeners.kept
            self._home.watch.kept.listen(self.key, added, removed)
            self._listeners = None

    def abandoned(self) -> None:
        """What this request did is void: values that only it knows are unbound."""
        if isinstance(self._attributes, WatchedBag):
            self._attributes.abandoned()

    def _write(self, name: bytes, kind: int, value: bytes) -> None:
        if self._own_changes is None:
            self._own_changes = {}
        self._own_changes[name] = Change(_CONTAINER, name, kind, value, None)

    def __repr__(self) -> str:
        # The id is a secret: whoever has it has the session.
        return f"<Session {self.key[:6]}… {'new' if self.is_new else ''}>"


def home_of(session: Session) -> SessionHome:
    """Return the manager that a session is from.

    No attribute of the session: templates would find it in place of the application's.
    """
    return session._home
