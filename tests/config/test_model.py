"""Configuration: typed, strict, and refused with the remedy before anything starts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
    TlsConfig,
    check_config,
)
from tribes.errors import ConfigError
from tribes.security.keys import GroupKey, KeyRing


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


def manager(**values: Any) -> NodeConfig:
    return NodeConfig(manager=ManagerConfig(**values))


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
        (channel("sender", queue_max_bytes=0), "channel.sender.queue_max_bytes", "found 0"),
        (channel("sender", queue_timeout=0), "channel.sender.queue_timeout", "found 0"),
        (channel("sender", live_queue_max_bytes=0), "channel.sender.live_queue_max_bytes", "0"),
        (channel("sender", unacked_max_bytes=-5), "channel.sender.unacked_max_bytes", "-5"),
        (manager(inbox_max_bytes=0), "manager.inbox_max_bytes", "greater than 0"),
        (manager(dirty_max=0), "manager.dirty_max", "greater than 0"),
        (manager(queue_timeout=-1), "manager.queue_timeout", "never wait"),
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


# ---- keys --------------------------------------------------------------------------------------

KEY = GroupKey(7, bytes(range(32))).to_text()


def test_an_address_that_others_can_reach_needs_a_key_or_a_word() -> None:
    """The error shows both remedies, each as lines that can be copied."""
    with pytest.raises(ConfigError) as caught:
        check_config(channel("receiver", address="10.0.0.1"))
    text = str(caught.value)
    assert '\n    tribes keygen --output group.key\n    key_file = "group.key"' in text
    assert "\n    insecure = true\n" in text
    assert "--key-file" in text
    assert "--insecure" in text
    keys: list[dict[str, Any]] = [{"keys": KEY}, {"key_file": "group.key"}]
    for key in keys:
        check_config(
            NodeConfig(
                channel=ChannelConfig(
                    receiver=ReceiverConfig(address="10.0.0.1"),
                    membership=MembershipConfig(bind="10.0.0.1"),
                    **key,
                )
            )
        )


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        ({"keys": KEY, "key_file": "x"}, "channel.key_file", "keep one of the two"),
        ({"keys": KEY, "own_link": False}, "channel.own_link", "own_link = true"),
        ({"keys": KEY, "plain_peers": ("x",)}, "channel.plain_peers", "not an IP address"),
        ({"plain_peers": ("any",)}, "channel.plain_peers", "set key_file"),
    ],
)
def test_settings_of_keys_that_contradict_each_other(
    values: dict[str, Any], key: str, text: str
) -> None:
    """None of them is ignored in silence."""
    with pytest.raises(ConfigError, match=text) as caught:
        check_config(NodeConfig(channel=ChannelConfig(**values)))
    assert caught.value.key == key
    assert KEY not in str(caught.value)
    good = ChannelConfig(keys=KEY, plain_peers=("10.0.0.1", "::1", "any"))
    check_config(NodeConfig(channel=good))


# ---- certificates ------------------------------------------------------------------------------

TLS = TlsConfig(certificate="a.pem", private_key="a.key", authorities="ca.pem")


def test_mutual_tls_protects_an_address_and_tls_on_one_side_does_not() -> None:
    """Who connects must show a certificate, or there must be a key."""

    def config(tls: TlsConfig, **values: Any) -> NodeConfig:
        receiver = ReceiverConfig(address="10.0.0.1")
        membership = MembershipConfig(bind="10.0.0.1")
        return NodeConfig(
            channel=ChannelConfig(receiver=receiver, membership=membership, tls=tls, **values)
        )

    check_config(config(TLS))
    off = msgspec.structs.replace(TLS, verify_peer=False)
    with pytest.raises(ConfigError, match="insecure = true"):
        check_config(config(off))
    check_config(config(off, keys=KEY))


def test_tls_is_a_table_of_the_channel() -> None:
    """Two of its keys are needed; others are refused."""
    table: dict[str, Any] = {"certificate": "a.pem", "authorities": "ca.pem"}
    read = msgspec.convert({"channel": {"tls": table}}, NodeConfig)
    assert read.channel.tls == TlsConfig(certificate="a.pem", authorities="ca.pem")
    assert read.channel.tls.verify_peer
    assert read.channel.tls.minimum_version == "1.3"
    for wrong in ({"certificate": "a.pem"}, {**table, "verify": False}):
        with pytest.raises(msgspec.ValidationError, match=r"\$\.channel\.tls"):
            msgspec.convert({"channel": {"tls": wrong}}, NodeConfig)


@pytest.mark.parametrize(
    ("tls", "values", "key", "text"),
    [
        ({"certificate": ""}, {}, "channel.tls.certificate", "is empty"),
        ({"authorities": ""}, {}, "channel.tls.authorities", "is empty"),
        ({"minimum_version": "1.1"}, {}, "channel.tls.minimum_version", "'1.2' or '1.3'"),
        ({"handshake_timeout": 0}, {}, "channel.tls.handshake_timeout", "greater than 0"),
        ({"peer_names": ("*.example",)}, {}, "channel.tls.peer_names", "is no name"),
        ({}, {"own_link": False}, "channel.own_link", "own_link = true"),
        (
            {},
            {"receiver": ReceiverConfig(udp_port=4100)},
            "channel.receiver.udp_port",
            "take udp_port away",
        ),
        ({}, {"plain_peers": ("any",), "keys": KEY}, "channel.plain_peers", "don't speak TLS"),
        (
            {},
            {"membership": MembershipConfig(suspect_after=0)},
            "channel.membership.suspect_after",
            "write 1000",
        ),
    ],
)
def test_settings_of_tls_that_cannot_work(
    tls: dict[str, Any], values: dict[str, Any], key: str, text: str
) -> None:
    """None of them is ignored in silence."""
    config = ChannelConfig(tls=msgspec.structs.replace(TLS, **tls), **values)
    with pytest.raises(ConfigError, match=text) as caught:
        check_config(NodeConfig(channel=config))
    assert caught.value.key == key


def test_keys_are_never_shown() -> None:
    """However a configuration is made and whatever prints it."""
    made = NodeConfig(channel=ChannelConfig(keys=KEY))
    read = msgspec.convert({"channel": {"keys": KEY}}, NodeConfig)
    copied = msgspec.structs.replace(made.channel, plain_peers=("any",))
    for config in (made, read, copied, made.channel, made.channel.keys):
        for shown in (repr(config), str(config), f"{config}", f"{config!r:>90}"):
            assert KEY not in shown
            assert KEY.split(":")[3] not in shown
            assert "hidden" in shown
    assert made.channel.keys == read.channel.keys == copied.keys == KEY
    assert KeyRing.parse(made.channel.keys).ids == (7,)
    assert repr(ChannelConfig().keys) == "''"


def test_a_text_where_names_belong_is_refused_where_it_is_written() -> None:
    """``("shop")`` is no tuple, and would be four contexts of one letter each."""
    with pytest.raises(ConfigError, match=r"contexts=\('shop',\)") as caught:
        NodeConfig(contexts="shop")  # type: ignore[arg-type]
    assert caught.value.key == "contexts"
    with pytest.raises(ConfigError, match=r"contexts=\('shop', 'blog'\)") as caught:
        NodeConfig(context=("shop", "blog"))  # type: ignore[arg-type]
    assert caught.value.key == "context"
