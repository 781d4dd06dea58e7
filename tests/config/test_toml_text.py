"""TOML and XML say the same: what one writes, the other reads."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.config import NodeConfig, as_toml, check_config, read_config_bytes
from tribes.config.model import (
    ChannelConfig,
    DnsConfig,
    KubernetesConfig,
    ManagerConfig,
    MembershipConfig,
    ReceiverConfig,
    SenderConfig,
    StaticMemberConfig,
    TlsConfig,
)
from tribes.config.tomcat import Attribute, Use
from tribes.config.tomcat.elements import TABLES
from tribes.errors import ConfigError

if TYPE_CHECKING:
    import msgspec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT = st.integers(-(2**31), 2**31 - 1)
VALUES = st.recursive(
    st.booleans() | INT | TEXT, lambda inner: st.lists(inner, max_size=2), max_leaves=3
)


def records(kind: type[msgspec.Struct], **given: Any) -> st.SearchStrategy[Any]:
    """Any values of the fields whose type says enough."""
    simple = {"int": INT, "str": TEXT, "bool": st.booleans(), "int | None": st.none() | INT}
    fields = {name: simple[text] for name, text in kind.__annotations__.items() if text in simple}
    fields |= given
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


MEMBERSHIP = records(
    MembershipConfig,
    static=st.lists(st.builds(StaticMemberConfig, host=TEXT, port=INT), max_size=3).map(tuple),
    dns=st.none() | records(DnsConfig, nameservers=st.lists(TEXT, max_size=2).map(tuple)),
    kubernetes=st.none() | records(KubernetesConfig),
)
INTERCEPTORS = st.none() | st.lists(
    st.dictionaries(TEXT, VALUES | st.dictionaries(TEXT, VALUES, max_size=2), max_size=3),
    max_size=2,
).map(tuple)
CHANNELS = records(
    ChannelConfig,
    membership=MEMBERSHIP,
    receiver=records(ReceiverConfig),
    sender=records(SenderConfig),
    interceptors=INTERCEPTORS,
    plain_peers=st.lists(TEXT, max_size=2).map(tuple),
    tls=st.none() | st.builds(TlsConfig, certificate=TEXT, authorities=TEXT),
)
NODES = records(
    NodeConfig,
    payload=TEXT.map(str.encode),
    contexts=st.lists(TEXT, max_size=3).map(tuple),
    channel=CHANNELS,
    manager=records(
        ManagerConfig,
        state_transfer_timeout_s=st.floats(allow_nan=False, allow_infinity=False),
        on_unreplicated=st.sampled_from(["serve", "error"]),
    ),
)


@given(NODES, st.booleans())
def test_what_is_written_is_read_again(config: NodeConfig, whole: bool) -> None:
    """Every configuration, with every setting or with what differs from the defaults."""
    text = as_toml(config, whole=whole)
    tomllib.loads(text)
    assert read_config_bytes(text.encode()).config == config


def test_nothing_is_written_of_the_defaults() -> None:
    """A short file is easier to read."""
    assert as_toml(NodeConfig()) == ""
    assert read_config_bytes(as_toml(NodeConfig(), whole=True).encode()).config == NodeConfig()


def test_secrets_are_written_or_hidden() -> None:
    """As asked for."""
    config = NodeConfig(
        channel=ChannelConfig(
            keys="geheim",
            interceptors=({"class": "EncryptInterceptor", "encryption_key": "cafe"},),
        )
    )
    assert read_config_bytes(as_toml(config).encode()).config == config
    hidden = as_toml(config, hide=True, whole=True)
    assert "geheim" not in hidden
    assert "cafe" not in hidden
    assert hidden.count("<hidden>") == 2


@pytest.mark.parametrize(
    "config",
    [
        NodeConfig(payload=b"\xff"),
        NodeConfig(channel=ChannelConfig(interceptors=(lambda: None,))),
        NodeConfig(channel=ChannelConfig(interceptors=({"class": object()},))),
    ],
)
def test_what_toml_cannot_say_is_refused(config: NodeConfig) -> None:
    """Not written in another way."""
    with pytest.raises(ConfigError, match="TOML"):
        as_toml(config)


OWNERS = {
    "McastService": ("Membership", "org.apache.catalina.tribes.membership."),
    "NioReceiver": ("Receiver", "org.apache.catalina.tribes.transport.nio."),
    "OrderInterceptor": ("Interceptor", "org.apache.catalina.tribes.group.interceptors."),
    "GzipInterceptor": ("Interceptor", "org.apache.catalina.tribes.group.interceptors."),
}


def attribute_values(each: Attribute) -> st.SearchStrategy[str]:
    kinds: dict[str, st.SearchStrategy[str]] = {
        "int": INT.map(str),
        "ports": INT.map(str),
        "udp_port": INT.map(str),
        "bool": st.sampled_from(["true", "false", "TRUE"]),
        "options": st.integers(0, 2**20).map(str) | st.sampled_from(["async", "use_ack, sync"]),
        "address": st.ip_addresses().map(str) | st.just("auto"),
        "domain": st.just("shop")
        | st.lists(st.integers(-128, 255), min_size=1, max_size=4).map(
            lambda numbers: "{" + ", ".join(map(str, numbers)) + "}"
        ),
    }
    return kinds.get(each.kind, st.text("abc&<>\"'\u00e9", max_size=5))


@st.composite
def clusters(draw: st.DrawFn) -> str:
    """Documents whose attributes have any value that their tables allow."""
    parts = []
    for owner, (element, package) in OWNERS.items():
        table = [each for each in TABLES[owner] if each.use in (Use.HONOURED, Use.MAPPED)]
        chosen = draw(st.lists(st.sampled_from(table), max_size=4, unique_by=lambda a: a.key))
        written = " ".join(f"{a.name}={quoteattr(draw(attribute_values(a)))}" for a in chosen)
        parts.append(f'<{element} className="{package}{owner}" {written}/>')
    return f"<Cluster><Channel>{''.join(parts)}</Channel></Cluster>"


@given(clusters())
def test_xml_becomes_toml_that_means_the_same(document: str) -> None:
    """What `tribes config convert` writes loads to an equal configuration."""
    config = read_config_bytes(document.encode()).config
    assert read_config_bytes(as_toml(config).encode()).config == config


def test_the_round_trip_is_not_of_defaults_only() -> None:
    """Such a document changes the configuration, and the result can be used."""
    document = (
        '<Cluster><Channel><Membership className="org.apache.catalina.tribes.membership.'
        'McastService" frequency="1000" dropTime="9000"/></Channel></Cluster>'
    )
    config = read_config_bytes(document.encode()).config
    assert config != NodeConfig()
    check_config(config)
