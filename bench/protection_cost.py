"""What a key and TLS cost the sender of a message, between two processes on loopback.

    python bench/protection_cost.py [--seconds 1] [--size 1024]

Microseconds of the sending process's processor time per message, which say more than the rate on a
machine that others use too. The groups are measured in turn, again and again; a figure is the
median of the runs, with the lowest and the highest. Compare figures of one call only.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import trio
import trustme

from tribes import ChannelConfig, GroupChannel, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.config.model import TlsConfig
from tribes.security.keys import GroupKey

RUNS = 7
KINDS = ("nothing", "key", "TLS", "key and TLS")
WHAT = (("acked, 8 senders", 6, 8), ("async, 1 sender", 8, 1))


def config(name: str, group_port: int, kind: str, folder: str) -> NodeConfig:
    files = (f"{folder}/member.pem", f"{folder}/ca.pem")
    return NodeConfig(
        name=name,
        channel=ChannelConfig(
            membership=MembershipConfig(port=group_port, frequency=100, drop_time=3000),
            receiver=ReceiverConfig(port=0),
            keys=GroupKey(1, bytes(32)).to_text() if "key" in kind else "",
            tls=TlsConfig(certificate=files[0], authorities=files[1]) if "TLS" in kind else None,
        ),
    )


async def peer(config: NodeConfig) -> None:
    """The other process: takes everything until its stdin ends."""
    async with GroupChannel(config) as channel:
        channel.add_message_listener(lambda message: None, inline=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def cost(
    channel: GroupChannel, seconds: float, message: bytes, options: int, tasks: int
) -> float:
    """Microseconds per message of so many tasks."""
    done = 0
    begin, spent = time.perf_counter(), time.process_time()

    async def loop() -> None:
        nonlocal done
        while time.perf_counter() < begin + seconds:
            for _ in range(50):
                await channel.send(message, options=options)
            done += 50

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(loop)
    # What was queued asynchronously counts when the other side has it.
    await channel.send(b"end", options=6)
    return (time.process_time() - spent) / done * 1e6


async def measure(configs: dict[str, NodeConfig], seconds: float, size: int) -> None:
    """Print the table."""
    found: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        channels = {
            kind: await stack.enter_async_context(GroupChannel(config))
            for kind, config in configs.items()
        }
        for channel in channels.values():
            while not channel.members:  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
        for _ in range(RUNS):
            for name, options, tasks in WHAT:
                for kind, channel in channels.items():
                    figure = await cost(channel, seconds, bytes(size), options, tasks)
                    found.setdefault((name, kind), []).append(figure)
    for (name, kind), values in sorted(found.items()):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:20} {kind:12} {middle:8,.1f} µs   ({low:,.1f} to {high:,.1f})")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--peer", nargs=3)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if arguments.peer:
        port, kind, folder = arguments.peer
        trio.run(peer, config("peer", int(port), kind, folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(f"{folder}/ca.pem")
        member = Path(folder, "member.pem")
        member.touch(0o600)
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(member))
        others, configs = [], {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            first = sock.getsockname()[1]
        for number, kind in enumerate(KINDS):
            port = 20000 + (first + number) % 40000
            configs[kind] = config("bench", port, kind, folder)
            command = [sys.executable, __file__, "--peer", str(port), kind, folder]
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        try:
            trio.run(measure, configs, arguments.seconds, arguments.size)
        finally:
            for other in others:
                other.stdin.close()  # type: ignore[union-attr]
                other.wait(10)


if __name__ == "__main__":
    main()
