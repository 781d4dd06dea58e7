"""Two hosts with four prefork workers each, on addresses of loopback and without multicast: all of
them find each other by one port of one host.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import free_tcp_port
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="not here: 127.0.0.2 needs to be set up"
    ),
    pytest.mark.timeout(120),
]

WORKERS = 4

HOST = """
import json, os, signal, sys, time
import structlog
from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes import ReceiverConfig
from tribes.config.model import StaticMemberConfig

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
address, port, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
seed = StaticMemberConfig(host="127.0.0.1", port=port)
node = BackgroundNode(NodeConfig(
    contexts=("app",), manager=ManagerConfig(channel_send_options=6, commit_timeout=5000),
    channel=ChannelConfig(
        keys=os.environ["KEYS"],
        membership=MembershipConfig(multicast=False, static=(seed,)),
        receiver=ReceiverConfig(address=address, port=port, auto_bind=10))))

def say(**found):
    os.write(1, (json.dumps({"pid": os.getpid(), **found}) + "\\n").encode())

def work():
    signal.alarm(100)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGUSR1, lambda *_: stop.append(0))
    node.start()
    say(port=node.channel.local.port, address=address)
    seen = None
    while 1 not in stop:
        members = sorted(f"{m.host_text}:{m.port}" for m in node.channel.members)
        if members != seen:
            seen = members
            say(members=members)
        if 0 in stop:
            stop.clear()
            session = node.manager("app").create()
            session["from"] = address
            result = node.commit(session)
            say(acked=len(result.acked), missing=len(result.missing))
        time.sleep(0.02)
    node.stop()

for _ in range(workers):
    if os.fork() == 0:
        try:
            work()
        finally:
            os._exit(0)
sys.stdin.read()
"""


class Host:
    """One host's parent process and its workers; every worker is ended by its pid."""

    def __init__(self, address: str, port: int, keys: str, workers: int = WORKERS) -> None:
        self.address = address
        self.workers: dict[int, dict[str, Any]] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOST, address, str(port), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "KEYS": keys},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.workers.setdefault(said.pop("pid"), {}).update(said)

    def members(self) -> list[int]:
        """How many other members each worker sees."""
        return [len(worker.get("members", ())) for worker in list(self.workers.values())]

    def at(self, port: int) -> int | None:
        """The pid of the worker with a port."""
        found = [pid for pid, worker in list(self.workers.items()) if worker.get("port") == port]
        return found[0] if found else None

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        del self.workers[pid]

    def close(self) -> None:
        for pid in list(self.workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join(20)
        self._process.stdout.close()


@pytest.fixture
def port() -> int:
    """A first port with some free ones behind it."""
    return free_tcp_port()


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Hosts; what is in the list in the end is closed."""
    made: list[Host] = []
    try:
        yield made
    finally:
        for host in made:
            host.close()


KEY = "tribes-key:v1:1:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE:4d32ea33"


@pytest.mark.parametrize("keys", ["", KEY], ids=["open", "keyed"])
def test_eight_workers_on_two_hosts_find_each_other_by_one_port(
    port: int, keys: str, hosts: list[Host]
) -> None:
    """A commit on one is acknowledged by all the others; the others stay together when the worker
    that all of them name is killed, and whoever takes its port is found.
    """
    hosts += [Host("127.0.0.1", port, keys), Host("127.0.0.2", port, keys)]

    def seen() -> list[int]:
        return [count for host in hosts for count in host.members()]

    wait_until(lambda: seen() == [7] * 8, what=seen)
    writer, worker = next(iter(hosts[1].workers.items()))
    os.kill(writer, signal.SIGUSR1)
    wait_until(lambda: "acked" in worker, what=lambda: worker)
    assert (worker["acked"], worker["missing"]) == (7, 0)

    seed = hosts[0].at(port)
    assert seed is not None
    hosts[0].kill(seed)
    wait_until(lambda: seen() == [6] * 7, what=seen)
    hosts.append(Host("127.0.0.1", port, keys, workers=1))
    wait_until(lambda: seen() == [7] * 8, what=seen)
    assert hosts[2].at(port) is not None, "the port was free again"
