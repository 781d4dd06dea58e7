"""What each interceptor costs: processor time per message, sent and received, at two sizes.

    python bench/interceptors.py

No network: a message goes down one chain to a scripted wire and up another one. The empty chain's
time is taken off, so a row is what the interceptor adds. Sending is to one member; half of each
message is random and half repeats, as sessions are, about.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.channel.tickets import Outgoing, Ticket
from tribes.interceptors import (
    DomainFilterInterceptor,
    EncryptInterceptor,
    FragmentationInterceptor,
    GzipInterceptor,
    MessageDispatchInterceptor,
    NonBlockingCoordinator,
    OrderInterceptor,
    SimpleCoordinator,
    StaticMembershipInterceptor,
    TcpFailureDetector,
    TcpPingInterceptor,
    ThroughputInterceptor,
    TwoPhaseCommitInterceptor,
)
from tribes.testing.stage import Stage, stage_member
from tribes.wire.data import ChannelData

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor

RUNS = 7
RUN_S = 0.05
SIZES = (1024, 100 * 1024)
KEY = "ab" * 32

SOURCE, TARGET = stage_member(0), stage_member(1)

STACKS: dict[str, Callable[[], list[Interceptor]]] = {
    "(none)": list,
    "MessageDispatchInterceptor": lambda: [MessageDispatchInterceptor()],
    "TcpFailureDetector": lambda: [TcpFailureDetector()],
    "DomainFilterInterceptor": lambda: [DomainFilterInterceptor()],
    "ThroughputInterceptor": lambda: [ThroughputInterceptor()],
    "OrderInterceptor": lambda: [OrderInterceptor()],
    "FragmentationInterceptor": lambda: [FragmentationInterceptor()],
    "FragmentationInterceptor, max_size 10 KiB": lambda: [
        FragmentationInterceptor(max_size=10 * 1024)
    ],
    "TwoPhaseCommitInterceptor": lambda: [TwoPhaseCommitInterceptor()],
    "EncryptInterceptor, GCM": lambda: [EncryptInterceptor(encryption_key=KEY)],
    "EncryptInterceptor, CBC": lambda: [
        EncryptInterceptor(encryption_key=KEY, encryption_algorithm="AES/CBC/PKCS5Padding")
    ],
    "GzipInterceptor": lambda: [GzipInterceptor()],
    "StaticMembershipInterceptor": lambda: [StaticMembershipInterceptor(members=())],
    "TcpPingInterceptor": lambda: [TcpPingInterceptor()],
    "NonBlockingCoordinator": lambda: [NonBlockingCoordinator()],
    "SimpleCoordinator": lambda: [SimpleCoordinator()],
    "Gzip, Encrypt, Fragmentation, Order": lambda: [
        GzipInterceptor(),
        EncryptInterceptor(encryption_key=KEY),
        FragmentationInterceptor(),
        OrderInterceptor(),
    ],
}


class Wire(Stage):
    """Random bytes and a clock of the system's, which the real node has too."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)


def message_of(size: int) -> bytes:
    """Half of it random, half not."""
    part = os.urandom(32) + b"attribute=value;" * 2
    return (part * (size // len(part) + 1))[: size // 2] + os.urandom(size - size // 2)


def measure(make: Callable[[], list[Interceptor]], message: bytes) -> tuple[float, float]:
    """Seconds of processor time to send and to receive one message, of one run."""
    sender, receiver = Wire(*make()), Wire(*make(), local=TARGET)
    sender.start()
    receiver.start()
    count, sent_s, received_s = 0, 0.0, 0.0
    while sent_s + received_s < RUN_S:
        batch = [
            ChannelData(9, sender.wall_ms(), os.urandom(16), SOURCE, message)
            for _ in range(max(1, 200_000 // len(message)))
        ]
        begin = time.process_time()
        for data in batch:
            sender.chain.send(Outgoing(data, (TARGET,), Ticket((TARGET,))), 0.0)
        middle = time.process_time()
        for sent in sender.sent:
            receiver.chain.receive(sent.data, 0.0)
        received_s += time.process_time() - middle
        sent_s += middle - begin
        count += len(batch)
        assert len(receiver.got) == len(batch)
        assert receiver.got[-1].message == message
        sender.sent.clear()
        receiver.got.clear()
    return sent_s / count, received_s / count


def main() -> None:
    """Print the table."""
    print(f"CPython {platform.python_version()}, load average {os.getloadavg()[0]:.1f} before")
    print(f"µs of processor time per message, median of {RUNS} interleaved runs (lowest)")
    results: dict[tuple[str, int], list[tuple[float, float]]] = {}
    messages = {size: message_of(size) for size in SIZES}
    for _ in range(RUNS):
        for name, make in STACKS.items():
            for size in SIZES:
                results.setdefault((name, size), []).append(measure(make, messages[size]))
    heads = [f"{way} {size // 1024} KiB" for size in SIZES for way in ("send", "receive")]
    print(f"{'':44}" + "".join(f"{head:>20}" for head in heads))
    for name in STACKS:
        cells = []
        for size in SIZES:
            for way in (0, 1):
                base = statistics.median(each[way] for each in results["(none)", size])
                base = 0.0 if name == "(none)" else base
                times = sorted((each[way] - base) * 1e6 for each in results[name, size])
                cells.append(f"{statistics.median(times):.1f} ({times[0]:.1f})")
        print(f"{name:44}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"load average {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    main()
