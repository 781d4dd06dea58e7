"""Listeners of sessions on real nodes: other members' changes, and a stop in good order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tests.web.nodes import make_node
from tribes.runtime.waiters import ThreadWaiter

from .test_replicated_map import running

if TYPE_CHECKING:
    from tribes.manager.session import Session
    from tribes.runtime.background import BackgroundNode


class Recorder:
    def __init__(self) -> None:
        self.log: list[str] = []

    def attribute_added(self, session: Session, name: str, value: Any) -> None:
        self.log.append(f"added {name} {value}")

    def session_destroyed(self, session: Session, reason: str) -> None:
        self.log.append(f"destroyed {reason}")

    def session_evicted(self, session: Session, reason: str) -> None:
        self.log.append(f"evicted {reason}")
        if len(self.log) > 100:
            raise RuntimeError("a listener that fails")


@contextmanager
def pair(**settings: Any) -> Iterator[tuple[BackgroundNode, BackgroundNode]]:
    port = free_udp_port()
    a, b = (make_node(name, port, **settings) for name in "ab")
    with running(a, b):
        wait_until(lambda: a.manager("app").copies_on and b.manager("app").copies_on)
        yield a, b


def write(node: BackgroundNode) -> str:
    manager, waiter = node.manager("app"), ThreadWaiter()
    session = manager.create()
    session["x"] = 1
    manager.commit(session, waiter)
    assert waiter.wait(5)
    return str(session.id)


def test_listeners_on_real_replicas_are_told_and_a_stop_evicts_only() -> None:
    """B hears of A's attribute; A's stop fires no destroyed event, and its session lives on B."""
    heard, evicted = Recorder(), Recorder()
    with pair(notify_listeners_on_replication=True) as (a, b):
        b.manager("app").add_listener(heard)
        a.manager("app").add_listener(evicted)
        session_id = write(a)
        wait_until(lambda: heard.log == ["added x 1"])
        a.stop()
        assert evicted.log == ["added x 1", "evicted shutdown"]
        assert b.manager("app").find(session_id) is not None
        assert heard.log == ["added x 1"]


def test_a_stop_can_end_all_sessions_on_all_members() -> None:
    """``expire_sessions_on_shutdown``: those of other members too."""
    told = Recorder()
    with pair(expire_sessions_on_shutdown=True) as (a, b):
        a.manager("app").add_listener(told)
        ids = [write(a), write(b)]
        a.stop()
        assert told.log.count("destroyed shutdown") == 2
        wait_until(lambda: [b.manager("app").find(each) for each in ids] == [None, None])


def test_what_a_listener_raises_is_logged_and_stops_nothing() -> None:
    told = Recorder()
    told.log = ["full"] * 100
    with pair() as (a, b):
        a.manager("app").add_listener(told)
        session_id = write(a)
        with capture_logs() as lines:
            a.stop()
        assert [line["event"] for line in lines].count("session listener failed") == 1
        assert b.manager("app").find(session_id) is not None
