"""One request after the other, with a manager alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session


def stored(manager: SessionManager, **values: Any) -> Session:
    """Commit a session and find it again, as the next request would."""
    session = manager.create()
    session.update(values)
    manager.commit(session)
    return again(manager, session)


def again(manager: SessionManager, session: Session) -> Session:
    """Find a session as the next request would."""
    found = manager.find(session.id)
    assert found is not None
    return found
