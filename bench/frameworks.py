"""What a request's session costs: ``python -m bench.frameworks REDIS-PORT MEMCACHED-PORT``.

The commands time Flask requests that load a session, change one attribute of it and save it, less
the same request without one; and Django's session objects by themselves. Ports of 0 are not used.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import django
import redis
import structlog
from django.conf import settings
from pymemcache.client.base import Client

from bench import workload
from bench.flask_app import application
from bench.workload import text
from tribes import BackgroundNode, ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.web.flask import TribesSessions


class Commands:
    """One measurement for each kind of sessions."""

    def __init__(self, redis_port: int, memcached_port: int) -> None:
        self._redis, self._memcached = redis_port, memcached_port
        self._node: BackgroundNode | None = None
        self._made: dict[str, Callable[[], None]] = {}

    def _interface(self) -> TribesSessions:
        if self._node is None:
            group = MembershipConfig(multicast=False)
            channel = ChannelConfig(membership=group, receiver=ReceiverConfig(port=0))
            self._node = BackgroundNode(NodeConfig(contexts=("bench",), channel=channel))
        return TribesSessions(self._node)

    def _application(self, kind: str, size: int) -> Callable[[], None]:
        turns = iter(range(1 << 60))

        def change(session: MutableMapping[str, Any]) -> None:
            session["a"] = text(size, next(turns))

        if kind == "ours":
            return application(change, self._interface())
        if kind == "redis":
            server = redis.Redis(port=self._redis, protocol=2)
            return application(change, SESSION_TYPE="redis", SESSION_REDIS=server)
        if kind == "memcached":
            cache = Client(("127.0.0.1", self._memcached), no_delay=True)
            return application(change, SESSION_TYPE="memcached", SESSION_MEMCACHED=cache)
        return application(change)

    def flask(self, kind: str, count: str, size: str) -> dict[str, Any]:
        """Microseconds over a request without a session; the two take turns."""
        for name in ("none", kind):
            if name not in self._made:
                self._made[name] = self._application(name, int(size))
        taken: dict[str, list[float]] = {"none": [], kind: []}
        for _ in range(int(count)):
            for name, found in taken.items():
                begin = time.perf_counter()
                self._made[name]()
                found.append(time.perf_counter() - begin)
        base, whole = (statistics.median(taken[name]) * 1e6 for name in ("none", kind))
        return {"n": int(count), "p50": whole - base, "p99": 0.0, "base": base}

    def django(self, count: str, size: str) -> dict[str, Any]:
        """Load, change and save a session on Redis."""
        from django.contrib.sessions.backends.cache import SessionStore

        made = SessionStore()
        made["a"] = ""
        made.save()
        key = made.session_key

        def change(turn: int) -> None:
            found = SessionStore(key)
            found["a"] = text(int(size), turn)
            found.save()

        return workload.requests_timed(int(count), change)

    def close(self) -> None:
        """Leave the group."""
        if self._node is not None:
            self._node.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("redis", type=int)
    parser.add_argument("memcached", type=int)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    backend = "django.core.cache.backends.redis.RedisCache"
    place = f"redis://127.0.0.1:{arguments.redis}"
    settings.configure(CACHES={"default": {"BACKEND": backend, "LOCATION": place}})
    django.setup()
    commands = Commands(arguments.redis, arguments.memcached)
    try:
        workload.serve({"flask": commands.flask, "django": commands.django})
    finally:
        commands.close()


if __name__ == "__main__":
    main()
