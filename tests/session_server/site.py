"""A web application on several processes' worth of managers, and a browser that visits them.

The page is that of memcached-session-manager's tests: a line with the id, and one for each value.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from tests.standstill import Stopwatch
from tests.waiting import wait_until
from tribes import LocalSessions, MemcachedConfig
from tribes.manager.memcached import MemcachedManager
from tribes.web.wsgi import SessionMiddleware

__all__ = [
    "PAUSE",
    "Browser",
    "Instance",
    "Page",
    "Site",
    "application",
    "begun",
    "held",
    "site_on",
    "together",
]

QUICK: dict[str, Any] = {"probe_interval": 50, "session_backup_timeout": 2000}
"""Probes often, so that tests see in a moment what takes a second otherwise; and longer calls than
by default, so that a busy machine is not taken for a server that hangs."""

PAUSE = "tests.pause"
"""What a handler calls with its session in hand, before it answers."""
HELD_MAX_S = 30.0


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """See the module."""
    session = environ["tribes.session"]
    path, values = environ["PATH_INFO"], dict(parse_qsl(environ.get("QUERY_STRING", "")))
    if path == "/none":
        start_response("200 OK", [])
        return [b""]
    if path == "/invalidate":
        session.invalidate()
    elif path == "/login":
        session.rotate_id(grace_s=int(values.get("grace", 0)))
        session.principal = values.get("user")
    elif path == "/remove":
        session.pop(values["name"], None)
    elif path == "/append":
        session.setdefault("list", []).append(values["item"])
    elif path == "/timeout":
        session.max_inactive = int(values["s"])
    elif environ["REQUEST_METHOD"] == "POST":
        # Read first, so that what other requests do meanwhile is unseen.
        for name in values:
            session.get(name)
        for name, value in values.items():
            session[name] = value
    environ[PAUSE]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if not session.exists or not session.session.is_valid:
        return [b""]
    lines = [f"{name}={session[name]!r}" for name in session]
    head = [f"id={session.id}", f"created={session.created_ms}", f"user={session.principal}"]
    return ["\n".join([*head, *lines]).encode()]


@dataclass
class Page:
    """An answer; `seconds` by the clock, `waited_s` without those in which we stood still."""

    status: int
    text: str
    cookie: str | None
    seconds: float
    waited_s: float
    headers: list[tuple[str, str]]

    @property
    def values(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.text.splitlines())

    @property
    def id(self) -> str:
        return self.values["id"]

    def __getitem__(self, name: str) -> Any:
        text = self.values.get(name)
        return None if text is None else text.strip("'")


class Instance:
    """What one process has."""

    def __init__(
        self,
        config: MemcachedConfig,
        *,
        route: str = "",
        context: str = "shop",
        app: Callable[..., Any] = application,
        **settings: Any,
    ) -> None:
        self.sessions = LocalSessions(context, config)
        self.route = route
        self.web = SessionMiddleware(app, self.sessions, route=route, **settings)
        manager = self.sessions.manager(context)
        assert isinstance(manager, MemcachedManager)
        self.manager = manager
        self.sessions.start()

    def node_names(self) -> list[str]:
        return [node.name for node in self.manager.ring.nodes]

    def down(self) -> list[str]:
        return [node.name for node in self.manager.ring.nodes if not node.is_up]

    def await_up(self, *names: str) -> None:
        """Until all nodes but these answer, as the background's probes find."""
        wait_until(lambda: set(self.down()) == set(names), what=self.statistics)

    def statistics(self) -> Any:
        return self.manager.memcached_statistics()


@dataclass
class Browser:
    """Keeps a cookie."""

    cookie: str = ""
    ids: list[str] = field(default_factory=list)

    def get(
        self,
        where: Instance,
        path: str = "/",
        method: str = "GET",
        pause: Callable[[], object] = lambda: None,
    ) -> Page:
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "wsgi.url_scheme": "http",
            "HTTP_HOST": "shop",
            PAUSE: pause,
        }
        if self.cookie:
            environ["HTTP_COOKIE"] = f"JSESSIONID={self.cookie}"
        answer: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            answer[:] = [int(status.split()[0]), headers]
            return lambda data: None

        began, watch = time.perf_counter(), Stopwatch()
        body = where.web(environ, start_response)
        data = b"".join(body)
        close = getattr(body, "close", None)
        if close is not None:
            close()
        seconds, waited_s = time.perf_counter() - began, watch.seconds
        cookie = None
        for name, value in answer[1]:
            if name == "Set-Cookie":
                cookie = value.split(";")[0].partition("=")[2]
                self.cookie = cookie
        return Page(answer[0], data.decode(), cookie, seconds, waited_s, answer[1])

    def post(self, where: Instance, path: str) -> Page:
        return self.get(where, path, "POST")

    @property
    def key(self) -> str:
        """Key of the stored session, unless the id was rotated."""
        return self.cookie.partition(".")[0].partition("-")[0]

    @property
    def node(self) -> str:
        return self.cookie.partition(".")[0].partition("-")[2]

    def twin(self) -> Browser:
        """Another window with the same cookie."""
        return Browser(self.cookie)


class Site:
    """Makes instances, and stops them at the end."""

    def __init__(self, nodes: str, **defaults: Any) -> None:
        self.nodes = nodes
        self.defaults = {**QUICK, **defaults}
        self.instances: list[Instance] = []

    def instance(
        self, *, route: str = "", nodes: str = "", max_inactive_s: int = 1800, **settings: Any
    ) -> Instance:

        web = {
            name: settings.pop(name)
            for name in ("on_unreplicated", "tracking", "cookie", "app", "context")
            if name in settings
        }
        config = MemcachedConfig(
            memcached_nodes=nodes or self.nodes,
            max_inactive_s=max_inactive_s,
            **{"expiry_interval": 100, **self.defaults, **settings},
        )
        made = Instance(config, route=route, **web)
        self.instances.append(made)
        return made

    def stop(self) -> None:
        for each in self.instances:
            each.sessions.stop()


@contextmanager
def site_on(nodes: str, **defaults: Any) -> Iterator[Site]:
    site = Site(nodes, **defaults)
    try:
        yield site
    finally:
        site.stop()


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run in threads at the same time; return what they return."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            results[number] = call()
        except BaseException as error:  # noqa: BLE001 - told to the test below
            errors.append(error)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def begun(
    browser: Browser,
    where: Instance,
    path: str = "/",
    method: str = "POST",
    pause: Callable[[], object] = lambda: None,
) -> Future[Page]:
    """A request in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    page = pool.submit(browser.get, where, path, method, pause)
    pool.shutdown(wait=False)
    return page


@contextmanager
def held(
    browser: Browser, where: Instance, path: str = "/", method: str = "POST"
) -> Iterator[Future[Page]]:
    """A request that has its session in hand, and answers when the block has ended."""
    reached, is_over = threading.Event(), threading.Event()

    def pause() -> None:
        reached.set()
        assert is_over.wait(HELD_MAX_S)

    page = begun(browser, where, path, method, pause)
    try:
        wait_until(lambda: reached.is_set() or page.done())
        assert not page.done(), page.result()
        yield page
    finally:
        is_over.set()
        wait([page], HELD_MAX_S)
