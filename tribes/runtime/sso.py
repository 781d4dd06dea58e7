"""One login for all applications of a group (Tomcat: ``ClusterSingleSignOn``, tomcat-sessions §10).

An entry is a session of a context of its own, which every member with single sign-on has: the
principal, how it was authenticated, and one attribute for each session that it stands for. So it is
merged, repaired, expired and taken back as sessions are: two members that add a session each lose
none, and a logout wins over whatever is written meanwhile. A password is never asked for, so none
can be in a replica or on the wire.

**Ends.** Who logs out ends the entry, and the sessions that this member has copies of. A session
that only another member has (of a context that is missing here, or that is in no group) ends with
its next request: it names an entry that was destroyed. A session that times out leaves its entry;
the last one takes it along, also when the last two time out at the same moment on two members:
each takes out its own, and who merges the other's sees that none is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from tribes.ids import SessionKey
from tribes.manager.record import Life, main_of
from tribes.manager.session import Session
from tribes.runtime.commits import manager_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tribes.config.valves import SingleSignOnConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.delta import DeltaManager

__all__ = ["NOTE", "Login", "SingleSignOn"]

NOTE: Final = "tribes.sso"
"""The note in a session that names its entry."""

_BETWEEN: Final = "\0"
_MARGIN_S: Final = 60
"""An entry is idle for so long more than any session of it may be: it never goes first."""

_LIVE: Final = int(Life.LIVE)
_DESTROYED: Final = int(Life.DESTROYED)


@final
class SingleSignOn:
    """The logins of one node.

    Args:
        config: The settings.
        manager: Of the entries.
        find_manager: The manager of a context of this node, None for others.
    """

    def __init__(
        self,
        config: SingleSignOnConfig,
        manager: DeltaManager,
        find_manager: Callable[[str], SessionManager | None],
    ) -> None:
        self.config = config
        self.manager = manager
        self._find_manager = find_manager
        manager.add_listener(_Leaving(self))

    def watch(self, manager: SessionManager) -> None:
        """Hear of the ends of a context's sessions."""
        manager.add_listener(_Ends(self))

    def find(self, offered: Iterable[str]) -> Session | None:
        """The entry that a client's cookies name."""
        for value in offered:
            entry = self.manager.find(value)
            if entry is not None:
                return entry
        return None

    def was_ended(self, session: Session) -> bool:
        """Whether a session's login was ended, here or elsewhere.

        An entry that is not here may only be late: then it was not.
        """
        name = session.notes.get(NOTE)
        record = self.manager.table.get(name) if isinstance(name, str) else None
        return record is not None and main_of(record)[1] == _DESTROYED

    def register(self, session: Session) -> Session:
        """Make the entry of a session that has just been logged in; it must be committed."""
        entry = self.manager.create()
        entry.principal = session.principal
        entry.auth_type = session.auth_type
        entry.max_inactive = session.max_inactive + _MARGIN_S if session.max_inactive > 0 else 0
        self._add(entry, session)
        return entry

    def associate(self, entry: Session, session: Session) -> bool:
        """Log a session in as its entry says; both must be committed. False if it was before."""
        name = _name_of(session)
        if session.notes.get(NOTE) == entry.key and name in entry:
            return False
        if session.principal is None:
            session.principal = entry.principal
            session.auth_type = entry.auth_type
        limit = session.max_inactive
        if limit <= 0:
            entry.max_inactive = 0
        elif 0 < entry.max_inactive < limit + _MARGIN_S:
            entry.max_inactive = limit + _MARGIN_S
        self._add(entry, session)
        return True

    def _add(self, entry: Session, session: Session) -> None:
        session.notes[NOTE] = entry.key
        entry[_name_of(session)] = True

    def entry_of(self, session: Session) -> Session | None:
        """The living entry that a session belongs to."""
        name = session.notes.get(NOTE)
        return self._living(name) if isinstance(name, str) else None

    def _living(self, key: str) -> Session | None:
        record = self.manager.table.get(key)
        if record is None or main_of(record)[1] != _LIVE:
            return None
        return Session(self.manager, SessionKey(key), record)

    def end_sessions(self, names: Iterable[str]) -> None:
        """End the sessions of an entry, by the names in it, that this node has copies of."""
        for name in names:
            context, _, key = name.partition(_BETWEEN)
            manager = self._find_manager(context)
            record = None if manager is None else manager.table.get(key)
            if manager is not None and record is not None and main_of(record)[1] == _LIVE:
                manager.invalidate(Session(manager, SessionKey(key), record))

    def session_ended(self, session: Session, *, is_logout: bool) -> None:
        """A session of some context has ended, however."""
        entry = self.entry_of(session)
        if entry is None:
            return
        names = set(entry)
        if is_logout:
            self.manager.invalidate(entry)
            self.end_sessions(names)
        elif names <= {_name_of(session)}:
            self.manager.invalidate(entry)
        elif _name_of(session) in names:
            del entry[_name_of(session)]
            self.manager.commit(entry)
            self.end_if_empty(entry.key)

    def end_if_empty(self, key: str) -> None:
        """End an entry that no session is left of; a living entry always has one."""
        entry = self._living(key)
        if entry is not None and not len(entry):
            self.manager.invalidate(entry)


@final
class _Ends:
    """Hears of the sessions of one context."""

    def __init__(self, sign_on: SingleSignOn) -> None:
        self._sign_on = sign_on

    def session_created(self, session: Session) -> None:
        """Nothing: who logs in is not known yet."""

    def session_destroyed(self, session: Session, reason: str) -> None:
        """Only a logout ends the others."""
        self._sign_on.session_ended(session, is_logout=reason == "invalidated")

    def session_id_changed(self, session: Session, old_id: str) -> None:
        """Nothing: an entry has keys, which never change."""


@final
class _Leaving:
    """Hears of the sessions that leave an entry, here and on other members."""

    def __init__(self, sign_on: SingleSignOn) -> None:
        self._sign_on = sign_on

    def attribute_added(self, session: Session, name: str, value: object) -> None:
        """Nothing."""

    def attribute_replaced(self, session: Session, name: str, old: object) -> None:
        """Nothing."""

    def attribute_removed(self, session: Session, name: str, old: object) -> None:
        """On another member, if the entry here is empty by now."""
        self._sign_on.end_if_empty(session.key)


@final
class Login:
    """What one request has to do with single sign-on.

    Args:
        sign_on: The node's.
        offered: What the client's cookies name.

    Attributes:
        entry: The login that the request belongs to.
        is_new: The request has made it: the client must be told.
        is_over: The client's cookie names nothing any more.
    """

    __slots__ = ("_ended", "_sign_on", "entry", "is_new", "is_over")

    def __init__(self, sign_on: SingleSignOn, offered: list[str]) -> None:
        self._sign_on = sign_on
        self._ended: list[str] = []
        self.entry = sign_on.find(offered)
        self.is_new = False
        self.is_over = bool(offered) and self.entry is None

    @property
    def principal(self) -> Any:
        """Who is logged in, also where the request has no session."""
        return None if self.entry is None else self.entry.principal

    def begin(self, session: Session) -> bool:
        """Log the request's session in; False if its login was ended: then it is, too."""
        sign_on = self._sign_on
        if sign_on.was_ended(session):
            return False
        if self.entry is None:
            self.entry = sign_on.entry_of(session)
        else:
            sign_on.associate(self.entry, session)
        return True

    def made(self, session: Session) -> None:
        """The request has made a session."""
        if self.entry is not None:
            self._sign_on.associate(self.entry, session)

    def settle(self, session: Session) -> Session | None:
        """The entry that must be committed before the request's session; None: it need not.

        A principal that was set is a login; one that was taken away, or a session that was ended,
        is a logout.
        """
        entry, sign_on = self.entry, self._sign_on
        if not session.is_valid or (entry is not None and session.principal is None):
            self.entry = None
            if entry is not None:
                self.is_over = True
                self._ended = list(entry)
                entry.invalidate()
            return entry
        if entry is None and session.principal is not None:
            self.entry = entry = sign_on.register(session)
            self.is_new = True
        elif entry is not None:
            sign_on.associate(entry, session)
        return entry

    def settled(self) -> None:
        """The entry is committed: nothing can bring its sessions back."""
        ended, self._ended = self._ended, []
        self._sign_on.end_sessions(ended)


def _name_of(session: Session) -> str:
    return f"{manager_of(session).context}{_BETWEEN}{session.key}"
