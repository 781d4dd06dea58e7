"""Nodes and instances that die, hang, or come back empty (msm-sessions §12)."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.session_server.conftest import node_list
from tests.session_server.site import Browser, Instance, Site, held, together
from tests.waiting import wait_until
from tribes.errors import StoreNodeError
from tribes.manager.record import main_of
from tribes.manager.stored import Link
from tribes.stores.memcached import MemcachedNode
from tribes.stores.ring import Ring, RingNode

if TYPE_CHECKING:
    from tests.servers.caches import CacheServer
    from tests.session_server.conftest import Backend
    from tribes.manager.session import Session
    from tribes.stores.cache import CacheNode

Nodes = dict[str, "CacheServer"]


def start(browser: Browser, where: Instance, node: str, path: str = "/?a=1") -> None:
    """Begin a session whose home is this node."""
    for _ in range(200):
        browser.cookie = ""
        browser.post(where, path)
        if browser.node == node:
            return
    raise AssertionError(node)


@pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
def test_f04_a_session_without_a_node_gets_one_when_there_is_one(
    n: Nodes, two: Site, sticky: bool
) -> None:
    """All nodes are down at first: no node in the id, and it is renamed afterwards."""
    for name in ("n1", "n2"):
        n[name].kill()
    instance = two.instance(sticky=sticky)
    browser = Browser()
    page = browser.post(instance, "/?a=1")
    assert "-" not in (page.cookie or "")
    assert page.status == (200 if sticky else 503)
    token = browser.key
    n["n1"].start()
    instance.await_up("n2")
    page = browser.post(instance, "/?b=2")
    assert browser.node == "n1"
    if sticky:
        assert (page["a"], browser.key) == ("1", token)
    assert n["n1"].has(browser.key)


def test_f07_cross_storage_survives_a_machine(n: Nodes, two: Site) -> None:
    """Each instance avoids the node of its own machine; when one dies the other has the data."""
    tc1 = two.instance(route="tc1", failover_nodes="n1")
    tc2 = two.instance(route="tc2", failover_nodes="n2")
    browser = Browser()
    browser.post(tc1, "/?a=1")
    assert browser.cookie.endswith("-n2.tc1")
    assert n["n2"].has(browser.key)
    assert not n["n1"].has(browser.key)
    # Machine 1 is gone: its instance, and its node.
    n["n1"].kill()
    page = browser.get(tc2)
    assert page["a"] == "1"
    assert browser.cookie.endswith("-n2.tc2")
    n["n1"].start()
    tc2.await_up()
    fresh = Browser()
    fresh.post(tc2, "/?b=2")
    assert fresh.cookie.endswith("-n1.tc2")


@pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
def test_f28_f29_sessions_move_when_nodes_die(n: Nodes, many: Site, sticky: bool) -> None:
    """One node, then another: same token, a node that lives, all data; then the id is stable."""
    instance = many.instance(sticky=sticky, route="tc1")
    browser = Browser()
    start(browser, instance, "n1")
    token = browser.key
    dead: list[str] = []
    for _ in range(2):
        dead.append(browser.node)
        n[dead[-1]].kill()
        instance.await_up(*dead)
        page = browser.post(instance, f"/?b={len(dead)}")
        assert (page.status, page["a"], page["b"]) == (200, "1", str(len(dead)))
        assert browser.key == token
        assert browser.node not in dead
        assert n[browser.node].has(token)
        assert browser.get(instance).cookie is None
    # It stays where it is when they come back.
    home = browser.node
    for name in dead:
        n[name].start()
    instance.await_up()
    assert browser.get(instance)["a"] == "1"
    assert browser.node == home
    # And every instance finds it.
    assert browser.twin().get(many.instance(sticky=sticky, route="tc2"))["b"] == "2"


def test_f28_the_request_that_meets_the_failure_has_its_data(n: Nodes, many: Site) -> None:
    """Nobody has noticed before: the probes are slow, and the request finds out by itself."""
    instance = many.instance(sticky=False, probe_interval=60_000)
    browser = Browser()
    start(browser, instance, "n1")
    n["n1"].kill()
    page = browser.post(instance, "/?b=2")
    assert (page["a"], page["b"]) == ("1", "2")
    assert page.waited_s < 0.2
    assert browser.node == "n2"


def test_f30_with_all_nodes_dead_sticky_sessions_go_on(n: Nodes, two: Site) -> None:
    """A hundred requests, quick, with one id and no cookies; and all is written afterwards."""
    instance = two.instance(route="tc1")
    browser = Browser()
    browser.post(instance, "/?a=1")
    cookie = browser.cookie
    for name in ("n1", "n2"):
        n[name].kill()
    instance.await_up("n1", "n2")
    pages = [browser.post(instance, f"/?b={number}") for number in range(100)]
    assert [page.status for page in pages] == [200] * 100
    assert {page.cookie for page in pages} == {None}
    assert sorted(page.waited_s for page in pages)[-5] < 0.05
    assert pages[-1]["b"] == "99"
    assert browser.cookie == cookie
    # New sessions work too, and have one cookie.
    fresh = Browser()
    assert fresh.post(instance, "/?c=1").cookie is not None
    assert fresh.get(instance).cookie is None
    for name in ("n1", "n2"):
        n[name].start()
    instance.await_up()
    wait_until(lambda: any(n[name].has(browser.key) for name in ("n1", "n2")), every=0.05)
    assert browser.get(two.instance(route="tc2"))["b"] == "99"


def test_f31_failover_nodes_are_used_last_and_left_again(n: Nodes, many: Site) -> None:
    """Two hundred sessions before, while and after the others are down."""
    instance = many.instance(failover_nodes="n3")

    def spread() -> Counter[str]:
        return Counter(instance.manager.create().suffix for _ in range(200))

    assert set(spread()) == {"-n1", "-n2"}
    n["n1"].kill()
    instance.await_up("n1")
    assert set(spread()) == {"-n2"}
    n["n2"].kill()
    instance.await_up("n1", "n2")
    assert set(spread()) == {"-n3"}
    n["n1"].start()
    instance.await_up("n2")
    assert set(spread()) == {"-n1"}


def test_f32_new_sessions_spread_evenly(many: Site) -> None:
    """Chi-square over 3,000 ids: above 18.4 comes by chance once in ten thousand."""
    instance = many.instance()
    found = Counter(instance.manager.create().suffix for _ in range(3000))
    assert set(found) == {"-n1", "-n2", "-n3"}
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 18.4


def test_f33_an_old_id_still_works_after_a_move(n: Nodes, many: Site) -> None:
    """A parallel request has the old route, or the old node; the session is the same."""
    tc1 = many.instance(route="tc1")
    tc2 = many.instance(route="tc2")
    browser = Browser()
    start(browser, tc1, "n1")
    old = browser.twin()
    browser.post(tc2, "/?b=2")
    assert browser.cookie.endswith(".tc2")
    page = old.twin().post(tc1, "/?c=3")
    # This one trusts its memory, since the route is its own; what it writes is merged.
    assert (page["a"], page["c"]) == ("1", "3")
    for instance in (tc1, tc2):
        page = old.twin().get(instance)
        assert (page["a"], page["b"], page["c"]) == ("1", "2", "3")
    n["n1"].kill()
    for instance in (tc1, tc2):
        instance.await_up("n1")
    browser.get(tc1)
    assert browser.node in ("n2", "n3")
    assert old.twin().get(tc1)["c"] == "3"
    assert old.twin().get(tc1).id[:32] == browser.key


def test_f34_a_new_owner_that_dies_at_once_loses_nothing(backend: Backend) -> None:
    """It is in the middle of the request that took the session over; a third one serves it."""
    tc1, tc2, tc3 = (backend.instance(route=f"tc{number}") for number in (1, 2, 3))
    browser = Browser()
    browser.post(tc1, "/?a=1")
    with held(browser.twin(), tc2, method="GET"):
        assert browser.get(tc3)["a"] == "1"


@contextmanager
def doomed(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of `tests/session_server/doomed.py`; it is killed at the end at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.session_server.doomed", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_f34_a_killed_new_owner_loses_nothing(backend: Backend) -> None:
    """SIGKILL while its handler runs, after it took the session over."""
    tc1, tc3 = backend.instance(route="tc1"), backend.instance(route="tc3")
    browser = Browser()
    browser.post(tc1, "/?a=1")
    with doomed(backend.site.nodes, "", "tc2", "GET", "/hold", browser.cookie) as process:
        assert line_of(process) == "{'a': '1'}"
        process.kill()
        process.wait()
        page = browser.get(tc3)
        assert page["a"] == "1"
        assert browser.post(tc3, "/?b=2")["b"] == "2"


def test_f07_the_other_instance_has_what_a_killed_machine_wrote(n: Nodes, two: Site) -> None:
    """SIGKILL for the instance and for the node of its own machine, right after the answer."""
    tc2 = two.instance(route="tc2", failover_nodes="n2")
    with doomed(two.nodes, "n1", "tc1", "POST", "/?a=1", "") as process:
        line_of(process)
        cookie = line_of(process)
        assert cookie.endswith("-n2.tc1")
        process.kill()
        process.wait()
        n["n1"].kill()
        browser = Browser(cookie)
        assert browser.get(tc2)["a"] == "1"
        assert browser.cookie.endswith("-n2.tc2")


def test_f35_listeners_hear_of_sessions_that_come_in(two: Site) -> None:
    """With the id that the client gets, and with the session's content."""
    tc1 = two.instance(route="tc1")
    tc2 = two.instance(route="tc2")
    heard: list[tuple[str, Any]] = []

    class Listener:
        def session_created(self, session: Session) -> None: ...
        def session_destroyed(self, session: Session, reason: str) -> None: ...
        def session_id_changed(self, session: Session, old_id: str) -> None: ...
        def session_will_passivate(self, session: Session) -> None: ...

        def session_activated(self, session: Session) -> None:
            heard.append((session.id, session["a"]))

    tc2.manager.add_listener(Listener())
    browser = Browser()
    browser.post(tc1, "/?a=1")
    page = browser.get(tc2)
    assert heard == [(page.id, "1")]


def test_f36_two_takeovers_at_once_make_one_session(backend: Backend) -> None:
    """Both see the same data, and one copy remains."""
    tc1, tc2 = backend.instance(route="tc1"), backend.instance(route="tc2")
    browser = Browser()
    browser.post(tc1, "/?a=1")
    barrier = threading.Barrier(3, timeout=20)
    pages = together(
        *(
            lambda name=name: browser.twin().get(tc2, f"/?{name}=1", "POST", barrier.wait)
            for name in "xyz"
        )
    )
    assert {page.id for page in pages} == {browser.get(tc2).id}
    page = browser.get(tc2)
    assert [page[name] for name in "axyz"] == ["1"] * 4
    assert len(backend.ttls(browser.key)) == 1


def test_f37_memory_that_is_stale_is_noticed(backend: Backend) -> None:
    """Sticky settings behind a balancer that is not: the union is there, on both, at every step."""
    for route in ("", "tc"):
        pair = [backend.instance(route=route and f"{route}{number}") for number in (1, 2)]
        browser = Browser()
        for number in range(8):
            page = browser.post(pair[number % 2], f"/?k{number}={number}")
            assert [page[f"k{each}"] for each in range(number + 1)] == [
                str(each) for each in range(number + 1)
            ]


def test_f38_both_copies_stand_before_the_answer(n: Nodes, two: Site) -> None:
    """Asked past the client, at once."""
    instance = two.instance(sticky=False)
    for number in range(20):
        browser = Browser()
        browser.post(instance, f"/?a={number}")
        assert n["n1"].has(browser.key)
        assert n["n2"].has(browser.key)


def test_f39_the_second_copy_serves_when_the_first_is_dead(n: Nodes, two: Site) -> None:
    """Within 200 ms, with the right node in the new id."""
    for node, other in (("n1", "n2"), ("n2", "n1")):
        instance = two.instance(sticky=False, probe_interval=60_000)
        browser = Browser()
        start(browser, instance, node)
        n[node].kill()
        page = browser.get(instance)
        assert (page["a"], browser.node) == ("1", other)
        assert page.waited_s < 0.2
        assert browser.get(instance).cookie is None
        n[node].start()


def test_f40_an_empty_first_node_gets_its_copy_back(n: Nodes, two: Site) -> None:
    """Restarted in a moment, flushed, or it has evicted the session: nobody notices."""
    instance = two.instance(sticky=False, probe_interval=60_000)
    browser = Browser()
    start(browser, instance, "n1")
    n["n1"].flush()
    page = browser.get(instance)
    assert (page["a"], page.cookie) == ("1", None)
    assert n["n1"].has(browser.key), "repaired by a request that only reads"
    n["n1"].kill()
    n["n1"].start()
    assert browser.post(instance, "/?b=2")["a"] == "1"
    assert n["n1"].has(browser.key)
    # Sticky sessions have one copy, and memory to write it from.
    sticky = two.instance(probe_interval=60_000)
    browser = Browser()
    browser.post(sticky, "/?a=1")
    for name in ("n1", "n2"):
        n[name].flush()
    browser.get(sticky)
    assert browser.get(two.instance())["a"] == "1"


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_f41_a_third_node_takes_the_second_copy(n: Nodes, many: Site, method: str) -> None:
    """The second one is dead: after an update, or a read with the first one dead, there are two."""
    instance = many.instance(sticky=False)
    browser = Browser()
    start(browser, instance, "n1")
    assert [n[name].has(browser.key) for name in ("n1", "n2", "n3")] == [True, True, False]
    dead = "n2" if method == "POST" else "n1"
    n[dead].kill()
    instance.await_up(dead)
    assert browser.get(instance, "/?a=1", method)["a"] == "1"
    browser.get(instance, "/?c=3", "POST" if method == "POST" else "GET")
    assert n["n3"].has(browser.key)
    n[browser.node].kill()
    assert browser.get(instance)["a"] == "1"


def test_f42_copies_are_equal_after_any_failures(n: Nodes, many: Site) -> None:
    """Random kills, hangs, flushes and writes; then a write, and both copies are the same record.

    At most one node is away at a time, and what it missed is made good before the next, as what an
    operator does; so every acknowledged write must be there too.
    """
    rng = random.Random(11)
    pair = [many.instance(sticky=False, session_backup_timeout=100) for _ in range(2)]
    browser = Browser()
    browser.post(pair[0], "/?k0=0")
    expected = {"k0": "0"}
    for step in range(1, 25):
        name = rng.choice(list(n))
        what = rng.choice(["kill", "flush", "hang", "nothing"])
        if what == "kill":
            n[name].kill()
        elif what == "flush":
            n[name].flush()
        elif what == "hang":
            n[name].hang()
        for _ in range(2):
            key = f"k{rng.randrange(8)}"
            page = browser.post(rng.choice(pair), f"/?{key}={step}")
            assert page.status == 200
            expected[key] = str(step)
        n[name].go_on()
        n[name].start()
        for instance in pair:
            instance.await_up()
        browser.post(rng.choice(pair), f"/?step={step}")
    page = browser.post(pair[0], "/?last=1")
    assert {name: page[name] for name in expected} == expected
    copies = pair[0].manager.copies
    home = pair[0].manager.ring.get(browser.node)
    records = []
    for node in copies.ring.targets(home, 2):
        found = copies._open(node, browser.key, browser.key, None)
        assert found is not None
        assert not isinstance(found, Link)
        records.append(found.record)
    # All but the age, which is the time of reading.
    assert len({main_of(record)[:22] + main_of(record)[26:] for record in records}) == 1


@pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
def test_f43_a_hung_node_costs_each_request_little(n: Nodes, two: Site, sticky: bool) -> None:
    """Under 250 ms, and under 10 ms once it is known; it is used again when it answers."""
    instance = two.instance(sticky=sticky, probe_interval=500, session_backup_timeout=100)
    browsers = [Browser() for _ in range(6)]
    for browser in browsers:
        start(browser, instance, "n1")
    n["n1"].hang()
    seconds = []
    for number in range(4):
        for browser in browsers:
            page = browser.post(instance, f"/?b={number}")
            assert (page.status, page["a"]) == (200, "1")
            seconds.append(page.waited_s)
    # One request pays. A second one may be late because the machine is busy.
    assert sorted(seconds)[-2] < 0.25
    assert sorted(seconds)[-3] < 0.05
    assert sorted(seconds)[len(seconds) // 2] < 0.01
    n["n1"].go_on()
    instance.await_up()
    # What it had before it hung is old now, and does not count.
    assert [browser.get(instance)["b"] for browser in browsers] == ["3"] * 6
    found = {instance.manager.create().suffix for _ in range(100)}
    assert found == {"-n1", "-n2"}


def test_f43_an_old_copy_on_a_node_that_was_away_does_not_win(n: Nodes, two: Site) -> None:
    """A request that still has the id of before it hung reads the newer one of the other node."""
    instance = two.instance(sticky=False, session_backup_timeout=100)
    browser = Browser()
    start(browser, instance, "n1")
    old = browser.twin()
    n["n1"].hang()
    browser.post(instance, "/?a=2")
    assert browser.node == "n2"
    browser.get(instance, "/?x=1")
    n["n1"].go_on()
    instance.await_up()
    assert old.get(instance)["a"] == "2"
    # And a logout that it missed stands.
    browser.cookie = old.cookie
    n["n1"].hang()
    browser.get(instance, "/invalidate")
    n["n1"].go_on()
    instance.await_up()
    assert old.get(instance).text == ""


def test_f58_one_bad_value_says_nothing_about_its_node(two: Site) -> None:
    """Others' sessions stay where they are."""
    instance = two.instance(sticky=False, value_max_bytes=20_000)
    browser = Browser()
    browser.post(instance, "/?a=1")
    big = browser.twin().post(instance, f"/?b={'x' * 30_000}")
    assert big.status == 503
    assert instance.down() == []
    assert browser.get(instance)["a"] == "1"


def test_a_session_of_which_nobody_knows_is_no_new_session(n: Nodes, two: Site) -> None:
    """All nodes are down, without sticky sessions: 503, and the client keeps its cookie."""
    instance = two.instance(sticky=False)
    browser = Browser()
    browser.post(instance, "/?a=1")
    cookie = browser.cookie
    for name in ("n1", "n2"):
        n[name].kill()
    page = browser.get(instance)
    assert (page.status, page.cookie) == (503, None)
    for name in ("n1", "n2"):
        n[name].start()
    assert browser.cookie == cookie


def test_too_few_copies_are_an_error_where_that_is_wanted(n: Nodes, two: Site) -> None:
    """`on_unreplicated="error"`: one of two nodes is down, so a write is refused; a read is not."""
    instance = two.instance(sticky=False, on_unreplicated="error")
    browser = Browser()
    browser.post(instance, "/?a=1")
    n["n2"].kill()
    instance.await_up("n2")
    assert browser.post(instance, "/?a=2").status == 503
    n["n2"].start()
    instance.await_up()
    assert browser.post(instance, "/?a=3").status == 200


Told = list[tuple[str, str | None]]


@contextmanager
def ring_of(*servers: CacheServer) -> Iterator[tuple[Ring, Told]]:
    """A ring of these servers, n1 and so on, and what it tells of them."""
    told: Told = []
    ring = Ring(
        [
            RingNode(f"n{number}", MemcachedNode(("127.0.0.1", server.port), timeout_s=0.1))
            for number, server in enumerate(servers, 1)
        ],
        monotonic=time.monotonic,
        choose=lambda count: 0,
        on_change=lambda name, why: told.append((name, why)),
    )
    try:
        yield ring, told
    finally:
        ring.close()


def test_a_ring_calls_nobody_who_is_down(n: Nodes) -> None:
    """A call to a node that is known to be down fails at once, without a connection."""
    with ring_of(n["n1"]) as (ring, told):
        [node] = ring.nodes
        n["n1"].hang()
        with pytest.raises(StoreNodeError, match="in time"):
            ring.call(node, lambda node: node.load("k"))
        n["n1"].go_on()
        with pytest.raises(StoreNodeError, match="is down"):
            ring.call(node, lambda node: node.load("k"))
        ring.probe()
        assert ring.call(node, lambda node: node.load("k")) is None
        assert [name for name, _ in told] == ["n1", "n1"]
        assert told[1][1] is None


def test_a_node_that_is_taken_off_during_a_call_keeps_no_connection(n: Nodes) -> None:
    """Nobody would ever close it."""
    with ring_of(n["n1"], n["n2"]) as (ring, _):
        first, second = ring.nodes

        def slow(client: CacheNode) -> object:
            # Another thread, after this one has seen that the node is up.
            ring.replace([second])
            return client.load("k")

        assert ring.call(first, slow) is None
        assert ring.nodes == (second,)
        assert not first.client._idle  # type: ignore[attr-defined]


def test_a_node_that_is_taken_off_during_a_probe_is_not_back(
    n: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that has it in hand would use it, and operators would be told of it."""
    with ring_of(n["n1"], n["n2"]) as (ring, told):
        first, second = ring.nodes

        def probe() -> str:
            ring.replace([second])
            return ""

        monkeypatch.setattr(first.client, "probe", probe)
        ring.probe()
        assert not first.is_up
        assert told == []


def test_names_of_servers_in_the_list_of_nodes(n: Nodes) -> None:
    """The helper of these tests writes what the configuration reads."""
    assert node_list(n).startswith(f"n1:127.0.0.1:{n['n1'].port},n2:")
