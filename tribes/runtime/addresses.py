"""The address of this machine that the group reaches, where the configuration says ``auto``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tribes.config.model import AUTO
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig

__all__ = ["outgoing_address", "with_addresses"]


def with_addresses(
    config: NodeConfig, *, outgoing: Callable[[str, int], str] | None = None
) -> NodeConfig:
    """The same with an address for each ``auto``, as the machine is now.

    Args:
        config: The node.
        outgoing: Gives the address by which another one is reached.

    Raises:
        ConfigError: No interface leads to the group.
    """
    membership, receiver = config.channel.membership, config.channel.receiver
    if AUTO not in (membership.bind, receiver.address):
        return config
    try:
        found = (outgoing or outgoing_address)(membership.address, membership.port)
    except (OSError, ValueError) as why:
        raise ConfigError(
            f"is auto, but no interface leads to the group {membership.address} ({why}); write the "
            "address of the one to use",
            key="channel.receiver.address",
        ) from None
    # Only what says auto: the other may name another interface on purpose.
    if membership.bind == AUTO:
        membership = msgspec.structs.replace(membership, bind=found)
    if receiver.address == AUTO:
        receiver = msgspec.structs.replace(receiver, address=found)
    channel = msgspec.structs.replace(config.channel, membership=membership, receiver=receiver)
    return msgspec.structs.replace(config, channel=channel)


def outgoing_address(address: str, port: int) -> str:
    """The address that this machine sends from to another. Nothing is sent to find out.

    Raises:
        OSError: No interface leads there.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((address, port))
        return str(asking.getsockname()[0])
