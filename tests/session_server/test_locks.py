"""Requests of one session at the same time: locks, and merges without them (msm-sessions §8.3)."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.session_server.site import Browser, Instance, Site, begun, held, together
from tests.standstill import Stopwatch
from tests.waiting import wait_until
from tribes.errors import SessionNotReplicatedError
from tribes.manager.held import Held
from tribes.manager.request_line import RequestLine

if TYPE_CHECKING:
    from tests.servers.caches import CacheServer
    from tests.session_server.conftest import Backend
    from tribes.manager.session import Session

Nodes = dict[str, "CacheServer"]


def test_f44_locks_let_writers_in_one_by_one(backend: Backend) -> None:
    """On two instances: the second one waits for the first, and both writes are there."""
    tc1, tc2 = (backend.instance(sticky=False, locking_mode="all") for _ in range(2))
    browser = Browser()
    browser.post(tc1, "/?a=1")
    is_waiting = waiting(tc2)
    with held(browser.twin(), tc1, "/?b=2") as first:
        second = begun(browser.twin(), tc2, "/?c=3")
        assert is_waiting.wait(20)
    assert (second.result()["b"], second.result()["c"]) == ("2", "3")
    assert first.result()["c"] is None
    assert tc2.statistics().locks_waited == 1


def waiting(instance: Instance) -> threading.Event:
    """Set as soon as a request of this instance has met a lock that another one has."""
    has_met = threading.Event()
    locks = instance.manager.locks
    pause = locks._pause

    def noted(attempt: int) -> None:
        has_met.set()
        pause(attempt)

    locks._pause = noted
    return has_met


def test_f45_f06_without_locks_disjoint_writes_survive(backend: Backend) -> None:
    """Nobody waits; who saves second finds the other's save and merges, by attribute."""
    tc1, tc2 = (backend.instance(sticky=False) for _ in range(2))
    browser = Browser()
    browser.post(tc1, "/?a=1")
    with held(browser.twin(), tc1, "/?b=2"):
        assert browser.twin().post(tc2, "/?c=3").waited_s < 0.5
    page = browser.get(tc1)
    assert [page[name] for name in "abc"] == ["1", "2", "3"]
    assert tc1.statistics().conflicts >= 1


def test_f46_two_writers_of_one_attribute(backend: Backend) -> None:
    """The later one wins and is counted; or is refused; or a function decides."""
    for policy, status, value in (("serve", 200, "slow"), ("error", 503, "quick")):
        tc1, tc2 = (backend.instance(sticky=False, on_conflict=policy) for _ in range(2))
        browser = Browser()
        browser.post(tc1, "/?a=0")
        with held(browser.twin(), tc1, "/?a=slow") as slow:
            browser.twin().post(tc2, "/?a=quick")
        assert slow.result().status == status
        assert browser.get(tc2)["a"] == value
        if policy == "serve":
            assert tc1.manager.statistics().commit_conflicts == 1

    names: list[list[str]] = []

    def decide(session: Session, clashing: list[str]) -> None:
        names.append(clashing)

    tc1.manager._on_conflict = decide
    with held(browser.twin(), tc1, "/?a=slow&b=1"):
        browser.twin().post(tc2, "/?a=quicker")
    assert names == [["a"]]
    assert browser.get(tc2)["a"] == "slow"


@pytest.mark.parametrize(
    ("pattern", "locked", "free"),
    [
        ("uriPattern:/path1|/path2", ("/path1", "/path2?x=1"), ("/path", "/path1/x")),
        ("uriPattern:/set.*", ("/set", "/settle"), ("/", "/get/set")),
        ("uriPattern:POST /set.*", (), ("/set",)),
        ("uriPattern:GET /page[?]a=1", ("/page?a=1",), ("/page?a=2", "/page")),
    ],
)
def test_f47_patterns_lock_what_they_match(
    n: Nodes, two: Site, pattern: str, locked: tuple[str, ...], free: tuple[str, ...]
) -> None:
    """The path; also with the query, and with the method, as the original compares. By its log."""
    instance = two.instance(sticky=False, locking_mode=pattern)
    browser = Browser()
    browser.post(instance, "/?a=1")

    def locks() -> int:
        return sum(server.count("ms", locks=True) for server in n.values())

    for path in free:
        browser.get(instance, path)
        assert locks() == 0, path
    for number, path in enumerate(locked, 1):
        browser.get(instance, path)
        assert locks() == number, path
    assert sum(server.count("md", locks=True) for server in n.values()) == len(locked)


def test_f47_a_pattern_that_never_matches_is_told(two: Site) -> None:
    """After a thousand requests, once."""
    instance = two.instance(sticky=False, locking_mode="uriPattern:never")
    told: list[str] = []
    locks = instance.manager.locks
    locks._on_error = lambda verb, error: told.append(str(error))
    line = RequestLine("GET", "/a")
    for _ in range(1500):
        assert not locks.wants(line, "GET /a")
    assert told == ["the pattern has matched none of 1000 requests"]


def test_f48_auto_learns_who_only_reads(n: Nodes, two: Site) -> None:
    """Such requests lock no more, until one of them writes; from then on they always do."""
    instance = two.instance(sticky=False, locking_mode="auto")
    browser = Browser()
    browser.post(instance, "/?a=1")

    def locks(path: str) -> int:
        for server in n.values():
            server.mark()
        browser.get(instance, path)
        return sum(server.count("ms", locks=True) for server in n.values())

    assert [locks("/page") for _ in range(3)] == [1, 0, 0]
    assert locks("/append?item=1") == 1
    assert [locks("/append?item=2") for _ in range(2)] == [1, 1]
    # The same kind of request, that has only read so far, writes.
    assert [locks("/remove?name=nothing") for _ in range(2)] == [1, 0]
    assert locks("/remove?name=a") == 0
    assert [locks("/remove?name=nothing") for _ in range(2)] == [1, 1]


def test_f48_auto_loses_no_update(backend: Backend) -> None:
    """A thousand random requests of four windows: every item that was put in a list is there."""
    pair = [backend.instance(sticky=False, locking_mode="auto") for _ in range(2)]
    browser = Browser()
    browser.post(pair[0], "/?a=1")

    def window(number: int) -> list[str]:
        rng, mine = random.Random(number), []
        own = browser.twin()
        for step in range(250):
            where = rng.choice(pair)
            if rng.random() < 0.2:
                mine.append(f"{number}.{step}")
                assert own.get(where, f"/append?item={mine[-1]}").status == 200
            else:
                own.get(where, f"/page{rng.randrange(3)}")
        return mine

    wanted = together(*(lambda number=number: window(number) for number in range(4)))
    found = browser.get(pair[1]).values["list"]
    missing = [item for items in wanted for item in items if f"'{item}'" not in found]
    assert missing == []


def test_f49_a_lock_outlives_its_time_while_the_request_runs(backend: Backend) -> None:
    """A request as long as seven thirds of its lock's time: nobody else gets in."""
    settings = {"sticky": False, "locking_mode": "all", "lock_expiration": 1}
    tc1, tc2 = (backend.instance(operation_timeout=30_000, **settings) for _ in range(2))
    browser = Browser()
    browser.post(tc1, "/?a=1")
    with held(browser.twin(), tc1, "/?b=2"):
        second = begun(browser.twin(), tc2, "/?c=3")
        wait_until(lambda: tc1.statistics().locks_renewed >= 7)
        assert not second.done()
    assert second.result()["b"] == "2"
    assert tc2.statistics().locks_waited == 1
    assert tc1.statistics().locks_lost == 0


def test_f50_a_dead_holders_lock_is_free_after_its_time(backend: Backend) -> None:
    """And a late release, or renewal, does not touch the next holder's lock."""
    settings = {"sticky": False, "locking_mode": "all", "lock_expiration": 1}
    tc1, tc2 = (backend.instance(operation_timeout=3000, **settings) for _ in range(2))
    browser = Browser()
    browser.post(tc1, "/?a=1")
    home = tc1.manager.ring.get(browser.node)
    began, watch = time.monotonic(), Stopwatch()
    late = tc1.manager.locks.acquire(browser.key, home)
    assert late is not None
    # The process stands still: it renews nothing.
    tc1.manager.locks._mine.clear()
    lock = tc2.manager.locks.acquire(browser.key, tc2.manager.ring.get(browser.node))
    assert lock is not None
    assert time.monotonic() - began > 0.5
    assert watch.seconds < 2.5
    tc1.manager.locks._mine[late.token] = late
    tc1.manager.locks._renew(late)
    assert tc1.manager.locks.lost == 1
    tc1.manager.locks._mine[late.token] = late
    tc1.manager.locks.release(late)
    assert tc1.manager.locks.lost == 2
    assert any(server.has(lock.key) for server in backend.servers)
    tc2.manager.locks.release(lock)
    assert not any(server.has(lock.key) for server in backend.servers)


def test_f50_a_lock_whose_answer_was_lost_is_known_again(backend: Backend) -> None:
    """The server has it, the client did not hear so: the same token gets it, another does not."""
    instance = backend.instance(sticky=False)
    [node, *_] = instance.manager.ring.nodes
    held = instance.manager.ring.call(node, lambda client: client.lock("lock:k", "t" * 32, 5))
    again = instance.manager.ring.call(node, lambda client: client.lock("lock:k", "t" * 32, 5))
    assert held
    assert again == held
    assert not instance.manager.ring.call(node, lambda client: client.lock("lock:k", "u", 5))
    # Renewed in the moment of the release, its version is another one.
    instance.manager.ring.call(node, lambda client: client.renew("lock:k", "t" * 32, held, 5))
    assert instance.manager.ring.call(node, lambda client: client.unlock("lock:k", "t" * 32, held))


def test_f50_whoever_forgets_the_session_forgets_the_lock(two: Site) -> None:
    """A request that never commits holds its lock no longer than its session object lives."""
    instance = two.instance(sticky=False, locking_mode="all")
    browser = Browser()
    browser.post(instance, "/?a=1")
    session = instance.manager.find(browser.cookie)
    assert session is not None
    assert isinstance(session.held, Held)
    assert session.held.lock is not None
    del session
    wait_until(lambda: not instance.manager.locks._mine)
    assert browser.get(instance).waited_s < 0.2


def test_f51_who_waits_too_long_is_told(backend: Backend) -> None:
    """503; or the request goes on without, and is counted."""
    for choice, status in (("error", 503), ("serve", 200)):
        settings = {"locking_mode": "all", "operation_timeout": 200, "on_lock_timeout": choice}
        tc1, tc2 = (backend.instance(sticky=False, **settings) for _ in range(2))
        browser = Browser()
        browser.post(tc1, "/?a=1")
        cookie = browser.cookie
        with held(browser.twin(), tc1, "/?b=2"):
            second = browser.post(tc2, "/?c=3")
        assert second.status == status
        assert second.seconds > 0.19
        assert second.waited_s < 0.45
        assert browser.cookie == cookie
        assert tc2.statistics().lock_timeouts == 1
        page = browser.get(tc1)
        assert (page["b"], page["c"]) == ("2", "3" if choice == "serve" else None)


@pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
def test_f52_parallel_requests_of_one_instance_are_safe(backend: Backend, sticky: bool) -> None:
    """Fifty windows write fifty attributes at once."""
    instance = backend.instance(sticky=sticky, operation_timeout=10_000)
    browser = Browser()
    browser.post(instance, "/?a=1")
    barrier = threading.Barrier(50, timeout=20)
    pages = together(
        *(
            lambda number=number: browser.twin().get(
                instance, f"/?k{number}={number}", "POST", barrier.wait
            )
            for number in range(50)
        )
    )
    assert {page.status for page in pages} == {200}
    page = browser.get(backend.instance(sticky=sticky))
    assert [page[f"k{number}"] for number in range(50)] == [str(each) for each in range(50)]


def test_f44_invalidating_releases_the_lock(n: Nodes, two: Site) -> None:
    """Neither a session nor a lock is left, in any mode."""
    for mode in ("all", "auto"):
        instance = two.instance(sticky=False, locking_mode=mode)
        browser = Browser()
        browser.post(instance, "/?a=1")
        key = browser.key
        assert browser.get(instance, "/invalidate").cookie == ""
        assert not any(server.has(f"lock:{key}") for server in n.values())


def test_a_conflict_as_an_error_is_one_in_programs_too(two: Site) -> None:
    """Without a middleware it is raised, with what happened."""
    pair = [two.instance(sticky=False, on_conflict="error") for _ in range(2)]
    browser = Browser()
    browser.post(pair[0], "/?a=1")
    sessions = [each.manager.find(browser.cookie) for each in pair]
    for number, (each, session) in enumerate(zip(pair, sessions, strict=True)):
        assert session is not None
        session["a"] = number
        if number == 0:
            each.sessions.commit(session)
            continue
        with pytest.raises(SessionNotReplicatedError, match="same attributes"):
            each.sessions.commit(session)
