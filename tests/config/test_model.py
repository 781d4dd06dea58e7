"""Configuration: typed, strict, and refused with the remedy before anything starts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tribes.config.model import (
    ChannelConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
    check_config,
)
from tribes.errors import ConfigError


def test_defaults_are_tomcats_on_loopback() -> None:
    """Group, ports, times as Tomcat's; the addresses are loopback."""
    config = NodeConfig()
    check_config(config)
    membership, receiver = config.channel.membership, config.channel.receiver
    assert (membership.address, membership.port) == ("228.0.0.4", 45564)
    assert (membership.frequency, membership.drop_time) == (500, 3000)
    assert (receiver.port, receiver.auto_bind, receiver.max_threads) == (4000, 100, 15)
    assert (membership.bind, receiver.address) == ("127.0.0.1", "127.0.0.1")
    assert config.manager.channel_send_options == 8


def channel(part: str, **values: Any) -> NodeConfig:
    kinds: dict[str, type[Any]] = {
        "membership": MembershipConfig,
        "receiver": ReceiverConfig,
        "sender": SenderConfig,
    }
    return NodeConfig(channel=ChannelConfig(**{part: kinds[part](**values)}))


@pytest.mark.parametrize(
    ("config", "key", "text"),
    [
        (channel("membership", frequency=0), "channel.membership.frequency", "greater than 0"),
        (channel("membership", drop_time=700), "channel.membership.drop_time", "at least 1000"),
        (channel("membership", port=0), "channel.membership.port", "from 1 to 65535"),
        (channel("membership", address="10.0.0.1"), "channel.membership.address", "multicast"),
        (channel("membership", bind="10.0.0.1"), "channel.membership.bind", "insecure = true"),
        (channel("receiver", address="10.0.0.1"), "channel.receiver.address", "insecure = true"),
        (channel("receiver", address="0.0.0.0"), "channel.receiver.address", "no address"),
        (channel("receiver", address="x"), "channel.receiver.address", "not an IP address"),
        (channel("receiver", port=70000), "channel.receiver.port", "found 70000"),
        (channel("receiver", max_threads=0), "channel.receiver.max_threads", "greater than 0"),
        (channel("sender", timeout=-1), "channel.sender.timeout", "found -1"),
    ],
)
def test_value_that_cannot_work_is_named(config: NodeConfig, key: str, text: str) -> None:
    """The error has the key's path, what was found and what to write."""
    with pytest.raises(ConfigError, match=text) as caught:
        check_config(config)
    assert caught.value.key == key
    assert str(caught.value).startswith(key)


def test_insecure_is_the_operators_word() -> None:
    """With it, any address that others can reach is taken."""
    config = channel("receiver", address="10.0.0.1")
    check_config(msgspec.structs.replace(config, insecure=True))


def test_unknown_keys_are_refused_with_their_path() -> None:
    """A typing error never passes in silence."""
    with pytest.raises(msgspec.ValidationError, match=r"droptime.*\$\.channel\.membership"):
        msgspec.convert({"channel": {"membership": {"droptime": 1}}}, NodeConfig)
