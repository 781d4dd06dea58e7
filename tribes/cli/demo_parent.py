"""``run_demo``: several node processes on this machine, and a port to kill and start them.

The promise is that **Ctrl-C ends all processes, always**. It is kept three times over:

1. Each process belongs to one task. Whatever ends the task (Ctrl-C, an error anywhere) runs its
   shielded clean-up: SIGTERM, up to 5 s, SIGKILL, reap. A second Ctrl-C skips the waiting.
2. Each process has a pipe from here as its stdin and ends when it reads end-of-file. The kernel
   closes the pipe with this process, so even ``kill -9`` of the parent ends the nodes.
3. The nodes don't get a terminal's Ctrl-C, so none of them ends before the parent decides.

Nodes are never blocked by a slow terminal: their output is always read, put in a bounded queue,
and written by a thread; when the queue is full lines are dropped and counted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import trio

from tribes.errors import ConfigError

from .demo_nodes import HOST, Demo, NodeSpec
from .demo_screen import Screen, write_stdout

__all__ = ["run_demo"]

_FLUSH_S: Final = 1.0  # for the last lines, when all processes are gone


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
                probe.bind((HOST, port))
                probe.listen(1)
                ports.append(probe.getsockname()[1])
        yield ports


@contextlib.contextmanager
def _naming_port(port: int, purpose: str, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        message = f"port {port} {purpose} can't be used on {HOST}: {why}. Choose another"
        raise ConfigError(f"{message} with {option}", key=option) from error


def _free_udp_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
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


async def run_demo(
    *,
    nodes: int = 3,
    base_port: int = 8080,
    control_port: int = 0,
    multicast_port: int = 0,
    command: Callable[[NodeSpec], list[str]],
    write: Callable[[str], object] = write_stdout,
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
        [listener] = await trio.open_tcp_listeners(control_port, host=HOST)
    async with listener:
        names = [f"node-{index + 1}" for index in range(nodes)]
        peers = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports, strict=True)}
        control_port = listener.socket.getsockname()[1]
        multicast_port = multicast_port or _free_udp_port()
        control_url = f"http://{HOST}:{control_port}"
        specs = [
            NodeSpec(name, port, multicast_port, control_url, peers)
            for name, port in zip(names, ports, strict=True)
        ]
        with trio.open_signal_receiver(*_signals_that_end()) as signals:
            await _run_nodes(specs, command, Screen(write), listener, signals, task_status)


async def _run_nodes(
    specs: list[NodeSpec],
    command: Callable[[NodeSpec], list[str]],
    screen: Screen,
    listener: trio.SocketListener,
    signals: AsyncIterator[int],
    task_status: trio.TaskStatus[Demo],
) -> None:
    from .demo_control import Control  # needs h11, which comes with the "web" extra

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
                control = Control(cluster, port, [spec.http_port for spec in specs])
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
