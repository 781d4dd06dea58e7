"""Each server that runs Python applications, as its users start it: every worker is a member."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.ports import free_tcp_port, free_udp_port
from tests.waiting import wait_until

APPS = Path(__file__).parent / "apps"
ROOT = APPS.parents[2]
BIN = Path(sys.executable).parent
WITHIN_S = 40.0
"""Several workers import everything at once, on a machine that does other things too."""

ATTEMPTS = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="not here: no process groups"),
]

SERVERS = {
    "uvicorn": ("uvicorn asgi_app:app --port PORT", 1),
    "uvicorn with four workers": ("uvicorn asgi_app:app --port PORT --workers 4", 4),
    "uvicorn on uvloop": ("uvicorn asgi_app:app --port PORT --loop uvloop", 1),
    "hypercorn": ("hypercorn --workers 2 --bind 127.0.0.1:PORT asgi_app:app", 2),
    "hypercorn on trio": (
        "hypercorn --worker-class trio --workers 2 --bind 127.0.0.1:PORT asgi_app:app",
        2,
    ),
    "gunicorn": ("gunicorn --workers 2 --bind 127.0.0.1:PORT wsgi_app:application", 2),
    "gunicorn, preloaded": (
        "gunicorn --workers 2 --preload --bind 127.0.0.1:PORT wsgi_app:application",
        2,
    ),
    "gunicorn with threads": (
        "gunicorn --workers 2 --worker-class gthread --threads 4 --bind 127.0.0.1:PORT"
        " wsgi_app:application",
        2,
    ),
    "gunicorn with threads, preloaded": (
        "gunicorn --workers 2 --threads 4 --preload --bind 127.0.0.1:PORT wsgi_app:application",
        2,
    ),
    "waitress": ("waitress-serve --listen=127.0.0.1:PORT wsgi_app:application", 1),
    "runserver": ("python django_app.py runserver --noreload 127.0.0.1:PORT", 1),
    "uwsgi": (
        "uwsgi --http-socket 127.0.0.1:PORT --module wsgi_app:application --master --processes 2"
        " --enable-threads --die-on-term",
        2,
    ),
}
LIKE_ANOTHER = {"gunicorn, preloaded", "gunicorn with threads, preloaded", "uwsgi"}
"""In which a view that blocks is the same as in another one, or blocks what asks, too."""
RECYCLING = {
    "gunicorn": "--workers 2",
    "gunicorn, preloaded": "--workers 2 --preload",
    "gunicorn with threads": "--workers 2 --threads 4",
    "gunicorn with threads, preloaded": "--workers 2 --threads 4 --preload",
}
PATIENT = "--timeout-worker-healthcheck 60"  # docs/embedding/uvicorn.md
RELOADING = {
    "uvicorn": "uvicorn asgi_app:app --port PORT --reload",
    "hypercorn": "hypercorn --reload --bind 127.0.0.1:PORT asgi_app:app",
    "gunicorn": "gunicorn --reload --bind 127.0.0.1:PORT wsgi_app:application",
    "runserver": "python django_app.py runserver 127.0.0.1:PORT",
}


class Server:
    """One run of a server, in a process group of its own."""

    def __init__(
        self,
        command: str,
        group_port: int,
        log: Path,
        folder: Path = APPS,
        port: int = 0,
        **environment: str,
    ) -> None:
        self.port = port or free_tcp_port()
        self.log = log
        program, *arguments = command.replace("PORT", str(self.port)).split()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [BIN / program, *arguments],
                cwd=folder,
                env={
                    **os.environ,
                    "GROUP_PORT": str(group_port),
                    "PYTHONPATH": str(ROOT),
                    **environment,
                },
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def get(self, cookie: str = "", path: str = "/") -> httpx.Response:
        """One request on a connection of its own, so that any worker may get it."""
        headers = {"cookie": cookie} if cookie else {}
        return httpx.get(
            f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30, trust_env=False
        )

    def wait_ready(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.get().status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, WITHIN_S)

    def end(self, with_signal: int) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(40)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class User:
    """One session whose counter must never go back."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}
        self.visits = 0
        self.pids: set[int] = set()
        self._unanswered = 0

    @property
    def cookie(self) -> str:
        """What it sends: the session's id and, where a write is not everywhere, its token."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def visit(self, server: Server, path: str = "/") -> None:
        try:
            answer = server.get(self.cookie, path)
        except httpx.TransportError as error:
            if not isinstance(error, httpx.ConnectError):
                self._unanswered += 1  # it may have been counted, and its process ended then
            raise
        assert answer.status_code == 200, server.log.read_text()
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].strip().partition("=")
            if not name.endswith("-seen"):
                # Django sends it again with every change, to renew its age.
                assert self.cookies.get(name, value) == value, "the session was lost"
            self.cookies[name] = value
        seen = answer.json()
        least = self.visits + 1
        assert least <= seen["visits"] <= least + self._unanswered, server.log.read_text()
        self.visits, self._unanswered = seen["visits"], 0
        self.pids.add(seen["pid"])

    def visit_all(self, server: Server, workers: int) -> None:
        """Go on until each worker has answered."""

        def is_done() -> bool:
            self.visit(server)
            return len(self.pids) == workers

        wait_until(is_done, WITHIN_S)


class Servers:
    """What one test starts; all of it one group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group_port = free_udp_port()
        self._made: list[Server] = []

    def start(
        self,
        command: str,
        *,
        wait: bool = True,
        folder: Path = APPS,
        port: int = 0,
        **environment: str,
    ) -> Server:
        log = self._folder / f"{len(self._made)}.log"
        server = Server(command, self._group_port, log, folder, port, **environment)
        self._made.append(server)
        if wait:
            server.wait_ready()
        return server

    def close(self) -> None:
        for server in self._made:
            server.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    try:
        yield made
    finally:
        made.close()


def visit_while_one_blocks(user: User, one: Server, two: Server) -> list[str]:
    """A view keeps its event loop or thread for 2.5 times the drop time.

    Returns:
        What the nodes say meanwhile of members that they suspect or remove.
    """
    before, workers = user.visits, set(user.pids)
    begun = [len(server.log.read_text()) for server in (one, two)]
    blocked = threading.Thread(target=user.visit, args=(one, "/block"))
    blocked.start()
    other = User()
    while blocked.is_alive():
        other.visit(two)
        blocked.join(0.05)
    user.visit(two)
    user.pids = workers
    assert user.visits == before + 2
    assert other.visits > 1
    return [
        line
        for server, at in zip((one, two), begun, strict=True)
        for line in server.log.read_text()[at:].splitlines()
        if "member removed" in line or "suspected" in line
    ]


@pytest.mark.parametrize("name", SERVERS)
def test_a_session_goes_from_worker_to_worker_and_server_to_server(
    servers: Servers, name: str
) -> None:
    """Every worker serves it; it outlives a killed worker, and the server it was made by. A view
    that blocks its event loop or thread meanwhile gets no process suspected or removed.
    """
    command, workers = SERVERS[name]
    one, two = (servers.start(command, wait=False) for _ in range(2))
    one.wait_ready()
    two.wait_ready()
    user = User()
    user.visit_all(one, workers)
    if name not in LIKE_ANOTHER:
        User().visit_all(two, workers)
        # On a busy machine a process may be silent for a second by itself; one that the view
        # keeps from its heartbeats is so each time.
        doubts = [visit_while_one_blocks(user, one, two)]
        while doubts[-1] and len(doubts) < ATTEMPTS:
            doubts.append(visit_while_one_blocks(user, one, two))
        assert doubts[-1] == []
    if workers > 1 and not name.startswith("hypercorn"):  # which ends when a worker is killed
        os.kill(user.pids.pop(), signal.SIGKILL)
        before = set(user.pids)

        def is_replaced() -> bool:
            try:
                user.visit(one)
            except httpx.TransportError:
                return False  # it was given to the worker that is dead
            return len(user.pids) == workers

        wait_until(is_replaced, WITHIN_S)
        assert before < user.pids
    user.visit(two)
    # waitress lets SIGTERM end Python at once (docs/embedding/wsgi.md).
    one.end(signal.SIGINT if name in ("waitress", "uwsgi") else signal.SIGTERM)
    for _ in range(5):
        user.visit(two)


@pytest.mark.parametrize("name", RECYCLING)
def test_recycled_workers_and_a_reload_lose_nothing(servers: Servers, name: str) -> None:
    """Gunicorn ends a worker after five requests, and all of them on SIGHUP."""
    server = servers.start(
        f"gunicorn {RECYCLING[name]} --max-requests 5 --bind 127.0.0.1:PORT wsgi_app:application"
    )
    users = [User() for _ in range(3)]
    for turn in range(20):
        if turn == 10:
            server.process.send_signal(signal.SIGHUP)
        for user in users:
            user.visit(server)
    assert len(set.union(*(user.pids for user in users))) > 6
    # The workers would have been replaced without the signal too.
    wait_until(lambda: "Handling signal: hup" in server.log.read_text())


def keep_visiting(user: User, server: Server, is_done: Callable[[], object]) -> None:
    """Until something has happened; a request that nobody took may be repeated."""

    def is_over() -> bool:
        with contextlib.suppress(httpx.TransportError):
            user.visit(server)
        return bool(is_done())

    wait_until(is_over, WITHIN_S)


@pytest.mark.parametrize("name", RELOADING)
def test_a_reload_while_developing_loses_nothing(
    servers: Servers, name: str, tmp_path: Path
) -> None:
    """The program's file is saved again, so its server runs it anew; another server keeps on."""
    folder = tmp_path / "apps"
    shutil.copytree(APPS, folder)
    one = servers.start(RELOADING[name], wait=False, folder=folder)
    two = servers.start(SERVERS[name][0], wait=False)
    one.wait_ready()
    two.wait_ready()
    user = User()
    user.visit(one)
    user.visit(two)
    before = set(user.pids)
    for file in folder.glob("*.py"):
        file.write_text(file.read_text() + "\n# saved again\n")
    keep_visiting(user, one, lambda: len(user.pids - before) >= 1)
    user.visit(two)


def test_uvicorns_workers_are_replaced_on_a_hangup(servers: Servers) -> None:
    """One after another; what they had, another process keeps meanwhile."""
    one = servers.start(f"uvicorn asgi_app:app --port PORT --workers 2 {PATIENT}", wait=False)
    two = servers.start(SERVERS["uvicorn"][0], wait=False)
    one.wait_ready()
    two.wait_ready()
    user = User()
    user.visit_all(one, 2)
    user.visit(two)
    before = set(user.pids)
    one.process.send_signal(signal.SIGHUP)
    keep_visiting(user, one, lambda: len(user.pids - before) == 2)
    user.visit(two)


def test_uwsgi_without_threads_is_refused(servers: Servers) -> None:
    """With the setting to change, for every request, and in the log."""
    command = SERVERS["uwsgi"][0].replace(" --enable-threads", "")
    server = servers.start(command, wait=False)
    wait_until(lambda: "spawned uWSGI worker 2" in server.log.read_text())
    with contextlib.suppress(httpx.TransportError):  # uWSGI's answer to an application's error
        assert server.get().status_code == 500
    wait_until(lambda: "enable-threads = true" in server.log.read_text())


def test_a_node_started_before_uwsgi_forks_is_refused(servers: Servers) -> None:
    """It would run in the master only; with lazy-apps the application is loaded by each worker."""
    command = SERVERS["uwsgi"][0]
    refused = servers.start(command, wait=False, START_EARLY="1")
    wait_until(lambda: "lazy-apps = true" in refused.log.read_text())
    server = servers.start(f"{command} --lazy-apps", START_EARLY="1")
    User().visit_all(server, 2)
