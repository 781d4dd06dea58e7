"""Sessions with a spare copy: what the background pass does beside requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes import LocalSessions
from tribes.config.managers import MemcachedConfig
from tribes.manager.held import Held
from tribes.manager.sticky import StickyManager
from tribes.manager.table import SessionTable

if TYPE_CHECKING:
    import pytest


def test_a_pass_goes_on_while_requests_find_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes a session into memory does not disturb it."""
    config = MemcachedConfig(memcached_nodes="n1:127.0.0.1:1", enabled=False)
    manager = LocalSessions("shop", config).manager("shop")
    assert isinstance(manager, StickyManager)
    gone = ["A" * 32, "B" * 32]
    manager._spares.update({key: Held(key, None) for key in gone})
    contains = SessionTable.__contains__

    def meanwhile(table: SessionTable, key: object) -> bool:
        if len(manager._spares) < 10:
            found = f"{len(manager._spares):032X}"
            manager._spares[found] = Held(found, None)
        return contains(table, key)

    monkeypatch.setattr(SessionTable, "__contains__", meanwhile)
    manager.process_expires()
    assert not manager._spares.keys() & set(gone)
