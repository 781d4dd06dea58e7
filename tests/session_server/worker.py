"""Processes that die right after an answer. Run: `worker.py nodes rounds`; prints what was lost.

A process without threads forks a child for each round.  The child serves one request in a process
of its own, tells that it has answered, and is killed, or stopped as a server would be.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib import import_module

from tribes import LocalSessions, MemcachedConfig
from tribes.manager.memcached import MemcachedManager
from tribes.runtime.memcached import MemcachedService


def serve(config: MemcachedConfig, number: int, answer: int) -> None:
    """One request, its answer, and a wait for the end."""
    sessions = LocalSessions("shop", config)
    sessions.start()
    is_over = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    manager = sessions.manager("shop")
    assert isinstance(manager, MemcachedManager)
    assert isinstance(manager.service, MemcachedService)
    write = manager.service.write

    def write_late(key: str) -> None:
        # What is stored after the answer is not stored before the end.
        while not is_over:
            time.sleep(0.001)
        write(key)

    manager.service.write = write_late
    session = manager.create()
    session["n"] = number
    sessions.commit(session)
    os.write(answer, session.id.encode())
    while not is_over:
        time.sleep(0.001)
    sessions.stop()
    os._exit(0)


def run(config: MemcachedConfig, number: int, how: signal.Signals) -> str:
    """Return the id that the client got."""
    answer, answered = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer)
        try:
            serve(config, number, answered)
        finally:
            os._exit(1)
    os.close(answered)
    session_id = os.read(answer, 200).decode()
    os.kill(child, how)
    os.waitpid(child, 0)
    os.close(answer)
    return session_id


def lost(nodes: str, rounds: int, *, sticky: bool, is_async: bool, how: signal.Signals) -> int:
    """Count the sessions that nobody has afterwards."""
    config = MemcachedConfig(
        memcached_nodes=nodes,
        sticky=sticky,
        session_backup_async=is_async,
        session_backup_timeout=2000,
        backup_thread_count=2,
    )
    ids = [run(config, number, how) for number in range(rounds)]
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    # In a child again: this process must have no threads when it forks.
    sessions = LocalSessions("shop", config)
    sessions.start()
    manager = sessions.manager("shop")
    assert isinstance(manager, MemcachedManager)
    missing = 0
    for number, session_id in enumerate(ids):
        session = manager.find(session_id)
        missing += session is None or session.get("n") != number
    os._exit(min(missing, 255))


def main(nodes: str, rounds: int) -> None:
    # Once for all children.
    import_module("tribes.stores.redis" if "://" in nodes else "tribes.stores.memcached")
    for sticky, is_async, how in (
        (True, False, signal.SIGKILL),
        (False, False, signal.SIGKILL),
        (True, True, signal.SIGKILL),
        (True, False, signal.SIGTERM),
        (True, True, signal.SIGTERM),
    ):
        name = "-".join(
            (
                "async" if is_async else "sync",
                "sticky" if sticky else "roaming",
                "kill" if how == signal.SIGKILL else "term",
            )
        )
        # A stop takes its time, and what may be lost needs no long proof.
        times = rounds if how == signal.SIGKILL and not is_async else max(rounds // 4, 1)
        count = lost(nodes, times, sticky=sticky, is_async=is_async, how=how)
        print(name, count, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
