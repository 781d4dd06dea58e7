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
watch, begin, worked = Stopwatch(), time.monotonic(), time.process_time()
print("ready", flush=True)
sys.stdin.readline()
{}
print(watch.seconds, time.monotonic() - begin, time.process_time() - worked, flush=True)
"""


def measured(code: str, stopped_s: float = 0) -> tuple[float, float, float]:
    """Seconds by the stopwatch, by the clock, and of work, of a process that is perhaps stopped for
    a while meanwhile.
    """
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
        watch, clock, worked = map(float, process.stdout.readline().split())
        return watch, clock, worked


def test_a_process_that_is_stopped_loses_no_time() -> None:
    """As when a busy machine gives the processor to others."""
    watch, clock, _ = measured("pass", stopped_s=1.0)
    assert clock >= 1.0
    assert watch < 0.5


def test_waiting_counts() -> None:
    """Or a limit could not fail: a time-out, a lock and a socket are waited for without work."""
    watch, clock, _ = measured("time.sleep(0.6)")
    assert clock >= 0.6
    # The machine may stand still while it sleeps, though hardly for most of the time.
    assert watch > 0.2


def test_work_counts_although_it_lets_no_other_thread_run() -> None:
    """One long step of C: as a slow computation under test may be."""
    watch, _, worked = measured("sum(range(30_000_000))")
    assert worked > 0.1
    assert watch > worked * 0.9
