"""What the flight recorder costs: processor time per session update, with and without it.

Two members in one process, the recording one commits, the other applies. Rounds in turns; the ratio
of each pair, and their median. Run: ``python bench/recorder.py [UPDATES] [ROUNDS] [SESSIONS]``.
"""

from __future__ import annotations

import argparse
import logging
import socket
import statistics
import tempfile
import time

import structlog
import trio
import trio.lowlevel

from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.config.recorder import RecorderConfig
from tribes.runtime.group_channel import GroupChannel

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("updates", nargs="?", type=int, default=20_000)
parser.add_argument("rounds", nargs="?", type=int, default=5)
parser.add_argument("sessions", nargs="?", type=int, default=1_000)
ARGUMENTS = parser.parse_args()
SESSIONS = ARGUMENTS.sessions
WARM = max(2_000, SESSIONS)


def config(name: str, port: int, recorder: RecorderConfig | None = None) -> NodeConfig:
    return NodeConfig(
        name=name,
        contexts=("shop",),
        recorder=recorder,
        channel=ChannelConfig(
            membership=MembershipConfig(port=port), receiver=ReceiverConfig(port=0)
        ),
    )


async def measure(updates: int, recorder: RecorderConfig | None) -> tuple[float, float]:
    """Microseconds of processor time per update, and milliseconds of the last state noted."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with (
        GroupChannel(config("a", port, recorder)) as a,
        GroupChannel(config("b", port)) as b,
    ):
        while not (a.members and b.members and a.is_ready and b.is_ready):  # noqa: ASYNC110
            await trio.sleep(0.02)
        here, there = a.manager("shop"), b.manager("shop")
        sessions = [here.create() for _ in range(SESSIONS)]
        value = "x" * 1000

        async def run(count: int) -> None:
            for number in range(count):
                session = sessions[number % SESSIONS]
                session["value"] = value + str(number)
                here.commit(session)
                if number % 16 == 15:
                    await trio.lowlevel.checkpoint()
            last = sessions[(count - 1) % SESSIONS]
            while True:
                found = there.find(last.id)
                if found is not None and found.get("value") == value + str(count - 1):
                    return
                await trio.sleep(0.001)

        await run(WARM)
        begin = time.process_time()
        await run(updates)
        spent = time.process_time() - begin
        noted = 0.0
        if a.sessions.recorder is not None:
            begin = time.perf_counter()
            a.sessions.recorder.ring.mark()
            noted = time.perf_counter() - begin
        return spent / updates * 1e6, noted * 1e3


def main() -> None:
    updates, rounds = ARGUMENTS.updates, ARGUMENTS.rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ratios, plain, marks = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        recorder = RecorderConfig(directory=directory, seconds=10)
        for _ in range(rounds):
            off, _ = trio.run(measure, updates, None)
            on, noted = trio.run(measure, updates, recorder)
            ratios.append(on / off)
            plain.append(off)
            marks.append(noted)
            print(f"off {off:6.1f} us  on {on:6.1f} us  ratio {on / off:.3f}  state {noted:.1f} ms")
    print(
        f"median: off {statistics.median(plain):.1f} us, ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), state of {SESSIONS} sessions "
        f"{statistics.median(marks):.1f} ms"
    )


main()
