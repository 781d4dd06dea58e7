"""Configuration from TOML: our names, Tomcat's names, and errors that name the place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tribes.config import (
    DnsConfig,
    KubernetesConfig,
    NodeConfig,
    StaticMemberConfig,
    check_config,
    config_from,
    load_config,
)
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
name = "web-1"
payload = "a text"
contexts = ["shop", "blog"]

[channel]
key_file = "group.key"

[channel.membership]
multicast = false
dropTime = 6000
mcastBindAddress = "127.0.0.1"
recoveryCounter = 3

[[channel.membership.static]]
host = "10.0.0.1"
port = 4000
autoBind = 8

[[channel.membership.static]]
host = "10.0.0.9"
port = 4100
uniqueId = "{0,1,2,3,4,5,6,7,8,9,10,11,12,13,-2,255}"
securePort = 7

[channel.membership.dns]
name = "members.test"
nameservers = ["10.0.0.53"]

[channel.membership.kubernetes]
namespace = "shop"
labels = "app=shop"
connectTimeout = 700

[manager]
channelSendOptions = 6
stateTransferTimeout = 30
"""


def test_a_whole_file(tmp_path: Path) -> None:
    """Each key under our name or Tomcat's."""
    path = tmp_path / "node.toml"
    path.write_text(WHOLE)
    config = load_config(path)
    membership = config.channel.membership
    assert (config.name, config.payload, config.contexts) == ("web-1", b"a text", ("shop", "blog"))
    assert (membership.drop_time, membership.bind) == (6000, "127.0.0.1")
    assert (membership.multicast, membership.recovery_counter) == (False, 3)
    assert membership.static == (
        StaticMemberConfig(host="10.0.0.1", port=4000, auto_bind=8),
        StaticMemberConfig(
            host="10.0.0.9",
            port=4100,
            unique_id="{0,1,2,3,4,5,6,7,8,9,10,11,12,13,-2,255}",
            secure_port=7,
        ),
    )
    assert membership.dns == DnsConfig(name="members.test", nameservers=("10.0.0.53",))
    assert membership.kubernetes == KubernetesConfig(
        namespace="shop", labels="app=shop", connect_timeout=700
    )
    assert membership.names_hosts
    assert config.manager.channel_send_options == 6
    assert config.manager.state_transfer_timeout_s == 30
    check_config(config)


def test_nothing_gives_the_defaults() -> None:
    """As in Python."""
    assert config_from({}) == NodeConfig()


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("nam = 'x'", "nam", "is name meant"),
        ("[channel.membership]\ndroptime = 1", "channel.membership.droptime", "drop_time"),
        ("[[channel.membership.static]]\nhots = 'x'", "channel.membership.static[0].hots", "host"),
        ("[channel.membership.dns]\nzzz = 1", "channel.membership.dns.zzz", "known here are"),
        (
            "[channel.membership]\nport = 'x'",
            "channel.membership.port",
            "a whole number, found a text",
        ),
        ("[[channel.membership.static]]\nport = 1", "channel.membership.static[0]", "host"),
        (
            "[channel.membership]\ndropTime = 1\ndrop_time = 2",
            "channel.membership.drop_time",
            "twice",
        ),
        ("channel = 3", "channel", "a table, found a whole number"),
        ("a = ", "", "no TOML"),
    ],
)
def test_errors_name_file_and_path(tmp_path: Path, text: str, key: str, said: str) -> None:
    """And what was meant, where that can be guessed."""
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.key == key
    assert re.fullmatch(re.escape(str(path)) + (r": line \d" if key else ""), caught.value.source)
    assert said in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_config(tmp_path / "none.toml")


def membership(**settings: Any) -> NodeConfig:
    return config_from({"channel": {"membership": settings}})


@pytest.mark.parametrize(
    ("config", "key", "said"),
    [
        (membership(static=[{"host": ""}]), "channel.membership.static[0].host", "empty"),
        (
            membership(static=[{"host": "a"}, {"host": "b", "port": 0}]),
            "channel.membership.static[1].port",
            "from 1",
        ),
        (
            membership(static=[{"host": "a", "auto_bind": 1001}]),
            "channel.membership.static[0].auto_bind",
            "1000 ports",
        ),
        (
            membership(static=[{"host": "10.0.0.1", "unique_id": "{1,2}"}]),
            "channel.membership.static[0].unique_id",
            "2 bytes",
        ),
        (membership(uniqueId="{1,2}"), "channel.membership.unique_id", "2 bytes"),
        (membership(unique_id="ff" * 16), "channel.membership.unique_id", "who is there"),
        (
            membership(static=[{"host": "tomcat", "unique_id": "00" * 16}]),
            "channel.membership.static[0].host",
            "not an IP address",
        ),
        (membership(dns={"refresh": 0}), "channel.membership.dns.refresh", "greater than 0"),
        (
            membership(dns={"nameservers": ["x"]}),
            "channel.membership.dns.nameservers",
            "not an IP address",
        ),
        (
            membership(kubernetes={"readTimeout": 0}),
            "channel.membership.kubernetes.read_timeout",
            "greater than 0",
        ),
        (
            config_from(
                {"channel": {"own_link": False, "membership": {"static": [{"host": "10.0.0.1"}]}}}
            ),
            "channel.membership.static[0]",
            "own_link",
        ),
        (membership(recoverySleepTime=0), "channel.membership.recovery_sleep_time", "greater"),
    ],
)
def test_what_cannot_work_is_refused(config: NodeConfig, key: str, said: str) -> None:
    """With the key and the remedy, before anything is started."""
    with pytest.raises(ConfigError) as caught:
        check_config(config)
    assert caught.value.key == key
    assert said in caught.value.message
