"""Real node processes on ephemeral ports, and clients that keep count."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.ports import free_tcp_port, free_udp_port
from tests.waiting import wait_until

READY_S = 20.0
POLL_S = 0.02


class Cluster:
    """The demo's nodes, each a process of its own; every one is ended by its pid."""

    def __init__(self) -> None:
        self.multicast_port = free_udp_port()
        self.ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(timeout=10, trust_env=False)

    def start(self, *names: str, wait: bool = True) -> None:
        """Start nodes and wait until each serves, which is after it has joined."""
        for name in names:
            port = self.ports.setdefault(name, free_tcp_port())
            self.processes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tribes", "demo-node", "--name", name),
                    *("--http-port", str(port), "--multicast-port", str(self.multicast_port)),
                    *("--control-url", "http://127.0.0.1:1", "--peers", f"{name}={self.url(name)}"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
        if wait:
            for name in names:
                self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        def serves() -> bool:
            assert self.processes[name].poll() is None, f"{name} ended"
            with contextlib.suppress(httpx.TransportError):
                return self.http.get(self.url(name) + "/health").status_code == 200
            return False

        wait_until(serves, READY_S, every=POLL_S, what=f"{name} does not serve")

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def members(self, name: str) -> list[str]:
        return sorted(self.http.get(self.url(name) + "/members").json())

    def wait_members(self, name: str, expected: list[str], within: float) -> float:
        """Seconds until a node sees exactly these members."""
        return wait_until(
            lambda: self.members(name) == sorted(expected),
            within,
            every=POLL_S,
            what=lambda: f"{name} sees {self.members(name)}",
        )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        self._close(process)

    def terminate(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        status = process.wait(20)
        self._close(process)
        return status

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        self.http.close()


@dataclass
class User:
    """A browser: one cookie, and what the answers said."""

    cookie: str = ""
    count: int = 0
    session_ids: set[str] = field(default_factory=set)
    created: set[int] = field(default_factory=set)

    def visit(self, http: httpx.Client, url: str) -> dict[str, Any]:
        headers = {"cookie": f"JSESSIONID={self.cookie}"} if self.cookie else {}
        response = http.get(url + "/session", headers=headers)
        response.raise_for_status()
        cookie = response.cookies.get("JSESSIONID")
        http.cookies.clear()
        if cookie:
            self.cookie = cookie
        answer: dict[str, Any] = response.json()
        self.count = answer["count"]
        self.session_ids.add(answer["session_id"])
        self.created.add(answer["created_ms"])
        return answer


class Load:
    """Threads of users that go on writing until told to stop; every failure is kept."""

    def __init__(self, cluster: Cluster, users: int, threads: int = 4) -> None:
        self.users = [User() for _ in range(users)]
        self.failures: list[str] = []
        self.requests = 0
        self.targets: list[str] = []
        self._cluster = cluster
        self._stop = threading.Event()
        self._asked: list[list[str]] = [[] for _ in range(threads)]
        """By thread, the targets from which it chose last."""
        self._threads = [
            threading.Thread(target=self._run, args=(i, self.users[i::threads]))
            for i in range(threads)
        ]

    def begin(self, *targets: str) -> None:
        self.targets = list(targets)
        for thread in self._threads:
            thread.start()

    def direct(self, *targets: str) -> None:
        """Send users elsewhere; returns when nothing of theirs is under way at the old targets."""
        self.targets = list(targets)
        wait_until(lambda: all(asked is self.targets for asked in self._asked), READY_S)

    def _run(self, number: int, users: list[User]) -> None:
        turn = 0
        with httpx.Client(timeout=10, trust_env=False) as http:
            while not self._stop.is_set():
                for user in users:
                    if self._stop.is_set():
                        return
                    targets = self._asked[number] = self.targets
                    name = targets[turn % len(targets)]
                    turn += 1
                    expected = user.count + 1
                    try:
                        answer = user.visit(http, self._cluster.url(name))
                    except httpx.HTTPError as error:
                        self.failures.append(f"{name}: {error!r}")
                        continue
                    self.requests += 1
                    if answer["count"] != expected:
                        self.failures.append(f"{name}: {answer}, expected count {expected}")

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a request never ended"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster that leaves no process behind."""
    made = Cluster()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def make_load(cluster: Cluster) -> Iterator[Any]:
    """Loads on the cluster, ended with the test."""
    made: list[Load] = []

    def make(users: int, threads: int = 4) -> Load:
        load = Load(cluster, users, threads)
        made.append(load)
        return load

    try:
        yield make
    finally:
        for load in made:
            load.end()


@pytest.fixture
def make_user() -> type[User]:
    """Makes users with an empty cookie jar."""
    return User
