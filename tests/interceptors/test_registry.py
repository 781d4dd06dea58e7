"""A configuration becomes interceptors, and mistakes in it are named."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tribes.config.model import ChannelConfig, NodeConfig
from tribes.errors import ConfigError
from tribes.interceptors import (
    DomainFilterInterceptor,
    EncryptInterceptor,
    FragmentationInterceptor,
    GzipInterceptor,
    MessageDispatchInterceptor,
    OrderInterceptor,
    StaticMembershipInterceptor,
    TcpFailureDetector,
    TcpPingInterceptor,
    ThroughputInterceptor,
    TwoPhaseCommitInterceptor,
)
from tribes.interceptors.registry import (
    INTERCEPTORS,
    TOMCAT_PACKAGE,
    attributes_of,
    build_interceptors,
)
from tribes.runtime.stacks import make_interceptors

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor

KEY = "cafebabedeadbeefbeefcafecafebabe"


def build(*tables: Any) -> list[Interceptor]:
    return build_interceptors(tables).interceptors


def refusal(*tables: Any) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        build(*tables)
    return error.value


TOMCAT_DEFAULTS: list[tuple[type[Interceptor], dict[str, Any]]] = [
    (TcpPingInterceptor, {"interval": 1000, "useThread": False, "staticOnly": False}),
    (DomainFilterInterceptor, {"domain": "", "logInterval": 100}),
    (FragmentationInterceptor, {"maxSize": 102400, "expire": 60000}),
    (
        GzipInterceptor,
        {"optionFlag": 256, "compressionMinSize": 0, "statsEnabled": False, "interval": 0},
    ),
    (OrderInterceptor, {"expire": 3000, "forwardExpired": True, "maxQueue": 2147483647}),
    (
        EncryptInterceptor,
        {
            "encryptionAlgorithm": "AES/GCM/NoPadding",
            "replayWindowTime": 10000,
            "replayWindowMessageCount": 8192,
        },
    ),
    (TwoPhaseCommitInterceptor, {"expire": 60000}),
    (ThroughputInterceptor, {"interval": 10000}),
]


@pytest.mark.parametrize(("kind", "defaults"), TOMCAT_DEFAULTS, ids=lambda each: str(each)[:60])
def test_w98_attributes_have_tomcats_names_and_defaults(
    kind: type[Interceptor], defaults: dict[str, Any]
) -> None:
    """Each of tribes-wire §9.8, written as Tomcat does, is accepted and is the default."""
    needed = {"encryptionKey": KEY} if kind is EncryptInterceptor else {}
    [plain] = build({"class": kind.__name__, **needed})
    [written] = build({"class": kind.__name__, **needed, **defaults})
    for name in attributes_of(kind):
        if name not in ("encryption_key", "decryption_keys"):
            assert getattr(plain, name) == getattr(written, name)


@pytest.mark.parametrize("name", sorted(INTERCEPTORS))
def test_classes_are_found_with_and_without_tomcats_package(name: str) -> None:
    """Either is what a configuration may say; ``className`` is Tomcat's own word."""
    rest = {"encryptionKey": KEY} if name == "EncryptInterceptor" else {}
    for table in (
        {"class": name},
        {"class": TOMCAT_PACKAGE + name},
        {"className": TOMCAT_PACKAGE + name},
    ):
        [made] = build(table | rest)
        assert type(made) is INTERCEPTORS[name]


@pytest.mark.parametrize("name", sorted(INTERCEPTORS))
def test_every_interceptor_has_an_option_flag(name: str) -> None:
    """In Tomcat all have one (tribes-wire §9.8); that of the dispatcher has no effect there."""
    rest = {"encryptionKey": KEY} if name == "EncryptInterceptor" else {}
    [made] = build({"class": name, "optionFlag": 512} | rest)
    if "Dispatch" not in name:
        assert made.option_flag == 512


def test_attributes_are_written_as_in_java_or_as_in_python() -> None:
    """And as text, since XML has nothing else."""
    for table in (
        {"maxQueue": 7, "forwardExpired": False},
        {"max_queue": 7, "forward_expired": False},
        {"maxQueue": "7", "forwardExpired": "false"},
    ):
        [made] = build({"class": "OrderInterceptor", **table})
        assert isinstance(made, OrderInterceptor)
        assert (made.max_queue, made.forward_expired) == (7, False)


def test_attributes_without_effect_are_reported_and_not_dropped_in_silence() -> None:
    """What Tomcat knows and we don't need: its name and the reason."""
    built = build_interceptors(
        [
            {"class": "MessageDispatchInterceptor", "maxThreads": 3, "maxQueueSize": 5},
            {"class": "TwoPhaseCommitInterceptor", "deepclone": "true"},
        ]
    )
    assert [text.partition(":")[0] for text in built.ignored] == [
        "channel.interceptors[0].maxThreads has no effect",
        "channel.interceptors[1].deepclone has no effect",
    ]


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        ({"class": "OderInterceptor"}, "class", "did you mean 'OrderInterceptor'?"),
        ({"class": "org.example.Foo"}, "class", "there are MessageDispatchInterceptor"),
        ({"expire": 1}, "class", "has no class"),
        ({"class": 5}, "class", "has no class"),
        ({"class": "OrderInterceptor", "expires": 1}, "expires", "did you mean 'expire'?"),
        ({"class": "OrderInterceptor", "colour": 1}, "colour", "there are expire"),
        ({"class": "OrderInterceptor", "expire": 0}, "expire", "at least 1"),
        ({"class": "OrderInterceptor", "expire": "soon"}, "expire", "a whole number"),
        ({"class": "OrderInterceptor", "expire": True}, "expire", "a whole number"),
        ({"class": "OrderInterceptor", "forwardExpired": 1}, "forwardExpired", "true or false"),
        ({"class": "OrderInterceptor", "max_queue": 1, "maxQueue": 1}, "maxQueue", "twice"),
        ({"class": "EncryptInterceptor"}, "encryption_key", "is missing"),
        (
            {"class": "EncryptInterceptor", "encryptionKeyString": "zz"},
            "encryption_key",
            "no AES key",
        ),
        (
            {"class": "EncryptInterceptor", "encryptionKey": KEY, "decryption_keys": KEY},
            "decryption_keys",
            "a list of texts",
        ),
        ({"class": "DomainFilterInterceptor", "domain": 5}, "domain", "must be text"),
        ({"class": "StaticMembershipInterceptor", "members": [5]}, "members[0]", "a table"),
        (
            {"class": "StaticMembershipInterceptor", "Member": {"host": "127.0.0.1"}},
            "Member[0].port",
            "is missing",
        ),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], key: str, text: str) -> None:
    """The error has the path of the setting, what was found, and the nearest right name."""
    error = refusal({"class": "ThroughputInterceptor"}, table)
    assert error.key == f"channel.interceptors[1].{key}"
    assert text in error.message


def test_python_gives_classes_and_functions() -> None:
    """Each start makes new objects; one that is made already is refused, with where it belongs."""
    made = build(ThroughputInterceptor, partial(OrderInterceptor, expire=5))
    assert [type(each) for each in made] == [ThroughputInterceptor, OrderInterceptor]
    assert build(OrderInterceptor)[0] is not build(OrderInterceptor)[0]
    assert "GroupChannel(interceptors=...)" in refusal(OrderInterceptor()).message
    assert "is a str" in refusal("OrderInterceptor").message
    assert "make" in refusal(lambda: 5).message


TOML = f"""
name = "n1"
[channel]
option_check = true
[[channel.interceptors]]
class = "EncryptInterceptor"
encryptionKey = "{KEY}"
decryption_keys = ["{KEY[::-1]}"]
[[channel.interceptors]]
class = "org.apache.catalina.tribes.group.interceptors.OrderInterceptor"
expire = 500
[[channel.interceptors]]
class = "TcpPingInterceptor"
[[channel.interceptors]]
class = "TcpFailureDetector"
[[channel.interceptors]]
class = "StaticMembershipInterceptor"
local_member = {{ host = "127.0.0.1", port = 4000, unique_id = [{"1," * 16}] }}
[[channel.interceptors.members]]
host = "localhost"
port = 4001
uniqueId = "{{2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2}}"
"""


def test_toml_gives_the_whole_chain() -> None:
    """Tables in order, nested members, names resolved where the node runs."""
    config = msgspec.toml.decode(TOML.encode(), type=NodeConfig)
    made = make_interceptors(config.channel)
    assert [type(each) for each in made] == [
        EncryptInterceptor,
        OrderInterceptor,
        TcpPingInterceptor,
        TcpFailureDetector,
        StaticMembershipInterceptor,
    ]
    order, static = made[1], made[4]
    assert isinstance(order, OrderInterceptor)
    assert order.expire == 500
    assert isinstance(static, StaticMembershipInterceptor)
    assert [member.address for member in static.members] == [("127.0.0.1", 4001)]
    assert static.local_member is not None


def test_keys_are_hidden_in_what_shows_a_configuration() -> None:
    """And work all the same, also in a copy."""
    config = msgspec.toml.decode(TOML.encode(), type=NodeConfig)
    copy = msgspec.structs.replace(config.channel, option_check=False)
    for each in (config, copy):
        assert KEY not in repr(each)
        assert KEY[::-1] not in repr(each)
    assert len(make_interceptors(copy)) == 5


def test_unset_means_dispatch_and_detector() -> None:
    """What Tomcat's cluster adds when none is configured; an empty list means none."""
    kinds = [type(each) for each in make_interceptors(ChannelConfig())]
    assert kinds == [MessageDispatchInterceptor, TcpFailureDetector]
    assert make_interceptors(ChannelConfig(interceptors=())) == []
