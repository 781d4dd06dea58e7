"""Servers whose workers are attached to the one node of their host, as their users start them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.ports import free_udp_port
from tests.servers.test_web_servers import ROOT, Server, User
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="not here: no unix sockets"),
]

SERVERS = {
    "gunicorn": ("gunicorn --workers 3 --bind 127.0.0.1:PORT wsgi_app:application", 3),
    "gunicorn with threads, preloaded": (
        "gunicorn --workers 3 --threads 4 --preload --bind 127.0.0.1:PORT wsgi_app:application",
        3,
    ),
    "uvicorn": ("uvicorn asgi_app:app --port PORT --workers 2", 2),
}
RECYCLING = "gunicorn --workers 3 --max-requests 5 --bind 127.0.0.1:PORT wsgi_app:application"


class Host:
    """One ``tribes node``, which may be killed and started again."""

    def __init__(self, name: str, group_port: int, folder: Path, *, attach: bool) -> None:
        self.name = name
        self.socket = str(folder / f"{name}.sock") if attach else ""
        self._group_port = group_port
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "tribes", "node", "--name", self.name, "--context", "shop"),
            *("--multicast-port", str(self._group_port), "--port", "0", "--send-options", "6"),
            *("--frequency", "100", "--drop-time", "1000"),
            *(("--attach", self.socket) if self.socket else ()),
        ]
        ready = self.log().count("joined ")
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        wait_until(lambda: self.log().count("joined ") > ready)

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def end(self, with_signal: int = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(with_signal)
        return process.wait(40)


class Site:
    """A host with a server and a node, and another host's node with the copies."""

    def __init__(self, folder: Path) -> None:
        self.group_port = free_udp_port()
        self.here = Host("here", self.group_port, folder, attach=True)
        self.there = Host("there", self.group_port, folder, attach=False)
        self._folder = folder
        self.server: Server | None = None

    def start(self, command: str) -> Server:
        self.there.start()
        self.here.start()
        wait_until(lambda: "member added" in self.there.log())
        log = self._folder / "server.log"
        self.server = Server(command, self.group_port, log, TRIBES_ATTACH=self.here.socket)
        self.server.wait_ready()
        return self.server

    def views(self) -> list[str]:
        """What the other host has seen come and go."""
        return re.findall(r"member (?:added|removed|suspected)", self.there.log())

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for host in (self.here, self.there):
            host.end(signal.SIGKILL)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("name", SERVERS)
def test_workers_share_their_hosts_node_and_no_member_notices(site: Site, name: str) -> None:
    """A session goes from worker to worker; the group has two members, before and after."""
    command, workers = SERVERS[name]
    server = site.start(command)
    user = User()
    user.visit_all(server, workers)
    server.end(signal.SIGTERM)
    assert site.views() == ["member added"]
    assert site.here.end() == 0
    site.here.start()
    again = site.server = Server(
        command, site.group_port, server.log, TRIBES_ATTACH=site.here.socket
    )
    again.wait_ready()
    user.visit(again)


def test_recycled_workers_move_nothing(site: Site) -> None:
    """Gunicorn replaces its workers every five requests, under load: no count is lost, and no
    member comes or goes.
    """
    server = site.start(RECYCLING)
    users = [User() for _ in range(4)]

    def load(user: User) -> None:
        for _ in range(15):
            user.visit(server)

    with ThreadPoolExecutor() as threads:
        list(threads.map(load, users))
    assert [user.visits for user in users] == [15] * 4
    assert len(set.union(*(user.pids for user in users))) > 6
    assert site.views() == ["member added"]
    assert "joined" not in server.log.read_text()


class Client:
    """One session that is used all the time, whatever the answers are."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.user = User()
        self.user.visit(server)
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self.retry_after: set[str | None] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            try:
                answer = self.server.get(self.user.cookie)
            except httpx.TransportError as error:
                self.errors.append(str(error))
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code != 200:
                self.retry_after.add(answer.headers.get("retry-after"))
                continue
            visits = answer.json()["visits"]
            if visits <= self.user.visits:
                self.errors.append(f"{visits} after {self.user.visits}")
            self.user.visits = visits

    @property
    def last(self) -> int:
        return self.statuses[-1] if self.statuses else 0

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


@pytest.mark.parametrize(
    ("name", "how"), [("gunicorn", signal.SIGKILL), ("uvicorn", signal.SIGTERM)]
)
def test_node_that_goes_and_comes_back_loses_no_session(
    site: Site, name: str, how: signal.Signals
) -> None:
    """Meanwhile requests are answered 503 with Retry-After, and the log says why, once for each
    worker; then the workers attach by themselves, and the other host's copies are there.
    """
    command, workers = SERVERS[name]
    server = site.start(command)
    client = Client(server)
    try:
        wait_until(lambda: client.user.visits > 20)
        site.here.end(how)
        wait_until(lambda: client.last == 503)
        wait_until(lambda: client.statuses[-20:] == [503] * 20)
        site.here.start()
        wait_until(lambda: client.statuses[-20:] == [200] * 20, 30)
    finally:
        client.stop()
    assert not client.errors, client.errors
    assert set(client.statuses) == {200, 503}
    assert client.retry_after == {"1"}
    # A commit of which nobody learned the outcome may stand all the same.
    assert client.statuses.count(200) < client.user.visits <= len(client.statuses) + 1
    log = server.log.read_text()
    assert workers <= log.count("node is gone: requests that need a session get 503") <= 3 * workers
    assert "Traceback" not in log
    user = client.user
    user.pids.clear()
    user.visit_all(server, workers)
