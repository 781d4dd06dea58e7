"""What memcached-session-manager does wrong (its traps T01 to T25), and which test shows that ours
does not. What no other test shows is shown here.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.features.rows import claims
from tests.session_server.site import Browser, Site
from tests.waiting import wait_until
from tribes.stores.memcached import MemcachedNode

if TYPE_CHECKING:
    from tests.servers.caches import CacheServer
    from tests.session_server.conftest import Backend
    from tribes.manager.session import Session

Nodes = dict[str, "CacheServer"]

TRAPS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "T01": (
        "copies that are only read expire before their session",
        ("test_f18_copies_live", "test_f19_f20_reading_keeps"),
    ),
    "T02": (
        "a lock pattern that never matches, and says nothing",
        ("test_f47_patterns_lock", "test_f47_a_pattern_that_never"),
    ),
    "T03": (
        "a request that outlives its lock overwrites others, and releases their lock",
        ("test_f49_a_lock_outlives", "test_f50_a_dead_holders", "test_f45_f06_without_locks"),
    ),
    "T04": (
        "an empty first node hides the second copy",
        ("test_f40_an_empty_first_node",),
    ),
    "T05": (
        "a question whether a session lives creates one",
        ("test_trap_asking_creates_nothing",),
    ),
    "T06": (
        "an ignored request that touches the session replaces the cookie",
        ("test_f56_touching_the_session",),
    ),
    "T07": (
        "the last write before a crash is lost, and failed stores count as done",
        ("test_f25_f26_f27_crashes", "test_f25_a_stopped_process_saves"),
    ),
    "T08": (
        "one bad value takes its node from all",
        ("test_f58_one_bad_value",),
    ),
    "T09": (
        "a weak hash takes a change for none",
        ("test_f15_values_whose_weak_hashes",),
    ),
    "T10": (
        "what is too large removes the old copy",
        ("test_f58_what_is_too_large", "test_f59_values_in_pieces_come_back"),
    ),
    "T11": (
        "a takeover deletes the old copy first",
        ("test_f34_a_killed_new_owner", "test_f34_a_new_owner_that_dies"),
    ),
    "T12": (
        "locks on Redis are not atomic",
        ("test_f50_a_dead_holders", "test_f50_a_lock_whose_answer_was_lost"),
    ),
    "T13": (
        "dashes and dots in the prefix switch storage off",
        ("test_f63_dashes_and_dots",),
    ),
    "T14": (
        "failover nodes with sessions that roam: no second copy, in silence",
        ("test_f02_what_cannot_work_is_refused",),
    ),
    "T15": (
        "a hung node costs a second every second",
        ("test_f43_a_hung_node",),
    ),
    "T16": (
        "a session is new again on another process",
        ("test_trap_a_session_is_new_once",),
    ),
    "T17": (
        "stale copies in memory diverge behind a balancer that roams",
        ("test_f37_memory_that_is_stale",),
    ),
    "T18": (
        "the id of before a move leads to no session",
        ("test_f33_an_old_id_still_works",),
    ),
    "T19": (
        "what cannot be read is deleted",
        ("test_f62_a_newer_versions_record",),
    ),
    "T20": (
        "no listener hears of an expiry (without sticky neither here: docs/stores.md says so)",
        ("test_trap_listeners_hear_of_expired_sticky",),
    ),
    "T21": (
        "who writes to the cache runs code; passwords in the log",
        (
            "test_f60_tampered_or_exchanged",
            "test_f60_who_has_no_key",
            "test_f61_pickles_are_bytes",
            "test_f66_passwords_are_in_no_log",
        ),
    ),
    "T22": (
        "the second copy is written after the answer",
        ("test_f38_both_copies_stand",),
    ),
    "T23": (
        "a redirect overtakes the save",
        ("test_f64_a_redirect_finds",),
    ),
    "T24": (
        "of two processes the later one overwrites the whole session",
        ("test_f45_f06_without_locks", "test_f46_two_writers"),
    ),
    "T25": (
        "threads and connections stay when the application is stopped",
        ("test_trap_a_stop_leaves_no_thread",),
    ),
}
"""Trap: what it is, and how the names of the tests begin that show that it is none here."""


def test_every_trap_has_its_tests() -> None:
    names = {each.test for tests in claims().values() for each in tests} | set(globals())
    missing = [
        (trap, wanted)
        for trap, (_, tests) in TRAPS.items()
        for wanted in tests
        if not any(name.startswith(wanted) for name in names)
    ]
    assert missing == []
    assert all(tests for _, tests in TRAPS.values())
    assert list(TRAPS) == [f"T{number:02}" for number in range(1, 26)]


def test_trap_asking_creates_nothing(n: Nodes, two: Site) -> None:
    """Not the version of a session that is gone, not the probe, not a request that reads."""
    server = n["n1"]
    node = MemcachedNode(("127.0.0.1", server.port), timeout_s=2)
    assert node.peek("k", 60) is None
    assert node.load("k", 60) is None
    node.probe()
    node.close()
    for sticky in (True, False):
        instance = two.instance(sticky=sticky)
        browser = Browser("A" * 32 + "-n1")
        assert browser.get(instance, "/none").cookie is None
    assert sum(each.count("ms") for each in n.values()) == 0
    assert not server.has("k")


@pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
def test_trap_a_session_is_new_once(backend: Backend, sticky: bool) -> None:
    """Where it began, and until its first answer."""
    seen: list[bool] = []
    one, two = (backend.instance(sticky=sticky) for _ in range(2))
    session = one.manager.create()
    seen.append(session.is_new)
    session["a"] = 1
    one.sessions.commit(session)
    for instance in (two, one):
        found = instance.manager.find(session.id)
        assert found is not None
        seen.append(found.is_new)
    assert seen == [True, False, False]


def test_trap_listeners_hear_of_expired_sticky_sessions(two: Site) -> None:
    """Once, from the process that had it; the copy goes with it."""
    heard: list[tuple[str, str]] = []

    class Listener:
        def session_destroyed(self, session: Session, reason: str) -> None:
            heard.append((session.key, reason))

    # Only the test looks after the sessions.
    instance = two.instance(expiry_interval=3_600_000, max_inactive_s=60)
    instance.manager.add_listener(Listener())
    browser = Browser()
    browser.post(instance, "/?a=1")
    key, home = browser.key, instance.manager.ring.get(browser.node)
    assert home is not None
    assert home.client.peek(key)
    instance.manager._monotonic = lambda: time.monotonic() + 61
    for _ in range(2):
        instance.manager.process_expires()
    assert heard == [(key, "expired")]
    assert home.client.peek(key) is None


def test_trap_a_stop_leaves_no_thread(backend: Backend) -> None:
    """And no connection: those of the pools are closed."""
    instance = backend.instance(context="stopped", session_backup_async=True)
    browser = Browser()
    browser.post(instance, "/?a=1")

    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if "-stopped" in each.name]

    def connections() -> int:
        return sum(len(node.client._idle) for node in instance.manager.ring.nodes)

    assert threads()
    wait_until(connections)
    instance.sessions.stop()
    assert threads() == []
    assert connections() == 0
