"""Full queues as callers meet them: in trio, in a thread, in asyncio; and waking them up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.runtime.test_group_channel import together
from tests.runtime.test_replicated_map import running
from tests.runtime.test_shell import net as net
from tests.waiting import until, wait_until
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
)
from tribes.errors import GroupSendError, QueueFullError
from tribes.manager.inbox import COMMIT_OVERHEAD_BYTES, Commit, CommitResult, Wakes, resolve_all
from tribes.runtime.background import BackgroundNode
from tribes.runtime.commits import Committer
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.parts import Sessions

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.runtime.test_shell import Net
    from tribes.manager.session import Session
    from tribes.wire.data import ChannelData

QUEUE = 20_000
SIZE = 3_000


def config(
    name: str,
    *,
    group_port: int = 45564,
    queue_timeout: int = 500,
    options: int = 8,
    queue: int = QUEUE,
) -> NodeConfig:
    return NodeConfig(
        name=name,
        contexts=("app",),
        channel=ChannelConfig(
            membership=MembershipConfig(
                port=group_port, frequency=50, drop_time=5000, suspect_after=0
            ),
            receiver=ReceiverConfig(port=0, pending_max=2),
            sender=SenderConfig(
                timeout=60_000,
                queue_max_bytes=queue,
                unacked_max_bytes=queue,
                queue_timeout=queue_timeout,
            ),
        ),
        manager=ManagerConfig(channel_send_options=options),
    )


@pytest.mark.parametrize("options", [0, 2, 6, 8, 10])
async def test_send_to_a_member_that_does_not_read_fails_for_it_alone(
    net: Net, autojump_clock: MockClock, options: int
) -> None:
    """In a trio task. Tasks that send to the other member alone never wait."""
    gate, got = trio.Event(), list[bytes]()

    async def stuck(message: ChannelData) -> None:
        await gate.wait()

    async with (
        GroupChannel(config("a"), drain_timeout=0.1) as a,
        GroupChannel(config("b"), drain_timeout=0.1) as b,
        GroupChannel(config("c"), drain_timeout=0.1) as c,
    ):
        b.add_message_listener(stuck)
        c.add_message_listener(lambda m: got.append(m.message), inline=True)
        await together(a, b, c)
        for _ in range(20):
            await a.send(bytes(SIZE), b.local, options=8)
            await _gone_out()
            if a.gauges().peers and _full(a, b):
                break
        begin = trio.current_time()
        with pytest.raises(GroupSendError) as caught:
            await a.send(bytes(SIZE), options=options)
        assert trio.current_time() - begin == pytest.approx(0.5)
        assert {m.label: type(w) for m, w in caught.value.faulty.items()} == {"b": QueueFullError}
        assert got == [bytes(SIZE)]
        begin = trio.current_time()
        await a.send(b"x", c.local, options=options)
        await until(lambda: got == [bytes(SIZE), b"x"], every=0.001)
        assert trio.current_time() - begin < 0.01
        [peer] = [p for p in a.gauges().peers if p.member == b.local]
        assert (peer.sends_blocked, peer.sends_timed_out, peer.blocked) == (1, 1, 0)
        assert peer.raw_bytes <= QUEUE
        assert peer.unacked_bytes <= QUEUE
        gate.set()


async def test_blocked_send_goes_on_when_its_member_reads_again(
    net: Net, autojump_clock: MockClock
) -> None:
    """Without a fault, and the message arrives behind those before it. A cancelled one arrives
    too.
    """
    gate, got = trio.Event(), list[bytes]()

    async def stuck(message: ChannelData) -> None:
        await gate.wait()
        got.append(message.message[:2])

    async with GroupChannel(config("a")) as a, GroupChannel(config("b")) as b:
        b.add_message_listener(stuck)
        await together(a, b)
        sent: list[bytes] = []
        while not _full(a, b):
            sent.append(b"%02d" % len(sent))
            await a.send(sent[-1].ljust(SIZE), options=8)
            await _gone_out()
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.1) as scope:
                await a.send(b"c1".ljust(SIZE), options=8)
            assert scope.cancelled_caught
            nursery.start_soon(lambda: a.send(b"w1".ljust(SIZE), options=8))
            await trio.sleep(0.1)
            assert a.gauges().peers[0].blocked == 2
            gate.set()
        await until(lambda: len(got) == len(sent) + 2)
        assert got == [*sent, b"c1", b"w1"]


async def _gone_out() -> None:
    """What was sent asynchronously has been written, as far as it can be."""
    for _ in range(2):
        await trio.lowlevel.checkpoint()


def _full(a: GroupChannel, b: GroupChannel) -> bool:
    [peer] = [p for p in a.gauges().peers if p.member == b.local]
    return peer.raw_bytes + SIZE + 300 > QUEUE


def _fill(node: BackgroundNode) -> None:
    for _ in range(100):
        node.send(bytes(SIZE), options=8)


@pytest.fixture
def stuck_pair(make_config: Callable[..., NodeConfig]) -> Iterator[tuple[BackgroundNode, str]]:
    """A node, and the name of a member whose listener is stuck and whose queue is full."""
    port = make_config("x").channel.membership.port
    gate = threading.Event()
    a = BackgroundNode(config("a", group_port=port, queue_timeout=200), drain_timeout=0.1)
    b = BackgroundNode(config("b", group_port=port), drain_timeout=0.1)
    with running(a, b):
        b.channel.add_message_listener(lambda message: gate.wait(20) and None)
        try:
            with pytest.raises(GroupSendError):
                _fill(a)
            yield a, "b"
        finally:
            gate.set()


@pytest.mark.parametrize("options", [0, 6, 8])
def test_blocking_send_of_a_thread_ends_with_the_faulty_member(
    stuck_pair: tuple[BackgroundNode, str], options: int
) -> None:
    """As a WSGI worker sends; the thread goes on after ``queue_timeout``."""
    node, name = stuck_pair
    with pytest.raises(GroupSendError) as caught:
        node.send(bytes(SIZE), options=options)
    assert {m.label: type(w) for m, w in caught.value.faulty.items()} == {name: QueueFullError}


@pytest.mark.parametrize("options", [0, 6, 8])
def test_awaited_send_in_asyncio_ends_with_the_faulty_member(
    stuck_pair: tuple[BackgroundNode, str], options: int
) -> None:
    """The event loop runs on meanwhile."""
    node, name = stuck_pair
    turns = 0

    async def main() -> None:
        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.create_task(count())
        try:
            await node.asend(bytes(SIZE), options=options)
        finally:
            counting.cancel()

    with pytest.raises(GroupSendError) as caught:
        asyncio.run(main())
    assert {m.label: type(w) for m, w in caught.value.faulty.items()} == {name: QueueFullError}
    assert turns > 2


# Requests in front of a full inbox.


class Full:
    """Sessions whose inbox is full, and which nobody empties before the test does."""

    def __init__(self, queue_timeout: int = 20_000) -> None:
        manager = ManagerConfig(
            inbox_max_bytes=3 * COMMIT_OVERHEAD_BYTES, queue_timeout=queue_timeout
        )
        self.sessions = Sessions(NodeConfig(contexts=("app",), manager=manager))
        self.inbox = self.sessions.inbox
        self.inbox.wake = lambda: None
        self.manager = self.sessions.manager("app")
        self.committer = Committer(manager)
        while not self.inbox.is_full:
            self.manager.commit(self.session())

    def session(self) -> Session:
        session = self.manager.create()
        session["a"] = 1
        return session

    def counts(self) -> tuple[int, int]:
        return self.inbox.waited, self.inbox.overflowed


def test_thread_is_held_back_until_the_channel_has_caught_up() -> None:
    """Its change then has room, and nothing has to be sent from the table."""
    full = Full()
    session = full.session()
    overflowed = full.inbox.overflowed
    thread = threading.Thread(target=full.committer.commit, args=(session,))
    thread.start()
    wait_until(lambda: full.inbox.waited == 1)
    assert full.manager.find(session.id) is None
    full.inbox.take()
    thread.join(10)
    assert full.counts() == (1, overflowed)
    assert full.manager.find(session.id) is not None
    batch = full.inbox.take()
    assert batch is not None
    assert [commit.key for commit in batch.commits] == [session.key]


def test_thread_goes_on_after_the_queue_timeout() -> None:
    """The commit stands: its key is dirty."""
    full = Full(queue_timeout=10)
    session = full.session()
    overflowed = full.inbox.overflowed
    full.committer.commit(session)
    assert full.counts() == (1, overflowed + 1)
    assert ("app", session.key) in full.inbox.dirty


async def test_task_is_held_back_and_goes_on_after_the_queue_timeout(
    autojump_clock: MockClock,
) -> None:
    """It waits for as long as it may, and then its commit stands all the same."""
    full = Full(queue_timeout=20_000)
    session = full.session()
    begin = trio.current_time()
    await full.committer.acommit(session)
    assert trio.current_time() - begin == pytest.approx(20)
    assert ("app", session.key) in full.inbox.dirty


async def test_task_that_is_held_back_goes_on_when_there_is_room(autojump_clock: MockClock) -> None:
    full = Full()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(full.committer.acommit, full.session())
        await trio.sleep(1)
        assert full.inbox.waited == 3
        full.inbox.take()
    assert trio.current_time() < 2
    assert full.inbox.appended > 3


async def test_change_of_a_request_that_is_cancelled_while_held_back_stands(
    autojump_clock: MockClock,
) -> None:
    """As it would after the commit."""
    full = Full()
    session = full.session()
    with trio.move_on_after(1) as scope:
        await full.committer.acommit(session)
    assert scope.cancelled_caught
    assert full.manager.find(session.id) is not None


def test_blocking_commit_in_an_event_loop_is_not_held_back() -> None:
    """A wait would stop the loop: the commit stands at once, and its key is dirty."""
    full = Full()
    session = full.session()

    async def main() -> None:
        full.committer.commit(session)

    asyncio.run(main())
    assert full.inbox.waited == 0
    assert ("app", session.key) in full.inbox.dirty


def test_nobody_is_held_back_when_there_is_no_channel() -> None:
    """Nobody would empty the inbox."""
    full = Full()
    full.inbox.wake = None
    full.committer.commit(full.session())
    assert full.inbox.waited == 0


# Waking up.


class Loop:
    """An event loop that notes at how many results it was woken."""

    def __init__(self) -> None:
        self.woken: list[int] = []
        self.results = 0

    def wake(self) -> None:
        self.woken.append(self.results)

    def resolve(self, result: CommitResult) -> Callable[[], None]:
        """Be all its tasks' waiters."""
        del result
        self.results += 1
        return self.wake


def test_results_of_several_messages_wake_a_loop_once() -> None:
    """However many messages one input completes."""
    loop, wakes = Loop(), Wakes()
    for _ in range(3):
        resolve_all([Commit("app", "k", 7, b"", loop)], ("b",), {}, wakes)
    assert loop.woken == []
    wakes()
    wakes()
    assert loop.woken == [3]


async def test_one_input_wakes_an_event_loop_once(net: Net, autojump_clock: MockClock) -> None:
    """A thousand commits in four messages, all acknowledged by one read."""
    loop = Loop()
    a, b = (GroupChannel(config(name, options=6, queue=1_000_000)) for name in "ab")
    async with a, b:
        await together(a, b)
        manager: Any = a.manager("app")
        await until(lambda: bool(manager.copies_on))
        for _ in range(1000):
            session = manager.create()
            session["a"] = 1
            manager.commit(session, loop)
        before = manager.replicator.statistics.messages_sent
        await until(lambda: loop.results == 1000)
        assert manager.replicator.statistics.messages_sent - before == 4
        assert loop.woken == [1000]
