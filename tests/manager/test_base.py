"""The request's side of a manager: create, find, commit, end; and that threads lose nothing."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import pytest

from tests.manager import requests
from tests.manager.requests import again
from tribes.errors import AttributeNotEncodableError, ConfigError, SessionLimitError
from tribes.manager.base import CommitOutcome, SessionManager
from tribes.manager.clock import Clock
from tribes.manager.inbox import Commit, CommitResult, Inbox
from tribes.manager.merge import expired
from tribes.manager.record import (
    WHOLE,
    Entry,
    Life,
    Parsed,
    bare,
    equal_state,
    from_wire,
    header,
    pack,
    parse,
    to_wire,
    with_access,
)
from tribes.manager.session_ids import SessionIds, is_possible_id
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.testing.manager_strategies import START_HLC, FakeTime, make_manager

if TYPE_CHECKING:
    from tribes.manager.session import Session

COMMITS = int(os.environ.get("TRIBES_COMMITS_PER_THREAD", "10000"))
"""What each of the eight threads commits in the test of threads."""


class Waiter:
    def __init__(self) -> None:
        self.result: CommitResult | None = None

    def resolve(self, result: CommitResult) -> None:
        self.result = result


def stored(manager: SessionManager, **values: Any) -> Session:
    """Store a session, and take away what that leaves to send."""
    session = requests.stored(manager, **values)
    manager.inbox.drain(10**6)
    return session


def replicate(source: SessionManager, target: SessionManager) -> list[Commit]:
    """Carry what was committed to another node."""
    commits = source.inbox.drain(10**6)
    for commit in commits:
        record = from_wire(commit.delta, target.now_ds())
        target.clock.observe(header(record).access)
        target.table.merge_in(commit.key, record, target.now_ds())
    return commits


# Creating and finding.


def test_a_created_session_exists_from_its_first_commit_on(manager: SessionManager) -> None:
    session = manager.create()
    assert is_possible_id(session.id)
    assert session.id == str(session.key)
    assert manager.find(session.id) is None
    outcome = manager.commit(session)
    assert outcome == CommitOutcome(manager.clock.last, {})
    assert again(manager, session).key == session.key
    [commit] = manager.inbox.drain(9)
    assert (commit.context, commit.key, commit.version) == ("shop", session.key, outcome.version)
    record = from_wire(commit.delta, manager.now_ds())
    assert header(record).flags & WHOLE
    assert record == manager.table.get(session.key)


def test_ids_do_not_repeat() -> None:
    manager = make_manager()
    chances = iter([b"\0\1", b"\0\1", b"\0\2"])
    manager.ids = SessionIds(lambda _: next(chances), 2)
    first = manager.create()
    manager.commit(first)
    assert (first.id, manager.create().id) == ("0001", "0002")


def test_a_limit_of_sessions_refuses_more_and_counts() -> None:
    manager = make_manager(max_active_sessions=1)
    first = manager.create()
    manager.commit(first)
    with pytest.raises(SessionLimitError, match="1 sessions"):
        manager.create()
    assert manager.statistics().rejected == 1
    manager.invalidate(first)
    manager.create()


def test_a_wrong_id_length_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError):
        make_manager(session_id_length=1)


@pytest.mark.parametrize("text", ["", "x", "0" * 32, "../../etc/passwd", "A" * 10_000, "\ud800"])
def test_an_unknown_id_finds_nothing(manager: SessionManager, text: str) -> None:
    assert manager.find(text) is None


def test_an_idle_session_is_not_found_although_it_is_still_there(
    manager: SessionManager, clocks: FakeTime
) -> None:
    session = stored(manager)
    clocks.sleep(1799.9)
    assert manager.find(session.id) is not None
    clocks.sleep(0.1)
    assert manager.find(session.id) is None
    assert session.key in manager.table


@pytest.mark.parametrize("limit", [0, -1])
def test_without_a_limit_a_session_is_never_idle_for_too_long(limit: int) -> None:
    clocks = FakeTime()
    manager = make_manager(clocks=clocks, max_inactive_s=limit)
    session = stored(manager)
    clocks.sleep(10**7)
    assert manager.find(session.id) is not None
    assert list(manager.expired_candidates(manager.now_ds())) == []


def test_a_fragment_is_not_served_as_the_session(manager: SessionManager) -> None:
    """A joining node gets later changes before it gets the session."""
    other = make_manager(actor=2, seed=5)
    session = stored(manager, a=1)
    session["b"] = 2
    manager.commit(session)
    replicate(manager, other)
    assert other.find(session.id) is None
    assert other.statistics().partial_reads == 1
    fragment = other.find(session.id, partial=True)
    assert fragment is not None
    assert dict(fragment) == {"b": 2}
    whole = manager.table.get(session.key)
    assert whole is not None
    other.table.merge_in(session.key, from_wire(to_wire(whole, 0), 0))
    assert dict(again(other, session)) == {"a": 1, "b": 2}


# Committing.


def test_a_request_that_changes_nothing_sends_nothing(
    manager: SessionManager, clocks: FakeTime
) -> None:
    session = stored(manager, a=1, cart=["x"])
    clocks.sleep(5)
    session = again(manager, session)
    assert session["a"] == 1
    assert session["cart"] == ["x"]
    session["a"] = 1
    waiter = Waiter()
    assert manager.commit(session, waiter) == CommitOutcome(None, {})
    assert len(manager.inbox) == 0
    record = manager.table.get(session.key)
    assert record is not None
    assert header(record).last_seen == manager.now_ds()
    assert manager.statistics().commits == 1


def test_uses_are_told_to_the_others_in_time(manager: SessionManager, clocks: FakeTime) -> None:
    other = make_manager(actor=2, clocks=clocks)
    session = manager.create()
    manager.commit(session)
    replicate(manager, other)
    clocks.sleep(1000)
    manager.commit(again(manager, session))
    assert manager.take_touches(manager.now_ds()) == []
    clocks.sleep(60)
    [(key, touch)] = manager.take_touches(manager.now_ds())
    assert key == session.key
    assert parse(touch).entries == {}
    received = from_wire(to_wire(touch, manager.now_ds()), other.now_ds())
    other.table.merge_in(key, received, other.now_ds())
    clocks.sleep(1739)
    assert other.find(session.id) is not None
    clocks.sleep(1)
    assert other.find(session.id) is None
    assert manager.take_touches(manager.now_ds()) == []


def test_a_delta_has_the_change_and_nothing_else(manager: SessionManager) -> None:
    session = stored(manager, a="x" * 1000, b=[1], c=3)
    session["b"].append(2)
    outcome = manager.commit(session)
    [commit] = manager.inbox.drain(9)
    delta = parse(from_wire(commit.delta, 0))
    assert [(e.name, e.hlc, e.base) for e in delta.entries.values()] == [
        (b"b", outcome.version, START_HLC + 1)
    ]
    assert len(commit.delta) < 60


def test_a_bad_attribute_costs_only_itself(manager: SessionManager) -> None:
    session = stored(manager, good=1, bad=2)
    session["good"] = 2
    session["bad"] = object()
    outcome = manager.commit(session)
    assert outcome.version is not None
    assert list(outcome.failed) == ["bad"]
    assert isinstance(outcome.failed["bad"], AttributeNotEncodableError)
    assert dict(again(manager, session)) == {"good": 2, "bad": 2}
    assert manager.statistics().attribute_failures == 1
    manager.commit(session)
    assert manager.statistics().attribute_failures == 1


def test_a_bad_attribute_alone_is_no_commit(manager: SessionManager) -> None:
    session = stored(manager)
    session["bad"] = object()
    outcome = manager.commit(session)
    assert (outcome.version, list(outcome.failed)) == (None, ["bad"])


def test_a_session_can_be_committed_several_times_in_a_request(manager: SessionManager) -> None:
    session = stored(manager)
    cart = session.setdefault("cart", [])
    versions = []
    for item in "abc":
        cart.append(item)
        versions.append(manager.commit(session).version)
    assert versions == sorted({version for version in versions if version})
    assert again(manager, session)["cart"] == ["a", "b", "c"]
    assert manager.commit(session).version is None


def test_parallel_requests_keep_each_others_changes(manager: SessionManager) -> None:
    session = stored(manager, cart=["x"], a=1)
    first, second = again(manager, session), again(manager, session)
    first["cart"].append("first")
    first["b"] = 1
    second["cart"].append("second")
    second["a"] = 2
    manager.commit(first)
    manager.commit(second)
    assert dict(again(manager, session)) == {"cart": ["x", "first", "second"], "a": 2, "b": 1}
    assert manager.statistics().commit_conflicts == 0
    first["a"] = 3
    manager.commit(first)
    assert manager.statistics().commit_conflicts == 1, "it still reads what it read"
    assert again(manager, session)["a"] == 3


def test_a_clash_is_decided_for_the_later_and_counted(manager: SessionManager) -> None:
    session = stored(manager, n=0)
    first, second = again(manager, session), again(manager, session)
    first["n"], second["n"] = 1, 2
    manager.commit(first)
    manager.commit(second)
    assert again(manager, session)["n"] == 2
    assert manager.statistics().commit_conflicts == 1


def test_a_remote_delta_that_comes_during_a_commit_survives(clocks: FakeTime) -> None:
    """Between the read of the record and its replacement: the commit is computed again."""
    manager = make_manager(clocks=clocks)
    session = stored(manager, a=1)
    known = manager.table.get(session.key)
    assert known is not None
    theirs = pack(
        Parsed(
            Life.LIVE,
            0,
            header(known).created,
            START_HLC + 50,
            manager.now_ds(),
            {(0, b"theirs"): Entry(0, 0, b"theirs", b"\x07", START_HLC + 50, 99)},
        )
    )
    injected: list[bool] = []
    is_armed = False

    def wall_ms() -> int:
        # A commit reads the clock after the record: the very gap.
        if is_armed and not injected:
            injected.append(manager.table.merge_in(session.key, theirs)[2])
        return clocks.wall

    manager.clock = Clock(wall_ms, 1, threading.Lock())
    manager.clock.observe(header(known).access)
    is_armed = True
    session["mine"] = 1
    outcome = manager.commit(session)
    assert injected == [True]
    assert manager.statistics().commit_retries == 1
    assert dict(again(manager, session)) == {"a": 1, "mine": 1, "theirs": 7}
    assert outcome.version is not None
    assert outcome.version > START_HLC + 50, "newer than what came between"


def test_a_commit_is_newer_than_everything_in_the_record(manager: SessionManager) -> None:
    """Even if somebody merged without telling the clock."""
    session = stored(manager, a=1)
    record = manager.table.get(session.key)
    assert record is not None
    ahead = pack(
        Parsed(
            Life.LIVE,
            0,
            START_HLC,
            START_HLC + 10**6,
            0,
            {(0, b"a"): Entry(0, 0, b"a", b"\x05", START_HLC + 10**6, 9)},
        )
    )
    manager.table.merge_in(session.key, ahead)
    session["a"] = 6
    version = manager.commit(session).version
    assert version is not None
    assert version > START_HLC + 10**6
    assert again(manager, session)["a"] == 6


def test_a_session_that_left_this_node_travels_whole(manager: SessionManager) -> None:
    session = stored(manager, a=1)
    record = manager.table.get(session.key)
    assert record is not None
    manager.table.drop(session.key, record)
    assert manager.commit(session) == CommitOutcome(None, {}), "a mere use brings nothing back"
    assert session.key not in manager.table
    session["b"] = 2
    manager.commit(session)
    other = make_manager(actor=2)
    replicate(manager, other)
    assert dict(again(other, session)) == {"a": 1, "b": 2}


def test_too_many_attributes_are_refused_and_nothing_is_changed(manager: SessionManager) -> None:
    session = manager.create()
    session.update({f"{n}": None for n in range(70_000)})
    with pytest.raises(SessionLimitError):
        manager.commit(session)
    assert len(manager.table) == 0


def test_the_unreadable_replicates(manager: SessionManager) -> None:
    other = make_manager(actor=2)
    session = manager.create()
    manager.commit(session)
    record = manager.table.get(session.key)
    assert record is not None
    parsed = parse(record)
    parsed.put(Entry(0, 0, b"strange", b"\xc1", START_HLC + 1, 9))
    parsed.access = START_HLC + 1
    manager.table.swap(session.key, record, pack(parsed))
    manager.inbox.drain(9)
    whole = manager.table.get(session.key)
    assert whole is not None
    other.table.merge_in(session.key, from_wire(to_wire(whole, 0), 0))
    found = again(other, session)
    assert "strange" in found
    assert found.get("strange", 5) == 5
    found["a"] = 1
    other.commit(found)
    replicate(other, manager)
    after = manager.table.get(session.key)
    assert after is not None
    assert parse(after).entries[0, b"strange"].value == b"\xc1"


# Ending.


def test_an_ended_session_is_gone_for_all(manager: SessionManager) -> None:
    other = make_manager(actor=2)
    session = manager.create()
    session["a"] = 1
    manager.commit(session)
    replicate(manager, other)
    late = again(other, session)
    late["a"] = "late"
    other.commit(late)
    waiter = Waiter()
    outcome = manager.invalidate(again(manager, session), waiter)
    [commit] = replicate(manager, other)
    assert commit.waiter is waiter
    assert commit.version == outcome.version
    replicate(other, manager)
    for node in (manager, other):
        assert node.find(session.id) is None
        assert node.table.count(Life.DESTROYED) == 1
    assert manager.table.root_digest() == other.table.root_digest()
    assert manager.statistics().destroyed == 1


def test_ending_by_the_session_and_a_commit_is_the_same(manager: SessionManager) -> None:
    session = stored(manager)
    session["a"] = "void"
    session.invalidate()
    assert manager.commit(session).version is not None
    assert manager.find(session.id) is None


def test_a_session_that_never_was_ends_silently(manager: SessionManager) -> None:
    session = manager.create()
    assert manager.invalidate(session) == CommitOutcome(None, {})
    assert len(manager.inbox) == 0


def test_a_write_after_somebody_elses_logout_is_void(manager: SessionManager) -> None:
    session = stored(manager)
    parallel = again(manager, session)
    manager.invalidate(session)
    parallel["a"] = 1
    outcome = manager.commit(parallel)
    assert (outcome.version, outcome.is_gone) == (None, True)
    assert not parallel.is_valid
    assert manager.find(session.id) is None


@pytest.mark.parametrize("changes", [True, False])
def test_a_request_that_began_before_the_expiry_revives_the_session(
    manager: SessionManager, changes: bool
) -> None:
    session = stored(manager, a=1)
    record = manager.table.get(session.key)
    assert record is not None
    manager.table.swap(session.key, record, expired(record))
    assert manager.find(session.id) is None
    if changes:
        session["b"] = 2
    assert manager.commit(session).version is not None
    assert dict(again(manager, session)) == ({"a": 1, "b": 2} if changes else {"a": 1})


# The core's side.


def test_idle_sessions_are_found_a_few_keys_at_a_time(
    manager: SessionManager, clocks: FakeTime
) -> None:
    short = manager.create()
    short.max_inactive = 10
    manager.commit(short)
    keys = {stored(manager).key for _ in range(5)}
    clocks.sleep(10)
    now_ds = manager.now_ds()
    rounds = [list(manager.expired_candidates(now_ds, 2)) for _ in range(3)]
    assert sorted(key for found in rounds for key in found) == [short.key]
    clocks.sleep(1800)
    found = set(manager.expired_candidates(manager.now_ds()))
    assert found == {short.key, *keys}


def test_whether_a_record_is_idle_can_be_asked_of_the_record(
    manager: SessionManager, clocks: FakeTime
) -> None:
    session = manager.create()
    session.max_inactive = 10
    manager.commit(session)
    record = manager.table.get(session.key)
    assert record is not None
    start = manager.now_ds()
    assert [manager.is_idle(record, start + ds) for ds in (0, 99, 100)] == [False, False, True]
    assert not manager.is_idle(expired(record), start + 10**6)
    assert manager.is_idle(bare(record), start + 18_000)


def test_management_sees_ids_and_numbers(manager: SessionManager) -> None:
    first, second = stored(manager), stored(manager)
    rotated = first.rotate_id()
    manager.commit(first)
    assert sorted(manager.list_ids()) == sorted([rotated, second.id])
    manager.invalidate(second)
    numbers = manager.statistics()
    assert (numbers.active, numbers.max_active, numbers.created, numbers.appeared) == (1, 2, 2, 2)
    assert (numbers.destroyed, numbers.commits, numbers.expired) == (1, 4, 0)
    assert numbers.bytes == manager.table.bytes > 0
    assert manager.list_ids() == [rotated]


def test_a_manager_rotates_as_the_session_does(manager: SessionManager) -> None:
    session = stored(manager)
    new = manager.rotate_id(session, 0)
    manager.commit(session)
    assert [manager.find(one) is not None for one in (new, session.key)] == [True, False]


# Threads.


@pytest.mark.timeout(120)
def test_threads_and_a_peer_lose_nothing() -> None:
    """Eight threads commit to fifty sessions while a peer's deltas are merged and the core drains.

    Each thread counts in an attribute of its own, and all append to nothing in common but the
    records. At the end every count is there, and a second node that got the deltas in another order
    holds the same bytes.
    """
    threads, sessions = 8, 50
    inbox = Inbox(threading.Lock())
    clock = Clock(lambda: time.time_ns() // 1_000_000, 1, threading.Lock())
    manager = SessionManager(
        "shop",
        SessionTable(threading.Lock(), inbox),
        clock,
        inbox=inbox,
        codec=ValueCodec(),
        entropy=random.Random(1).randbytes,
        monotonic=time.monotonic,
    )
    keys = []
    for _ in range(sessions):
        session = manager.create()
        manager.commit(session)
        keys.append(session.key)
    counts: list[dict[str, int]] = [dict.fromkeys(keys, 0) for _ in range(threads)]
    versions: list[dict[str, int]] = [{} for _ in range(threads)]
    done = threading.Event()
    commits: list[Commit] = []
    remote: list[tuple[str, bytes]] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        name, mine = f"t{number}", counts[number]
        for _ in range(COMMITS):
            key = keys[chance.randrange(sessions)]
            session = manager.find(key)
            assert session is not None
            assert session.get(name, 0) == mine[key], "a thread reads its own writes"
            mine[key] += 1
            session[name] = mine[key]
            outcome = manager.commit(session)
            assert outcome.version is not None
            versions[number][key] = outcome.version

    def peer() -> None:
        chance = random.Random(99)
        theirs = 0
        while not done.is_set():
            key = keys[chance.randrange(sessions)]
            current = manager.table.get(key)
            assert current is not None
            theirs += 1
            hlc = header(current).access + 1
            name = b"peer%d" % chance.randrange(3)
            delta = pack(
                Parsed(
                    Life.LIVE,
                    0,
                    header(current).created,
                    hlc,
                    0,
                    {(0, name): Entry(0, 0, name, manager.codec.encode(theirs), hlc, 2)},
                )
            )
            clock.observe(hlc)
            manager.table.merge_in(key, delta)
            remote.append((key, to_wire(delta, 0)))
            commits.extend(inbox.drain(256))
            time.sleep(0)

    with ThreadPoolExecutor(threads + 1) as pool:
        other = pool.submit(peer)
        workers = [pool.submit(work, number) for number in range(threads)]
        wait(workers)
        done.set()
        for one in (*workers, other):
            one.result()
    while batch := inbox.drain(256):
        commits.extend(batch)

    total = 0
    for key in keys:
        record = manager.table.get(key)
        assert record is not None
        entries = parse(record).entries
        for number in range(threads):
            if counts[number][key]:
                entry = entries[0, b"t%d" % number]
                assert manager.codec.decode(entry.value) == counts[number][key]
                assert entry.hlc == versions[number][key]
                total += counts[number][key]
    assert total == threads * COMMITS
    assert len(commits) + inbox.overflowed == total + sessions

    replica = SessionTable(threading.Lock(), Inbox(threading.Lock()))
    deltas = [(commit.key, commit.delta) for commit in commits] + remote
    for late in inbox.take_dirty().get("shop", []):
        # On a busy machine the core may come too late for some deltas.
        merged = manager.table.get(late)
        assert merged is not None
        deltas.append((late, to_wire(merged, 0)))
    random.Random(7).shuffle(deltas)
    for session_key, delta in deltas:
        replica.merge_in(session_key, from_wire(delta, 0))
    for key in keys:
        mine, copy = manager.table.get(key), replica.get(key)
        assert mine is not None
        assert copy is not None
        assert equal_state(mine, copy)
        assert with_access(mine, 0, 0) == with_access(copy, 0, 0)
    assert manager.table.root_digest() == replica.root_digest()
