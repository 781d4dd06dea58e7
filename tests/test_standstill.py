"""The stopwatch of tests on real clocks: it leaves out standstill, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

PROGRAM = """
import sys, time
from tests.standstill import Stopwatch
watch, begin = Stopwatch(), time.monotonic()
print("ready", flush=True)
sys.stdin.readline()
{}
print(watch.seconds, time.monotonic() - begin, flush=True)
"""


def measured(code: str, stopped_s: float = 0) -> tuple[float, float]:
    """What the stopwatch and the clock say of a process that is stopped for a while meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if stopped_s:
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(stopped_s)
            os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.close()
        watch, clock = map(float, process.stdout.readline().split())
        return watch, clock


def test_a_process_that_is_stopped_loses_no_time() -> None:
    """As when a busy machine gives the processor to others."""
    watch, clock = measured("pass", stopped_s=1.0)
    assert clock >= 1.0
    assert watch < 0.5


def test_waiting_counts() -> None:
    """Or a limit could not fail: a time-out, a lock and a socket are waited for without work."""
    watch, clock = measured("time.sleep(0.6)")
    assert clock >= 0.6
    # The machine may stand still while it sleeps, though hardly for most of the time.
    assert watch > 0.2
