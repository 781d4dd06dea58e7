"""What a commit costs the request's thread alone: find, read, change, commit; nobody drains.

python bench/commit_cost.py
"""

from __future__ import annotations

import os
import statistics
import threading
import time

from tribes.manager.base import SessionManager
from tribes.manager.clock import Clock
from tribes.manager.inbox import Inbox
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec

RUNS = 7
TURNS = 5000


def main() -> None:
    """Print best and median of several runs, in µs per commit."""
    inbox = Inbox(threading.Lock())
    clock = Clock(lambda: time.time_ns() // 1_000_000, 1, threading.Lock())
    manager = SessionManager(
        "bench",
        SessionTable(threading.Lock(), inbox),
        clock,
        inbox=inbox,
        codec=ValueCodec(),
        entropy=os.urandom,
        monotonic=time.monotonic,
    )
    session = manager.create()
    for name in "abcde":
        session[name] = "x" * 100
    manager.commit(session)
    costs = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        for turn in range(TURNS):
            found = manager.find(session.id)
            assert found is not None
            found["a"] = turn + found["b"].count("y")
            manager.commit(found)
        costs.append((time.perf_counter() - begin) / TURNS * 1e6)
        while inbox.take() is not None:
            pass
    print(f"commit of one of five attributes: {min(costs):.1f} us best", end=", ")
    print(f"{statistics.median(costs):.1f} us median of {RUNS} runs")


if __name__ == "__main__":
    main()
