"""Sessions on memcached and Redis: what a request pays, ours and Flask-Session's, in one run.

    python bench/session_servers.py            # needs flask-session, memcached, redis-server
    python bench/session_servers.py --crashes  # 1,000 processes killed right after their answers

Each row is a Flask request that loads a session of 2 kB, changes one attribute and saves it, less
the same request without a session. The kinds take turns, one request each, so a noisy moment hits
all of them. Servers are processes of their own on loopback; the client's process has one thread
that makes requests. `copies` says on how many servers the session is when the answer leaves.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, MutableMapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import redis
from pymemcache.client.base import Client

from bench import flask_app
from tests.servers.caches import CacheServer
from tests.session_server.worker import lost
from tribes import BackgroundNode, LocalSessions, MembershipConfig, MemcachedConfig, NodeConfig
from tribes.config.model import ChannelConfig
from tribes.web.flask import TribesSessions

ROUNDS = 3000
RUNS = 5
TEXT = "x" * 2000


def program(*programs: str) -> str:
    """Where a program is; the tests' fixture does the same."""
    return next(path for each in programs if (path := shutil.which(each)))


def change(session: MutableMapping[str, Any]) -> None:
    """What each request does."""
    session["text"] = session.get("text", TEXT)
    session["n"] = session.get("n", 0) + 1


application = partial(flask_app.application, change)


def sessions(nodes: str, **settings: Any) -> TribesSessions:
    """Ours."""
    return TribesSessions(
        LocalSessions("bench", MemcachedConfig(memcached_nodes=nodes, **settings))
    )


def measure(kinds: dict[str, Callable[[], None]]) -> None:
    """Print the median of each kind's requests, and its ratios."""
    medians: dict[str, list[float]] = {name: [] for name in kinds}
    p99: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(RUNS):
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS // RUNS):
            for name, request in kinds.items():
                began = time.perf_counter()
                request()
                seconds[name].append(time.perf_counter() - began)
        for name, found in seconds.items():
            medians[name].append(statistics.median(found))
            p99[name].append(sorted(found)[int(len(found) * 0.99)])
    base = statistics.median(medians.pop("no session"))
    print(f"no session: {base * 1e6:.0f} us per request")
    for name, found in medians.items():
        own = [(each - base) * 1e6 for each in found]
        print(
            f"{name}: {statistics.median(own):.0f} us more ({min(own):.0f} to {max(own):.0f}), "
            f"p99 of the whole request {statistics.median(p99[name]) * 1e6:.0f} us"
        )


def hung(servers: list[CacheServer]) -> None:
    """Print what requests take while one of two nodes hangs, from before it is noticed."""
    one, two = servers[:2]
    nodes = f"n1:{one.address},n2:{two.address}"
    ours = application(sessions(nodes, sticky=False))
    plain = application(
        SESSION_TYPE="memcached",
        SESSION_MEMCACHED=Client(("127.0.0.1", one.port), timeout=1, connect_timeout=1),
    )
    for _ in range(100):
        ours()
    one.hang()
    seconds = []
    for _ in range(1000):
        began = time.perf_counter()
        ours()
        seconds.append(time.perf_counter() - began)
    one.go_on()
    ordered = sorted(seconds)
    print(
        f"ours, not sticky, 2 copies, a node hangs: worst {ordered[-1] * 1e3:.0f} ms, p99 "
        f"{ordered[990] * 1e3:.2f} ms, median {ordered[500] * 1e3:.2f} ms"
    )
    one.hang()
    began = time.perf_counter()
    logging.disable()
    try:
        plain()
        told = "200"
    except AssertionError:
        told = "500"
    print(f"Flask-Session, its node hangs: {told} after {time.perf_counter() - began:.2f} s")
    one.go_on()


def crashes(nodes: str, label: str) -> None:
    """Kill a process right after each of 1,000 answers; 250 at a time, as an exit status counts."""
    for sticky in (True, False):
        count = sum(
            lost(nodes, 250, sticky=sticky, is_async=False, how=signal.SIGKILL) for _ in range(4)
        )
        print(f"{label}, {'sticky' if sticky else 'not sticky'}: {count} of 1000 lost", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--crashes", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        made = [CacheServer("memcached", program, Path(path)) for _ in range(2)]
        for server in made:
            server.quiet()
        store = CacheServer("redis", program, Path(path))
        servers = [*made, store]
        try:
            for server in servers:
                server.start()
            run(made, store, arguments)
        finally:
            for server in servers:
                server.kill()


def run(made: list[CacheServer], store: CacheServer, arguments: argparse.Namespace) -> None:
    """All that was asked for."""
    one, two = made
    nodes = f"n1:{one.address},n2:{two.address}"
    url = f"redis://{store.address}"
    if arguments.crashes:
        import_module("tribes.stores.memcached")  # once, for all children
        import_module("tribes.stores.redis")
        crashes(nodes, "memcached")
        crashes(url, "Redis")
        return
    group = NodeConfig(
        contexts=("bench",),
        channel=ChannelConfig(membership=MembershipConfig(multicast=False)),
    )
    measure(
        {
            "no session": application(),
            "Flask-Session, memcached, 1 copy": application(
                SESSION_TYPE="memcached",
                SESSION_MEMCACHED=Client(("127.0.0.1", one.port), no_delay=True),
            ),
            "ours, memcached, not sticky, 1 copy": application(sessions(one.address, sticky=False)),
            "ours, memcached, not sticky, 2 copies": application(sessions(nodes, sticky=False)),
            "ours, memcached, not sticky, 2 copies, locked": application(
                sessions(nodes, sticky=False, locking_mode="all")
            ),
            "ours, memcached, sticky, 1 copy": application(sessions(nodes)),
            "Flask-Session, Redis, 1 copy": application(
                SESSION_TYPE="redis",
                SESSION_REDIS=redis.Redis(port=store.port, protocol=2),
            ),
            "ours, Redis, not sticky, 1 copy": application(sessions(url, sticky=False)),
            "ours, Redis, sticky, 1 copy": application(sessions(url)),
            "ours, DeltaManager, a node alone": application(TribesSessions(BackgroundNode(group))),
        }
    )
    hung(made)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
