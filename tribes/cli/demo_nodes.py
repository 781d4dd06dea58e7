"""The demo's node processes, and what can be done with them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import structlog
import trio

if TYPE_CHECKING:
    from .demo_screen import Screen

__all__ = ["HOST", "Demo", "NodeSpec", "RefusedError"]

HOST: Final = "127.0.0.1"
_LEAVE_S: Final = 5.0  # from SIGTERM to SIGKILL; the order's number
_HEALTH_INTERVAL_S: Final = 0.1
_LINE_BYTES_MAX: Final = 4096

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
        return f"http://{HOST}:{self.http_port}"


class RefusedError(Exception):
    """The control port was asked for something that can't be done; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


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
        screen: Screen,
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
                raise RefusedError(409, f"{name} runs already, pid {node.process.pid}")
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
                raise RefusedError(409, f"{name} doesn't run")
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
            raise RefusedError(404, f"no such node; there are {', '.join(self._nodes)}")
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
            RefusedError: 404, 405 or 409, with a message.
        """
        match path.removeprefix("/").split("/"):
            case [""] | ["status"]:
                if method not in ("GET", "HEAD"):
                    raise RefusedError(405, "only GET here", Allow="GET")
                return self.status()
            case [("kill" | "start" | "stop") as action, name]:
                self._node(name)
                if method != "POST":
                    raise RefusedError(405, f"only POST can {action}", Allow="POST")
                actions = {"kill": self.kill, "start": self.start, "stop": self.stop}
                return await actions[action](name)
            case _:
                message = "there are /status, /kill/NAME, /start/NAME and /stop/NAME"
                raise RefusedError(404, message)


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
    request = f"GET /health HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    with trio.move_on_after(1), contextlib.suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(HOST, port) as stream:
            await stream.send_all(request.encode())
            return (await stream.receive_some(64)).startswith(b"HTTP/1.1 200")
    return False
