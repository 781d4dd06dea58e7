"""Sessions between memory and store: backed up, swapped out, found again, expired once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.manager.test_standard import Listener
from tribes.errors import SessionInvalidError, SessionLimitError, StoreError
from tribes.manager.clock import Clock
from tribes.manager.inbox import Inbox
from tribes.manager.persistent import PersistentManager
from tribes.manager.record import deciseconds
from tribes.manager.rules import Rules
from tribes.manager.shelf import ENDED_KEPT_S, LINK_KEPT_S, Shelf
from tribes.manager.stored import StoredForm
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.stores.envelope import Envelope
from tribes.stores.file import FileStore
from tribes.stores.sql import SQLStore

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.manager.session import Session
    from tribes.stores.protocol import Store
    from tribes.testing.manager_strategies import FakeTime


class FailingStore:
    """A real store that can be made to fail."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_down = False
        self.saves = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if not callable(real):
            return real

        def call(*args: Any, **settings: Any) -> Any:
            if self.is_down:
                raise StoreError("the store is down")
            self.saves += name == "save"
            return real(*args, **settings)

        return call


class Node:
    """A process: a manager with its store, its listener and what it was told."""

    def __init__(self, store: Store, clocks: FakeTime, actor: int, **settings: Any) -> None:
        inbox = Inbox(threading.Lock())
        self.store = FailingStore(store)
        self.errors: list[str] = []
        self.listener = Listener()
        self.clocks = clocks

        def now_ds() -> int:
            return deciseconds(clocks.monotonic())

        shelf = Shelf(
            self.store,
            StoredForm(Envelope("shop"), wall_ms=clocks.wall_ms, now_ds=now_ds),
            wall_ms=clocks.wall_ms,
            now_ds=now_ds,
            on_error=lambda verb, error: self.errors.append(verb),
        )
        self.manager = PersistentManager(
            "shop",
            SessionTable(threading.Lock(), inbox),
            Clock(clocks.wall_ms, actor, threading.Lock()),
            shelf=shelf,
            inbox=inbox,
            codec=ValueCodec(),
            entropy=random.Random(actor).randbytes,
            monotonic=clocks.monotonic,
            **settings,
        )
        self.manager.add_listener(self.listener)

    def request(self, session_id: str | None = None, **values: Any) -> str:
        """One request that sets attributes; returns the session's id."""
        session = self.manager.create() if session_id is None else self.found(session_id)
        session.update(values)
        self.commit(session)
        return str(session.id)

    def commit(self, session: Session) -> None:
        outcome = self.manager.commit(session)
        if self.manager.must_store(session, outcome):
            self.manager.store(session)

    def found(self, session_id: str) -> Session:
        session = self.manager.find(session_id)
        assert session is not None
        return session

    def told(self, what: str) -> list[str]:
        return [key for kind, key in self.listener.told if kind == what]

    def in_memory(self, session_id: str) -> bool:
        return self.manager.table.get(session_id) is not None

    def in_store(self, session_id: str) -> bool:
        return self.store.load(session_id) is not None


Make = Callable[..., Node]


@contextmanager
def nodes_on(kind: str, path: Path, clocks: FakeTime) -> Iterator[Make]:
    """Start processes on one store, and close what they opened."""
    made: list[Node] = []

    def start(**settings: Any) -> Node:
        if kind == "file":
            store: Store = FileStore(path / "s", fsync="off")
        else:
            store = SQLStore(f"sqlite:///{path}/s.db", app="shop")
        made.append(Node(store, clocks, len(made) + 1, **settings))
        return made[-1]

    try:
        yield start
    finally:
        for node in made:
            node.store.store.close()


@pytest.fixture(params=["file", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path, clocks: FakeTime) -> Iterator[Make]:
    with nodes_on(request.param, tmp_path, clocks) as start:
        yield start


def test_t90_idle_sessions_are_backed_up_once_per_use(make: Make, clocks: FakeTime) -> None:
    node = make(max_idle_backup_s=10)
    session_id = node.request(a=1)
    clocks.sleep(9)
    node.manager.process_expires()
    assert not node.in_store(session_id)
    clocks.sleep(1)
    for _ in range(3):
        node.manager.process_expires()
        clocks.sleep(10)
    assert node.in_store(session_id)
    assert node.in_memory(session_id)
    assert node.store.saves == 1
    node.request(session_id)
    clocks.sleep(10)
    node.manager.process_expires()
    assert node.store.saves == 2


def test_t90_a_failed_backup_is_tried_again(make: Make, clocks: FakeTime) -> None:
    node = make(max_idle_backup_s=10)
    session_id = node.request(a=1)
    clocks.sleep(10)
    node.store.is_down = True
    node.manager.process_expires()
    assert node.errors == ["save"]
    node.store.is_down = False
    node.manager.process_expires()
    assert node.in_store(session_id)


def test_after_a_crash_the_backup_is_found(make: Make, clocks: FakeTime) -> None:
    first = make(max_idle_backup_s=10)
    session_id = first.request(a=1)
    clocks.sleep(10)
    first.manager.process_expires()
    second = make()
    assert second.found(session_id)["a"] == 1
    assert second.told("activated") == [session_id]
    assert second.manager.shelf.statistics().found == 1


def test_t91_t92_idle_sessions_are_swapped_out_and_found_on_demand(
    make: Make, clocks: FakeTime
) -> None:
    node = make(max_idle_swap_s=10)
    session_id = node.request(a=1)
    clocks.sleep(9.9)
    node.manager.process_expires()
    assert node.in_memory(session_id)
    clocks.sleep(0.1)
    node.manager.process_expires()
    assert not node.in_memory(session_id)
    assert node.told("passivated") == [session_id]
    assert node.manager.is_away(session_id)
    assert node.found(session_id)["a"] == 1
    assert not node.manager.is_away(session_id)
    assert node.told("activated") == [session_id]
    assert node.told("created") == [session_id]
    assert node.told("expired") == []


def test_t91_nothing_is_swapped_out_before_min_idle_swap(make: Make, clocks: FakeTime) -> None:
    node = make(max_idle_swap_s=0, min_idle_swap_s=10)
    session_id = node.request(a=1)
    clocks.sleep(9.9)
    node.manager.process_expires()
    assert node.in_memory(session_id)
    clocks.sleep(0.1)
    node.manager.process_expires()
    assert not node.in_memory(session_id)


def test_t91_too_many_sessions_shrink_to_nine_tenths_least_recently_used_first(
    make: Make, clocks: FakeTime
) -> None:
    node = make(max_active_sessions=20, min_idle_swap_s=5)
    ids = []
    for _ in range(20):
        ids.append(node.request(a=1))
        clocks.sleep(1)
    with pytest.raises(SessionLimitError):
        node.manager.create()
    node.request(ids[0])
    clocks.sleep(1)
    node.manager.process_expires()
    assert [node.in_memory(session_id) for session_id in ids] == [True, False, False] + 17 * [True]
    clocks.sleep(100)
    node.manager.process_expires()
    assert node.manager.statistics().active == 18
    node.request()


def test_the_young_stay_however_many_there_are(make: Make, clocks: FakeTime) -> None:
    node = make(max_active_sessions=10, min_idle_swap_s=5)
    for _ in range(10):
        node.request()
    clocks.sleep(4.9)
    node.manager.process_expires()
    assert node.manager.statistics().active == 10


def test_a_full_memory_swaps_out_instead_of_ending_sessions(make: Make, clocks: FakeTime) -> None:
    """``on_full = "evict"``: the least recently used go into the store, and none ends. A flood that
    comes before the next pass is rejected.
    """
    node = make(max_active_sessions=10, rules=Rules(evicts=True))
    ids = []
    for number in range(12):
        ids.append(node.request(n=number))
        clocks.sleep(1)
    node.manager.process_expires()
    assert node.manager.statistics().active == 9
    assert [node.in_memory(each) for each in ids] == [False] * 3 + [True] * 9
    assert dict(node.found(ids[0])) == {"n": 0}
    while node.manager.statistics().active < 26:
        node.request()
    with pytest.raises(SessionLimitError):
        node.request()
    assert node.told("destroyed") == []


def test_with_the_check_a_session_in_use_stays_in_memory(make: Make, clocks: FakeTime) -> None:
    """``session_activity_check``, which Tomcat asks for with this manager."""
    node = make(max_idle_swap_s=10, rules=Rules(checks_activity=True))
    used, idle = node.request(), node.request()
    held = node.found(used)
    clocks.sleep(10)
    node.manager.process_expires()
    assert [node.in_memory(each) for each in (used, idle)] == [True, False]
    del held
    node.manager.process_expires()
    assert not node.in_memory(used)


def test_t91_a_session_in_use_survives_being_swapped_out(make: Make, clocks: FakeTime) -> None:
    """Its commit brings all of it back; so does a use that changes nothing."""
    node = make(max_idle_swap_s=10, max_inactive_s=60)
    session_id = node.request(a=1, b=2)
    held = node.found(session_id)
    clocks.sleep(10)
    node.manager.process_expires()
    assert not node.in_memory(session_id)
    held["a"] = 3
    node.commit(held)
    assert dict(node.found(session_id)) == {"a": 3, "b": 2}
    clocks.sleep(10)
    held = node.found(session_id)
    node.manager.process_expires()
    assert not node.in_memory(session_id)
    node.commit(held)
    clocks.sleep(55)
    assert dict(node.found(session_id)) == {"a": 3, "b": 2}


def pass_with(node: Node, save: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A background pass, with another way to save."""
    with monkeypatch.context() as patch:
        patch.setattr(node.store, "store", type("S", (), {"save": staticmethod(save)}))
        node.manager.process_expires()


def test_what_changed_while_it_was_written_stays_in_memory(
    make: Make, clocks: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make(max_idle_swap_s=10)
    session_id = node.request(a=1)
    clocks.sleep(10)
    real = node.store.store.save

    def save(*args: Any, **settings: Any) -> int:
        version = real(*args, **settings)
        session = node.found(session_id)
        session["a"] = 2
        node.manager.commit(session)
        return version

    pass_with(node, save, monkeypatch)
    assert node.in_memory(session_id)
    assert node.found(session_id)["a"] == 2


def test_t89_save_on_restart(make: Make) -> None:
    node = make()
    ids = [node.request(number=number) for number in range(5)]
    node.manager.stop()
    after = make()
    assert [after.found(session_id)["number"] for session_id in ids] == [0, 1, 2, 3, 4]


def test_t89_without_save_on_restart_sessions_end_with_the_process(
    make: Make, clocks: FakeTime
) -> None:
    node = make(save_on_restart=False, max_idle_backup_s=1)
    ids = [node.request(number=number) for number in range(5)]
    clocks.sleep(1)
    node.manager.process_expires()
    assert node.in_store(ids[0])
    node.manager.stop()
    assert sorted(node.told("expired")) == sorted(ids)
    after = make()
    assert [after.manager.find(session_id) for session_id in ids] == [None] * 5


def test_t92_a_stored_session_that_is_idle_for_too_long_is_not_found(
    make: Make, clocks: FakeTime
) -> None:
    """It expires there and then, once, and is told of with its last content."""
    node = make(max_idle_swap_s=10, max_inactive_s=60)
    session_id = node.request(a=1)
    clocks.sleep(10)
    node.manager.process_expires()
    clocks.sleep(50)
    assert node.manager.find(session_id) is None
    assert node.manager.find(session_id) is None
    node.manager.process_expires()
    assert node.told("expired") == [session_id]
    assert not node.in_store(session_id)


def test_f67_t92_the_store_is_looked_through_and_each_expires_once_among_nodes(
    make: Make, clocks: FakeTime
) -> None:
    nodes = [make(max_idle_swap_s=10, max_inactive_s=60, check_interval_s=30) for _ in range(3)]
    session_id = nodes[0].request(a=1)
    for _ in range(10):
        clocks.sleep(10)
        for node in nodes:
            node.manager.process_expires()
    told = [key for node in nodes for key in node.told("expired")]
    assert told == [session_id]
    assert list(nodes[0].store.keys()) == []


def test_a_live_session_is_not_expired_by_its_stale_copy(make: Make, clocks: FakeTime) -> None:
    node = make(max_idle_backup_s=10, max_inactive_s=60, check_interval_s=1)
    session_id = node.request(a=1)
    clocks.sleep(10)
    node.manager.process_expires()
    node.manager.max_idle_backup_s = -1
    for _ in range(10):
        clocks.sleep(20)
        node.request(session_id)
        node.manager.process_expires()
    assert node.told("expired") == []
    assert node.in_store(session_id)


def test_an_idle_copy_in_memory_does_not_end_what_another_node_uses(
    make: Make, clocks: FakeTime
) -> None:
    """After a failover the first node has an old copy; expiring that is nobody's end."""
    first, second = (make(max_idle_backup_s=0, max_inactive_s=60) for _ in range(2))
    session_id = first.request(a=1)
    first.manager.process_expires()
    clocks.sleep(30)
    second.request(session_id, a=2)
    second.manager.process_expires()
    clocks.sleep(31)
    first.manager.process_expires()
    assert first.told("expired") == []
    assert second.found(session_id)["a"] == 2
    assert first.found(session_id)["a"] == 2


def test_two_nodes_that_save_one_session_merge(make: Make, clocks: FakeTime) -> None:
    first, second = (make(max_idle_backup_s=0) for _ in range(2))
    session_id = first.request(a=1)
    first.manager.process_expires()
    second.request(session_id, b=2)
    clocks.sleep(1)
    first.request(session_id, c=3)
    second.manager.process_expires()
    first.manager.process_expires()
    assert dict(make().found(session_id)) == {"a": 1, "b": 2, "c": 3}
    assert dict(first.found(session_id)) == {"a": 1, "b": 2, "c": 3}
    assert first.manager.shelf.statistics().conflicts == 1


def test_rotated_ids_lead_to_the_session_and_retired_ones_do_not(
    make: Make, clocks: FakeTime
) -> None:
    node = make()
    old = node.request(a=1)
    session = node.found(old)
    new = session.rotate_id(0)
    node.commit(session)
    node.manager.stop()
    assert make().found(new)["a"] == 1
    after = make(max_inactive_s=60, check_interval_s=1)
    assert after.manager.find(old) is None
    assert after.found(new)["a"] == 1
    after.manager.stop()
    clocks.sleep(61)
    again = make(max_inactive_s=60, check_interval_s=1)
    clocks.sleep(LINK_KEPT_S)
    again.manager.process_expires()
    assert again.told("expired") == [old]
    assert list(again.store.keys()) == []


def test_unreadable_copies_are_set_aside_and_counted(make: Make) -> None:
    node = make()
    session_id = node.request(a=1)
    node.manager.stop()
    stored = node.store.load(session_id)
    node.store.save(
        session_id,
        stored.data[:-1] + b"?",
        expected=stored.version,
        last_access_ms=0,
        max_inactive_s=60,
    )
    after = make()
    assert after.manager.find(session_id) is None
    assert after.manager.find(session_id) is None
    assert after.errors == ["use"]
    assert after.manager.shelf.statistics().refused == 1


def test_a_store_that_is_down_is_an_error_not_a_missing_session(make: Make) -> None:
    """A new session in its place would log the user out."""
    node = make()
    node.store.is_down = True
    with pytest.raises(StoreError):
        node.manager.find("A" * 32)
    assert node.manager.find("no id at all") is None


# Per request.


def test_per_request_every_node_sees_what_the_last_request_did(make: Make) -> None:
    nodes = [make(per_request=True) for _ in range(3)]
    session_id = nodes[0].request(count=0)
    for turn in range(9):
        node = nodes[turn % 3]
        session = node.found(session_id)
        session["count"] += 1
        node.commit(session)
        assert not node.in_memory(session_id)
    assert nodes[1].found(session_id)["count"] == 9
    assert sum(node.manager.shelf.statistics().conflicts for node in nodes) == 0


def test_per_request_parallel_requests_keep_both_changes(make: Make) -> None:
    first, second = make(per_request=True), make(per_request=True)
    session_id = first.request(a=1)
    here, there = first.found(session_id), second.found(session_id)
    here["b"] = 2
    there["c"] = 3
    first.commit(here)
    second.commit(there)
    assert dict(first.found(session_id)) == {"a": 1, "b": 2, "c": 3}


def test_per_request_a_logout_elsewhere_is_not_undone(make: Make, clocks: FakeTime) -> None:
    first, second = make(per_request=True), make(per_request=True, check_interval_s=1)
    session_id = first.request(a=1)
    here = first.found(session_id)
    there = second.found(session_id)
    there.invalidate()
    second.commit(there)
    here["b"] = 2
    first.commit(here)
    assert first.manager.find(session_id) is None
    assert make(per_request=True).manager.find(session_id) is None
    with pytest.raises(SessionInvalidError):
        there["a"] = 1
    clocks.sleep(ENDED_KEPT_S)
    second.manager.process_expires()
    assert list(second.store.keys()) == []


@pytest.mark.parametrize(("limit", "seconds"), [(1800, 60), (80, 10)])
def test_per_request_reading_writes_only_now_and_then(
    make: Make, clocks: FakeTime, limit: int, seconds: int
) -> None:
    """Uses are worth a write every eighth of the idle time, a minute at most."""
    node = make(per_request=True, max_inactive_s=limit)
    session_id = node.request(a=1)
    for _ in range(seconds - 1):
        clocks.sleep(1)
        node.request(session_id)
    assert node.store.saves == 1
    clocks.sleep(1)
    node.request(session_id)
    assert node.store.saves == 2


def test_per_request_a_failed_save_is_told_and_repeated(make: Make, clocks: FakeTime) -> None:
    node = make(per_request=True)
    session_id = node.request(a=1)
    session = node.found(session_id)
    session["a"] = 2
    node.store.is_down = True
    with pytest.raises(StoreError):
        node.commit(session)
    assert node.in_memory(session_id)
    node.store.is_down = False
    clocks.sleep(60)
    node.manager.process_expires()
    assert make(per_request=True).found(session_id)["a"] == 2


def test_a_logout_whose_save_failed_is_repeated(make: Make) -> None:
    node = make(per_request=True)
    session_id = node.request(a=1)
    session = node.found(session_id)
    session.invalidate()
    node.store.is_down = True
    with pytest.raises(StoreError):
        node.commit(session)
    node.store.is_down = False
    assert node.manager.find(session_id) is None
    node.manager.process_expires()
    assert make(per_request=True).manager.find(session_id) is None


def test_a_session_that_a_commit_brought_back_is_ended_in_the_store_too(
    make: Make, clocks: FakeTime
) -> None:
    """It left the memory while a request used it, and was logged out later: it stays so."""
    node = make(max_idle_swap_s=10)
    session_id = node.request(a=1)
    held = node.found(session_id)
    clocks.sleep(10)
    node.manager.process_expires()
    assert not node.in_memory(session_id)
    held["a"] = 2
    node.commit(held)
    session = node.found(session_id)
    session.invalidate()
    node.commit(session)
    node.manager.process_expires()
    assert make().manager.find(session_id) is None


def test_a_logout_while_the_session_is_backed_up_stays_one(
    make: Make, clocks: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it alive for a moment, until the next pass."""
    node = make(max_idle_backup_s=10)
    session_id = node.request(a=1)
    clocks.sleep(10)
    real = node.store.store.save

    def save(*args: Any, **settings: Any) -> int:
        session = node.found(session_id)
        session.invalidate()
        node.commit(session)
        version: int = real(*args, **settings)
        return version

    pass_with(node, save, monkeypatch)
    assert node.in_store(session_id)
    node.manager.process_expires()
    assert make().manager.find(session_id) is None


def test_a_logout_whose_save_failed_is_repeated_at_the_stop(make: Make) -> None:
    node = make(per_request=True)
    session_id = node.request(a=1)
    session = node.found(session_id)
    session.invalidate()
    node.store.is_down = True
    with pytest.raises(StoreError):
        node.commit(session)
    node.store.is_down = False
    node.manager.stop()
    assert make(per_request=True).manager.find(session_id) is None


def test_what_is_noted_of_links_that_were_followed_is_bounded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sessions that end under an id that a login gave them."""
    monkeypatch.setattr("tribes.manager.shelf.LINKS_MAX", 3)
    node, reader = make(per_request=True), make()
    for _ in range(5):
        session = node.found(node.request(a=1))
        fresh = session.rotate_id(0)
        node.commit(session)
        reader.found(fresh)
        session = node.found(fresh)
        session.invalidate()
        node.commit(session)
    assert len(node.manager.shelf._links) == 3
    assert len(reader.manager.shelf._links) == 3


def test_what_is_noted_of_written_links_is_bounded(
    make: Make, clocks: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sessions in memory that a pass has backed up under the id that a login gave them; it goes
    with them.
    """
    monkeypatch.setattr("tribes.manager.shelf.LINKS_MAX", 3)
    node = make(max_idle_backup_s=0, max_idle_swap_s=10)
    for _ in range(5):
        session = node.found(node.request(a=1))
        session.rotate_id(0)
        node.commit(session)
    node.manager.process_expires()
    assert len(node.manager.shelf._links) == 3
    clocks.sleep(10)
    node.manager.process_expires()
    assert not node.manager.shelf._links
