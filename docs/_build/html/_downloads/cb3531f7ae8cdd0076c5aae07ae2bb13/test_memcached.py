"""The Memcached manager's settings: grammar, what is refused, XML and TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from tribes import LocalSessions, MemcachedConfig
from tribes.config.load import read_config
from tribes.config.memcached import NodeSpec, check_memcached, parse_locking, parse_nodes
from tribes.errors import ConfigError
from tribes.manager.memcached import MemcachedManager

SEEDS = Path(__file__).parents[1] / "data" / "seeds-xml"


@pytest.mark.parametrize(
    ("nodes", "failover", "found"),
    [
        ("h:1", "", [NodeSpec("", "memcached", "h", 1)]),
        ("n1:h:1", "", [NodeSpec("n1", "memcached", "h", 1)]),
        (
            "n1:h:1,n2:192.168.1.2:11211",
            "n1",
            [
                NodeSpec("n1", "memcached", "h", 1, is_failover=True),
                NodeSpec("n2", "memcached", "192.168.1.2", 11211),
            ],
        ),
        (
            " n_1:a-b.c:1 \n n2:d:2 , n3:e:3 ",
            "n2 n3",
            [
                NodeSpec("n_1", "memcached", "a-b.c", 1),
                NodeSpec("n2", "memcached", "d", 2, is_failover=True),
                NodeSpec("n3", "memcached", "e", 3, is_failover=True),
            ],
        ),
        ("n1:/run/m.sock", "", [NodeSpec("n1", "memcached", "/run/m.sock", 0)]),
        ("/run/m.sock", "", [NodeSpec("", "memcached", "/run/m.sock", 0)]),
        ("redis://r", "", [NodeSpec("", "redis", "r", 6379, "redis://r")]),
        ("rediss://u:p@r:7/2", "", [NodeSpec("", "redis", "r", 7, "rediss://u:p@r:7/2")]),
        ("unix:///run/r.sock", "", [NodeSpec("", "redis", "/run/r.sock", 0, "unix:///run/r.sock")]),
    ],
)
def test_f01_node_lists(nodes: str, failover: str, found: list[NodeSpec]) -> None:
    """What msm-sessions §3.1 allows, and sockets."""
    assert parse_nodes(nodes, failover) == found


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("", "memcachedNodes"),
        ("  ", "memcachedNodes"),
        ("h", "'h'"),
        ("h:x", "'x'"),
        ("h:0", "'0'"),
        ("h:65536", "'65536'"),
        ("h:1,n2:h:2", "'h:1'"),
        ("n-1:h:1", "'n-1'"),
        ("n1:h:1,n 2:h:2", "'n'"),
        ("n1:[::1]:1", "'n1:[::1]:1'"),
        ("n1::1", "''"),
        ("http://h:1/pools", "http"),
        ("redis://", "host"),
        ("redis://h/x", "database"),
        ("redis://h:port", "port"),
        ("redis://a,redis://b", "one"),
        ("n1:redis://h", "n1:"),
        ("unix://", "path"),
    ],
)
def test_f01_what_is_no_node_list_is_named(nodes: str, names: str) -> None:
    """At the start, with the part that is wrong."""
    with pytest.raises(ConfigError) as refused:
        LocalSessions("shop", MemcachedConfig(memcached_nodes=nodes))
    assert names in str(refused.value)
    assert "memcachedNodes" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"memcached_nodes": "n1:h:1,n1:h:2"}, "'n1' twice"),
        ({"memcached_nodes": "n1:h:1,n2:h:1"}, "'h:1' twice"),
        ({"memcached_nodes": "n1:h:1,n2:h:2", "failover_nodes": "n1,n2"}, "no node for normal use"),
        ({"memcached_nodes": "n1:h:1", "failover_nodes": "n1"}, "no node for normal use"),
        ({"memcached_nodes": "n1:h:1,n2:h:2", "failover_nodes": "n3"}, "'n3'"),
        ({"memcached_nodes": "n1:h:1,n2:h:2", "failover_nodes": "n1 n1"}, "twice"),
        (
            {"memcached_nodes": "n1:h:1,n2:h:2", "failover_nodes": "n1", "sticky": False},
            "sticky = false",
        ),
        ({"enabled": False, "sticky": False}, "enabled"),
        ({"locking_mode": "app"}, "lockingMode"),
        ({"locking_mode": "uriPattern:"}, "lockingMode"),
        ({"locking_mode": "uriPattern:("}, "regular expression"),
        ({"request_uri_ignore_pattern": "["}, "requestUriIgnorePattern"),
        ({"session_attribute_filter": "["}, "sessionAttributeFilter"),
        ({"storage_key_prefix": "hosts"}, "storageKeyPrefix"),
        ({"lock_expiration": 0}, "lockExpiration"),
        ({"custom_converter": "org.x.Y"}, "customConverter"),
        ({"sticky": False, "lock": "cluster"}, "lockingMode = 'all'"),
        ({"sticky": False, "lock": "local", "locking_mode": "all"}, "lock"),
        ({"sticky": False, "max_active_sessions": 9}, "max_active_sessions"),
        ({"sticky": False, "session_activity_check": True}, "session_activity_check"),
        ({"sticky": False, "session_last_access_at_start": True}, "session_last_access_at_start"),
    ],
)
def test_f02_what_cannot_work_is_refused(settings: dict[str, object], names: str) -> None:
    """Twins, no primary, failover without sticky sessions; each named."""
    config = MemcachedConfig(**{"memcached_nodes": "h:1", **settings})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as refused:
        LocalSessions("shop", config)
    assert names in str(refused.value)


def test_locking_modes_are_read_whatever_their_case() -> None:
    """As in the original."""
    assert parse_locking("ALL").kind == "all"
    assert parse_locking("Auto").kind == "auto"
    mode = parse_locking("uripattern:/a:b")
    assert mode.pattern is not None
    assert mode.pattern.pattern == "/a:b"


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*msm*.xml")), ids=lambda path: path.name)
def test_the_blocks_of_the_seeds_are_configurations(path: Path) -> None:
    """As written; a manager can be made of each."""
    config = read_config(path, environ={}).config.manager
    assert isinstance(config, MemcachedConfig)
    assert len(parse_nodes("".join(config.memcached_nodes), config.failover_nodes)) == 2
    assert config.request_uri_ignore_pattern == r".*\.(ico|png|gif|jpg|css|js)$"
    if config.sticky:
        assert config.failover_nodes == "n1"
    else:
        assert config.locking_mode == "uriPattern:/path1|/path2"
    manager = LocalSessions("shop", config).manager("shop")
    assert isinstance(manager, MemcachedManager)
    assert len(manager.ring.nodes) == 2


def test_defaults_are_valid() -> None:
    """A list of nodes is all that must be said."""
    check_memcached(MemcachedConfig(memcached_nodes="h:1"))
