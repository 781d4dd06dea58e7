"""Configured interceptors on real sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.ports import free_tcp_port
from tests.runtime.test_group_channel import together
from tests.waiting import until
from tribes.channel.outputs import MemberRemoved
from tribes.config.model import NodeConfig, ReceiverConfig
from tribes.errors import ConfigError
from tribes.runtime import assembly
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.sockets import listen

if TYPE_CHECKING:
    import socket

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


async def test_wrong_stack_is_refused_and_leaves_no_socket_open(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names of both and what to write. The rules of a stack look at the own record too,
    which needs a port; an interceptor that cannot be made needs none.
    """
    opened: list[socket.socket] = []

    def noted(receiver: ReceiverConfig) -> socket.socket:
        opened.append(listen(receiver))
        return opened[-1]

    monkeypatch.setattr(assembly, "listen", noted)
    config = with_stack(make_config("a"), STACK[5], STACK[4])
    with pytest.raises(ConfigError, match="write OrderInterceptor before TcpFailureDetector"):
        async with GroupChannel(config):
            raise AssertionError("started")
    assert [sock.fileno() for sock in opened] == [-1]
    unknown = with_stack(make_config("b"), {"class": "OrderInterceptor", "expires": 1})
    with pytest.raises(ConfigError, match="did you mean 'expire'"):
        async with GroupChannel(unknown):
            raise AssertionError("started")
    assert len(opened) == 1


async def test_farewell_of_static_members_is_written_before_the_connection_closes(
    make_config: MakeConfig,
) -> None:
    """Nothing else tells a member that speaks no own link and hears no multicast."""
    ports = [free_tcp_port(), free_tcp_port()]
    members = [
        {"host": "127.0.0.1", "port": port, "uniqueId": bytes([index]) * 16}
        for index, port in enumerate(ports)
    ]
    gone: list[str] = []

    def config(name: str, own: int) -> NodeConfig:
        made = make_config(name)
        static = {"class": "StaticMembershipInterceptor", "members": members}
        membership = msgspec.structs.replace(made.channel.membership, multicast=False)
        return with_stack(
            made,
            {"class": "TcpFailureDetector"},
            {**static, "localMember": members[own]},
            own_link=False,
            membership=membership,
            receiver=msgspec.structs.replace(made.channel.receiver, port=ports[own], auto_bind=1),
        )

    def note(event: object) -> None:
        if isinstance(event, MemberRemoved):
            gone.append(event.reason)

    async with GroupChannel(config("a", 0)) as a:
        a.add_membership_listener(note)
        async with GroupChannel(config("b", 1)) as b:
            await together(a, b)
        await until(lambda: bool(gone))
    assert gone == ["left"]


@pytest.mark.parametrize("own_link", [True, False])
async def test_member_with_a_fixed_id_comes_back_after_a_crash(
    make_config: MakeConfig, own_link: bool
) -> None:
    """With the id of the process before it, and numbering that begins anew: nothing is lost."""
    got: list[bytes] = []

    def config(name: str, **membership: object) -> NodeConfig:
        made = make_config(name)
        channel = msgspec.structs.replace(
            made.channel,
            own_link=own_link,
            membership=msgspec.structs.replace(made.channel.membership, **membership),
            receiver=msgspec.structs.replace(made.channel.receiver, port=free_tcp_port()),
        )
        return msgspec.structs.replace(made, channel=channel)

    fixed = config("b", unique_id="{1,2,3,4,5,6,7,8,9,10,11,12,13,14,-1,-2}")
    async with GroupChannel(config("a")) as a:
        a.add_message_listener(lambda message: got.append(message.message), inline=True)
        for life in (b"1", b"2"):
            async with GroupChannel(fixed) as b:
                assert b.local.unique_id == bytes([*range(1, 15), 255, 254])
                b.add_message_listener(lambda message: got.append(message.message), inline=True)
                await together(a, b)
                for number in (b"1", b"2"):
                    await b.send(b"b" + life + number, options=6)
                    await a.send(b"a" + life + number, options=6)
                # As a crash: nobody is told, and nothing is written any more.
                b.shell.core.stop = lambda now: None  # type: ignore[method-assign]
    assert got == [
        who + life + n for life in (b"1", b"2") for n in (b"1", b"2") for who in (b"b", b"a")
    ]
