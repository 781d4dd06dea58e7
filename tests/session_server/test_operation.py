"""What operators do: other nodes at run time, ignored requests, restarts, crashes, numbers."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel

from tests.session_server.conftest import node_list
from tests.session_server.site import Browser, Site, application, together
from tests.standstill import Stopwatch
from tests.waiting import wait_until
from tribes import LocalSessions, MemcachedConfig
from tribes.config.load import read_config_bytes
from tribes.config.managers import ManagerConfig
from tribes.errors import ConfigError, LocalProtocolError
from tribes.web.asgi import SessionMiddleware

if TYPE_CHECKING:
    from tests.servers.caches import CacheServer
    from tests.session_server.conftest import Backend

Nodes = dict[str, "CacheServer"]
MODES = pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
SEEDS = Path(__file__).parents[1] / "data" / "seeds-xml"
WORKER = Path(__file__).with_name("worker.py")


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*msm*.xml")), ids=lambda path: path.name)
def test_t116_the_blocks_of_the_seeds_run_as_written(n: Nodes, two: Site, path: Path) -> None:
    """Hosts aside: sessions survive the loss of an instance; the pattern locks what it says."""
    text = path.read_text()
    hosts = re.search(r'memcachedNodes="n1:([^,]+),n2:([^"]+)"', text)
    assert hosts is not None
    for found, name in zip(hosts.groups(), ("n1", "n2"), strict=True):
        text = text.replace(found, n[name].address)
    config = read_config_bytes(text.encode(), source=path.name).config.manager
    assert isinstance(config, MemcachedConfig)
    own = set(config.__struct_fields__) - {"memcached_nodes", *ManagerConfig.__struct_fields__}
    settings: dict[str, Any] = {name: getattr(config, name) for name in own}
    tc1 = two.instance(route="tc1", **settings)
    tc2 = two.instance(route="tc2", **settings)
    browser = Browser()
    browser.post(tc1, "/path1?a=1")
    assert browser.node in (("n2",) if config.sticky else ("n1", "n2"))
    assert browser.get(tc2, "/path1")["a"] == "1"
    locks = sum(server.count("ms", locks=True) for server in n.values())
    assert locks == (0 if config.sticky else 1)
    for server in n.values():
        server.mark()
    assert browser.get(tc2, "/logo.png?v=3").cookie is None
    assert sum(len(server.commands()) for server in n.values()) == (0 if config.sticky else 1)


@MODES
def test_f53_nodes_change_while_requests_run(n: Nodes, two: Site, sticky: bool) -> None:
    """n3 comes, n1 goes: no session is lost, and those of n1 move."""
    instance = two.instance(sticky=sticky)
    browsers = [Browser() for _ in range(20)]
    for number, browser in enumerate(browsers):
        browser.post(instance, f"/?who={number}")
    service = instance.manager.service
    assert service is not None
    is_over = threading.Event()
    wrong: list[Any] = []
    turns = 0

    def load() -> None:
        nonlocal turns
        while not is_over.is_set():
            for number, browser in enumerate(browsers):
                page = browser.post(instance, "/?n=1")
                if page["who"] != str(number):
                    wrong.append((number, page))
            turns += 1

    def await_turns() -> None:
        """Until everybody has been served, from first to last, since now."""
        wanted = turns + 2
        wait_until(lambda: turns >= wanted or not thread.is_alive())

    thread = threading.Thread(target=load)
    thread.start()
    try:
        await_turns()
        service.set_nodes(node_list(n))
        await_turns()
        service.set_nodes(node_list({name: n[name] for name in ("n2", "n3")}))
        await_turns()
        assert thread.is_alive()
    finally:
        is_over.set()
        thread.join()
    assert wrong == []
    for number, browser in enumerate(browsers):
        assert browser.get(instance)["who"] == str(number)
    assert {browser.node for browser in browsers} <= {"n2", "n3"}
    with pytest.raises(ConfigError):
        service.set_nodes("nonsense")
    assert {node.name for node in instance.manager.ring.nodes} == {"n2", "n3"}


def test_f54_nodes_are_switched_off_and_on(n: Nodes, two: Site) -> None:
    """Off: no node is asked, ids name none. On again: a node, a copy. Without sticky: refused."""
    instance = two.instance(enabled=False)
    browser = Browser()
    assert "-" not in (browser.post(instance, "/?a=1").cookie or "")
    assert sum(len(server.commands()) for server in n.values()) == 0
    instance.manager.enabled = True
    page = browser.get(instance)
    assert page["a"] == "1"
    assert browser.node in ("n1", "n2")
    browser.post(instance, "/?b=2")
    assert browser.get(two.instance())["b"] == "2"
    roaming = two.instance(sticky=False)
    with pytest.raises(ConfigError, match="sticky"):
        roaming.manager.enabled = False


def test_f55_the_failover_list_changes_at_run_time(many: Site) -> None:
    """New sessions follow it."""
    instance = many.instance(failover_nodes="n2,n3")

    def homes() -> set[str]:
        return {instance.manager.create().suffix for _ in range(50)}

    assert homes() == {"-n1"}
    assert instance.manager.service is not None
    instance.manager.service.set_failover_nodes("n1,n2")
    assert homes() == {"-n3"}
    with pytest.raises(ConfigError):
        instance.manager.service.set_failover_nodes("n1,n2,n3")
    roaming = many.instance(sticky=False)
    assert roaming.manager.service is not None
    with pytest.raises(ConfigError, match="sticky"):
        roaming.manager.service.set_failover_nodes("n1")


IGNORED = r".*\.(ico|png|gif|jpg|css|js)$"


@MODES
def test_f56_f57_ignored_requests_ask_no_node(n: Nodes, two: Site, sticky: bool) -> None:
    """Also with a query against caches; and the cookie stays."""
    instance = two.instance(
        sticky=sticky, request_uri_ignore_pattern=IGNORED, app=static_or_application, route="tc1"
    )
    browser = Browser()
    browser.post(instance, "/?a=1")
    for server in n.values():
        server.mark()
    for path in ("/a.css", "/a.css?v=1", "/x/y.png?a=b&c=d"):
        assert browser.get(instance, path).cookie is None
    assert sum(len(server.commands()) for server in n.values()) == 0
    assert instance.statistics().ignored == 3
    assert browser.get(instance)["a"] == "1"


def static_or_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if re.fullmatch(IGNORED, environ["PATH_INFO"]) and "touch" not in environ["QUERY_STRING"]:
        start_response("200 OK", [])
        return [b"body {}"]
    return application(environ, start_response)


@MODES
def test_f56_touching_the_session_in_an_ignored_request_is_safe(
    n: Nodes, two: Site, sticky: bool
) -> None:
    """It is the user's session, not an empty one; what is changed is stored, and no cookie goes."""
    settings: dict[str, Any] = {
        "sticky": sticky,
        "request_uri_ignore_pattern": IGNORED,
        "app": static_or_application,
    }
    instance = two.instance(**settings)
    browser = Browser()
    browser.post(instance, "/?a=1")
    page = browser.get(instance, "/counter.png?touch=1")
    assert (page["a"], page.cookie) == ("1", None)
    page = browser.post(instance, "/counter.png?touch=1&b=2")
    assert page.cookie is None
    assert browser.get(two.instance(**settings))["b"] == "2"
    # A new client, whose session begins there, gets one that is stored.
    fresh = Browser()
    fresh.post(instance, "/counter.png?touch=1&c=3")
    assert fresh.get(two.instance(**settings))["c"] == "3"


async def ask(app: SessionMiddleware, path: str, cookie: str = "") -> tuple[int, str, bytes]:
    """One request to an ASGI application: status, cookie set, body."""
    headers = [(b"cookie", f"JSESSIONID={cookie}".encode())] if cookie else []
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": headers,
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        return {}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    cookies = [value for name, value in sent[0].get("headers", ()) if name == b"set-cookie"]
    given = cookies[0].split(b";")[0].partition(b"=")[2].decode() if cookies else ""
    return sent[0]["status"], given, b"".join(message.get("body", b"") for message in sent[1:])


async def counting(scope: Any, receive: Any, send: Any) -> None:
    session = scope["session"]
    if scope["path"] != "/look.png":
        session["n"] = session.get("n", 0) + 1
    text = f"{session.get('n')} {session.get('who')}"
    if scope["query_string"]:
        session["who"] = scope["query_string"].decode()
    await trio.lowlevel.checkpoint()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


@MODES
async def test_asgi_requests_never_block_the_loop(two_nodes: str, n: Nodes, sticky: bool) -> None:
    """A node hangs while a request waits for it: other tasks of the loop run on."""
    sessions = LocalSessions(
        "shop",
        MemcachedConfig(
            memcached_nodes=two_nodes,
            sticky=sticky,
            session_backup_timeout=400,
            probe_interval=60_000,
            request_uri_ignore_pattern=IGNORED,
        ),
    )
    app = SessionMiddleware(counting, sessions)
    status, cookie, body = await ask(app, "/")
    assert (status, body) == (200, b"1 None")
    n[cookie.partition("-")[2]].hang()
    gaps = []
    is_over = False

    async def look() -> None:
        watch = Stopwatch()
        while not is_over:
            await trio.sleep(0.005)
            gaps.append(watch.seconds)
            watch = Stopwatch()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        began = trio.current_time()
        status, moved, body = await ask(app, "/", cookie)
        waited_s = trio.current_time() - began
        is_over = True
    assert (status, body) == (200, b"2 None")
    assert waited_s > 0.3
    assert moved != cookie or sticky
    assert max(gaps) < 0.2
    if not sticky:
        with pytest.raises(LocalProtocolError, match="requestUriIgnorePattern"):
            await ask(app, "/look.png", moved)
    await trio.to_thread.run_sync(sessions.stop)


async def test_f65_cancelled_requests_never_mix_users(backend: Backend) -> None:
    """Ten thousand requests, most of them cancelled: each answer has its own user's mark."""
    instance = backend.instance(sticky=False)
    app = SessionMiddleware(counting, instance.sessions)
    cookies = {}
    for number in range(8):
        _, cookies[number], _ = await ask(app, f"/?user{number}")
    wrong: list[Any] = []
    answered = cancelled = 0

    async def user(number: int) -> None:
        nonlocal answered, cancelled
        for step in range(1250):
            with trio.CancelScope() as scope:
                if step % 10:
                    scope.deadline = trio.current_time() + (step * 7919 % 100) / 200_000
                _, _, body = await ask(app, "/look.png", cookies[number])
                answered += 1
                if body.split(b" ")[1] != f"user{number}".encode():
                    wrong.append((number, body))
            cancelled += scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(user, number)
    assert wrong == []
    assert answered >= 1000
    assert cancelled >= 1000
    assert cancelled + answered == 10_000


def test_f64_a_redirect_finds_what_was_saved_before_its_head(backend: Backend) -> None:
    """The original's counter: each head, as soon as it leaves, sends the client elsewhere."""
    pair = [backend.instance(sticky=False, app=counter) for _ in range(2)]
    cookie = ""
    for hop in range(500):
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "wsgi.url_scheme": "http",
            "HTTP_COOKIE": f"JSESSIONID={cookie}",
        }
        seen: list[Any] = []

        def start_response(status: str, headers: Any, *_: Any, seen: Any = seen) -> Any:
            seen[:] = [status, dict(headers)]
            return lambda data: None

        body = iter(pair[hop % 2].web(environ, start_response))
        assert next(body) == str(hop).encode()
        cookie = seen[1].get("Set-Cookie", f"={cookie};").partition("=")[2].partition(";")[0]
        # The rest of this answer is not read: the client is gone already.


def counter(environ: dict[str, Any], start_response: Any) -> Any:
    session = environ["tribes.session"]
    count = session.get("n", 0)
    session["n"] = count + 1
    start_response("302 Found", [("Location", "/")])
    yield str(count).encode()
    yield b" and more"


@pytest.mark.timeout(60)
def test_f25_f26_f27_crashes_and_stops_of_processes(backend: Backend) -> None:
    """Forked workers: SIGKILL right after the answer 20 times, SIGTERM, asynchronous and not.

    Stored before the answer: nothing is lost. After it: a crash loses what is not yet stored, here
    all, and a stop nothing.
    """
    done = subprocess.run(
        [sys.executable, str(WORKER), backend.site.nodes, "20"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=WORKER.parents[2],
        timeout=50,
        check=True,
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "sync-sticky-kill": "0",
        "sync-roaming-kill": "0",
        "async-sticky-kill": "5",
        "sync-sticky-term": "0",
        "async-sticky-term": "0",
    }


def test_f25_a_stopped_process_saves_and_a_new_one_finds(backend: Backend) -> None:
    """What has been answered and is still to be written."""
    instance = backend.instance(
        route="tc1",
        session_backup_async=True,
        backup_thread_count=1,
        expiry_interval=3_600_000,  # or what is not written for long is written there
    )
    service, may_write = instance.manager.service, threading.Event()
    write = service.write

    def write_late(key: str) -> None:
        assert may_write.wait(20)
        write(key)

    service.write = write_late
    browsers = [Browser() for _ in range(50)]
    together(
        *(
            lambda number=number, browser=browser: browser.post(instance, f"/?who={number}")
            for number, browser in enumerate(browsers)
        )
    )
    assert not any(backend.ttls(browser.key) for browser in browsers)
    may_write.set()
    instance.sessions.stop()
    again = backend.instance(route="tc1")
    for number, browser in enumerate(browsers):
        assert browser.get(again)["who"] == str(number)


def test_what_no_node_took_is_written_by_the_stop(backend: Backend) -> None:
    """The servers are back, and nothing has asked for the sessions since."""
    # Nothing else tries again meanwhile.
    instance = backend.instance(route="tc1", expiry_interval=3_600_000)
    browsers = [Browser() for _ in range(3)]
    for browser in browsers:
        browser.post(instance, "/?a=1")
    for server in backend.servers:
        server.kill()
    instance.await_up(*instance.node_names())
    for number, browser in enumerate(browsers):
        assert browser.post(instance, f"/?who={number}").status == 200
    for server in backend.servers:
        server.start()
    instance.await_up()
    assert not any(backend.ttls(browser.key) for browser in browsers)
    instance.sessions.stop()
    again = backend.instance(route="tc1")
    for number, browser in enumerate(browsers):
        assert browser.get(again)["who"] == str(number)


def test_f68_numbers_are_those_of_what_happened(n: Nodes, two: Site) -> None:
    """A scripted course, and every counter that it moves."""
    first = two.instance(sticky=False, locking_mode="all", request_uri_ignore_pattern=IGNORED)
    browser = Browser()
    browser.post(first, "/?a=1")  # new: 1 save
    browser.get(first)  # found, unchanged
    browser.get(first)
    browser.post(first, "/?a=2")  # found, saved
    Browser("F" * 32 + "-n1").get(first)  # not found
    browser.get(first, "/none")  # found, unchanged
    n["n1" if browser.node == "n1" else "n2"].flush()
    browser.get(first)  # found elsewhere, repaired, saved
    browser.get(first, "/invalidate")
    numbers = first.statistics()
    assert (numbers.found, numbers.not_found, numbers.ignored) == (6, 1, 0)
    assert (numbers.loads, numbers.load_failures) == (7, 0)
    assert (numbers.saves, numbers.repaired, numbers.conflicts) == (3, 1, 0)
    assert (numbers.locks_acquired, numbers.locks_waited, numbers.lock_timeouts) == (7, 0, 0)
    assert numbers.unchanged == 4
    assert [(node.name, node.is_up, node.outages) for node in numbers.nodes] == [
        ("n1", True, 0),
        ("n2", True, 0),
    ]
    general = first.manager.statistics()
    assert (general.created, general.destroyed, general.commits) == (1, 1, 2)
    n["n1"].kill()
    first.await_up("n1")
    [down, up] = first.statistics().nodes
    assert (down.is_up, down.outages, up.is_up) == (False, 1, True)
    assert down.failures >= 1
