"""What a review of the whole found: each test states the expected behaviour and failed then."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
import tracemalloc
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.ports import free_udp_port
from tests.waiting import until, wait_until
from tribes.channel.core import ChannelCore
from tribes.channel.outputs import Deliver, MemberRemoved, SendFailed, TicketDone
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.errors import QueueFullError, RemoteProtocolError, TribesError
from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
from tribes.manager.expiry import SessionExpired
from tribes.manager.inbox import Commit, Inbox
from tribes.manager.messages import Summary
from tribes.manager.transfer import PULL_SILENCE_S, Transfer
from tribes.runtime.background import BackgroundNode
from tribes.runtime.commits import Committer
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.listeners import ListenerRegistry
from tribes.testing.sim import SimWaiter, World
from tribes.timers import Timers
from tribes.web.asgi import SessionMiddleware
from tribes.web.request_session import RequestSession
from tribes.wire.data import encode_data_frame
from tribes.wire.member import Member, encode_member
from tribes.wire.outputs import Close, Connect, Pause, Probe, Resume


def member(port: int, uid: int | None = None, **fields: Any) -> Member:
    number = port % 251 if uid is None else uid
    return Member(
        host=b"\x7f\x00\x00\x01", port=port, unique_id=number.to_bytes(16, "big"), **fields
    )


LOCAL, ONE, TWO = member(4000), member(4001), member(4002)


def make(*interceptors: Any, **config: Any) -> ChannelCore:
    core = ChannelCore(
        LOCAL,
        ChannelConfig(**config),
        interceptors,
        wall_ms=lambda: 1000,
        entropy=Random(1).randbytes,
    )
    core.start(0.0)
    core.take_outputs()
    return core


def frame(source: Member, options: int, message: bytes, uid: int = 1) -> bytes:
    return encode_data_frame(options, 0, uid.to_bytes(16, "big"), encode_member(source), message)


def sim_config(options: int = 6, **manager: Any) -> NodeConfig:
    return NodeConfig(
        contexts=("app",), manager=ManagerConfig(channel_send_options=options, **manager)
    )


def write(node: Any, name: str, value: object, session_id: str | None = None) -> tuple[str, Any]:
    manager = node.manager()
    session = manager.create() if session_id is None else manager.find(session_id)
    assert session is not None
    session[name] = value
    waiter = SimWaiter()
    manager.commit(session, waiter)
    return session.id, waiter


def real_config(name: str = "r", options: int = 8, **channel: Any) -> NodeConfig:
    return NodeConfig(
        name=name,
        contexts=("app",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=free_udp_port()),
            receiver=ReceiverConfig(port=0),
            **channel,
        ),
        manager=ManagerConfig(channel_send_options=options),
    )


# 1. One frame or datagram ends the process's channel.


def test_a_frame_that_names_us_as_its_source_costs_the_connection_only() -> None:
    """A peer that puts our own record into a manager's message is a protocol error of that peer;
    no exception leaves the core (in the shell it would end the whole node).
    """
    world = World(1)
    node = world.start("a", sim_config())
    world.run(2)
    body = Summary("app", 7, [1] * 64).encode()
    node.core.link_opened(999, world.now, peer=("127.0.0.1", 5))
    try:
        node.core.link_bytes(999, frame(node.core.local, 3, body), world.now)
    except TribesError as error:
        pytest.fail(f"left the core: {error!r}")
    assert [o.link for o in node.core.take_outputs() if isinstance(o, Close)] == [999]


@pytest.mark.parametrize("port", [70_000, -1])
def test_a_heartbeat_with_an_impossible_port_is_counted_as_malformed(port: int) -> None:
    """A datagram whose member record has a port that cannot exist must not end the node; once the
    failure detector's probe of it raises OverflowError in the nursery of the shell.
    """

    async def main() -> None:
        async with GroupChannel(real_config()) as channel:
            shell = channel.shell
            data = encode_member(member(port, uid=9))
            shell.core.datagram(data, ("127.0.0.1", 1), shell.now())
            shell.pump()
            await trio.testing.wait_all_tasks_blocked()
            assert shell.core.channel.membership.statistics.malformed == 1
            assert not channel.members

    trio.run(main)


# 2. Own shortage taken for others' death.


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS])
def test_our_own_shortage_is_not_the_death_of_a_member(code: int) -> None:
    """A test that could not be made (no descriptors, no local ports) says nothing about the member:
    it stays in the view and is asked again.
    """
    core = make(TcpFailureDetector())
    core.datagram(encode_member(ONE), ("127.0.0.1", 1), 0.0)
    [probe] = [o for o in core.take_outputs() if isinstance(o, Probe)]
    core.probe_result(probe.probe, None, 0.0)
    assert ONE in core.view
    connect = next(o for o in core.take_outputs() if isinstance(o, Connect))
    core.connect_failed(connect.attempt, OSError(code, os.strerror(code)), 0.1)
    [probe] = [o for o in core.take_outputs() if isinstance(o, Probe)]
    core.probe_result(probe.probe, OSError(code, os.strerror(code)), 0.1)
    while core.next_deadline < 2:
        core.timer(core.next_deadline)
    outputs = core.take_outputs()
    assert not [o for o in outputs if isinstance(o, MemberRemoved)]
    assert ONE in core.view
    assert [o for o in outputs if isinstance(o, Probe)]


# 3. Memory.


def test_refused_messages_are_not_kept() -> None:
    """What a peer sent and this node refused is garbage afterwards; once the error in
    ``Outcomes`` keeps its traceback, and with it the message, 256 times per source.
    """

    def refuse(data: Any, now: float) -> bool:
        raise RemoteProtocolError("no context here")

    core = ChannelCore(
        LOCAL,
        ChannelConfig(),
        wall_ms=lambda: 1000,
        entropy=Random(1).randbytes,
        consume=refuse,
    )
    core.start(0.0)
    core.link_opened(1, 0.0, peer=("127.0.0.1", 5))
    tracemalloc.start()
    for number in range(60):
        core.link_bytes(1, frame(ONE, 1, bytes(1_000_000), uid=number + 1), 0.0)
        core.take_outputs()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10_000_000


def test_sources_named_on_one_connection_are_bounded() -> None:
    """One connection cannot make us keep any number of members, 64 KiB each."""
    core = make()
    core.link_opened(1, 0.0, peer=("127.0.0.1", 5))
    for number in range(5000):
        core.link_bytes(1, frame(member(5000, uid=number), 1, b"x", uid=number), 0.0)
        core.take_outputs()
    assert not core.accepted.receivers
    assert core.statistics.links_rejected == 1
    assert core.deliveries.waiting <= 64


def test_a_paused_connection_stays_paused_while_any_of_its_sources_is_over() -> None:
    """Two sources on one connection: when one is relieved the other still holds the reading."""
    core = make(receiver=ReceiverConfig(pending_max=4, max_threads=2))
    core.link_opened(1, 0.0, peer=("127.0.0.1", 5))
    for number in range(6):
        core.link_bytes(1, frame(ONE, 1, b"x", uid=number), 0.0)
        core.link_bytes(1, frame(TWO, 1, b"x", uid=number), 0.0)

    def relieve(source: Member, outputs: list[Any]) -> list[Any]:
        """Take all that waits of a source; return what else came out."""
        others = []
        while outputs:
            for output in outputs:
                if isinstance(output, Deliver) and output.source == source:
                    core.delivered(output.token, None, 0.0)
                else:
                    others.append(output)
            outputs = core.take_outputs()
        return others

    outputs = core.take_outputs()
    assert Pause(1) in outputs
    outputs = relieve(ONE, outputs)
    assert Resume(1) not in outputs
    assert Resume(1) in relieve(TWO, outputs)


def test_acknowledgements_that_nobody_reads_are_bounded() -> None:
    """A peer that asks for answers and never reads them is no longer read itself."""

    async def main() -> int:
        async with GroupChannel(real_config()) as channel:
            channel.add_message_listener(lambda _: None, inline=True)
            stream = await trio.open_tcp_stream(*channel.local.address)
            data = b"".join(frame(ONE, 3, b"x", uid=n + 1) for n in range(2000))
            links = channel.shell.links.open.values()

            async def ask() -> None:
                for _ in range(300):
                    await stream.send_all(data)

            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await until(lambda: any(not link.readable.is_set() for link in links), 20)
                nursery.cancel_scope.cancel()
            return sum(sum(map(len, link.pending)) for link in links)

    assert trio.run(main) < 1024 * 1024


def test_connections_of_a_member_that_is_gone_are_closed() -> None:
    """A machine that lost its power never closes its connections. When the member is removed what
    it had open is closed; otherwise max_connections of them make this node refuse everybody.
    """
    core = make(receiver=ReceiverConfig(max_connections=3))
    core.datagram(encode_member(ONE), ("127.0.0.1", 1), 0.0)
    core.link_opened(77, 0.0, peer=("127.0.0.1", 5))
    core.link_bytes(77, frame(ONE, 1, b"x"), 0.0)
    core.take_outputs()
    while core.next_deadline < 5:
        core.timer(core.next_deadline)
    outputs = core.take_outputs()
    assert any(isinstance(o, MemberRemoved) for o in outputs)
    assert any(isinstance(o, Close) and o.link == 77 for o in outputs)


def test_an_inbox_that_nobody_empties_is_bounded() -> None:
    """With the channel's thread dead, or not started, waiting commits do not pile up."""
    inbox = Inbox(threading.Lock(), max_bytes=0)
    for number in range(50_000):
        inbox.put(Commit("app", "K", number, b"", SimWaiter()))
    assert len(inbox._overflowed) <= 20_000


# 4. Starvation, stuck states, wrong reports.


def test_commits_leave_the_loop_time_for_the_network() -> None:
    """Request threads that commit as fast as the core drains must not keep the channel's loop from
    its sockets: between two batches other tasks run.
    """

    async def main() -> int:
        async with GroupChannel(real_config()) as channel:
            manager = channel.sessions.manager("app")
            done = 0
            ran_at = -1

            class Again:
                """Stands for a request thread: its commit is done, the next one comes."""

                def resolve(self, result: object) -> None:
                    nonlocal done
                    done += 1
                    if done < 3000:
                        commit()

            def commit() -> None:
                session = manager.create()
                session["x"] = done
                manager.commit(session, Again())

            async def other() -> None:
                nonlocal ran_at
                await trio.lowlevel.checkpoint()
                while done == 0:
                    await trio.lowlevel.checkpoint()
                ran_at = done

            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                commit()
                await until(lambda: done >= 3000)
            return ran_at

    assert 0 < trio.run(main) < 3000


def test_a_comparison_that_found_the_queue_full_is_tried_again() -> None:
    """needs_sync with a full queue: the whole comparison is tried until it got through. Once
    the member stays ``needs_sync`` without a timer, and every drain takes its whole timeout.
    """
    world = World(3)
    config = sim_config(8)
    a, b = world.start("a", config), world.start("b", sim_config(8))
    world.run(3)
    replicator = a.core.sessions.replicators["app"]
    [target] = replicator.targets
    post, full, refused = a.core.channel.post, [True], 0

    def posts(destinations: Any, payload: bytes, options: int, now: float, **more: Any) -> Any:
        nonlocal refused
        settled = more.get("settled")
        if full[0] and options == 6 and settled is not None:
            refused += 1
            settled({target: QueueFullError("full")}, now)
            return None
        return post(destinations, payload, options, now, **more)

    a.core.channel.post = posts
    replicator.repair.mark(target, [f"{n:032X}" for n in range(10_001)], world.now)
    a.pump()
    world.run(3)
    assert refused > 1
    full[0] = False
    world.run(60)
    assert b.is_alive
    assert replicator.is_quiet


def test_a_node_whose_donor_fell_silent_does_not_say_that_it_is_complete() -> None:
    """The only donor sends nothing: it is asked again, and after the whole timeout ``joined`` says
    that sessions are missing (`is_complete` is False).
    """
    world = World(1)
    a = world.start("a", sim_config())
    world.run(2)
    events: list[Any] = []
    timers = Timers()
    posts: list[Any] = []
    channel = SimpleNamespace(
        timers=timers,
        event=events.append,
        post=lambda *args, **more: posts.append(args),
        suspected=frozenset(),
    )
    transfer = Transfer(
        a.manager(),
        channel,  # type: ignore[arg-type]
        randrange=lambda n: 0,
        join_window=1.0,
        timeout=60.0,
    )
    transfer.start(0.0)
    transfer.peer_up(ONE, 0.1)

    def run(until: float) -> int:
        while timers.next_deadline < until:
            timers.run_due(timers.next_deadline)
        return len([p for p in posts if p[0] == (ONE,)])

    asked = run(1.0 + PULL_SILENCE_S)
    assert run(8) > asked
    assert not transfer.is_joined
    run(61)
    assert transfer.is_joined
    assert not transfer.is_complete


def test_an_asynchronous_burst_waits_for_room_and_is_not_lost() -> None:
    """Option 8: a message is in the dispatch queue (64 MiB), or its caller waits for room and is
    told. Once 4 MiB on their way to one member make the rest fail after ``send`` has returned.
    """
    core = make(MessageDispatchInterceptor())
    core.datagram(encode_member(ONE), ("127.0.0.1", 1), 0.0)
    core.take_outputs()
    for _ in range(100):
        core.send((ONE,), bytes(64 * 1024), 8, 0.0)
    outputs = core.take_outputs()
    told = [o for o in outputs if isinstance(o, TicketDone) and not o.faulty]
    lost = [o for o in outputs if isinstance(o, SendFailed)]
    assert told
    assert not lost


def test_one_oversized_session_does_not_hurt_the_others() -> None:
    """A value that no peer accepts (above frame_max_bytes) is refused at its writer, and the link
    stays. Once it breaks the connection again and again, for ever.
    """
    world = World(5)
    a, b = world.start("a", sim_config(6)), world.start("b", sim_config(6))
    world.run(3)
    big, waiter = write(a, "big", bytes(17 * 1024 * 1024))
    other, _ = write(a, "x", 1)
    world.run(20)
    assert waiter.result.missing.keys() == {"b"}
    assert b.core.channel.statistics.links_rejected == 0
    assert b.manager().find(big) is None
    assert b.manager().find(other) is not None


def test_a_resumed_member_is_up_to_date_soon() -> None:
    """SIGSTOP, removed by the others, SIGCONT: it asks for what it missed when it is back."""
    world = World(11)
    a, b = world.start("a", sim_config(8)), world.start("b", sim_config(8))
    world.run(3)
    b.pause()
    world.run(6)
    assert a.names() == ["a"]
    ids = [write(a, "x", n)[0] for n in range(200)]
    world.run(0.5)
    b.resume()
    world.run(3)
    assert a.names() == b.names() == ["a", "b"]
    missing = [i for i in ids if b.manager().find(i) is None]
    assert not missing


def test_expiry_keeps_up_with_what_is_created() -> None:
    """3,000 sessions idle for too long are gone in 5 looks; once 256 a second, whatever comes."""
    world = World(2)
    a = world.start("a", sim_config(8, max_inactive_s=5))
    world.run(2)
    for n in range(3000):
        write(a, "x", n)
    assert a.manager().statistics().active == 3000
    world.run(5 + 5)
    assert a.manager().statistics().active == 0


def test_commits_made_before_the_start_are_spread_at_the_start() -> None:
    """What lies in the inbox when the node starts is taken then, not at the next commit."""
    node = BackgroundNode(real_config(options=6), drain_timeout=1.0)
    session = node.manager("app").create()
    session["x"] = 1
    waiter = SimWaiter()
    node.manager("app").commit(session, waiter)
    node.start()
    try:
        wait_until(lambda: waiter.is_done)
    finally:
        node.stop()


# 5. Fork, web.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: no fork")
def test_workers_forked_from_one_parent_are_different_actors() -> None:
    """Gunicorn --preload: the node is made before the fork and started in each worker. Equal
    actors make equal versions of different writes, which no merge and no digest ever tells apart.
    """
    node = BackgroundNode(real_config())
    actors = [node.sessions.clock.actor]
    for _ in range(2):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writer, str(node.sessions.clock.actor).encode())
            finally:
                os._exit(0)
        os.close(writer)
        actors.append(int(os.read(reader, 32)))
        os.close(reader)
        os.waitpid(pid, 0)
    assert len(set(actors)) == 3


def test_looking_at_a_name_makes_no_session() -> None:
    """``{{ session.user }}`` in a Jinja template asks for the attribute first. For a visitor
    without session that must not make one, and must not raise SessionError after the head.
    """
    world = World(1)
    manager = world.start("a").manager()
    held = RequestSession(manager, None)
    assert getattr(held, "user", None) is None
    assert held.session is None
    held.is_sealed = True
    assert getattr(held, "user", None) is None


# 6. One bad record stops a whole transfer.


def test_one_oversized_session_does_not_stop_a_join() -> None:
    """A record that cannot travel costs only itself: a joining node gets all others. Once the
    transfer ends there, the node says that it has joined, and the partitions behind the bad record
    in its window are never sent.
    """
    world = World(6)
    a = world.start("a", sim_config(8))
    world.run(3)
    big = a.manager().create()
    big["x"] = bytes(17 * 1024 * 1024)
    a.manager().commit(big)
    ids = [write(a, "x", bytes(1000))[0] for _ in range(3000)]
    b = world.start("b", sim_config(8))
    world.run(120)
    assert a.manager().find(big.id) is not None
    assert b.manager().find(big.id) is None
    missing = [i for i in ids if b.manager().find(i) is None]
    assert not missing, f"{len(missing)} of {len(ids)}"


def test_one_refused_record_does_not_stop_a_join() -> None:
    """A record that the receiver refuses (here: a clock 25 h ahead) costs only itself, as
    ``Transfer.merge`` says: the donor goes on with the next message.
    """
    world = World(7)
    a = world.start("a", sim_config(8))
    world.run(3)
    ids = [write(a, "x", bytes(3000))[0] for _ in range(3000)]
    a.clock_offset_ms = 25 * 3600 * 1000
    refused, _ = write(a, "x", 1)
    a.clock_offset_ms = 0
    b = world.start("b", sim_config(8))
    world.run(4.5)  # the transfer itself takes milliseconds; nothing is compared in between
    assert b.manager().find(refused) is None
    missing = [i for i in ids if b.manager().find(i) is None]
    assert not missing, f"{len(missing)} of {len(ids)}"


def test_the_silence_of_a_donor_ends_at_its_deadline() -> None:
    """A timer that runs at the moment it was set for does its work. Once ``now - heard >= 5`` is
    false by rounding at ``now = heard + 5`` and the timer is set to the same moment for ever: a
    simulated world hangs, a real one spins until its clock moves on.
    """
    world = World(1)
    manager = world.start("a", sim_config()).manager()
    random = Random(1)
    for _ in range(100):
        timers = Timers()
        channel: Any = SimpleNamespace(
            timers=timers,
            suspected=frozenset(),
            event=lambda _: None,
            post=lambda *_, **__: None,
        )
        transfer = Transfer(manager, channel, randrange=lambda _: 0, join_window=1.0, timeout=60.0)
        start = 1000 * random.random()
        transfer.start(start)
        transfer.stop()
        transfer.peer_up(ONE, start + random.random())
        for _ in range(100):
            timers.run_due(timers.next_deadline)
            if not transfer._pulls:
                break
        assert not transfer._pulls


# 7. More of the web layer and of the events.


def run_request(manager: Any, node: Any, handler: Any, cookie: str) -> list[Any]:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await handler(scope["session"], send)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"cookie", b"JSESSIONID=" + cookie.encode())]}
    with contextlib.suppress(RuntimeError):
        asyncio.run(SessionMiddleware(app, node)(scope, None, send))  # type: ignore[arg-type]
    return sent


def fake_node(manager: Any) -> Any:
    async def await_joined() -> bool:
        return True

    config = sim_config(8)
    sessions = SimpleNamespace(
        committer=lambda _context, _decide: Committer(config.manager), local={}, sign_on=None
    )
    return SimpleNamespace(
        config=config,
        sessions=sessions,
        is_running=True,
        was_started=True,
        manager=lambda _: manager,
        await_joined=await_joined,
    )


def test_a_login_that_fails_does_not_take_the_id_away() -> None:
    """A handler rotates the id and raises before the head: the old one stays valid.

    The client never hears of the new one: an outer error page answers, past the middleware.
    """
    world = World(1)
    a = world.start("a", sim_config(8))
    session_id, _ = write(a, "x", 1)

    rotated: list[str] = []

    async def login(session: Any, send: Any) -> None:
        session.rotate_id(0)
        rotated.append(session.id)
        raise RuntimeError("database is down")

    run_request(a.manager(), fake_node(a.manager()), login, session_id)
    assert rotated
    assert rotated != [session_id]
    world.run(1)
    assert a.manager().find(session_id) is not None


def test_the_id_cannot_be_rotated_after_the_head() -> None:
    """As for a session that begins too late: no cookie can tell the client the new id."""
    world = World(1)
    a = world.start("a", sim_config(8))
    session_id, _ = write(a, "x", 1)

    async def late(session: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with pytest.raises(TribesError):
            session.rotate_id(0)
        await send({"type": "http.response.body", "body": b""})

    sent = run_request(a.manager(), fake_node(a.manager()), late, session_id)
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
    world.run(1)
    assert a.manager().find(session_id) is not None


def test_no_destroyed_event_is_dropped_behind_a_slow_listener() -> None:
    """DESIGN 5.5: never zero destroyed events while a copy lives. A listener slower than the
    expiry must not cost others their events, nor the membership listeners theirs.
    """

    async def main() -> None:
        told: list[str] = []
        registry = ListenerRegistry(max_threads=1, expired=lambda event: told.append(event.key))
        for number in range(1500):
            registry.event(SessionExpired("app", f"{number:032X}"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.run)
            await until(lambda: len(told) == 1500)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_flood_of_heartbeats_does_not_start_any_number_of_probes() -> None:
    """Each new record is asked on a connection of its own; how many at once has a bound, or a few
    thousand datagrams take all descriptors of the web process.
    """
    core = make(TcpFailureDetector())
    for number in range(3000):
        core.datagram(encode_member(member(1 + number, uid=number)), ("127.0.0.1", 1), 0.0)
    assert 0 < sum(isinstance(o, Probe) for o in core.take_outputs()) <= 256
