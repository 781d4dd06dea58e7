"""``tribes demo``: several node processes on this machine, and a port to kill and start them.

The promise is that **Ctrl-C ends all processes, always**. It is kept three times over:

1. Each process belongs to one task. Whatever ends the task (Ctrl-C, an error anywhere) runs its
   shielded clean-up: SIGTERM, up to 5 s, SIGKILL, reap. A second Ctrl-C skips the waiting.
2. Each process has a pipe from here as its stdin and ends when it reads end-of-file. The kernel
   closes the pipe with this process, so even ``kill -9`` of the parent ends the nodes.
3. The nodes don't get a terminal's Ctrl-C, so none of them ends before the parent decides.

Nodes are never blocked by a slow terminal: their output is always read, put in a bounded queue,
and written by a thread; when the queue is full lines are dropped and counted.

The file is longer than most because parent, control port and commands share the nodes' states.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, final

import click
import structlog
import trio

from tribes.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    import h11

__all__ = ["Demo", "NodeSpec", "demo", "demo_node", "follow_parent", "node_command", "run_demo"]

_HOST: Final = "127.0.0.1"
_NODES_MAX: Final = 16
_LEAVE_S: Final = 5.0  # from SIGTERM to SIGKILL; the order's number
_FLUSH_S: Final = 1.0  # for the last lines, when all processes are gone
_HEALTH_INTERVAL_S: Final = 0.1
_REQUEST_S: Final = 5.0  # to receive a request, and again to send the answer
_REQUEST_BYTES_MAX: Final = 8192
_CONNECTIONS_MAX: Final = 64
_LINE_BYTES_MAX: Final = 4096
_LINES_WAITING_MAX: Final = 2000

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What one node process is told: its name, its ports, and where the others are."""

    name: str
    http_port: int
    multicast_port: int
    control_url: str
    peers: Mapping[str, str]

    @property
    def url(self) -> str:
        """The node's address, without a slash at the end."""
        return f"http://{_HOST}:{self.http_port}"


def node_command(spec: NodeSpec) -> list[str]:
    """Return the command that runs a node: this Python, the hidden command ``demo-node``."""
    command = [sys.executable, "-m", "tribes", "demo-node", "--name", spec.name]
    command += ["--http-port", str(spec.http_port), "--control-url", spec.control_url]
    command += ["--multicast-port", str(spec.multicast_port)]
    return [*command, "--peers", ",".join(f"{name}={url}" for name, url in spec.peers.items())]


class _RefusedError(Exception):
    """The control port was asked for something that can't be done; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


@final
class _Screen:
    """Writes lines from a thread, so that a terminal that doesn't read stops nothing else."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    def line(self, text: str) -> None:
        if len(self._lines) >= _LINES_WAITING_MAX:
            self._dropped += 1
            return
        self._lines.append(text)
        if self._idle.is_set():
            self._idle = trio.Event()
        self._wake.set()

    info = line  # makes it a structlog logger

    async def run(self) -> None:
        """Write until cancelled; a write that hangs is left behind then."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            batch = [*self._lines]
            self._lines.clear()
            if self._dropped:
                batch.append(f"({self._dropped} lines not shown: the terminal was too slow)")
                self._dropped = 0
            text = "".join(f"{line}\n" for line in batch)
            try:
                await trio.to_thread.run_sync(self._write, text, abandon_on_cancel=True)
            except (OSError, ValueError):  # nobody reads any more; the nodes go on
                self._write = len
            if not self._lines:
                self._idle.set()

    async def flush(self) -> None:
        """Wait until all lines are written. The caller sets the limit."""
        await self._idle.wait()


@final
class _Node:
    """One node of the demo: its process, or how the last one ended."""

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.lock = trio.Lock()  # one action at a time
        self.process: trio.Process | None = None
        self.ready = False
        self.gone = trio.Event()
        self.ending_by = ""  # who sent the signal, while it works
        self.ended = ""
        self.killed_by_user = False

    def status(self) -> dict[str, Any]:
        return {
            "name": self.spec.name,
            "url": self.spec.url,
            "pid": self.process.pid if self.process else None,
            "running": self.process is not None,
            "ready": self.ready,
            "killed_by_user": self.killed_by_user,
            "ended": self.ended,
        }


@final
class Demo:
    """The nodes of one demo, and what can be done with them. Made by :func:`run_demo`."""

    def __init__(
        self,
        specs: list[NodeSpec],
        command: Callable[[NodeSpec], list[str]],
        screen: _Screen,
        lives: trio.Nursery,
        outputs: trio.Nursery,
    ) -> None:
        self.control_url = specs[0].control_url
        self._nodes = {spec.name: _Node(spec) for spec in specs}
        self._command = command
        self._say = screen.line
        self._lives = lives
        self._outputs = outputs
        times = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        lines = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), sort_keys=False)
        self._log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            screen,
            processors=[times, lines],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )

    def status(self) -> dict[str, Any]:
        """Return the state of all nodes, ready for JSON."""
        return {"nodes": [node.status() for node in self._nodes.values()]}

    async def start(self, name: str) -> dict[str, Any]:
        """Start a node that doesn't run; return its state. Doesn't wait until it is ready."""
        node = self._node(name)
        async with node.lock:
            if node.process is not None:
                raise _RefusedError(409, f"{name} runs already, pid {node.process.pid}")
            await self._lives.start(self._live, node)
            return node.status()

    async def kill(self, name: str) -> dict[str, Any]:
        """Kill a node with SIGKILL, wait until it is reaped, return its state."""
        return await self._end(name, "kill")

    async def stop(self, name: str) -> dict[str, Any]:
        """Ask a node with SIGTERM to leave, kill it after 5 s, return its state."""
        return await self._end(name, "stop")

    def kill_all(self) -> None:
        """Send SIGKILL to all nodes, now."""
        for node in self._nodes.values():
            if node.process is not None:
                node.process.kill()

    async def _end(self, name: str, action: str) -> dict[str, Any]:
        node = self._node(name)
        async with node.lock:
            process, gone = node.process, node.gone
            if process is None:
                raise _RefusedError(409, f"{name} doesn't run")
            node.ending_by = f"the control port ({action})"
            if action == "kill":
                node.killed_by_user = True
                process.kill()
                await gone.wait()
            else:
                await _leave(process)
                await gone.wait()
            return node.status()

    def _node(self, name: str) -> _Node:
        if name not in self._nodes:
            raise _RefusedError(404, f"no such node; there are {', '.join(self._nodes)}")
        return self._nodes[name]

    async def _live(self, node: _Node, *, task_status: trio.TaskStatus[None]) -> None:
        """Run one process of a node, from its start until it is reaped, whatever happens."""
        process = await trio.lowlevel.open_process(
            self._command(node.spec),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            node.process, node.gone, node.ended = process, trio.Event(), ""
            node.ending_by, node.killed_by_user = "", False
            self._outputs.start_soon(self._show_output, node.spec.name, process)
            self._lives.start_soon(self._await_ready, node, process)
            self._log.info("node started", node=node.spec.name, pid=process.pid)
            task_status.started()
            await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    node.ending_by = node.ending_by or "the end of the demo"
                    await _leave(process)
                assert process.stdin is not None
                await process.stdin.aclose()
            self._gone(node, process)

    def _gone(self, node: _Node, process: trio.Process) -> None:
        code = process.returncode
        assert code is not None
        how = f"exit status {code}"
        if code < 0:
            names = {one.value: one.name for one in signal.Signals}
            how = names.get(-code, f"signal {-code}")
        outside = how in ("SIGKILL", "SIGTERM")  # any other signal is its own crash
        by = node.ending_by or ("somebody outside the demo" if outside else "itself")
        node.process, node.ready, node.ended = None, False, f"{how}, by {by}"
        node.gone.set()
        self._log.info("node ended", node=node.spec.name, pid=process.pid, how=how, by=by)

    async def _await_ready(self, node: _Node, process: trio.Process) -> None:
        while node.process is process:
            if await _is_healthy(node.spec.http_port) and node.process is process:
                node.ready = True
                self._log.info("node ready", node=node.spec.name, url=f"{node.spec.url}/")
                return
            await trio.sleep(_HEALTH_INTERVAL_S)

    async def _show_output(self, name: str, process: trio.Process) -> None:
        assert process.stdout is not None
        async with process.stdout as output:
            tail = b""
            async for chunk in output:
                *lines, tail = (tail + chunk).split(b"\n")
                if len(tail) > _LINE_BYTES_MAX:
                    lines, tail = [*lines, tail], b""
                for line in lines:
                    self._say(f"{name} | {_printable(line)}")
            if tail:
                self._say(f"{name} | {_printable(tail)}")

    async def obey_signals(self, signals: AsyncIterator[int]) -> None:
        """End the demo at the first signal, kill what is left at the second."""
        ending = False
        async for number in signals:
            if ending:
                self.kill_all()
            else:
                self._log.info("demo ends", signal=signal.Signals(number).name)
                self._lives.cancel_scope.cancel()
            ending = True

    async def answer(self, method: str, path: str) -> dict[str, Any]:
        """Do what a request to the control port asks, and return its JSON.

        Raises:
            _RefusedError: 404, 405 or 409, with a message.
        """
        match path.removeprefix("/").split("/"):
            case [""] | ["status"]:
                if method not in ("GET", "HEAD"):
                    raise _RefusedError(405, "only GET here", Allow="GET")
                return self.status()
            case [("kill" | "start" | "stop") as action, name]:
                self._node(name)
                if method != "POST":
                    raise _RefusedError(405, f"only POST can {action}", Allow="POST")
                actions = {"kill": self.kill, "start": self.start, "stop": self.stop}
                return await actions[action](name)
            case _:
                message = "there are /status, /kill/NAME, /start/NAME and /stop/NAME"
                raise _RefusedError(404, message)


def _printable(line: bytes) -> str:
    text = line[:_LINE_BYTES_MAX].decode(errors="replace").rstrip("\r")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _COLOUR.sub("", text))


async def _leave(process: trio.Process) -> None:
    """Ask a process to leave; kill it when it takes too long. It has been reaped on return."""
    process.terminate()
    with trio.move_on_after(_LEAVE_S):
        await process.wait()
    process.kill()  # nothing, where it has ended
    await process.wait()


async def _is_healthy(port: int) -> bool:
    request = f"GET /health HTTP/1.1\r\nHost: {_HOST}:{port}\r\nConnection: close\r\n\r\n"
    with trio.move_on_after(1), contextlib.suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(_HOST, port) as stream:
            await stream.send_all(request.encode())
            return (await stream.receive_some(64)).startswith(b"HTTP/1.1 200")
    return False


@final
class _Control:
    """The control port: HTTP/1.1, one bounded request per connection.

    Killing processes must not be open to any web page that a browser on this machine shows. So a
    request that names an origin must name a page of the demo; and the Host must be ours, or a
    foreign name that was made to point to 127.0.0.1 would count as the same origin.
    """

    def __init__(self, demo: Demo, port: int, node_ports: list[int]) -> None:
        self._demo = demo
        self._hosts = {f"{host}:{port}" for host in (_HOST, "localhost")}
        self._origins = {f"http://{h}:{p}" for h in (_HOST, "localhost") for p in node_ports}
        self._connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        if self._connections >= _CONNECTIONS_MAX:
            return  # serve_listeners closes it
        self._connections += 1
        try:
            with contextlib.suppress(trio.BrokenResourceError):  # the client has gone
                await self._serve_one(stream)
        finally:
            self._connections -= 1

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        import h11  # comes with the "web" extra, which only this command needs

        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_REQUEST_BYTES_MAX)
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        headers |= {"Connection": "close", "X-Content-Type-Options": "nosniff"}
        request = None
        try:
            with trio.fail_after(_REQUEST_S):
                request = await _read_request(http, stream)
            if request is None:
                return
            headers |= self._admit(request)
            path = request.target.decode("ascii").partition("?")[0]
            status, body = 200, await self._demo.answer(request.method.decode("ascii"), path)
        except _RefusedError as refused:
            status, body = refused.status, {"error": str(refused)}
            headers |= refused.headers
        except trio.TooSlowError:
            status, body = 408, {"error": f"no whole request within {_REQUEST_S:g} s"}
        except h11.RemoteProtocolError as error:
            status, body = error.error_status_hint, {"error": str(error)}
        if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        content = json.dumps(body).encode() + b"\n"
        headers["Content-Length"] = str(len(content))
        events: list[h11.Event] = [
            h11.Response(
                status_code=status,
                reason=HTTPStatus(status).phrase,
                headers=list(headers.items()),
            ),
            h11.Data(content),
            h11.EndOfMessage(),
        ]
        if request and request.method == b"HEAD":
            del events[1]
        with trio.move_on_after(_REQUEST_S):
            await stream.send_all(b"".join(http.send(event) or b"" for event in events))

    def _admit(self, request: h11.Request) -> dict[str, str]:
        """Return the headers that let the demo's own pages read the answer, or refuse."""
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise _RefusedError(403, "this Host is not the demo's control port")
        origins = [value.decode("latin-1") for name, value in request.headers if name == b"origin"]
        if not origins:
            return {}  # not a page: curl, or somebody who types the address
        if len(origins) != 1 or origins[0] not in self._origins:
            raise _RefusedError(403, "only the demo's own pages may use its control port")
        return {"Access-Control-Allow-Origin": origins[0], "Vary": "Origin"}


async def _read_request(http: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """Return a request whose body was read and dropped; None when the client closed early."""
    import h11

    request, body_bytes = None, 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(_REQUEST_BYTES_MAX))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body_bytes += len(event.data)
            if body_bytes > _REQUEST_BYTES_MAX:
                raise _RefusedError(413, "no body is needed")
        else:
            return request if isinstance(event, h11.EndOfMessage) else None


@contextlib.contextmanager
def _node_ports_held(nodes: int, base_port: int) -> Iterator[list[int]]:
    """Bind all ports of the nodes, to know that they are free; released at the end.

    Raises:
        ConfigError: A port is in use, or there is no such port.
    """
    if base_port + nodes - 1 > 65535:
        raise ConfigError(f"{nodes} ports from {base_port} on end after 65535", key="--base-port")
    with contextlib.ExitStack() as held:
        ports = []
        for index in range(nodes):
            port = base_port and base_port + index
            with _naming_port(port, f"of node-{index + 1}", "--base-port"):
                probe = held.enter_context(socket.socket())
                if os.name == "posix":  # as the node's server: old connections don't count
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((_HOST, port))
                probe.listen(1)
                ports.append(probe.getsockname()[1])
        yield ports


@contextlib.contextmanager
def _naming_port(port: int, purpose: str, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        message = f"port {port} {purpose} can't be used on {_HOST}: {why}. Choose another"
        raise ConfigError(f"{message} with {option}", key=option) from error


def _free_udp_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _introduction(specs: list[NodeSpec]) -> str:
    control, name = specs[0].control_url, specs[0].name
    nodes = "\n".join(f"  {spec.name:<9}{spec.url}/" for spec in specs)
    return f"""
Tribes for Python: {"one node" if len(specs) == 1 else f"{len(specs)} nodes"}, one web session

{nodes}
  control  {control}/

Open a node, add a few, kill it, open another one: the session stays.
The pages have buttons for it; so has the control port:

  kill -9  curl -X POST {control}/kill/{name}
  start    curl -X POST {control}/start/{name}
  leave    curl -X POST {control}/stop/{name}

Ctrl-C ends the demo.
"""


def _write_stdout(text: str) -> None:
    # Not print(): a thread that is stuck in it would hold the lock of sys.stdout, and Python's
    # own exit waits for that lock.
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # captured by a test
        sys.stdout.write(text)
        return
    data = memoryview(text.encode(sys.stdout.encoding, "replace"))
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program on this terminal left it in that mode
            time.sleep(0.05)


async def run_demo(
    *,
    nodes: int = 3,
    base_port: int = 8080,
    control_port: int = 0,
    multicast_port: int = 0,
    command: Callable[[NodeSpec], list[str]] = node_command,
    write: Callable[[str], object] = _write_stdout,
    task_status: trio.TaskStatus[Demo] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the demo until SIGINT or SIGTERM; needs the main thread. Cancelling it is safe.

    All node processes have ended and are reaped when it returns, and when it raises.

    Args:
        nodes: How many, 1 to 16.
        base_port: The first node's port, the others follow; 0 = any free ones.
        control_port: The control port; 0 = any free one.
        multicast_port: The UDP port on which the nodes find each other; 0 = choose one, so that
            two demos on one machine don't meet.
        command: Makes the command line of a node.
        write: Gets the text to show, in a thread; may block.
        task_status: Reports the demo when the control port listens and all processes were
            started; they aren't ready yet.

    Raises:
        ConfigError: A port can't be used. No process was started.
    """
    with (
        _node_ports_held(nodes, base_port) as ports,
        _naming_port(control_port, "of the control port", "--control-port"),
    ):
        [listener] = await trio.open_tcp_listeners(control_port, host=_HOST)
    async with listener:
        names = [f"node-{index + 1}" for index in range(nodes)]
        peers = {name: f"http://{_HOST}:{port}" for name, port in zip(names, ports, strict=True)}
        control_port = listener.socket.getsockname()[1]
        multicast_port = multicast_port or _free_udp_port()
        control_url = f"http://{_HOST}:{control_port}"
        specs = [
            NodeSpec(name, port, multicast_port, control_url, peers)
            for name, port in zip(names, ports, strict=True)
        ]
        with trio.open_signal_receiver(*_signals_that_end()) as signals:
            await _run_nodes(specs, command, _Screen(write), listener, signals, task_status)


async def _run_nodes(
    specs: list[NodeSpec],
    command: Callable[[NodeSpec], list[str]],
    screen: _Screen,
    listener: trio.SocketListener,
    signals: AsyncIterator[int],
    task_status: trio.TaskStatus[Demo],
) -> None:
    # The nurseries end from the inside out: first the processes, then the readers of their
    # output, then the screen and the signals, which the others need to the last.
    async with trio.open_nursery() as around:
        around.start_soon(screen.run)
        async with trio.open_nursery() as outputs:
            async with trio.open_nursery() as lives:
                cluster = Demo(specs, command, screen, lives, outputs)
                around.start_soon(cluster.obey_signals, signals)
                screen.line(_introduction(specs))
                port: int = listener.socket.getsockname()[1]
                control = _Control(cluster, port, [spec.http_port for spec in specs])
                lives.start_soon(trio.serve_listeners, control.serve, [listener])
                for spec in specs:
                    await cluster.start(spec.name)
                task_status.started(cluster)
            outputs.cancel_scope.deadline = trio.current_time() + _FLUSH_S
        screen.line("All nodes have ended.")
        with trio.move_on_after(_FLUSH_S):
            await screen.flush()
        around.cancel_scope.cancel()


def _signals_that_end() -> list[signal.Signals]:
    wanted = [signal.SIGINT, signal.SIGTERM]
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        wanted.append(signal.SIGHUP)
    return wanted


@click.command("demo")
@click.option("--nodes", type=click.IntRange(1, _NODES_MAX), default=3, show_default=True)
@click.option(
    "--base-port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of the first node; the others follow. 0 = any free ones.",
)
@click.option(
    "--control-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port that kills and starts nodes. 0 (the default) = any free one.",
)
@click.option(
    "--multicast-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="UDP port for the nodes to find each other. 0 (the default) = choose one.",
)
def demo(nodes: int, base_port: int, control_port: int, multicast_port: int) -> None:
    """Run a small cluster on this machine: kill a node and watch the session stay."""
    if not all(find_spec(name) for name in ("h11", "starlette", "uvicorn")):
        raise click.ClickException("the demo needs the web extra: pip install 'tribes[web]'")
    run = partial(
        run_demo,
        nodes=nodes,
        base_port=base_port,
        control_port=control_port,
        multicast_port=multicast_port,
        command=node_command,
    )
    try:
        trio.run(run)
    except ConfigError as error:
        raise click.ClickException(error.message) from error


def _parse_peers(_context: click.Context, _option: click.Parameter, text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name and url.startswith("http://") for name, _, url in pairs):
        raise click.BadParameter("write name=http://host:port, with commas between")
    return {name: url for name, _, url in pairs}


@click.command("demo-node", hidden=True)
@click.option("--name", required=True)
@click.option("--http-port", type=click.IntRange(1, 65535), required=True)
@click.option("--multicast-port", type=click.IntRange(1, 65535), required=True)
@click.option("--control-url", required=True)
@click.option("--peers", callback=_parse_peers, required=True)
def demo_node(
    name: str, http_port: int, multicast_port: int, control_url: str, peers: dict[str, str]
) -> None:
    """Run one node of the demo. ``tribes demo`` starts it and holds its stdin."""
    follow_parent()
    from .demo_node import run_node

    run_node(name, http_port, multicast_port, control_url, peers)


def follow_parent() -> None:
    """Live as long as the parent: not ended by Ctrl-C, asked to leave when stdin ends.

    SIGTERM raises SystemExit in the main thread, or does what a server that handles it does.
    A process that hasn't left 5 s after the end of its stdin is ended hard.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if os.name == "posix":
        # uvicorn puts its own handler in place of "ignore". A blocked signal never gets there.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_await_stdin_end, name="stdin", daemon=True).start()


def _await_stdin_end() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    # Whoever read our output has gone too; writing to it must not disturb the leaving.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if os.name == "posix":  # to the main thread, so that it wakes from a system call
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LEAVE_S)
    os._exit(1)
