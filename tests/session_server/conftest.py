"""Servers for the tests of this folder: three memcached and a Redis, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.caches import CacheServer, cache_servers
from tests.session_server.site import Site, site_on

if TYPE_CHECKING:
    from tests.conftest import Needs


@pytest.fixture(scope="module")
def memcached_servers(needs: Needs) -> Iterator[list[CacheServer]]:
    with cache_servers("memcached", 3, needs) as servers:
        yield servers


@pytest.fixture(scope="module")
def redis_servers(needs: Needs) -> Iterator[list[CacheServer]]:
    with cache_servers("redis", 1, needs) as servers:
        yield servers


@pytest.fixture
def three(memcached_servers: list[CacheServer]) -> list[CacheServer]:
    """n1, n2 and n3, running and empty."""
    for server in memcached_servers:
        server.reset()
    return memcached_servers


@pytest.fixture
def n(three: list[CacheServer]) -> dict[str, CacheServer]:
    """The servers by name."""
    return {f"n{number}": server for number, server in enumerate(three, 1)}


def node_list(servers: dict[str, CacheServer]) -> str:
    """As ``memcachedNodes``."""
    return ",".join(f"{name}:{server.address}" for name, server in servers.items())


@pytest.fixture
def two_nodes(n: dict[str, CacheServer]) -> str:
    return node_list({name: n[name] for name in ("n1", "n2")})


@pytest.fixture
def three_nodes(n: dict[str, CacheServer]) -> str:
    return node_list(n)


@pytest.fixture
def two(two_nodes: str) -> Iterator[Site]:
    """Instances on two memcached nodes."""
    with site_on(two_nodes) as site:
        yield site


@pytest.fixture
def many(three_nodes: str) -> Iterator[Site]:
    """Instances on three memcached nodes."""
    with site_on(three_nodes) as site:
        yield site


@dataclass
class Backend:
    """Servers of one kind, and instances on them."""

    kind: str
    servers: list[CacheServer]
    site: Site

    def instance(self, **settings: Any) -> Any:
        return self.site.instance(**settings)

    def ttls(self, key: str) -> list[int]:
        """Seconds that the copies of a key live."""
        return [ttl for server in self.servers if (ttl := server.ttl(key)) is not None]


@pytest.fixture(params=["memcached", "redis"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each kind of server: two memcached nodes, or a Redis."""
    if request.param == "memcached":
        servers = request.getfixturevalue("three")[:2]
        nodes = ",".join(f"n{number}:{s.address}" for number, s in enumerate(servers, 1))
    else:
        servers = request.getfixturevalue("redis_servers")
        servers[0].reset()
        nodes = f"redis://{servers[0].address}"
    with site_on(nodes) as site:
        yield Backend(request.param, servers, site)
