"""The channel on real sockets: members, the meaning of each send option, hostile input."""

from __future__ import annotations

import codecs
import dataclasses
import random
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.standstill import Stopwatch
from tests.waiting import until
from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.tickets import Outgoing
from tribes.config.model import NodeConfig
from tribes.errors import (
    ChannelClosedError,
    ConfigError,
    GroupSendError,
    LocalProtocolError,
    RemoteProcessError,
)
from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from tribes.channel.outputs import Event
    from tribes.wire.data import ChannelData

MakeConfig = Callable[..., NodeConfig]


async def together(*channels: GroupChannel) -> None:
    await until(lambda: all(len(c.members) == len(channels) - 1 for c in channels))


async def heartbeats(count: int, *channels: GroupChannel) -> None:
    """Wait until each of them has sent so many more, and so has been heard or not."""
    each = [channel.shell.core.channel.membership.statistics for channel in channels]
    enough = [statistics.heartbeats_sent + count for statistics in each]
    await until(lambda: all(s.heartbeats_sent >= n for s, n in zip(each, enough, strict=True)))


async def test_members_find_each_other_and_tell_a_leave(make_config: MakeConfig) -> None:
    """Two members see each other; the one that leaves is gone at once, as left."""
    events: list[Event] = []
    async with GroupChannel(make_config("a"), watch=events.append) as a:
        async with GroupChannel(make_config("b")) as b:
            await together(a, b)
            assert [m.label for m in a.members] == ["b"]
            assert a.members[0] == b.local
        await until(lambda: not a.members)
    told = [(e.name, e.fields().get("reason")) for e in events if e.name.startswith("member")]
    assert told == [("member added", None), ("member removed", "left")]


@pytest.mark.parametrize("options", [0, 2, 6, 8, 10])
async def test_messages_arrive_once_and_in_order(make_config: MakeConfig, options: int) -> None:
    """Whatever the option, one sender's messages reach the listener as they were sent."""
    got: list[bytes] = []
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        sent = [b"%d" % i for i in range(200)]
        for message in sent:
            await a.send(message, options=options)
        await until(lambda: len(got) == 200)
        assert got == sent


async def test_order_holds_across_options(make_config: MakeConfig) -> None:
    """A synchronously acknowledged message cannot overtake asynchronous ones before it."""
    got: list[bytes] = []
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        for i in range(50):
            await a.send(b"async %d" % i, options=8)
        await a.send(b"sync", options=6)
        assert got[-1] == b"sync"
        assert len(got) == 51


async def test_t06_option_2_returns_before_processing_and_6_after(make_config: MakeConfig) -> None:
    """A slow listener delays only those who asked to wait for it."""
    gate, done = trio.Event(), []

    async def slow(message: ChannelData) -> None:
        await gate.wait()
        done.append(message.message)

    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(slow)
        await together(a, b)
        for options in (0, 8, 2):
            await a.send(b"%d" % options, options=options)
        assert done == []
        async with trio.open_nursery() as nursery:
            received = b.shell.core.channel.statistics.frames_received
            nursery.start_soon(lambda: a.send(b"6", options=6))
            await until(lambda: b.shell.core.channel.statistics.frames_received > received)
            assert len(nursery.child_tasks) == 1
            gate.set()
        assert sorted(done) == [b"0", b"2", b"6", b"8"]


async def test_failing_listener_is_the_senders_error_with_6_only(make_config: MakeConfig) -> None:
    """Option 6 names the member whose listener failed; the others have the message."""
    good: list[bytes] = []

    def failing(message: ChannelData) -> None:
        raise RuntimeError("no")

    async with (
        GroupChannel(make_config("a")) as a,
        GroupChannel(make_config("b")) as b,
        GroupChannel(make_config("c")) as c,
    ):
        b.add_message_listener(failing)
        c.add_message_listener(lambda message: good.append(message.message), inline=True)
        await together(a, b, c)
        await a.send(b"received", options=2)
        with pytest.raises(GroupSendError) as caught:
            await a.send(b"processed", options=6)
        assert list(caught.value.faulty) == [b.local]
        assert isinstance(caught.value.faulty[b.local], RemoteProcessError)
        assert good == [b"received", b"processed"]


async def test_send_reaches_the_named_members_only(make_config: MakeConfig) -> None:
    """``to`` chooses; without it everybody in the view is meant, and nobody is no error."""
    got: dict[str, list[bytes]] = {"b": [], "c": []}
    async with GroupChannel(make_config("a")) as a:
        await a.send(b"to nobody", options=6)
        async with GroupChannel(make_config("b")) as b, GroupChannel(make_config("c")) as c:
            b.add_message_listener(lambda m: got["b"].append(m.message), inline=True)
            c.add_message_listener(lambda m: got["c"].append(m.message), inline=True)
            await together(a, b, c)
            await a.send(b"1", to=b.local, options=6)
            await a.send(b"2", to=[c.local], options=6)
            await a.send(b"3", options=6)
    assert got == {"b": [b"1", b"3"], "c": [b"2", b"3"]}


async def test_listener_cannot_wait_for_the_member_it_answers(make_config: MakeConfig) -> None:
    """A synchronous answer to the member that waits for this very handler is refused at once."""
    caught: list[Exception] = []
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:

        async def answer(message: ChannelData) -> None:
            try:
                await b.send(b"pong", to=message.source, options=6)
            except LocalProtocolError as error:
                caught.append(error)
            await b.send(b"pong", to=message.source, options=2)

        b.add_message_listener(answer)
        await together(a, b)
        await a.send(b"ping", options=6)
    assert len(caught) == 1


async def test_slow_source_does_not_delay_another(make_config: MakeConfig) -> None:
    """Each member's messages have their own line to the listeners."""
    gate = trio.Event()
    got: list[bytes] = []

    async def listen(message: ChannelData) -> None:
        if message.message == b"slow":
            await gate.wait()
        got.append(message.message)

    async with (
        GroupChannel(make_config("a")) as a,
        GroupChannel(make_config("b")) as b,
        GroupChannel(make_config("c")) as c,
    ):
        c.add_message_listener(listen)
        await together(a, b, c)
        await a.send(b"slow", to=c.local, options=2)
        await b.send(b"quick", to=c.local, options=6)
        assert got == [b"quick"]
        gate.set()
        await until(lambda: got == [b"quick", b"slow"])


async def test_synchronous_listeners_do_not_block_the_channel(make_config: MakeConfig) -> None:
    """A plain function runs in a worker thread: heartbeats and acknowledgements go on."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        begun = trio.Event()
        token = trio.lowlevel.current_trio_token()
        release = trio.Event()

        def blocking(message: ChannelData) -> None:
            token.run_sync_soon(begun.set)
            trio.from_thread.run(release.wait)

        b.add_message_listener(blocking)
        await together(a, b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: a.send(b"x", options=6))
            await begun.wait()
            before = b.shell.core.channel.membership.statistics.heartbeats_sent
            await until(
                lambda: b.shell.core.channel.membership.statistics.heartbeats_sent > before + 2
            )
            release.set()


async def test_membership_listeners_hear_every_change_in_order(make_config: MakeConfig) -> None:
    """Synchronous and asynchronous listeners; one that raises costs only its own call."""
    heard: list[str] = []

    async def listen(event: Any) -> None:
        heard.append(event.name)

    def broken(event: Any) -> None:
        raise RuntimeError("mine")

    async with GroupChannel(make_config("a")) as a:
        a.add_membership_listener(broken)
        a.add_membership_listener(listen)
        async with GroupChannel(make_config("b")) as b:
            await together(a, b)
        await until(lambda: heard == ["member added", "member removed"])


async def test_hostile_bytes_cost_a_connection_and_move_a_counter(
    make_config: MakeConfig,
) -> None:
    """1 MB of random bytes, truncated frames, negative lengths: closed, counted, all well."""
    noise = random.Random(7).randbytes(1024 * 1024)
    start = b"FLT2002"
    attacks = [
        noise,
        start + struct.pack(">i", -1) + b"x" * 100,
        start + struct.pack(">i", 2**31 - 1) + b"x" * 100,
        start + struct.pack(">i", 10) + b"0123456789" + b"TLF2004",
        start + struct.pack(">i", 4) + b"\x00\x00\x00\x01" + b"TLF2003",
        start + struct.pack(">i", 40) + b"\xff" * 40 + b"TLF2003",
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    got: list[bytes] = []
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        statistics = b.shell.core.channel.statistics
        for number, attack in enumerate(attacks, 1):
            stream = await trio.open_tcp_stream("127.0.0.1", b.local.port)
            async with stream:
                with trio.fail_after(5):
                    try:
                        await stream.send_all(attack)
                        assert await stream.receive_some(10) == b""
                    except trio.BrokenResourceError:
                        pass
            assert statistics.links_rejected == number
        # A frame that never ends costs its own connection only, when its sender goes away.
        async with await trio.open_tcp_stream("127.0.0.1", b.local.port) as stream:
            await stream.send_all(start + struct.pack(">i", 1000) + b"half")
        await a.send(b"alive", options=6)
        assert got == [b"alive"]
        assert [m.label for m in a.members] == ["b"]


async def test_random_datagrams_do_not_disturb_the_membership(make_config: MakeConfig) -> None:
    """Junk sent to the group is counted; heartbeats go on being understood."""
    noise = random.Random(3)
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        membership = a.config.channel.membership
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            loopback = socket.inet_aton("127.0.0.1")
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            for size in (0, 1, 13, 77, 1000):
                for prefix in (b"", b"TRIBES-B\x01\x00"):
                    sock.sendto(
                        prefix + noise.randbytes(size), (membership.address, membership.port)
                    )
        statistics = a.shell.core.channel.membership.statistics
        await until(lambda: statistics.malformed + statistics.ignored >= 10)
        received = statistics.heartbeats_received
        await until(lambda: statistics.heartbeats_received > received + 4)
        assert [m.label for m in a.members] == ["b"]


async def test_autobind_takes_the_next_free_port(make_config: MakeConfig) -> None:
    """``auto_bind`` ports are tried upwards; when none is free the error names the range."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = make_config("a")
        receiver = type(config.channel.receiver)(port=port, auto_bind=50)
        channel = type(config.channel)(membership=config.channel.membership, receiver=receiver)
        async with GroupChannel(NodeConfig(name="a", channel=channel)) as a:
            assert port < a.local.port < port + 50
        only = type(config.channel)(
            membership=config.channel.membership,
            receiver=type(receiver)(port=port, auto_bind=1),
        )
        with pytest.raises(ConfigError, match=f"no free port from {port} to {port}"):
            async with GroupChannel(NodeConfig(name="a", channel=only)):
                pass


async def test_dead_member_fails_quickly_and_is_removed(make_config: MakeConfig) -> None:
    """Its refused connections tell; nobody waits for the timeout."""
    async with GroupChannel(make_config("a")) as a:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def other() -> None:
                    async with GroupChannel(make_config("b"), drain_timeout=0) as b:
                        # Its machine loses power: no farewell, no closing handshake of ours.
                        await together(a, b)
                        b.shell.core.channel.membership.stop = lambda now: None  # type: ignore[method-assign]
                        scope.cancel()

                nursery.start_soon(other)
        watch = Stopwatch()
        await until(lambda: not a.members)
        assert watch.seconds < 0.5


async def test_channel_is_used_inside_its_block_only(make_config: MakeConfig) -> None:
    """Before entering, and a second time, the error says what to do."""
    channel = GroupChannel(make_config("a"))
    with pytest.raises(ChannelClosedError, match="has not been entered"):
        await channel.send(b"x")
    async with channel:
        pass
    with pytest.raises(LocalProtocolError, match="entered once"):
        async with channel:
            pass


async def test_quiet_group_opens_no_connections(make_config: MakeConfig) -> None:
    """Once everybody knows everybody, heartbeats are the only traffic: nobody tests nobody."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        heartbeats = a.shell.core.channel.membership.statistics
        await until(lambda: heartbeats.heartbeats_received >= 10)
        opened = a.shell.links.opened + b.shell.links.opened
        await until(lambda: heartbeats.heartbeats_received >= 20)
        assert a.shell.links.opened + b.shell.links.opened == opened
        # Each has tested the other once, and keeps one connection to it.
        assert opened <= 8


class Rot13(Interceptor):
    """A user's interceptor: changes what is on the wire and changes it back."""

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """On the way down."""
        data = dataclasses.replace(message.data, message=_rot13(message.data.message))
        next(Outgoing(data, message.destinations, message.ticket), now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """On the way up."""
        next(dataclasses.replace(message, message=_rot13(message.message)), now)


def _rot13(data: bytes) -> bytes:
    return codecs.encode(data.decode("latin-1"), "rot13").encode("latin-1")


async def test_users_extend_the_chain(make_config: MakeConfig) -> None:
    """An interceptor of one's own stands where it was put: its bytes are on the wire."""
    plain: list[bytes] = []
    changed: list[bytes] = []

    def stack() -> list[Interceptor]:
        return [MessageDispatchInterceptor(), Rot13(), TcpFailureDetector()]

    async with (
        GroupChannel(make_config("a"), interceptors=stack()) as a,
        GroupChannel(make_config("b"), interceptors=stack()) as b,
        GroupChannel(make_config("c")) as c,
    ):
        b.add_message_listener(lambda message: changed.append(message.message), inline=True)
        c.add_message_listener(lambda message: plain.append(message.message), inline=True)
        await together(a, b, c)
        await a.send(b"hello", options=6)
    assert changed == [b"hello"]
    assert plain == [b"uryyb"]


@pytest.mark.parametrize("options", [32, 34, 38, 64])
async def test_messages_by_datagram_arrive(make_config: MakeConfig, options: int) -> None:
    """As such, and not by the connection. Also from a member that receives none by UDP itself: it
    gets the answers all the same.
    """
    got: list[bytes] = []

    def listen(message: ChannelData) -> None:
        got.append(message.message)
        if message.message == b"fail":
            raise ValueError("no")

    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b", udp_port=0)) as b:
        b.add_message_listener(listen, inline=True)
        await together(a, b)
        assert a.members[0].udp_port > 0
        for size in (0, 1000, 60_000):
            await a.send(bytes(size), options=options)
        await until(lambda: sorted(map(len, got)) == [0, 1000, 60_000])
        assert b.shell.core.channel.datagrams.statistics.received == 3
        if options == 38:
            with pytest.raises(GroupSendError) as caught:
                await a.send(b"fail", options=options)
            assert isinstance(caught.value.faulty[b.local], RemoteProcessError)


async def test_connections_have_the_socket_options_of_the_configuration(
    make_config: MakeConfig,
) -> None:
    """On both sides: what is accepted has the receiver's, what is made the sender's."""
    config = make_config("a", rx_buf_size=20_000, so_traffic_class=8, tcp_no_delay=False)
    async with GroupChannel(config) as a, GroupChannel(make_config("b")) as b:
        await together(a, b)
        await a.send(b"x", options=2)
        await b.send(b"x", options=2)
        sockets = [link.sock for link in a.shell.links.open.values()]
        accepted = [s for s in sockets if s.getsockname()[1] == a.local.port]
        made = [s for s in sockets if s not in accepted]
        assert accepted
        assert made
        for sock in accepted:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) in (20_000, 40_000)
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 8
            assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for sock in made:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) not in (20_000, 40_000)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
