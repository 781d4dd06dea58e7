"""The address ``auto``: the one by which the group is reached."""

from __future__ import annotations

import pytest

from tribes.config.model import (
    AUTO,
    ChannelConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    check_config,
)
from tribes.errors import ConfigError
from tribes.runtime.addresses import outgoing_address, with_addresses
from tribes.runtime.group_channel import GroupChannel


def node(bind: str = AUTO, address: str = AUTO, group: str = "228.0.0.4") -> NodeConfig:
    return NodeConfig(
        channel=ChannelConfig(
            membership=MembershipConfig(bind=bind, address=group),
            receiver=ReceiverConfig(address=address, port=0),
        )
    )


def found(address: str, port: int) -> str:
    return f"192.0.2.{port % 7}" if address == "228.0.0.4" else "::1"


@pytest.mark.parametrize(
    ("config", "bind", "address"),
    [
        (node(), "192.0.2.1", "192.0.2.1"),
        (node(bind="127.0.0.1"), "127.0.0.1", "192.0.2.1"),
        (node(address="127.0.0.1"), "192.0.2.1", "127.0.0.1"),
        (node(bind="127.0.0.1", address="127.0.0.1"), "127.0.0.1", "127.0.0.1"),
    ],
)
def test_each_auto_is_replaced(config: NodeConfig, bind: str, address: str) -> None:
    """And nothing else."""
    channel = with_addresses(config, outgoing=found).channel
    assert (channel.membership.bind, channel.receiver.address) == (bind, address)


def test_an_address_that_is_found_is_not_more_trusted_than_one_that_is_written() -> None:
    """Nothing authenticates there either: neither before it is known, nor after."""
    for config in (node(), with_addresses(node(), outgoing=found)):
        with pytest.raises(ConfigError, match="nothing protects the group"):
            check_config(config)
    check_config(with_addresses(node(), outgoing=lambda *_: "127.0.0.1"))


def test_no_interface_is_an_error_that_says_so() -> None:
    """With the remedy."""

    def unreachable(*_: object) -> str:
        raise OSError("Network is unreachable")

    with pytest.raises(ConfigError, match=r"no interface leads to the group 228\.0\.0\.4"):
        with_addresses(node(), outgoing=unreachable)


def test_the_kernel_knows() -> None:
    """Loopback is reached by loopback; nothing is sent."""
    assert outgoing_address("127.0.0.1", 9) == "127.0.0.1"


async def test_a_node_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And advertises what was found."""
    monkeypatch.setattr("tribes.runtime.addresses.outgoing_address", lambda *_: "127.0.0.1")
    async with GroupChannel(node(group="228.0.0.77")) as channel:
        assert channel.local.address[0] == "127.0.0.1"
