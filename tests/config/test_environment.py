"""Settings from environment variables: over the file's, and with errors that name the variable."""

from __future__ import annotations

import pytest

from tribes.config import NodeConfig, read_config_bytes
from tribes.config.environment import overrides
from tribes.config.model import DnsConfig, StaticMemberConfig
from tribes.errors import ConfigError


def with_environment(toml: str = "", **environ: str) -> NodeConfig:
    return read_config_bytes(toml.encode(), source="f.toml", environ=environ).config


def test_each_kind_of_value() -> None:
    """Numbers, truths, texts, lists, what may be unset, and options by name."""
    config = with_environment(
        TRIBES_NAME="4001",
        TRIBES_PAYLOAD="x",
        TRIBES_INSECURE="true",
        TRIBES_CONTEXTS="shop, blog",
        TRIBES_CHANNEL__RECEIVER__PORT="4001",
        TRIBES_CHANNEL__MEMBERSHIP__TTL="3",
        TRIBES_MANAGER__CHANNEL_SEND_OPTIONS="sync,use_ack",
        TRIBES_MANAGER__STATE_TRANSFER_TIMEOUT_S="1.5",
        TRIBES_MANAGER__ON_UNREPLICATED="error",
        TRIBES_CHANNEL__MEMBERSHIP__DNS__NAME="members.test",
        TRIBES_CHANNEL__MEMBERSHIP__STATIC='[{"host": "a", "port": 4002}]',
        TRIBES_CHANNEL__INTERCEPTORS='[{"class": "GzipInterceptor"}]',
        HOME="/",
    )
    assert (config.name, config.payload, config.insecure) == ("4001", b"x", True)
    assert config.contexts == ("shop", "blog")
    assert config.channel.receiver.port == 4001
    assert config.channel.membership.ttl == 3
    assert config.channel.membership.dns == DnsConfig(name="members.test")
    assert config.channel.membership.static == (StaticMemberConfig(host="a", port=4002),)
    assert config.manager.channel_send_options == 6
    assert config.manager.state_transfer_timeout_s == 1.5
    assert config.manager.on_unreplicated == "error"
    assert config.channel.interceptors == ({"class": "GzipInterceptor"},)


def test_they_go_over_the_file() -> None:
    """What they do not name stays."""
    config = with_environment(
        "[channel.receiver]\nport = 1\nmaxThreads = 3\n", TRIBES_CHANNEL__RECEIVER__PORT="2"
    )
    assert (config.channel.receiver.port, config.channel.receiver.max_threads) == (2, 3)


def test_they_go_over_xml_too() -> None:
    """Whatever the file is."""
    config = with_environment(
        "<Manager maxInactiveInterval='5'/>", TRIBES_MANAGER__MAX_INACTIVE_S="6"
    )
    assert config.manager.max_inactive_s == 6


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TRIBES_CHANNEL__RECEIVER__PROT", "1", "is TRIBES_CHANNEL__RECEIVER__PORT meant?"),
        ("TRIBES_CHANEL__RECEIVER__PORT", "1", "is TRIBES_CHANNEL__RECEIVER__PORT meant?"),
        ("TRIBES_CHANNEL__ZZZ", "1", "there are TRIBES_CHANNEL__HEARTBEAT_SLEEPTIME"),
        ("TRIBES_NAM", "x", "is TRIBES_NAME meant?"),
        ("TRIBES_HTTP_PORT", "1", "is TRIBES_HTTP__PORT meant?"),
        ("TRIBES_CHANNEL_RECEIVER_PORT", "1", "is TRIBES_CHANNEL__RECEIVER__PORT meant?"),
        ("TRIBES_CHANNEL__RECEIVER_PORT", "1", "is TRIBES_CHANNEL__RECEIVER__PORT meant?"),
        (
            "TRIBES_MANAGER_CHANEL_SEND_OPTIONS",
            "6",
            "is TRIBES_MANAGER__CHANNEL_SEND_OPTIONS meant?",
        ),
        ("TRIBES_NAME__X", "x", "TRIBES_NAME is no table"),
        ("TRIBES___", "x", "is no setting"),
        ("TRIBES_CHANNEL__RECEIVER__PORT", "x", "found 'x'"),
        ("TRIBES_INSECURE", "perhaps", "found 'perhaps'"),
        ("TRIBES_MANAGER__CHANNEL_SEND_OPTIONS", "fast", "'fast' is no send option"),
        ("TRIBES_CHANNEL__MEMBERSHIP__STATIC", "[{", "found '[{'"),
        ("TRIBES_MANAGER__ON_UNREPLICATED", "never", "found 'never'"),
    ],
)
def test_what_cannot_be_is_refused(variable: str, value: str, said: str) -> None:
    """With the variable, and the nearest name."""
    with pytest.raises(ConfigError) as caught:
        with_environment(**{variable: value})
    assert str(caught.value).startswith(variable)
    assert said in str(caught.value)


def test_values_that_only_the_model_can_judge_name_the_variable() -> None:
    """As a list of tables with a wrong key."""
    environ = {"TRIBES_CHANNEL__MEMBERSHIP__STATIC": '[{"hots": "a"}]'}
    with pytest.raises(ConfigError, match=r"^TRIBES_CHANNEL__MEMBERSHIP__STATIC: .*hots"):
        read_config_bytes(b"", environ=environ)
    loaded = read_config_bytes(b"", environ={"TRIBES_CHANNEL__RECEIVER__PORT": "70000"})
    error = loaded.located(ConfigError("wrong", key="channel.receiver.port"))
    assert error.source == "TRIBES_CHANNEL__RECEIVER__PORT"


def test_other_programs_variables_are_left_alone() -> None:
    """The prefix is short; what looks like no setting is not ours."""
    others = {"TRIBES_REQUIRE_SERVERS": "1", "TRIBES_": "x", "TRIBESMAN": "y", "PATH": "z"}
    assert list(overrides(others)) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRIBES_CHANNEL__TLS", "geheim"),
        ("TRIBES_MANAGER__ENVELOPE", '{"keys": ["geheim"]'),
        ("TRIBES_CHANNEL__INTERCEPTORS", '[{"class": "x", "encryption_key": "geheim"}'),
    ],
)
def test_keys_are_not_shown(variable: str, value: str) -> None:
    """Not even in an error about them: a bracket that is missing makes them no secret less."""
    with pytest.raises(ConfigError) as caught:
        with_environment(**{variable: value})
    assert caught.value.source == variable
    assert "geheim" not in str(caught.value)
    loaded = read_config_bytes(b"", environ={"TRIBES_CHANNEL__KEYS": "geheim"})
    assert "geheim" not in repr(loaded)
