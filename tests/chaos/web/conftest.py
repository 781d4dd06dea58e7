"""Web nodes as processes, a balancer that asks ``/ready``, and clients that keep count."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_tcp_port, free_udp_port
from tests.waiting import wait_until

PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[3]
READY_S = 30.0
ANSWER_S = 15.0
POLL_S = 0.02
ASK_S = 0.1
"""Between two questions of the balancer for ``/ready``."""


@dataclass
class Answer:
    """Of one request."""

    status: int
    values: dict[str, Any]
    cookie: str
    seconds: float


class Web:
    """The nodes of one test: processes with a web port each."""

    def __init__(self, directory: Path) -> None:
        self.multicast_port = free_udp_port()
        self.ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = dict(_ENVIRONMENT)
        self._directory = directory

    def start(self, *names: str, wait: bool = True, **options: object) -> None:
        """Start nodes; returns when each is ready, which is after it has joined."""
        given = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
        for name in names:
            port = self.ports.setdefault(name, free_tcp_port())
            command = [
                *(sys.executable, str(PROGRAM), "--name", name, "--http-port", str(port)),
                *("--multicast-port", str(self.multicast_port), *given),
            ]
            with open(self._log(name), "ab") as out:
                self.processes[name] = subprocess.Popen(
                    command, stdout=out, stderr=out, cwd=ROOT, env=self.environment
                )
        for name in names if wait else ():
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        deadline = time.monotonic() + READY_S
        while not self.is_ready(name):
            assert self.processes[name].poll() is None, f"{name} ended: {self.log_text(name)}"
            assert time.monotonic() < deadline, f"{name} is not ready: {self.log_text(name)}"
            time.sleep(POLL_S)

    def is_ready(self, name: str) -> bool:
        """What a balancer asks."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request(name, "GET", "/ready", within=1.0).status == 200
        return False

    def request(
        self, name: str, method: str, path: str, cookie: str = "", within: float = ANSWER_S
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=within)
        try:
            return ask(connection, method, path, cookie)
        finally:
            connection.close()

    def facts(self, name: str) -> dict[str, Any]:
        return self.request(name, "GET", "/facts").values

    def wait_equal(self, *names: str, within: float = 10.0) -> float:
        """Seconds until these nodes see each other and hold the same."""
        found: list[dict[str, Any]] = []

        def are_equal() -> bool:
            found[:] = [self.facts(name) for name in names]
            members = all(each["members"] == sorted(names) for each in found)
            return members and len({each["digest"] for each in found}) == 1

        return wait_until(are_equal, within, every=POLL_S, what=lambda: found)

    def wait_members(self, name: str, *expected: str, within: float = 10.0) -> None:
        wait_until(
            lambda: self.facts(name)["members"] == sorted(expected),
            within,
            every=POLL_S,
            what=lambda: f"{name} sees {self.facts(name)['members']}",
        )

    def stop(self, *names: str, within: float = 40.0) -> list[int]:
        """SIGTERM to all at once; their exit statuses."""
        for name in names:
            self.processes[name].terminate()
        return [self.processes.pop(name).wait(within) for name in names]

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def pause(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGCONT)

    def send(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def log_text(self, name: str) -> str:
        return self._log(name).read_text()

    def logs(self, name: str, event: str = "", level: str = "") -> list[dict[str, Any]]:
        """What a node has logged, over all its starts."""
        lines = [json.loads(x) for x in self.log_text(name).splitlines() if x.startswith("{")]
        return [x for x in lines if event in ("", x["event"]) and level in ("", x["level"])]

    def complaints(self, *expected: str) -> list[str]:
        """All that any node has logged as a warning or worse, or has printed, unless expected."""
        found = []
        for name in self.ports:
            for line in self.log_text(name).splitlines():
                said = json.loads(line) if line.startswith("{") else {"event": line, "level": ""}
                if said["level"] != "info" and said["event"] not in expected:
                    found.append(f"{name}: {line}")
        return found

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()


_ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


def ask(connection: http.client.HTTPConnection, method: str, path: str, cookie: str) -> Answer:
    begin = time.monotonic()
    connection.request(method, path, headers={"cookie": f"JSESSIONID={cookie}"} if cookie else {})
    response = connection.getresponse()
    body = response.read()
    seconds = time.monotonic() - begin
    set_cookie = response.getheader("set-cookie") or ""
    if set_cookie.startswith("JSESSIONID="):
        cookie = set_cookie.partition(";")[0].partition("=")[2]
    is_json = response.getheader("content-type", "").startswith("application/json")
    return Answer(response.status, json.loads(body) if is_json else {}, cookie, seconds)


class Balancer:
    """Knows which nodes may be offered requests: those that last said that they are ready.

    It asks each of them all the time, as HAProxy, Traefik, Kubernetes or a cloud's balancer do.
    """

    def __init__(self, web: Web, *names: str) -> None:
        self.offered = list(names)
        self.withdrawn: dict[str, float] = {}
        """When a node was last taken out."""
        self._web = web
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in names]
        for thread in self._threads:
            thread.start()

    def _ask(self, name: str) -> None:
        while not self._stopping.wait(ASK_S):
            is_ready = self._web.is_ready(name)
            # Lists are replaced, never changed: who chooses from one is not disturbed.
            if is_ready != (name in self.offered):
                if not is_ready:
                    self.withdrawn[name] = time.monotonic()
                with _lock:
                    rest = [each for each in self.offered if each != name]
                    self.offered = sorted([*rest, name]) if is_ready else rest

    def close(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)


_lock = threading.Lock()


Connections = dict[str, tuple[http.client.HTTPConnection, float]]
"""To each node, with the time at which it was opened."""


@dataclass
class User:
    """A browser: one cookie, and how often it was counted."""

    cookie: str = ""
    count: int = 0
    ids: set[str] = field(default_factory=set)
    unanswered: int = 0
    """Requests since the last answer: nobody knows whether they were counted."""


class Clients:
    """Threads of users that count, each time on another of the nodes that are offered.

    Nothing is tried again: whatever is not answered by exactly the next number is a failure.

    Attributes:
        failures: Each of them.
        wrong: Those of them that were answered by a number which the user cannot have come to: an
            answered count was taken back, or one was made up.
    """

    def __init__(
        self, web: Web, balancer: Balancer, users: int, threads: int, pause_s: float
    ) -> None:
        self.users = [User() for _ in range(users)]
        self.requests = 0
        self.failures: list[str] = []
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._web = web
        self._balancer = balancer
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(self.users[i::threads], i))
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, users: list[User], number: int) -> None:
        choice = random.Random(number)
        connections: Connections = {}
        while not self._stopping.is_set():
            for user in users:
                if self._stopping.wait(self._pause_s):
                    break
                self._count(user, choice.choice(self._balancer.offered), connections)
        for connection, _ in connections.values():
            connection.close()

    def _count(self, user: User, name: str, connections: Connections) -> None:
        connection, opened = connections.get(name, (None, 0.0))
        if connection is None or opened < self._balancer.withdrawn.get(name, 0.0):
            # A balancer closes the connections to a node that it takes out.
            if connection is not None:
                connection.close()
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._web.ports[name], timeout=ANSWER_S
            )
            connections[name] = connection, time.monotonic()
        self.requests += 1
        begin = time.monotonic()
        try:
            answer = ask(connection, "POST", "/count", user.cookie)
        except (OSError, http.client.HTTPException) as error:
            late = begin - self._balancer.withdrawn.get(name, 0.0)
            self.failures.append(
                f"{name}: {error!r}, sent {late:.3f} s after the balancer took it out"
                if name not in self._balancer.offered
                else f"{name}: {error!r}, sent while it was offered"
            )
            connections.pop(name)[0].close()
            user.unanswered += 1
            return
        said = f"{time.monotonic():.3f} {name}: {answer}, had {user.count}"
        user.cookie = answer.cookie
        user.ids.add(answer.values.get("id", ""))
        if answer.status != 200:
            self.failures.append(said)
            user.unanswered += 1
            return
        count, least = answer.values["values"]["count"], user.count + 1
        if not least <= count <= least + user.unanswered:
            self.failures.append(said)
            self.wrong.append(f"{said}, and {user.unanswered} without answer")
        user.count, user.unanswered = count, 0
        self.slowest = max(self.slowest, answer.seconds)

    def end(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def lost(self, *names: str) -> list[str]:
        """Users whose session is not on every one of these nodes as they were last answered."""
        found = []
        for user in self.users:
            for name in names:
                answer = self._web.request(name, "GET", "/show", user.cookie)
                if answer.values["values"].get("count") != user.count or len(user.ids) != 1:
                    found.append(f"{name}: {answer.values}, answered {user.count}, {user.ids}")
        return found


@pytest.fixture(scope="module")
def make_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Web]]:
    """Nodes that leave no process behind, for a module."""
    with contextlib.ExitStack() as stack:

        def make() -> Web:
            made = Web(tmp_path_factory.mktemp("web"))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Nodes that leave no process behind."""
    made = Web(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def make_clients(web: Web) -> Iterator[Callable[..., Clients]]:
    """Clients behind a balancer, both ended with the test."""
    made: list[Clients | Balancer] = []

    def make(*names: str, users: int, threads: int = 4, pause_s: float = 0.005) -> Clients:
        balancer = Balancer(web, *names)
        clients = Clients(web, balancer, users, threads, pause_s)
        made.extend((clients, balancer))
        return clients

    try:
        yield make
    finally:
        for each in made:
            each.end() if isinstance(each, Clients) else each.close()
