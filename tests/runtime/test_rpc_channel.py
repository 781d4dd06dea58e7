"""RPC channels on real sockets: every kind of handler, every kind of caller, and what fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

from tests.runtime.test_group_channel import together
from tests.waiting import until
from tribes.config.model import NodeConfig
from tribes.errors import ChannelClosedError, LocalProtocolError, NoRpcChannelError
from tribes.rpc.calls import RpcBody, RpcMode
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.rpc_channel import RpcChannel
from tribes.wire.java import encode_java

from .test_replicated_map import running

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

MakeConfig = Callable[..., NodeConfig]


async def in_task(body: RpcBody, source: Member) -> RpcBody:
    await trio.lowlevel.checkpoint()
    return "task"


def in_thread(body: RpcBody, source: Member) -> RpcBody:
    assert threading.current_thread() is not threading.main_thread()
    return "thread"


def inline(body: RpcBody, source: Member) -> RpcBody:
    assert threading.current_thread() is threading.main_thread()
    return "inline"


@pytest.mark.parametrize(
    ("handler", "is_inline", "reply"),
    [(in_task, False, "task"), (in_thread, False, "thread"), (inline, True, "inline")],
)
async def test_each_kind_of_handler_replies(
    make_config: MakeConfig, handler: Callable[..., RpcBody], is_inline: bool, reply: str
) -> None:
    """A coroutine function in a task, another one in a worker thread, or in the loop itself."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        with RpcChannel(b, b"id", handler, inline=is_inline), RpcChannel(a, b"id") as rpc:
            result = await rpc.asend(b"x", b.local)
        assert [(r.source, r.body) for r in result.replies] == [(b.local, reply)]


@pytest.mark.parametrize("body", [b"", b"\x00\xff" * 3000, "grüß €", 7, -(2**40), None])
async def test_bodies_arrive_as_they_are(make_config: MakeConfig, body: RpcBody) -> None:
    """Bytes, text, numbers and None, in both directions."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        RpcChannel(b, b"id", lambda got, source: got, inline=True)
        result = await RpcChannel(a, b"id").asend(body)
        assert result.bodies == [body]


async def test_a_handler_that_raises_gives_no_reply(make_config: MakeConfig) -> None:
    """As in Tomcat: the caller waits for its timeout; the channel goes on."""

    def fail(body: RpcBody, source: Member) -> RpcBody:
        if body == b"bad":
            raise RuntimeError("as told")
        return [1, 2] if body == b"list" else b"good"  # type: ignore[return-value]

    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        for number, is_inline in enumerate((True, False)):
            rpc_id = b"id%d" % number
            RpcChannel(b, rpc_id, fail, inline=is_inline)
            rpc = RpcChannel(a, rpc_id)
            for body in (b"bad", b"list"):
                result = await rpc.asend(body, timeout=0.2)
                assert result.replies == ()
                assert not result.is_complete
            assert (await rpc.asend(b"x")).bodies == [b"good"]


async def test_a_closed_channel_is_none(make_config: MakeConfig) -> None:
    """After close, and where there is only an asking side, others are told so at once."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        answering = RpcChannel(b, b"id", lambda body, source: b"y", inline=True)
        rpc = RpcChannel(a, b"id")
        assert (await rpc.asend(b"x")).bodies == [b"y"]
        answering.close()
        answering.close()
        for only_asks in (False, True):
            if only_asks:
                RpcChannel(b, b"id")
            with trio.fail_after(2):
                result = await rpc.asend(b"x", timeout=30)
            assert {m: type(e) for m, e in result.missing.items()} == {b.local: NoRpcChannelError}


async def test_left_over_replies_reach_their_callback(make_config: MakeConfig) -> None:
    """Replies to NO_REPLY requests come there, with their source."""
    got: list[tuple[RpcBody, str]] = []
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        RpcChannel(b, b"id", lambda body, source: b"late", inline=True)
        rpc = RpcChannel(a, b"id", left_over=lambda body, source: got.append((body, source.label)))
        result = await rpc.asend(b"x", mode=RpcMode.NO_REPLY)
        assert (result.replies, result.missing) == ((), {})
        await until(lambda: bool(got))
        assert got == [(b"late", "b")]


async def test_members_may_ask_each_other_from_handlers(make_config: MakeConfig) -> None:
    """A handler that asks its caller back gets its reply: neither waits for the other."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        at_a = RpcChannel(a, b"id", lambda body, source: b"from a", inline=True)

        async def ask_back(body: RpcBody, source: Member) -> RpcBody:
            return (await at_b.asend(b"?", source)).bodies[0]

        at_b = RpcChannel(b, b"id", ask_back)
        assert (await at_a.asend(b"x", timeout=3)).bodies == [b"from a"]


def test_threads_ask_and_event_loops_do_not_block(make_config: MakeConfig) -> None:
    """``send`` blocks a thread and refuses in a loop; ``asend`` works in asyncio."""
    a, b = BackgroundNode(make_config("a")), BackgroundNode(make_config("b"))
    with running(a, b):
        RpcChannel(b, b"id", lambda body, source: body)
        rpc = RpcChannel(a, b"id")
        assert rpc.send(b"x", mode=RpcMode.ALL_REPLY).bodies == [b"x"]

        async def ask() -> list[RpcBody]:
            with pytest.raises(LocalProtocolError, match="asend"):
                rpc.send(b"x")
            results = await asyncio.gather(*(rpc.asend(number) for number in range(50)))
            return [result.bodies[0] for result in results]

        assert asyncio.run(ask()) == list(range(50))
    with pytest.raises(ChannelClosedError):
        rpc.send(b"x")


def test_a_channel_may_be_made_before_its_node_starts(make_config: MakeConfig) -> None:
    """It answers from the start; asking before is an error, and so is asking oneself."""
    b = BackgroundNode(make_config("b"))
    rpc = RpcChannel(b, b"id", lambda body, source: b"y")
    with pytest.raises(ChannelClosedError):
        rpc.send(b"x")
    a = BackgroundNode(make_config("a"))
    with running(b, a):
        assert RpcChannel(a, b"id").send(b"x", timeout=3).bodies == [b"y"]
        with pytest.raises(LocalProtocolError, match="itself"):
            rpc.send(b"x", b.local)


async def test_an_inline_handler_is_no_coroutine_function(make_config: MakeConfig) -> None:
    """It could not be awaited there; the id stays free."""
    channel = GroupChannel(make_config("a"))
    with pytest.raises(LocalProtocolError, match="inline"):
        RpcChannel(channel, b"id", in_task, inline=True)
    RpcChannel(channel, b"id", in_task).close()


async def test_java_messages_are_dropped_unless_asked_for(make_config: MakeConfig) -> None:
    """A listener sees byte messages only; with ``java`` it sees the undecoded bytes too.

    All of them are acknowledged, as those of a Tomcat member must be (DESIGN §4.3).
    """
    plain: list[bytes] = []
    asked: list[bytes] = []
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:

        def all_messages(message: ChannelData) -> None:
            asked.append(message.message)

        b.add_message_listener(lambda message: plain.append(message.message), inline=True)
        b.add_message_listener(all_messages, inline=True, java=True)
        await together(a, b)
        stream = encode_java("from Tomcat")
        faulty: list[dict[Member, Exception]] = []
        a.shell.core.channel.post(
            (b.local,),
            stream,
            6,
            a.shell.now(),
            settled=lambda wrong, now: faulty.append(wrong),
            is_bytes=False,
        )
        a.shell.pump()
        await a.send(b"bytes", options=6)
        assert faulty == [{}]
        assert plain == [b"bytes"]
        assert asked == [stream, b"bytes"]
