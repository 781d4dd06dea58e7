"""What requests find and leave on memcached and Redis, while all is well."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.session_server.site import Browser, Site, held
from tests.waiting import wait_until
from tribes.web.cookies import CookieSettings

if TYPE_CHECKING:
    from tests.servers.caches import CacheServer
    from tests.session_server.conftest import Backend

MODES = pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])


@MODES
def test_f03_ids_have_the_node_and_the_route(two: Site, sticky: bool) -> None:
    """`<hex>-<node>.<route>`; and no route where there is none."""
    page = Browser().post(two.instance(sticky=sticky, route="tc1"), "/?a=1")
    assert page.cookie is not None
    assert re.fullmatch(r"[0-9A-F]{32}-n[12]\.tc1", page.cookie)
    assert re.fullmatch(r"[0-9A-F]{32}-n[12]", page.id)
    page = Browser().post(two.instance(sticky=sticky), "/?a=1")
    assert re.fullmatch(r"[0-9A-F]{32}-n[12]", page.cookie or "")


@MODES
def test_f04_ids_name_no_node_where_there_is_one_without_name(
    n: dict[str, CacheServer], two: Site, sticky: bool
) -> None:
    """One server is not named, and is found."""
    one = two.instance(nodes=n["n1"].address, sticky=sticky)
    browser = Browser()
    assert re.fullmatch("[0-9A-F]{32}", browser.post(one, "/?a=1").cookie or "")
    other = two.instance(nodes=n["n1"].address, sticky=sticky)
    assert browser.get(other)["a"] == "1"
    assert n["n1"].has(browser.key)


@MODES
def test_f05_ids_that_clients_choose_are_never_adopted(backend: Backend, sticky: bool) -> None:
    """Whatever the cookie says, the new session has an id of ours, and no such key is stored."""
    instance = backend.instance(sticky=sticky)
    chosen = ["ATTACKER-n1", "ATTACKER", "A" * 32 + "-n1", "12345", "F" * 300, "AB-n1-n2.x"]
    for value in chosen:
        browser = Browser(value)
        page = browser.post(instance, "/?a=1")
        token = value.partition("-")[0]
        assert page.cookie is not None
        # Not by its beginning: one in 256 of ours begins with AB.
        assert page.cookie.partition("-")[0] != token
        assert len(browser.key) == 32
        if len(token) < 250:
            assert backend.ttls(token) == []


def test_f06_two_instances_serve_one_session_alternately(backend: Backend) -> None:
    """The seeds' acceptance test: same id and creation time, the values are everywhere."""
    tc1, tc2 = backend.instance(sticky=False), backend.instance(sticky=False)
    browser = Browser()
    first = browser.post(tc1, "/?name=first")
    for number in range(20):
        page = browser.get((tc2, tc1)[number % 2])
        assert (page.id, page["created"], page["name"]) == (first.id, first["created"], "first")
        assert page.cookie is None


def test_f08_cookies_have_their_attributes(two: Site) -> None:
    """As configured: HttpOnly, SameSite, Secure, path, domain and name."""
    settings = CookieSettings(
        name="SID", path="/shop", domain="example.org", same_site="strict", secure=True
    )
    page = Browser().post(two.instance(cookie=settings), "/?a=1")
    [text] = [value for name, value in page.headers if name == "Set-Cookie"]
    name, *attributes = text.split("; ")
    assert re.fullmatch(r"SID=[0-9A-F]{32}-n[12]", name)
    assert set(attributes) == {
        "Path=/shop",
        "Domain=example.org",
        "Secure",
        "HttpOnly",
        "SameSite=Strict",
    }


def test_f09_ids_travel_in_urls(backend: Backend) -> None:
    """Without cookies a path parameter names the session, with its node."""
    instance = backend.instance(tracking="url", sticky=False, route="tc1")
    browser = Browser()
    first = browser.post(instance, "/page?a=1")
    assert first.cookie is None
    page = Browser().get(instance, f"/page;jsessionid={first.id}.tc1")
    assert (page.id, page["a"], page.cookie) == (first.id, "1", None)


@MODES
def test_f10_no_cookie_without_a_change(backend: Backend, sticky: bool) -> None:
    """Ten reads, no Set-Cookie."""
    instance = backend.instance(sticky=sticky, route="tc1")
    browser = Browser()
    browser.post(instance, "/?a=1")
    assert [browser.get(instance).cookie for _ in range(10)] == [None] * 10


def test_f11_f12_f13_t116_sticky_sessions_are_stored_when_they_change(
    n: dict[str, CacheServer], two: Site
) -> None:
    """Once at first; not for the same value or a thousand reads; for a new value and a removal."""
    instance = two.instance(route="tc1")
    browser = Browser()

    def stores() -> int:
        return sum(server.count("ms") for server in n.values())

    browser.post(instance, "/?a=1")
    assert stores() == 1
    browser.post(instance, "/?a=1")
    for _ in range(1000):
        browser.get(instance)
    assert stores() == 1
    assert sum(server.count("mg") for server in n.values()) == 0
    browser.post(instance, "/?a=2")
    assert stores() == 2
    browser.get(instance, "/remove?name=a")
    assert stores() == 3
    assert browser.get(two.instance(route="tc2"))["a"] is None


def test_f12_t116_reads_of_sessions_that_roam_write_nothing(
    n: dict[str, CacheServer], two: Site
) -> None:
    """A thousand reads are a thousand look-ups, and no write on either node."""
    instance = two.instance(sticky=False)
    browser = Browser()
    browser.post(instance, "/?a=1")
    for server in n.values():
        server.mark()
    browser.post(instance, "/?a=1")
    for _ in range(1000):
        browser.get(instance)
    assert sum(server.count("ms") for server in n.values()) == 0
    assert sum(server.count("mg") for server in n.values()) == 1001


@MODES
def test_f14_changes_in_place_are_stored(backend: Backend, sticky: bool) -> None:
    """Appending to a list is found without an assignment."""
    browser = Browser()
    instance = backend.instance(sticky=sticky)
    for item in "xyz":
        browser.get(instance, f"/append?item={item}")
    assert browser.get(backend.instance(sticky=sticky)).values["list"] == "['x', 'y', 'z']"


@MODES
def test_f15_values_whose_weak_hashes_are_equal_are_told_apart(
    backend: Backend, sticky: bool
) -> None:
    """`Aa` and `BB` have one hash in Java."""
    browser = Browser()
    instance = backend.instance(sticky=sticky)
    browser.post(instance, "/?a=Aa")
    browser.post(instance, "/?a=BB")
    assert browser.get(backend.instance(sticky=sticky))["a"] == "BB"


@MODES
def test_f16_only_attributes_that_match_the_filter_are_stored(
    backend: Backend, sticky: bool
) -> None:
    """The whole name must match."""
    browser = Browser()
    instance = backend.instance(sticky=sticky, session_attribute_filter="user|cart.*")
    browser.post(instance, "/?user=u&cart1=c&secret=s&xuser=x")
    page = browser.get(backend.instance(sticky=sticky))
    assert (page["user"], page["cart1"], page["secret"], page["xuser"]) == (
        "u'"[:1],
        "c",
        None,
        None,
    )


@MODES
def test_f18_copies_live_as_long_as_the_session_may_be_idle(backend: Backend, sticky: bool) -> None:
    """After every request every copy has at least the limit to live."""
    instance = backend.instance(sticky=sticky, max_inactive_s=100)
    browser = Browser()
    for path in ("/?a=1", "/?a=2", "/", "/timeout?s=500"):
        browser.post(instance, path)
        limit = 500 if "timeout" in path else 100
        ttls = backend.ttls(browser.key)
        assert len(ttls) == (1 if sticky or backend.kind == "redis" else 2)
        assert all(limit <= ttl <= limit + limit // 8 + 2 for ttl in ttls), ttls


def test_f19_f20_reading_keeps_copies_alive_and_idle_sessions_expire(backend: Backend) -> None:
    """With the settings as they are, and with the route of a sticky balancer.

    Of what nobody reads, the id means nothing a second after the limit, here and elsewhere.
    """
    modes = (True, False)
    tc1, tc2 = (
        {sticky: backend.instance(sticky=sticky, max_inactive_s=1, route=route) for sticky in modes}
        for route in ("tc1", "tc2")
    )
    used, idle = ({sticky: Browser() for sticky in modes} for _ in range(2))
    for sticky in modes:
        used[sticky].post(tc1[sticky], "/?a=1")
        idle[sticky].post(tc1[sticky], "/?a=1")
    end = time.monotonic() + 3.4
    while time.monotonic() < end:
        for sticky in modes:
            assert used[sticky].get(tc1[sticky])["a"] == "1"
        time.sleep(0.2)
        if time.monotonic() < end - 1.2:
            continue
        for sticky in modes:
            for instance in (tc1[sticky], tc2[sticky]):
                assert idle[sticky].twin().get(instance).text == ""
    for sticky in modes:
        assert used[sticky].get(tc2[sticky])["a"] == "1"
        assert backend.ttls(idle[sticky].key) == []
        page = idle[sticky].post(tc2[sticky], "/?b=2")
        assert (page["a"], page["b"]) == (None, "2")
        assert page.cookie is not None


@MODES
def test_f21_sessions_without_limit_have_copies_without_end(backend: Backend, sticky: bool) -> None:
    """0 or less: for ever."""
    browser = Browser()
    for limit in (-1, 0):
        instance = backend.instance(sticky=sticky, max_inactive_s=limit)
        browser = Browser()
        browser.post(instance, "/?a=1")
        browser.get(instance)
        ttls = backend.ttls(browser.key)
        assert ttls
        assert set(ttls) == {-1}


@MODES
def test_f22_long_limits_do_not_end_at_once(backend: Backend, sticky: bool) -> None:
    """Memcached takes more than 30 days for a date, and a date after 2038 for the past."""
    month = 30 * 24 * 3600
    for limit in (month - 1, month, month + 1, 40 * 12 * month):
        instance = backend.instance(sticky=sticky, max_inactive_s=limit)
        browser = Browser()
        browser.post(instance, "/?a=1")
        assert browser.get(backend.instance(sticky=sticky, max_inactive_s=limit))["a"] == "1"
        assert all(ttl >= min(limit, 10 * 365 * 24 * 3600) for ttl in backend.ttls(browser.key))


@MODES
def test_f23_logout_leaves_the_end_on_every_node(backend: Backend, sticky: bool) -> None:
    """A save that comes too late does not bring the session back."""
    tc1, tc2 = backend.instance(sticky=sticky), backend.instance(sticky=sticky)
    browser = Browser()
    browser.post(tc1, "/?a=1")
    late = browser.twin()
    with held(late, tc2, "/?b=2") as answer:
        browser.get(tc1, "/invalidate")
    slow = answer.result()
    assert slow.status == 200
    assert late.cookie == ""
    assert browser.cookie == ""
    for instance in (tc1, tc2):
        assert Browser(slow.values.get("id", late.cookie)).get(instance).text == ""
    sizes = (
        [len(server.value(slow.id[:32])) for server in backend.servers]
        if (backend.kind == "memcached" and not sticky)
        else [0]
    )
    assert max(sizes) < 120, "only the end is left"


@MODES
def test_f24_a_slow_reader_does_not_undo_a_logout(backend: Backend, sticky: bool) -> None:
    """It has the session in hand while the user logs out on another instance."""
    tc1, tc2 = backend.instance(sticky=sticky), backend.instance(sticky=sticky)
    browser = Browser()
    browser.post(tc1, "/?a=1")
    old = browser.cookie
    with held(browser.twin(), tc2, method="GET"):
        browser.get(tc1, "/invalidate")
    for instance in (tc1, tc2):
        assert Browser(old).get(instance).text == ""


@MODES
def test_f69_rotation_keeps_the_data_and_ends_the_old_id(backend: Backend, sticky: bool) -> None:
    """At a login at once; else after its grace. The new id works on every instance."""
    tc1, tc2 = backend.instance(sticky=sticky), backend.instance(sticky=sticky)
    browser = Browser()
    first = browser.post(tc1, "/?a=1")
    old = browser.twin()
    page = browser.get(tc1, "/login?user=me")
    assert page.id != first.id
    assert page.cookie == page.id
    for instance in (tc2, tc1):
        page = browser.get(instance)
        assert (page["a"], page["user"]) == ("1", "me")
        assert old.twin().get(instance).text == ""
    # With grace: for two seconds, however often it is used.
    before = browser.twin()
    browser.get(tc2, "/login?user=me&grace=2")
    assert before.twin().get(tc1 if not sticky else tc2)["a"] == "1"
    wait_until(lambda: before.twin().get(tc2).text == "", every=0.1)
    assert browser.get(tc1)["a"] == "1"


@MODES
def test_f70_who_is_logged_in_travels_with_the_session(backend: Backend, sticky: bool) -> None:
    """Log in on one instance, be known on the other."""
    browser = Browser()
    browser.get(backend.instance(sticky=sticky, route="tc1"), "/login?user=me")
    page = browser.get(backend.instance(sticky=sticky, route="tc2"))
    assert page["user"] == "me"
