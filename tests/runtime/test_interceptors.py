"""Configured interceptors on real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.runtime.test_group_channel import together
from tribes.config.model import NodeConfig
from tribes.errors import ConfigError
from tribes.runtime.group_channel import GroupChannel

MakeConfig = Callable[..., NodeConfig]

STACK = (
    {"class": "MessageDispatchInterceptor", "maxThreads": 5},
    {"class": "GzipInterceptor"},
    {"class": "EncryptInterceptor", "encryptionKey": "ab" * 16},
    {"class": "FragmentationInterceptor"},
    {"class": "OrderInterceptor"},
    {"class": "TcpFailureDetector"},
)


def with_stack(config: NodeConfig, *stack: Any, **channel: Any) -> NodeConfig:
    changed = msgspec.structs.replace(config.channel, interceptors=stack, **channel)
    return msgspec.structs.replace(config, channel=changed)


@pytest.mark.parametrize("own_link", [True, False])
async def test_messages_pass_the_configured_stack(make_config: MakeConfig, own_link: bool) -> None:
    """Short and long ones, on own and plain links, in order, acknowledged after processing."""
    got: list[bytes] = []
    configs = [with_stack(make_config(n), *STACK, own_link=own_link) for n in "ab"]
    async with GroupChannel(configs[0]) as a, GroupChannel(configs[1]) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        sent = [b"", b"short", bytes(range(256)) * 2000, b"last"]
        for message in sent:
            await a.send(message, options=6)
        assert got == sent


async def test_wrong_stack_is_refused_before_a_socket_is_open(make_config: MakeConfig) -> None:
    """With the names of both and what to write."""
    config = with_stack(make_config("a"), STACK[5], STACK[4])
    with pytest.raises(ConfigError, match="write OrderInterceptor before TcpFailureDetector"):
        async with GroupChannel(config):
            raise AssertionError("started")
    unknown = with_stack(make_config("b"), {"class": "OrderInterceptor", "expires": 1})
    with pytest.raises(ConfigError, match="did you mean 'expire'"):
        async with GroupChannel(unknown):
            raise AssertionError("started")
