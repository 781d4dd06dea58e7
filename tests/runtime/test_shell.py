"""The trio shell on sockets in memory, under a mock clock, with every fault a network has.

:class:`Net` stands in for the kernel: the shell's ``socket`` and the three wait functions of
``trio.lowlevel`` are replaced, everything above is the real thing.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

from tests.runtime.test_group_channel import together
from tests.waiting import until
from tribes.config.model import (
    ChannelConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
    StaticMemberConfig,
)
from tribes.errors import (
    ChannelClosedError,
    GroupSendError,
    LocalProtocolError,
    RemoteProcessError,
    SendTimeoutError,
    TribesError,
)
from tribes.node import NodeCore
from tribes.runtime import assembly, dialing, parts
from tribes.runtime import link as link_module
from tribes.runtime.flight import Sources
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.shell import Shell

if TYPE_CHECKING:
    from tribes.channel.outputs import Event
    from tribes.wire.data import ChannelData

Address = tuple[str, int]

_wait_readable = trio.lowlevel.wait_readable

_INPUTS = (
    "datagram",
    "link_opened",
    "link_bytes",
    "link_closed",
    "connect_failed",
    "writable",
    "probe_result",
    "send",
    "delivered",
    "timer",
)


class Faults:
    """What is wrong with the network; all zero: nothing."""

    def __init__(self) -> None:
        self.read_max = 1 << 30
        self.write_max = 1 << 30
        self.refuse_every = 0
        """Of n calls of send, recv or accept on a socket only the first is not EAGAIN."""
        self.delay = 0.0
        self.capacity = 256 * 1024
        self.is_cut = False
        """Nothing arrives, no connection is made; TCP's bytes arrive once it is whole again."""
        self.lose_datagram: Callable[[int], bool] = lambda number: False
        self.accept_errors: deque[int] = deque()
        self.connect_errors: deque[tuple[int, float]] = deque()
        """Error and seconds until it shows; 0 seconds: at once; error 0: never answered."""


class Sock:
    """One socket in memory: what all kinds have in common."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.is_closed = False
        self.is_closing = False
        self.waiting: set[str] = set()
        self.calls = {"send": 0, "recv": 0, "accept": 0}
        self.changed = trio.Event()
        self.name: Address = ("127.0.0.1", net.free_port())
        net.socks.append(self)

    def getsockname(self) -> Address:
        return self.name

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.check_open()

    def check_open(self) -> None:
        if self.is_closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def maybe_refuse(self, call: str) -> None:
        number = self.calls[call]
        self.calls[call] += 1
        if self.net.faults.refuse_every and number % self.net.faults.refuse_every:
            raise BlockingIOError

    def change(self) -> None:
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    def close(self) -> None:
        # What trio demands: nobody waits on a descriptor that is closed.
        assert self.is_closing or not self.waiting
        self.is_closed = True
        self.change()

    def ready_at(self, side: str) -> float:
        """When a wait is over, as things are."""
        raise NotImplementedError


class Listener(Sock):
    """A listening TCP socket."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.backlog: deque[tuple[float, Stream]] = deque()
        net.listeners[self.name] = self

    def accept(self) -> tuple[Stream, Address]:
        self.check_open()
        self.maybe_refuse("accept")
        if not self.backlog or self.backlog[0][0] > trio.current_time():
            raise BlockingIOError
        if self.net.faults.accept_errors:
            code = self.net.faults.accept_errors.popleft()
            raise OSError(code, os.strerror(code))
        _, stream = self.backlog.popleft()
        assert stream.peer is not None
        return stream, stream.peer.name

    def ready_at(self, side: str) -> float:
        return self.backlog[0][0] if self.backlog else inf

    def close(self) -> None:
        super().close()
        self.net.listeners.pop(self.name, None)
        for _, stream in self.backlog:
            stream.close()


class Stream(Sock):
    """One end of a TCP connection."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.peer: Stream | None = None
        self.connected_at = inf
        self.connect_error = 0
        self.error: int | None = None
        self.arriving: deque[tuple[float, bytes]] = deque()
        """Chunks and when they arrive; an empty one is the end."""
        self.is_reset_by_close = False

    def setsockopt(self, level: int, option: int, value: object) -> None:
        super().setsockopt(level, option, value)
        if option == socket.SO_LINGER:
            self.is_reset_by_close = True

    def connect_ex(self, address: Address) -> int:
        faults = self.net.faults
        now = trio.current_time()
        if faults.connect_errors:
            code, seconds = faults.connect_errors.popleft()
            if code and not seconds:
                return code
            self.connect_error = code
            self.connected_at = now + seconds if code else inf
            return errno.EINPROGRESS
        if faults.is_cut:
            return errno.EINPROGRESS
        self.connected_at = now + faults.delay
        listener = self.net.listeners.get(address)
        if listener is None:
            self.connect_error = errno.ECONNREFUSED
            return errno.EINPROGRESS
        self.peer = Stream(self.net)
        self.peer.name = address
        self.peer.peer = self
        self.peer.connected_at = self.connected_at
        listener.backlog.append((self.connected_at, self.peer))
        listener.change()
        return errno.EINPROGRESS

    def getsockopt(self, level: int, option: int) -> int:
        assert option == socket.SO_ERROR
        return self.connect_error

    def getpeername(self) -> Address:
        if self.peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self.peer.name

    @property
    def room(self) -> int:
        assert self.peer is not None
        return self.net.faults.capacity - sum(len(data) for _, data in self.peer.arriving)

    def send(self, data: bytes) -> int:
        self.check_open()
        self.check_error()
        self.maybe_refuse("send")
        assert self.peer is not None
        if self.peer.is_closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        count = min(len(data), self.net.faults.write_max, self.room)
        if count <= 0:
            raise BlockingIOError
        self.peer.put(data[:count])
        return count

    def put(self, data: bytes) -> None:
        at = trio.current_time() + self.net.faults.delay
        if self.arriving:
            at = max(at, self.arriving[-1][0])
        self.arriving.append((at, data))
        self.change()

    def recv(self, count: int) -> bytes:
        self.check_open()
        self.check_error()
        self.maybe_refuse("recv")
        if self.arrives_at() > trio.current_time():
            raise BlockingIOError
        at, data = self.arriving[0]
        if not data:
            return b""
        count = min(count, self.net.faults.read_max)
        self.arriving.popleft()
        if len(data) > count:
            self.arriving.appendleft((at, data[count:]))
        if self.peer is not None:
            self.peer.change()
        return data[:count]

    def recv_into(self, buffer: bytearray) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def check_error(self) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))

    def arrives_at(self) -> float:
        return self.arriving[0][0] if self.arriving and not self.net.faults.is_cut else inf

    def ready_at(self, side: str) -> float:
        if self.error is not None:
            return -inf
        if side == "read":
            return self.arrives_at()
        if self.peer is None or self.connected_at > trio.current_time():
            return self.connected_at
        return -inf if self.room > 0 or self.peer.is_closed else inf

    def break_off(self, code: int = errno.ECONNRESET) -> None:
        """The connection ends with an error; what was on its way is gone."""
        if not self.is_closed:
            self.error = code
            self.arriving.clear()
            self.change()

    def close(self) -> None:
        is_first = not self.is_closed
        super().close()
        if self.peer is not None and is_first and not self.peer.is_closed:
            if self.is_reset_by_close:
                self.peer.break_off()
            else:
                self.peer.put(b"")


class Ear(Sock):
    """The UDP socket that hears the group."""

    def __init__(self, net: Net) -> None:
        super().__init__(net)
        self.arriving: deque[tuple[float, bytes, Address]] = deque()
        net.ears.append(self)

    def recvfrom(self, count: int) -> tuple[bytes, Address]:
        self.check_open()
        if self.ready_at("read") > trio.current_time():
            raise BlockingIOError
        _, data, addr = self.arriving.popleft()
        return data[:count], addr

    def ready_at(self, side: str) -> float:
        return self.arriving[0][0] if self.arriving else inf

    def close(self) -> None:
        super().close()
        self.net.ears.remove(self)


class Mouth(Sock):
    """The UDP socket that heartbeats leave by."""

    def sendto(self, data: bytes, group: Address) -> int:
        self.check_open()
        net = self.net
        net.datagrams += 1
        if net.faults.is_cut or net.faults.lose_datagram(net.datagrams):
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        for ear in net.ears:
            ear.arriving.append((trio.current_time() + net.faults.delay, data, self.name))
            ear.change()
        return len(data)


class Net:
    """The kernel of a machine that does not exist."""

    # What the shell takes from the module ``socket``.
    AF_INET = socket.AF_INET
    AF_INET6 = socket.AF_INET6
    SOCK_STREAM = socket.SOCK_STREAM
    SOL_SOCKET = socket.SOL_SOCKET
    SO_LINGER = socket.SO_LINGER
    SO_ERROR = socket.SO_ERROR

    def __init__(self) -> None:
        self.faults = Faults()
        self.socks: list[Sock] = []
        self.listeners: dict[Address, Listener] = {}
        self.ears: list[Ear] = []
        self.datagrams = 0
        self.lateness: list[float] = []
        self._port = 4000
        self._now = 0.0

    def socket(self, family: int, kind: int) -> Stream:
        assert (family, kind) == (socket.AF_INET, socket.SOCK_STREAM)
        return Stream(self)

    def free_port(self) -> int:
        self._port += 1
        return self._port

    def now(self) -> float:
        # A clock that stands still between two calls would never pass a rounded deadline.
        self._now = max(trio.current_time(), self._now + 1e-9)
        return self._now

    @property
    def streams(self) -> list[Stream]:
        """The connections that are open."""
        return [s for s in self.socks if isinstance(s, Stream) and not s.is_closed]

    def heal(self) -> None:
        self.faults.is_cut = False
        for sock in self.socks:
            sock.change()

    async def wait(self, side: str, sock: Sock | int) -> None:
        if isinstance(sock, int):
            # No socket: a bell, by which other threads wake the loop.
            await _wait_readable(sock)
            return
        if sock.is_closed:
            raise ValueError("file descriptor cannot be a negative integer (-1)")
        if side in sock.waiting:
            raise trio.BusyResourceError
        sock.waiting.add(side)
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if sock.is_closing:
                    raise trio.ClosedResourceError
                at = sock.ready_at(side)
                if at <= trio.current_time():
                    return
                with trio.move_on_at(at):
                    await sock.changed.wait()
        finally:
            sock.waiting.discard(side)

    def notify_closing(self, sock: Sock) -> None:
        sock.is_closing = True
        sock.change()

    def check_all_closed(self) -> None:
        # A connection in a backlog that nobody took belongs to the kernel: the listener closes it.
        assert [s for s in self.socks if not s.is_closed] == []
        assert [s for s in self.socks if s.waiting] == []


class CheckedCore(NodeCore):
    """A node core that checks its driver: time never goes back, no input re-enters."""

    def __init__(self, *args: Any, net: Net, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._net = net
        self._last = -inf
        self._inside = ""
        for name in _INPUTS:
            setattr(self, name, partial(self._input, name, getattr(self, name)))

    def _input(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        assert not self._inside, f"{name} within {self._inside}"
        now = args[-1]
        assert isinstance(now, float)
        assert now >= self._last
        self._last = now
        if name == "timer":
            assert now >= self.next_deadline
            self._net.lateness.append(now - self.next_deadline)
        self._inside = name
        try:
            return method(*args, **kwargs)
        finally:
            self._inside = ""


def replace_network(monkeypatch: pytest.MonkeyPatch) -> Net:
    net = Net()
    monkeypatch.setattr(dialing, "socket", net)
    monkeypatch.setattr(link_module, "socket", net)
    monkeypatch.setattr(trio.lowlevel, "wait_readable", partial(net.wait, "read"))
    monkeypatch.setattr(trio.lowlevel, "wait_writable", partial(net.wait, "write"))
    monkeypatch.setattr(trio.lowlevel, "notify_closing", net.notify_closing)
    monkeypatch.setattr(assembly, "listen", lambda config: Listener(net))
    monkeypatch.setattr(assembly, "multicast_receiver", lambda config: Ear(net))
    monkeypatch.setattr(assembly, "multicast_sender", lambda config: Mouth(net))
    monkeypatch.setattr(assembly, "NodeCore", partial(CheckedCore, net=net))
    monkeypatch.setattr(assembly, "Shell", partial(Shell, now=net.now))
    monkeypatch.setattr(
        parts,
        "Sources",
        partial(Sources, wall_ms=lambda: 1_700_000_000_000 + int(trio.current_time() * 1000)),
    )
    return net


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A network in memory that every shell of the test uses; in the end all must be closed."""
    net = replace_network(monkeypatch)
    yield net
    net.check_all_closed()


def channel(
    name: str,
    *,
    timeout: int = 3000,
    drop_time: int = 1000,
    watch: Callable[[Event], None] | None = None,
    drain_timeout: float = 5.0,
    **receiver: Any,
) -> GroupChannel:
    config = NodeConfig(
        name=name,
        channel=ChannelConfig(
            membership=MembershipConfig(frequency=50, drop_time=drop_time),
            receiver=ReceiverConfig(**receiver),
            sender=SenderConfig(timeout=timeout),
        ),
    )
    return GroupChannel(config, watch=watch, drain_timeout=drain_timeout)


def listen(node: GroupChannel) -> list[bytes]:
    got: list[bytes] = []
    node.add_message_listener(lambda message: got.append(message.message), inline=True)
    return got


def short_reads(faults: Faults) -> None:
    faults.read_max = 1


def short_writes(faults: Faults) -> None:
    faults.write_max = 7


def refused_calls(faults: Faults) -> None:
    faults.refuse_every = 4


def delays(faults: Faults) -> None:
    faults.delay = 0.03


def small_buffers(faults: Faults) -> None:
    faults.capacity = 16


def lost_datagrams(faults: Faults) -> None:
    faults.lose_datagram = lambda number: number % 3 != 0


def everything(faults: Faults) -> None:
    for fault in (short_writes, refused_calls, delays, lost_datagrams):
        fault(faults)
    faults.capacity = 64
    faults.read_max = 9


FAULTS = [
    short_reads,
    short_writes,
    refused_calls,
    delays,
    small_buffers,
    lost_datagrams,
    everything,
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("options", [0, 2, 6, 8])
async def test_messages_arrive_once_whole_and_in_order(
    net: Net, autojump_clock: MockClock, fault: Callable[[Faults], None], options: int
) -> None:
    """However the network cuts and delays the bytes, the listener gets what was sent, as sent."""
    fault(net.faults)
    async with channel("a", timeout=60_000) as a, channel("b") as b:
        got = listen(b)
        await together(a, b)
        sent = [b"%d" % i + b"x" * (i * 7) for i in range(8)]
        for message in sent:
            await a.send(message, options=options)
        await until(lambda: len(got) >= len(sent))
        assert got == sent


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_option_returns_when_it_promises(
    net: Net, autojump_clock: MockClock, fault: Callable[[Faults], None]
) -> None:
    """0, 2 and 8 return while the listener is busy, 6 only after it."""
    fault(net.faults)
    gate, done = trio.Event(), list[bytes]()

    async def slow(message: ChannelData) -> None:
        await gate.wait()
        done.append(message.message)

    async with channel("a", timeout=60_000) as a, channel("b") as b:
        b.add_message_listener(slow)
        await together(a, b)
        for options in (0, 8, 2):
            await a.send(b"%d" % options, options=options)
        assert done == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(a.send, b"6", options=6))
            await trio.sleep(20)
            assert done == []
            assert len(nursery.child_tasks) == 1
            gate.set()
        assert done == [b"0", b"8", b"2", b"6"]


async def test_failing_listener_is_named_to_the_sender(net: Net, autojump_clock: MockClock) -> None:
    """Option 6 tells that the listener failed; the connection stays."""

    async def failing(message: ChannelData) -> None:
        raise RuntimeError("no")

    net.faults.read_max = 1
    async with channel("a") as a, channel("b") as b:
        b.add_message_listener(failing)
        await together(a, b)
        opened = a.shell.links.opened
        with pytest.raises(GroupSendError) as caught:
            await a.send(b"x", options=6)
        assert isinstance(caught.value.faulty[b.local], RemoteProcessError)
        assert a.shell.links.opened == opened


@pytest.mark.parametrize("chance", range(6))
async def test_reset_in_the_middle_loses_no_acknowledged_message(
    net: Net, autojump_clock: MockClock, chance: int
) -> None:
    """A connection that breaks while a message is under way: it is sent again, delivered once."""
    net.faults.write_max = 100
    net.faults.capacity = 400
    net.faults.delay = 0.001
    async with channel("a", timeout=10_000) as a, channel("b") as b:
        got = listen(b)
        await together(a, b)
        await a.send(b"first", options=6)
        sent = [b"%d" % i + b"y" * 500 for i in range(10)]
        async with trio.open_nursery() as nursery:

            async def send_all() -> None:
                for message in sent:
                    await a.send(message, options=6)

            nursery.start_soon(send_all)
            await trio.sleep(0.0005 + 0.003 * chance)
            for stream in net.streams:
                stream.break_off()
        assert got == [b"first", *sent]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ECONNABORTED])
async def test_accept_errors_delay_but_do_not_end(
    net: Net, autojump_clock: MockClock, code: int
) -> None:
    """Out of descriptors: the listener tries again a little later, and the node lives."""
    net.faults.accept_errors.extend([code] * 5)
    async with channel("a") as a, channel("b") as b:
        got = listen(b)
        await together(a, b)
        await a.send(b"x", options=6)
        assert got == [b"x"]
        assert not net.faults.accept_errors


@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        (errno.ECONNREFUSED, 0.0),
        (errno.ECONNREFUSED, 0.01),
        (errno.EHOSTUNREACH, 0.2),
        (errno.ENETUNREACH, 0.0),
        (errno.ETIMEDOUT, 0.3),
        (errno.EMFILE, 0.0),
    ],
)
async def test_one_failed_connect_is_tried_again(
    net: Net, autojump_clock: MockClock, code: int, seconds: float
) -> None:
    """A first connection that fails costs time, not the message."""
    net.faults.connect_errors.append((code, seconds))
    async with channel("a") as a, channel("b") as b:
        got = listen(b)
        await together(a, b)
        await a.send(b"x", options=6)
        assert got == [b"x"]


@pytest.mark.parametrize("options", [0, 2, 6])
async def test_unanswered_connect_fails_the_send_in_time(
    net: Net, autojump_clock: MockClock, options: int
) -> None:
    """A send to a member behind a cut ends after its timeout, as that member's error."""
    async with channel("a", timeout=700, drop_time=60_000) as a, channel("b") as b:
        await together(a, b)
        await trio.sleep(1)
        net.faults.is_cut = True
        for stream in net.streams:
            stream.break_off()
        begun = trio.current_time()
        with pytest.raises(GroupSendError) as caught:
            await a.send(b"x", to=b.local, options=options)
        assert list(caught.value.faulty) == [b.local]
        assert trio.current_time() - begun <= 0.75
        net.heal()


async def test_peer_that_never_reads_costs_a_timeout_only(
    net: Net, autojump_clock: MockClock
) -> None:
    """What a peer does not take fails in time, and another member is served meanwhile."""
    async with (
        channel("a", timeout=500, drain_timeout=1) as a,
        channel("b") as b,
        channel("c") as c,
    ):
        got = listen(c)
        gate = trio.Event()

        async def stuck(message: ChannelData) -> None:
            await gate.wait()

        b.add_message_listener(stuck)
        await together(a, b, c)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(GroupSendError) as caught:
                    await a.send(b"x" * 1_000_000, to=b.local, options=6)
                assert isinstance(caught.value.faulty[b.local], SendTimeoutError)

            nursery.start_soon(fail)
            await a.send(b"quick", to=c.local, options=6)
            assert trio.current_time() - begun < 0.1
        assert trio.current_time() - begun == pytest.approx(0.5, abs=0.05)
        assert got == [b"quick"]
        gate.set()


async def test_leaving_while_a_peer_never_reads_closes_everything(
    net: Net, autojump_clock: MockClock
) -> None:
    """A writer task that waits for room does not keep a node from leaving."""
    async with channel("b") as b:
        async with channel("a", timeout=60_000, drain_timeout=0.5) as a:
            await together(a, b)
            await a.send(b"x", options=6)
            net.faults.is_cut = True
            await a.send(b"y" * 1_000_000, options=8)
            await trio.sleep(0.1)
            begun = trio.current_time()
        assert trio.current_time() - begun == pytest.approx(0.5, abs=0.05)
        net.heal()


async def test_leaving_fails_what_is_still_waiting(net: Net, autojump_clock: MockClock) -> None:
    """A send that waits when its channel is left ends with the reason, not never."""
    ends: list[object] = []
    async with trio.open_nursery() as outer, channel("b") as b:
        gate = trio.Event()

        async def stuck(message: ChannelData) -> None:
            await gate.wait()

        b.add_message_listener(stuck)
        async with channel("a", timeout=60_000, drain_timeout=0.5) as a:
            await together(a, b)

            async def wait() -> None:
                try:
                    await a.send(b"x", options=6)
                except GroupSendError as error:
                    ends.append(error.faulty[b.local])

            outer.start_soon(wait)
            await trio.sleep(1)
        await until(lambda: bool(ends), within=1)
        assert isinstance(ends[0], ChannelClosedError)
        gate.set()


async def test_connection_that_ends_while_paused_costs_itself_only(
    net: Net, autojump_clock: MockClock
) -> None:
    """A link that is not read because listeners are slow may be closed; the node goes on."""
    gate, got = trio.Event(), list[bytes]()

    async def slow(message: ChannelData) -> None:
        await gate.wait()
        got.append(message.message)

    async with channel("b", pending_max=2) as b:
        b.add_message_listener(slow)
        async with channel("a", drain_timeout=0.2) as a:
            await together(a, b)
            for i in range(20):
                await a.send(b"%d" % i, options=8)
            await trio.sleep(0.1)
            links = list(b.shell.links.open.values())
            assert [link for link in links if not link.readable.is_set()]
            for link in links:
                b.shell.links._close(link)
            await trio.sleep(0.1)
        gate.set()
        async with channel("c") as c:
            await until(lambda: len(c.members) == 1)
            await c.send(b"last", to=b.local, options=6)
        assert got[-1] == b"last"


async def test_leaving_with_a_paused_connection(net: Net, autojump_clock: MockClock) -> None:
    """A node whose links are paused leaves as any other."""
    async with channel("a", drain_timeout=0.2) as a:
        async with channel("b", pending_max=2, drain_timeout=0.2) as b:
            b.add_message_listener(_never)
            await together(a, b)
            for i in range(20):
                await a.send(b"%d" % i, options=8)
            await trio.sleep(0.1)
            assert [x for x in b.shell.links.open.values() if not x.readable.is_set()]
        await until(lambda: not a.members)


async def _never(message: ChannelData) -> None:
    await trio.sleep_forever()


async def test_short_cut_heals_without_loss(net: Net, autojump_clock: MockClock) -> None:
    """Half a second without a network delays an acknowledged message, and delivers it once."""
    async with channel("a", drop_time=5000) as a, channel("b", drop_time=5000) as b:
        got = listen(b)
        await together(a, b)
        await a.send(b"1", options=6)
        async with trio.open_nursery() as nursery:
            net.faults.is_cut = True
            nursery.start_soon(partial(a.send, b"2", options=6))
            await trio.sleep(0.5)
            assert got == [b"1"]
            net.heal()
        assert got == [b"1", b"2"]


async def test_long_cut_removes_and_readmits(net: Net, autojump_clock: MockClock) -> None:
    """Members behind a cut are gone after the drop time, and found again when it heals."""
    async with channel("a") as a, channel("b") as b:
        got = listen(b)
        await together(a, b)
        begun = trio.current_time()
        net.faults.is_cut = True
        await until(lambda: not a.members and not b.members)
        assert 0.9 <= trio.current_time() - begun <= 10
        net.heal()
        await together(a, b)
        await a.send(b"x", options=6)
        assert got == [b"x"]


async def test_timers_fire_on_time_and_never_early(net: Net, autojump_clock: MockClock) -> None:
    """The core's timer is called at its deadline: heartbeats keep their period for a minute."""
    async with channel("a") as a:
        statistics = a.shell.core.channel.membership.statistics
        await trio.sleep(60)
        assert statistics.heartbeats_sent == pytest.approx(60 / 0.05, abs=3)
    assert len(net.lateness) >= 1000
    assert max(net.lateness) < 0.001


async def test_cancelled_send_forgets_its_ticket(net: Net, autojump_clock: MockClock) -> None:
    """Cancelling a send that waits leaves no waiter behind; later sends work."""
    gate = trio.Event()

    async def slow(message: ChannelData) -> None:
        await gate.wait()

    async with channel("a") as a, channel("b") as b:
        b.add_message_listener(slow)
        await together(a, b)
        with trio.move_on_after(0.5) as scope:
            await a.send(b"x", options=6)
        assert scope.cancelled_caught
        assert a.shell._tickets == {}
        gate.set()
        await a.send(b"y", options=6)
        assert a.shell._tickets == {}


# Cancelling everywhere.


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task since it was armed."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.scope: trio.CancelScope | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.scope is not None:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def _life(net: Net, cancel: CancelAt, *, only_b: bool) -> None:
    """Two members join, talk both ways with option 6, and leave; the scope is cancelled."""
    net.faults.read_max = 300
    net.faults.write_max = 200
    net.faults.delay = 0.01

    async def life(name: str, messages: list[bytes]) -> None:
        async with channel(name, drain_timeout=1) as node:

            async def take(message: ChannelData) -> None:
                await trio.sleep(0.001)
                messages.append(message.message)

            node.add_message_listener(take)
            await until(lambda: len(node.members) == 1, every=0.05)
            await node.send(b"from " + node.config.name.encode() + b"x" * 300, options=6)
            await until(lambda: bool(messages), every=0.05)

    async def a_life() -> None:
        got: list[bytes] = []
        with trio.move_on_after(5):
            try:
                await life("a", got)
            except* GroupSendError:
                # The other was cancelled while this one waited for it.
                assert only_b
        assert all(message == b"from b" + b"x" * 300 for message in got)
        assert len(got) <= 1

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            cancel.scope = scope
            if only_b:
                nursery.start_soon(a_life)
                await life("b", [])
            else:
                async with trio.open_nursery() as inner:
                    inner.start_soon(a_life)
                    await life("b", [])
        cancel.scope = None


@pytest.mark.parametrize("only_b", [False, True], ids=["both", "one"])
@pytest.mark.parametrize("part", range(4))
def test_cancel_at_every_step(monkeypatch: pytest.MonkeyPatch, part: int, only_b: bool) -> None:
    """Wherever a life is cancelled, it ends without another error and with all sockets closed."""
    # Every step when both end; a sample of them when one lives on, which takes longer.
    stride = 5 if only_b else 1
    number, last = 1 + part * stride, inf
    while number < last:
        with monkeypatch.context() as patch:
            network = replace_network(patch)
            cancel = CancelAt(number)
            trio.run(
                partial(_life, network, cancel, only_b=only_b),
                clock=MockClock(autojump_threshold=0),
                instruments=[cancel],
            )
            network.check_all_closed()
        if cancel.left > 0:
            last = number
        number += 4 * stride
    assert number > 100


async def test_cancelled_node_tells_the_group(net: Net, autojump_clock: MockClock) -> None:
    """Cancelling the body is a leave: the others know at once, and do not wait for silence."""
    async with channel("a") as a:
        async with trio.open_nursery() as nursery:

            async def b_life() -> None:
                async with channel("b") as b:
                    await together(a, b)
                    await trio.sleep_forever()

            nursery.start_soon(b_life)
            await until(lambda: len(a.members) == 1)
            nursery.cancel_scope.cancel()
        await trio.sleep(0.01)
        assert a.members == ()


async def test_failing_body_leaves_no_socket(net: Net, autojump_clock: MockClock) -> None:
    """An exception of the body comes out as itself, after everything is closed."""
    with pytest.RaisesGroup(TribesError, flatten_subgroups=True):
        async with channel("a") as a, channel("b") as b:
            await together(a, b)
            raise TribesError("mine")


class Names(trio.abc.HostnameResolver):
    """Notes which names are looked up; all are this machine."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> Any:
        self.asked.append(host.decode())
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port or 0))]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


async def test_of_two_changes_of_the_static_members_at_once_the_last_holds(
    net: Net, autojump_clock: MockClock
) -> None:
    """The names of the first are not looked up beside it, again and again, for ever."""
    names = Names()
    before = trio.socket.set_custom_hostname_resolver(names)
    try:
        async with channel("a") as a:
            a.set_static_members([StaticMemberConfig(host="old.test", port=4001)])
            a.set_static_members([StaticMemberConfig(host="new.test", port=4001)])
            await trio.sleep(1.0)
            names.asked.clear()
            await trio.sleep(6.0)
            assert set(names.asked) == {"new.test"}
            a.set_static_members([])
            names.asked.clear()
            await trio.sleep(6.0)
            assert names.asked == []
    finally:
        trio.socket.set_custom_hostname_resolver(before)


async def test_domain_that_no_record_can_carry_is_refused(
    net: Net, autojump_clock: MockClock
) -> None:
    """As everything else that cannot be announced, and the record stays as it was."""
    async with channel("a") as a:
        with pytest.raises(LocalProtocolError, match="ISO-8859-1"):
            a.announce(payload=b"new", domain="Łódź")
        assert (a.local.domain, a.local.payload) == (b"", b"a")
        a.announce(domain="Köln")
        assert a.local.domain == b"K\xf6ln"
