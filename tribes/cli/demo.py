"""``tribes demo`` and ``tribes demo-node``: the two commands of the demo.

The first runs in the terminal (``demo_parent.py`` has its promises), the second once per node.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import sys
import threading
import time
from functools import partial
from importlib.util import find_spec
from typing import Final

import click
import trio

from tribes.errors import ConfigError

from .demo_nodes import Demo, NodeSpec
from .demo_parent import run_demo

__all__ = ["Demo", "NodeSpec", "demo", "demo_node", "follow_parent", "node_command", "run_demo"]

_NODES_MAX: Final = 16
_LEAVE_S: Final = 5.0  # from the end of stdin to the hard end


def node_command(spec: NodeSpec) -> list[str]:
    """Return the command that runs a node: this Python, the hidden command ``demo-node``."""
    command = [sys.executable, "-m", "tribes", "demo-node", "--name", spec.name]
    command += ["--http-port", str(spec.http_port), "--control-url", spec.control_url]
    command += ["--multicast-port", str(spec.multicast_port)]
    return [*command, "--peers", ",".join(f"{name}={url}" for name, url in spec.peers.items())]


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
    """Run a small cluster on this machine: kill a node and watch the session stay.

    Exit codes: 0: it was ended; 1: it could not start, or came to an end; 2: wrong command line.
    """
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


def _parse_address(_context: click.Context, _option: click.Parameter, text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise click.BadParameter("write an IPv4 address") from None


@click.command("demo-node", hidden=True)
@click.option("--name", required=True)
@click.option("--http-port", type=click.IntRange(1, 65535), required=True)
@click.option("--multicast-port", type=click.IntRange(1, 65535), required=True)
@click.option("--control-url", required=True)
@click.option("--peers", callback=_parse_peers, required=True)
@click.option("--address", callback=_parse_address, default="127.0.0.1")
def demo_node(
    name: str,
    http_port: int,
    multicast_port: int,
    control_url: str,
    peers: dict[str, str],
    address: str,
) -> None:
    """Run one node of the demo. ``tribes demo`` starts it and holds its stdin."""
    follow_parent()
    from .demo_node import run_node

    run_node(name, http_port, multicast_port, control_url, peers, address)


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
