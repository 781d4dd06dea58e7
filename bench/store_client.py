"""What uses a Redis or memcached server as sessions do: ``python -m bench.store_client KIND PORT``.

A session is one key. ``latency`` and ``update`` write its value; ``request`` loads and writes it,
as a library for sessions does once a request.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Protocol

import redis
from pymemcache.client.base import Client

from bench import workload
from bench.workload import DIGITS, MANY, text

LIFE_S = 36_000


class Store(Protocol):
    """What both clients can do."""

    def save(self, key: str, value: str) -> None: ...

    def save_later(self, key: str, value: str) -> None:
        """Without waiting for the answer, where that can be had."""
        ...

    def load(self, key: str) -> bytes: ...

    def used(self) -> int:
        """Bytes of memory that the server uses for items."""
        ...

    def traffic(self) -> int:
        """Bytes that came in and went out, so far."""
        ...


class OnRedis:
    def __init__(self, port: int) -> None:
        self._client = redis.Redis(port=port, protocol=2)

    def save(self, key: str, value: str) -> None:
        self._client.setex(key, LIFE_S, value)

    def save_later(self, key: str, value: str) -> None:
        raise NotImplementedError("its client reads an answer to each command")

    def load(self, key: str) -> bytes:
        found: Any = self._client.get(key)
        return bytes(found)

    def used(self) -> int:
        info: Any = self._client.info("memory")
        return int(info["used_memory"])

    def traffic(self) -> int:
        info: Any = self._client.info("stats")
        return int(info["total_net_input_bytes"]) + int(info["total_net_output_bytes"])


class OnMemcached:
    def __init__(self, port: int) -> None:
        self._client = Client(("127.0.0.1", port), no_delay=True)

    def save(self, key: str, value: str) -> None:
        self._client.set(key, value.encode(), expire=LIFE_S, noreply=False)

    def save_later(self, key: str, value: str) -> None:
        self._client.set(key, value.encode(), expire=LIFE_S, noreply=True)

    def load(self, key: str) -> bytes:
        found: Any = self._client.get(key)
        return bytes(found)

    def used(self) -> int:
        return int(self._client.stats()[b"bytes"])

    def traffic(self) -> int:
        stats = self._client.stats()
        return int(stats[b"bytes_read"]) + int(stats[b"bytes_written"])


KINDS: dict[str, Callable[[int], Store]] = {"redis": OnRedis, "memcached": OnMemcached}


class Commands:
    """One client for each thread, as a server's workers have."""

    def __init__(self, kind: str, port: int) -> None:
        self._kind, self._port = KINDS[kind], port
        self._clients: list[Store] = []

    def _client(self, index: int = 0) -> Store:
        while len(self._clients) <= index:
            self._clients.append(self._kind(self._port))
        return self._clients[index]

    def latency(self, how: str, size: str, options: str, seconds: str) -> dict[str, Any]:
        client, value = self._client(), text(int(size), 0)
        return workload.each_timed(float(seconds), lambda: client.save("s0", value))

    def update(self, how: str, senders: str, size: str, seconds: str) -> dict[str, Any]:
        """Of HOW ``later`` nobody waits for an answer but once, in the end."""
        count, length, is_later = int(senders), int(size), how == "later"
        clients = [self._client(index) for index in range(count)]
        saves = [client.save_later if is_later else client.save for client in clients]

        def change(index: int, turn: int) -> None:
            saves[index](f"s{(index + turn * count) % MANY}", text(length, turn))

        begin = time.perf_counter()
        found = workload.rated(float(seconds), count, change)
        for client in clients:
            client.load("s0")
        return found | {"seconds": time.perf_counter() - begin}

    def request(self, count: str, size: str) -> dict[str, Any]:
        client, length = self._client(), int(size)
        for number in range(MANY):
            client.save(f"s{number}", text(length, number))

        def change(turn: int) -> None:
            key = f"s{turn % MANY}"
            assert len(client.load(key)) == length
            client.save(key, text(length, turn))

        return workload.requests_timed(int(count), change)

    def sessions(self, count: str, size: str, attributes: str) -> dict[str, Any]:
        client = self._client()
        before = client.used()
        for number in range(int(count)):
            client.save(f"{number:032X}", text(int(size), number))
        return {"bytes": (client.used() - before) / int(count)}

    def bytes(self, batch: str, size: str) -> dict[str, Any]:
        """Of one update; asking for the counters takes bytes too, which are taken off."""
        client, count = self._client(), int(batch) * 20
        client.traffic()
        idle = -client.traffic() + client.traffic()
        before = client.traffic()
        for number in range(count):
            client.save(f"{number % 32:032X}", text(max(DIGITS, int(size)), number))
        return {"bytes": (client.traffic() - before - idle) / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    commands = Commands(arguments.kind, arguments.port)
    names = ("latency", "update", "request", "sessions", "bytes")
    workload.serve({name: getattr(commands, name) for name in names})


if __name__ == "__main__":
    main()
