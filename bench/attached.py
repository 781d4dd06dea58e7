"""What a request costs in a worker that is attached to its host's node, against a member.

python bench/attached.py

Two groups of two members on this machine: a worker that is a member, and another node; a node with
an attached worker, and another node. Requests go through the WSGI middleware, without a server, in
one thread, in turns of the two. Then both groups get 10,000 sessions of 1 KB, and the attached
worker reads each once.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tribes import ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig, open_node
from tribes.config.managers import ContextConfig
from tribes.web.wsgi import SESSION, SessionMiddleware

ROUNDS = 15
TURNS = 200
SESSIONS = 10_000
SETTLE_S = 3.0
"""For members to find each other."""
KINDS = ("no session", "read", "write, 8", "write, 6")


def main() -> None:
    """Print a table."""
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    ports = [_port(), _port()]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "node.sock")
        with (
            _node(ports[0], "there"),
            _node(ports[1], "there"),
            _node(ports[1], "host", "--attach", path) as host,
            _worker(ports[0], "") as member,
            _worker(ports[1], path) as attached,
        ):
            workers = {"member": member, "attached": attached}
            for kind in KINDS:
                _compare(kind, workers, host)
            _memory(workers)
    print(f"load average {os.getloadavg()[0]:.1f}")


def _compare(kind: str, workers: dict[str, Any], host: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in workers}
    node = 0.0
    for _ in range(ROUNDS):
        for name, pipe in workers.items():
            before = _cpu_s(host)
            pipe.send((kind, TURNS))
            found[name].append(pipe.recv())
            node += _cpu_s(host) - before if name == "attached" else 0.0
    clock = {name: [each[0] for each in runs] for name, runs in found.items()}
    cpu = {name: [each[1] for each in runs] for name, runs in found.items()}
    ratios = sorted(b / a for a, b in zip(clock["member"], clock["attached"], strict=True))
    print(
        f"{kind:10}  member {_median(clock['member'])} us (cpu {_median(cpu['member'])}), "
        f"attached {_median(clock['attached'])} us (cpu {_median(cpu['attached'])}, "
        f"node {node / ROUNDS / TURNS * 1e6:.0f}), "
        f"ratio {statistics.median(ratios):.1f} ({ratios[0]:.1f}-{ratios[-1]:.1f})"
    )


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.0f}"


def _memory(workers: dict[str, Any]) -> None:
    for name, pipe in workers.items():
        pipe.send(("memory", 0))
        before = pipe.recv()
        pipe.send(("fill", SESSIONS))
        after = pipe.recv()
        print(
            f"{name}: {before / 1024:.1f} MiB, with {SESSIONS} sessions {after / 1024:.1f} MiB, "
            f"{(after - before) * 1024 / SESSIONS:.0f} B each"
        )


def _work(pipe: Any, group_port: int, path: str) -> None:
    """One worker, as its parent orders."""
    node = open_node(_config(group_port, path))
    node.start()
    assert node.wait_joined()
    time.sleep(SETTLE_S)
    binds = {n: SessionMiddleware(_handle, node, context=f"c{n}") for n in (8, 6)}
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        kind, count = order
        if kind == "memory":
            pipe.send(_rss_kb())
        elif kind == "fill":
            pipe.send(_fill(binds[8], count))
        else:
            pipe.send(_measure(binds[6 if kind.endswith("6") else 8], kind, count))


class _Client:
    """Requests of one session."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.cookie = ""

    def get(self, what: str) -> None:
        environ = {
            "PATH_INFO": "/",
            "REQUEST_METHOD": "GET",
            "HTTP_COOKIE": self.cookie,
            "wsgi.url_scheme": "http",
            "what": what,
        }
        body = self._application(environ, self._start)
        close = getattr(body, "close", None)
        if close is not None:
            close()

    def _start(self, status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], object]:
        assert status == "200 OK", status
        for name, value in headers:
            if name == "Set-Cookie" and value.startswith("JSESSIONID="):
                self.cookie = value.partition(";")[0]
        return lambda data: None


def _handle(environ: Any, start_response: Any) -> list[bytes]:
    session, what = environ[SESSION], environ["what"]
    if what == "begin":
        session["text"] = "x" * 1000
        session["n"] = 0
    elif what.startswith("write"):
        session["n"] = session["n"] + 1
    elif what == "read":
        assert session["text"]
    start_response("200 OK", [])
    return [b""]


def _config(group_port: int, path: str) -> NodeConfig:
    """One node; its two contexts differ in their send options alone."""
    return NodeConfig(
        name="worker",
        contexts=("c8", "c6"),
        attach=path,
        channel=ChannelConfig(membership=MembershipConfig(port=group_port)),
        manager=ManagerConfig(channel_send_options=8),
        context={"c6": ContextConfig(manager=ManagerConfig(channel_send_options=6))},
    )


_clients: dict[Any, _Client] = {}


def _measure(application: Any, kind: str, count: int) -> tuple[float, float]:
    """Microseconds of the clock, and of the process's processor time, for one request."""
    client = _clients.setdefault((id(application), kind), _Client(application))
    if kind != "no session" and not client.cookie:
        client.get("begin")
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        client.get(kind)
    return (
        (time.perf_counter() - begin) / count * 1e6,
        (time.process_time() - cpu) / count * 1e6,
    )


def _fill(application: Any, count: int) -> int:
    clients = [_Client(application) for _ in range(count)]
    for client in clients:
        client.get("begin")
    for client in clients:
        client.get("read")
    del clients
    return _rss_kb()


def _rss_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _node(group_port: int, name: str, *more: str) -> Iterator[int]:
    command = [
        *(sys.executable, "-m", "tribes", "node", "--name", name, "--port", "0"),
        *("--context", "c8", "--context", "c6", "--multicast-port", str(group_port), *more),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(SETTLE_S)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def _worker(group_port: int, path: str) -> Iterator[Any]:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_work, args=(theirs, group_port, path))
    process.start()
    assert ours.recv() == "ready"
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def _port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
