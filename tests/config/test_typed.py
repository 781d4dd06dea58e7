"""A configuration that is made in Python has values of the types that its settings have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tribes.config.channel import (
    ChannelConfig,
    MembershipConfig,
    ReceiverConfig,
    StaticMemberConfig,
)
from tribes.config.managers import BackupConfig, ContextConfig, ManagerConfig
from tribes.config.model import NodeConfig
from tribes.config.typed import check_types
from tribes.errors import ConfigError
from tribes.runtime.background import BackgroundNode

RECEIVER: Any = {"port": "4000"}
IDLE: Any = {"max_inactive_s": "30"}
MEMBER: Any = {"host": "10.0.0.1"}


def in_channel(**settings: Any) -> dict[str, Any]:
    return {"channel": ChannelConfig(**settings)}


@pytest.mark.parametrize(
    ("settings", "key", "what"),
    [
        ({"name": 8001}, "name", "must be a text, found a whole number"),
        ({"drain_timeout_s": "5"}, "drain_timeout_s", "must be a number, found a text"),
        ({"insecure": "yes"}, "insecure", "must be true or false, found a text"),
        ({"contexts": ("shop", 7)}, "contexts[1]", "must be a text, found a whole number"),
        ({"manager": {"kind": "backup"}}, "manager", r"must be made by BackupConfig\(…\), found a"),
        ({"manager": ManagerConfig(**IDLE)}, "manager.max_inactive_s", "must be a whole number"),
        (in_channel(receiver=ReceiverConfig(**RECEIVER)), "channel.receiver.port", "whole number"),
        (in_channel(receiver=RECEIVER), "channel.receiver.port", "whole number"),
        (
            in_channel(membership=MembershipConfig(static=(MEMBER,))),
            "channel.membership.static[0]",
            r"must be made by StaticMemberConfig\(…\), found a dict",
        ),
        (
            {"context": {"shop": {"manager": None}}},
            "context.shop",
            r"must be made by ContextConfig\(…\), found a dict",
        ),
        (
            {"context": {"shop": ContextConfig(manager=ManagerConfig(**IDLE))}},
            "context.shop.manager.max_inactive_s",
            "must be a whole number, found a text",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(
    settings: dict[str, Any], key: str, what: str
) -> None:
    """Before anything is started."""
    config = NodeConfig(**settings)
    with pytest.raises(ConfigError, match=what) as caught:
        BackgroundNode(msgspec.structs.replace(config)).start()
    assert caught.value.key == key


def test_values_of_the_right_types_pass() -> None:
    """Lists where tuples are usual, whole numbers where others may be, any kind of manager."""
    lists: Any = ["shop"]
    check_types(
        NodeConfig(
            contexts=lists,
            drain_timeout_s=5,
            manager=BackupConfig(),
            context={"shop": ContextConfig(manager=ManagerConfig())},
            channel=ChannelConfig(
                membership=MembershipConfig(static=(StaticMemberConfig(host="10.0.0.1"),))
            ),
        )
    )
