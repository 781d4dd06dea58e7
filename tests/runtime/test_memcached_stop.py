"""How long the end of a process waits for its session servers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from tests.standstill import Stopwatch
from tests.waiting import wait_until
from tribes import LocalSessions
from tribes.config.managers import MemcachedConfig
from tribes.errors import StoreError
from tribes.manager.sticky import StickyManager
from tribes.runtime import memcached
from tribes.runtime.memcached import MemcachedService

if TYPE_CHECKING:
    import pytest

THREADS = 4


class Servers:
    """Answer no sign of life, and take nothing, before they are let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.written: list[str] = []
        self.probed = 0

    def probe(self) -> None:
        self.probed += 1
        if self.probed > 1:  # the first is the start's
            self.let.wait(30)

    def write(self, key: str) -> None:
        self.let.wait(30)
        self.written.append(key)


def test_a_stop_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for what waits and once more for each thread; what waits then is left alone."""
    monkeypatch.setattr(memcached, "STOP_S", 1.0)
    monkeypatch.setattr(memcached, "END_S", 0.5)
    config = MemcachedConfig(
        memcached_nodes="n1:127.0.0.1:1",
        session_backup_async=True,
        backup_thread_count=THREADS,
        probe_interval=1,
    )
    servers: Any = Servers()
    service = MemcachedService("shop", config, servers)
    service.write = servers.write
    service.start()
    threads = list(service._threads)
    try:
        for number in range(2 * THREADS):
            service.later(f"{number}")
        wait_until(lambda: servers.probed > 1)
        watch = Stopwatch()
        service.stop()
        assert watch.seconds < 2
        assert not service.has_time()
    finally:
        servers.let.set()
    for thread in threads:
        thread.join(10)
    assert sorted(servers.written) == ["0", "1", "2", "3"]


def test_what_is_written_last_has_no_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are slow: the log says of how many sessions they lack the newest state."""
    config = MemcachedConfig(memcached_nodes="n1:127.0.0.1:1", session_backup_async=True)
    sessions = LocalSessions("shop", config)
    manager = sessions.manager("shop")
    assert isinstance(manager, StickyManager)
    for _ in range(5):
        sessions.commit(manager.create())
    service = manager.service
    assert isinstance(service, MemcachedService)
    stored: list[str] = []

    def store(key: str, session: object) -> None:
        stored.append(key)
        manager._spares[key].must_copy = False

    monkeypatch.setattr(manager, "_store_key", store)
    monkeypatch.setattr(service, "has_time", lambda: len(stored) < 3)
    with capture_logs() as logs:
        manager.stop()
    assert len(stored) == 3
    [line] = logs
    assert (line["event"], line["could_not"]) == ("session server", "save at the end")
    assert "2 sessions" in line["error"]


def test_one_error_ends_the_last_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server takes the next one either; the number of all that were left is told."""
    config = MemcachedConfig(memcached_nodes="n1:127.0.0.1:1", session_backup_async=True)
    sessions = LocalSessions("shop", config)
    manager = sessions.manager("shop")
    assert isinstance(manager, StickyManager)
    sessions.commit(manager.create())
    calls = 0

    def refuse(key: str, session: object) -> None:
        nonlocal calls
        calls += 1
        raise StoreError("by the test")

    monkeypatch.setattr(manager, "_store_key", refuse)
    with capture_logs() as logs:
        manager.stop()
    assert [line["could_not"] for line in logs] == ["save", "save at the end"]
    assert calls == 1
