"""The demo's parent and its control port, with nodes that do nothing but live.

The nodes are real processes: a Python that waits for the end of its stdin. What needs a node that
answers is in ``test_demo_processes.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from click.testing import CliRunner

from tests.waiting import until
from tribes.cli import demo as demo_module
from tribes.cli import demo_control, demo_nodes
from tribes.cli.demo import Demo, NodeSpec, demo_node, node_command, run_demo
from tribes.cli.demo import demo as demo_command
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not here: signals of POSIX")

IDLE = "import sys; sys.stdin.read()"
LIMIT_S = 15


def idle(_: NodeSpec) -> list[str]:
    return [sys.executable, "-c", IDLE]


def python(program: str) -> Callable[[NodeSpec], list[str]]:
    return lambda _: [sys.executable, "-c", program]


class Running:
    """A demo in this process, the lines it has shown, and a client of its control port."""

    def __init__(self, demo: Demo, lines: list[str], client: httpx.AsyncClient) -> None:
        self.demo = demo
        self.client = client
        self._lines = lines
        self.port = int(demo.control_url.rpartition(":")[2])

    @property
    def shown(self) -> str:
        return "".join(self._lines)

    async def post(self, path: str) -> tuple[int, dict[str, object]]:
        answer = await self.client.post(path)
        return answer.status_code, answer.json()

    def node(self, name: str) -> dict[str, object]:
        [found] = [node for node in self.demo.status()["nodes"] if node["name"] == name]
        assert isinstance(found, dict)
        return found


@contextlib.asynccontextmanager
async def demo_of(
    command: Callable[[NodeSpec], list[str]] = idle, nodes: int = 2
) -> AsyncIterator[Running]:
    lines: list[str] = []
    run = partial(run_demo, nodes=nodes, base_port=0, command=command, write=lines.append)
    async with trio.open_nursery() as nursery:
        demo: Demo = await nursery.start(run)
        pids = [node["pid"] for node in demo.status()["nodes"]]
        async with httpx.AsyncClient(base_url=demo.control_url, timeout=LIMIT_S) as client:
            yield Running(demo, lines, client)
        nursery.cancel_scope.cancel()
    assert not [pid for pid in pids if exists(pid)]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_kill_ends_with_sigkill_and_answers_when_reaped() -> None:
    async with demo_of() as running:
        before = running.node("node-1")
        status, answer = await running.post("/kill/node-1")
        assert status == 200
        assert answer == {
            "name": "node-1",
            "url": before["url"],
            "pid": None,
            "running": False,
            "ready": False,
            "killed_by_user": True,
            "ended": "SIGKILL, by the control port (kill)",
        }
        assert not exists(int(str(before["pid"])))
        assert running.node("node-2")["running"]
        assert await running.post("/kill/node-1") == (409, {"error": "node-1 doesn't run"})


async def test_start_brings_a_node_back_once() -> None:
    async with demo_of() as running:
        pid = running.node("node-2")["pid"]
        again = await running.post("/start/node-2")
        assert again == (409, {"error": f"node-2 runs already, pid {pid}"})
        await running.post("/kill/node-2")
        status, answer = await running.post("/start/node-2")
        assert (status, answer["running"], answer["killed_by_user"]) == (200, True, False)
        assert answer["pid"] != pid
        assert exists(int(str(answer["pid"])))


async def test_two_starts_at_once_make_one_process() -> None:
    async with demo_of(nodes=1) as running:
        await running.post("/kill/node-1")
        statuses = []

        async def start() -> None:
            statuses.append((await running.post("/start/node-1"))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(start)
        assert sorted(statuses) == [200, 409]


async def test_stop_asks_with_sigterm() -> None:
    async with demo_of(nodes=1) as running:
        status, answer = await running.post("/stop/node-1")
        assert (status, answer["ended"]) == (200, "SIGTERM, by the control port (stop)")
        assert answer["killed_by_user"] is False


async def test_stop_kills_who_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_nodes, "_LEAVE_S", 0.1)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf');" + IDLE
    async with demo_of(python(deaf), nodes=1) as running:
        await until(lambda: "node-1 | deaf" in running.shown)
        assert (await running.post("/stop/node-1"))[1]["ended"] == (
            "SIGKILL, by the control port (stop)"
        )


async def test_a_death_is_reported_with_who_did_it() -> None:
    async with demo_of() as running:
        os.kill(int(str(running.node("node-1")["pid"])), signal.SIGKILL)
        await until(lambda: not running.node("node-1")["running"])
        assert running.node("node-1")["ended"] == "SIGKILL, by somebody outside the demo"
        assert running.node("node-1")["killed_by_user"] is False
        await running.post("/kill/node-2")
        await until(lambda: running.shown.count("node ended") == 2)
    assert "node=node-1" in running.shown
    assert "how=SIGKILL by='somebody outside the demo'" in running.shown
    assert "how=SIGKILL by='the control port (kill)'" in running.shown


async def test_a_node_that_fails_is_reported_and_its_words_are_shown() -> None:
    program = r"print('\x1b[31mcannot\x1b[0m \x07go on'); raise SystemExit(3)"
    async with demo_of(python(program), nodes=1) as running:
        await until(lambda: "node ended" in running.shown)
        await until(lambda: "node-1 | cannot \ufffdgo on\n" in running.shown)
        assert running.node("node-1")["ended"] == "exit status 3, by itself"


async def test_the_introduction_names_every_address_and_the_curl_lines() -> None:
    async with demo_of() as running:
        await until(lambda: "Ctrl-C ends the demo" in running.shown)
        control = running.demo.control_url
        for line in (
            f"  node-1   {running.node('node-1')['url']}/\n",
            f"  node-2   {running.node('node-2')['url']}/\n",
            f"  control  {control}/\n",
            f"curl -X POST {control}/kill/node-1\n",
            f"curl -X POST {control}/start/node-1\n",
        ):
            assert line in running.shown


async def test_a_terminal_that_does_not_read_blocks_no_node(tmp_path: Path) -> None:
    done = tmp_path / "done"
    program = "[print('y' * 99) for _ in range(50_000)];"
    program += f"open({str(done)!r}, 'w').close();" + IDLE
    gate = threading.Event()
    lines: list[str] = []

    def write(text: str) -> None:
        gate.wait(LIMIT_S)
        lines.append(text)

    run = partial(run_demo, nodes=1, base_port=0, command=python(program), write=write)
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        await until(done.exists)
        gate.set()
        await until(lambda: "lines not shown: the terminal was too slow" in "".join(lines))
        nursery.cancel_scope.cancel()


async def test_an_error_while_starting_ends_what_was_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pids: list[int] = []
    real = trio.lowlevel.open_process

    async def open_process(*args: Any, **settings: Any) -> trio.Process:
        process = await real(*args, **settings)
        pids.append(process.pid)
        return process

    def broken(spec: NodeSpec) -> list[str]:
        return idle(spec) if spec.name != "node-3" else ["/no/such/program"]

    monkeypatch.setattr("trio.lowlevel.open_process", open_process)
    with pytest.RaisesGroup(FileNotFoundError, flatten_subgroups=True, allow_unwrapped=True):
        await run_demo(nodes=3, base_port=0, command=broken, write=len)
    assert len(set(pids)) == 2
    assert not [pid for pid in pids if exists(pid)]


# ---- who may use the control port


async def test_only_the_demos_pages_and_programs_without_origin_are_admitted() -> None:
    async with demo_of() as running:
        ports = [str(running.node(name)["url"]).rpartition(":")[2] for name in ("node-1", "node-2")]
        for port in ports:
            for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
                answer = await running.client.get("/status", headers={"origin": origin})
                assert answer.status_code == 200
                assert answer.headers["access-control-allow-origin"] == origin
                assert answer.headers["vary"] == "Origin"
        for origin in ("http://attacker.example", "null", f"https://127.0.0.1:{ports[0]}"):
            for method, path in (("GET", "/status"), ("POST", "/kill/node-1")):
                answer = await running.client.request(method, path, headers={"origin": origin})
                assert answer.status_code == 403
                assert "access-control-allow-origin" not in answer.headers
        assert running.node("node-1")["running"]


async def test_only_its_own_host_names_are_answered() -> None:
    async with demo_of(nodes=1) as running:
        own = f"localhost:{running.port}"
        assert (await running.client.get("/", headers={"host": own})).status_code == 200
        for host in ("attacker.example", f"attacker.example:{running.port}", "127.0.0.1", "\xe9"):
            answer = await running.client.post(
                "/kill/node-1", headers={b"host": host.encode("latin-1")}
            )
            assert answer.status_code in (400, 403)
        assert running.node("node-1")["running"]


async def test_paths_and_methods() -> None:
    async with demo_of(nodes=1) as running:
        client = running.client
        assert (await client.get("/")).json() == running.demo.status()
        assert (await client.get("/status?x=1")).json() == running.demo.status()
        assert (await client.head("/status")).content == b""
        for path in ("/kill/node-1", "/start/node-1", "/stop/node-1"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert (await client.post("/status")).status_code == 405
        assert (await client.post("/kill/node-9")).json() == {
            "error": "no such node; there are node-1"
        }
        for path in ("/kill/node-9", "/kill", "/kill/", "/kill/node-1/x", "/burn/node-1"):
            assert (await client.post(path)).status_code == 404
        assert running.node("node-1")["running"]


async def raw(port: int, request: bytes) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        with trio.fail_after(LIMIT_S):
            return b"".join([chunk async for chunk in stream])


async def test_requests_are_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with demo_of(nodes=1) as running:
        host = f"Host: 127.0.0.1:{running.port}\r\n".encode()
        post = b"POST /kill/node-1 HTTP/1.1\r\n" + host
        for request, status in (
            (b"\x16\x03\x01 nonsense\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\n\r\n", b"400"),  # no Host
            (b"GET / HTTP/1.0\r\n\r\n", b"403"),
            (b"GET / HTTP/1.1\r\n" + host + b"x: " + b"y" * 9000, b"431"),
            (post + b"Content-Length: 9000\r\n\r\n" + b"z" * 9000, b"413"),
        ):
            answer = await raw(running.port, request)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.split()[1] == status
            assert b"connection: close" in head.lower()
            assert "error" in json.loads(body)
        monkeypatch.setattr(demo_control, "_REQUEST_S", 0.05)
        assert (await raw(running.port, post)).startswith(b"HTTP/1.1 408 Request Timeout")
        assert running.node("node-1")["running"]


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_control, "_CONNECTIONS_MAX", 1)
    async with (
        demo_of(nodes=1) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as first,
    ):
        await first.send_all(b"GET /")
        assert await raw(running.port, b"") == b""
        rest = f"status HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n\r\n"
        await first.send_all(rest.encode())
        with trio.fail_after(LIMIT_S):
            assert (await first.receive_some()).startswith(b"HTTP/1.1 200 OK")


# ---- ports and options


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def never(spec: NodeSpec) -> list[str]:
    raise AssertionError(f"{spec.name} was started")


async def test_a_node_port_in_use_is_named_before_anything_starts(taken_port: int) -> None:
    with pytest.raises(ConfigError) as caught:
        await run_demo(nodes=1, base_port=taken_port, command=never)
    assert str(caught.value) == (
        f"--base-port: port {taken_port} of node-1 can't be used on 127.0.0.1: "
        "Address already in use. Choose another with --base-port"
    )


async def test_a_control_port_in_use_is_named_before_anything_starts(taken_port: int) -> None:
    with pytest.raises(ConfigError, match=f"port {taken_port} of the control port .* in use"):
        await run_demo(nodes=1, base_port=0, control_port=taken_port, command=never)


async def test_ports_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="3 ports from 65534 on end after 65535"):
        await run_demo(nodes=3, base_port=65534, command=never)


def test_the_command_prints_the_error(taken_port: int) -> None:
    result = CliRunner().invoke(demo_command, ["--nodes", "1", "--base-port", str(taken_port)])
    assert result.exit_code == 1
    assert f"Error: port {taken_port} of node-1 can't be used" in result.output
    assert "--base-port" in result.output


@pytest.mark.parametrize("arguments", [["--nodes", "0"], ["--nodes", "17"], ["--base-port", "x"]])
def test_the_command_refuses_nonsense(arguments: list[str]) -> None:
    assert CliRunner().invoke(demo_command, arguments).exit_code == 2


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "find_spec", lambda _: None)
    result = CliRunner().invoke(demo_command, [])
    assert (result.exit_code, "pip install 'tribes[web]'" in result.output) == (1, True)


def test_what_the_parent_writes_the_node_command_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    node_module = type(sys)("tribes.cli.demo_node")
    monkeypatch.setattr(node_module, "run_node", lambda *a: calls.append(a), raising=False)
    monkeypatch.setitem(sys.modules, "tribes.cli.demo_node", node_module)
    monkeypatch.setattr(demo_module, "follow_parent", lambda: calls.append(("follows",)))
    peers = {"node-1": "http://127.0.0.1:8080", "node-2": "http://127.0.0.1:8081"}
    spec = NodeSpec("node-2", 8081, 45564, "http://127.0.0.1:9000", peers)
    command = node_command(spec)
    assert command[:4] == [sys.executable, "-m", "tribes", "demo-node"]
    assert CliRunner().invoke(demo_node, command[4:]).exit_code == 0
    run = ("node-2", 8081, 45564, "http://127.0.0.1:9000", peers, "127.0.0.1")
    assert calls == [("follows",), run]


def test_the_node_command_refuses_peers_it_cannot_read() -> None:
    arguments = ["--name", "a", "--http-port", "1", "--multicast-port", "1", "--control-url", "u"]
    result = CliRunner().invoke(demo_node, [*arguments, "--peers", "node-1"])
    assert (result.exit_code, "name=http://host:port" in result.output) == (2, True)
