"""Commits and sends from threads, asyncio, and trio: the blocking and the awaitable forms."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from tests.waiting import wait_until
from tribes.config.model import NodeConfig
from tribes.errors import (
    ChannelClosedError,
    ConfigError,
    GroupSendError,
    LocalProtocolError,
    RemoteProcessError,
    SessionNotReplicatedError,
)
from tribes.manager.delta import DeltaManager
from tribes.runtime import waiters
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.native import ChannelTask
from tribes.web.asgi import SessionMiddleware

from .test_replicated_map import running

if TYPE_CHECKING:
    from tribes.manager.session import Session
    from tribes.wire.data import ChannelData

MakeConfig = Callable[..., NodeConfig]


@pytest.fixture
def pair(make_config: MakeConfig) -> Iterator[tuple[BackgroundNode, BackgroundNode]]:
    nodes = [BackgroundNode(make_config(name, contexts=("app",), send_options=6)) for name in "ab"]
    a, b = nodes
    with running(a, b):
        wait_until(lambda: a.manager("app").copies_on and b.manager("app").copies_on)
        yield a, b


def new(node: BackgroundNode | GroupChannel, **values: Any) -> Session:
    session = node.manager("app").create()
    session.update(values)
    return session


def test_every_kind_of_host_commits(pair: tuple[BackgroundNode, BackgroundNode]) -> None:
    """From a thread, from asyncio and from another trio run, the other member has it."""
    a, b = pair
    sessions = [new(a, n=n) for n in range(4)]
    results = [a.commit(sessions[0]), asyncio.run(a.acommit(sessions[1]))]
    results.append(trio.run(a.acommit, sessions[2]))
    thread = threading.Thread(target=lambda: results.append(a.commit(sessions[3])))
    thread.start()
    thread.join()
    assert [(result.acked, dict(result.missing)) for result in results] == [(("b",), {})] * 4
    for n, session in enumerate(sessions):
        found = b.manager("app").find(session.id)
        assert found is not None
        assert found["n"] == n


def test_commit_that_changes_nothing_waits_for_nobody(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    """Version 0: there was nothing to write."""
    a, _ = pair
    session = new(a, n=1)
    assert a.commit(session).version > 0
    result = a.commit(session)
    assert (result.version, result.acked, dict(result.missing)) == (0, (), {})


def test_blocking_forms_are_refused_in_an_event_loop(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    """Each error names the awaitable form; nothing was written or sent."""
    a, _ = pair
    before = a.manager("app").statistics().commits

    async def main() -> None:
        with pytest.raises(LocalProtocolError, match=r"await node\.acommit\(session\)"):
            a.commit(new(a, n=1))
        with pytest.raises(LocalProtocolError, match=r"await node\.asend\(message\)"):
            a.send(b"x")
        a.joined = type(a.joined)()
        with pytest.raises(LocalProtocolError, match=r"await node\.await_joined\(\)"):
            a.wait_joined()
        assert await a.await_joined(0.01) is False

    asyncio.run(main())
    trio.run(main)
    assert a.manager("app").statistics().commits == before


def test_commit_that_does_not_wait_may_be_made_in_an_event_loop(make_config: MakeConfig) -> None:
    """With option 8 it returns at once; there is nothing to block."""
    node = BackgroundNode(make_config("a", contexts=("app",), send_options=8))

    async def main() -> None:
        assert node.commit(new(node, n=1)).version > 0

    asyncio.run(main())


def test_a_thousand_commits_wake_the_loop_once_per_message(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    """Measured: the wake-ups are as many as the messages that carried the commits, at most."""
    a, _ = pair
    counted: list[int] = []

    async def main() -> None:
        box = waiters._box_of_loop(asyncio.get_running_loop())
        manager = a.manager("app")
        assert isinstance(manager, DeltaManager)
        assert manager.replicator is not None
        replicator = manager.replicator
        before = replicator.statistics.messages_sent
        found = await asyncio.gather(*(a.acommit(new(a, n=n)) for n in range(1000)))
        assert all(result.replicated and result.acked for result in found)
        counted.extend([box.wake_ups, replicator.statistics.messages_sent - before])

    asyncio.run(main())
    wake_ups, messages = counted
    assert 1 <= wake_ups <= messages
    assert messages < 100


def test_sends_from_every_kind_of_host(pair: tuple[BackgroundNode, BackgroundNode]) -> None:
    """A raw message goes as from the channel itself, and its error comes back."""
    a, b = pair
    got: list[bytes] = []

    def listen(message: ChannelData) -> None:
        got.append(message.message)
        if message.message == b"bad":
            raise ValueError("no")

    b.channel.add_message_listener(listen, inline=True)
    a.send(b"thread", options=6)
    asyncio.run(a.asend(b"asyncio", a.view.members[0], options=6))
    trio.run(lambda: a.asend(b"trio", list(a.view.members), options=6))
    assert got == [b"thread", b"asyncio", b"trio"]
    with pytest.raises(GroupSendError) as caught:
        a.send(b"bad", options=6)
    [error] = caught.value.faulty.values()
    assert isinstance(error, RemoteProcessError)


def test_send_of_a_node_that_does_not_run(make_config: MakeConfig) -> None:
    """Before its start and after its end."""
    node = BackgroundNode(make_config("a"))
    with pytest.raises(ChannelClosedError, match="has not been started"):
        node.send(b"x")
    node.start()
    node.stop()
    with pytest.raises(ChannelClosedError, match="stopped"):
        node.send(b"x")


def test_policy_of_the_configuration_and_of_the_call(make_config: MakeConfig) -> None:
    """Alone with ``min_copies`` of 1: refused, unless this commit may go without."""
    config = make_config("a", contexts=("app",), send_options=6)
    manager = msgspec.structs.replace(config.manager, on_unreplicated="error", min_copies=1)
    node = BackgroundNode(msgspec.structs.replace(config, manager=manager))
    node.start()
    try:
        session = new(node, n=1)
        with pytest.raises(SessionNotReplicatedError):
            node.commit(session)
        session["n"] = 2
        with pytest.raises(SessionNotReplicatedError):
            asyncio.run(node.acommit(session))
        session["n"] = 3
        assert node.commit(session, on_unreplicated="serve").acked == ()
        numbers = node.manager("app").statistics()
        assert (numbers.commits_refused, numbers.commits_served_unreplicated) == (2, 1)
    finally:
        node.stop()


async def test_native_trio_program_commits_without_a_thread(make_config: MakeConfig) -> None:
    """Two channels in one run: the commit is awaited where the channel lives."""
    configs = [make_config(name, contexts=("app",), send_options=6) for name in "ab"]
    async with GroupChannel(configs[0]) as a, GroupChannel(configs[1]) as b:
        assert await a.await_joined()
        assert await b.await_joined()
        while not a.manager("app").copies_on:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
        threads = threading.active_count()
        result = await a.acommit(new(a, n=1))
        assert (result.acked, dict(result.missing)) == (("b",), {})
        assert threading.active_count() == threads
        box = waiters._box_of_run(trio.lowlevel.current_trio_token())
        assert box.wake_ups == 0
        with pytest.raises(LocalProtocolError, match="'shop' is not in the node's contexts"):
            a.manager("shop")


async def test_middleware_runs_a_channel_in_a_trio_server(make_config: MakeConfig) -> None:
    """Started and left with the application; requests commit on it; no thread is made for it."""
    channel = GroupChannel(make_config("a", contexts=("app",), send_options=6))
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                seen.append(channel.is_running)
                await send({"type": f"lifespan.{kind}.complete"})
            return
        scope["session"]["x"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    middleware = SessionMiddleware(app, channel)
    to_app, from_server = trio.open_memory_channel[Any](0)

    async def send(message: Any) -> None:
        seen.append(message["type"])

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(middleware, {"type": "lifespan"}, from_server.receive, send)
            await to_app.send({"type": "lifespan.startup"})
            await middleware({"type": "http", "headers": []}, from_server.receive, send)
            await to_app.send({"type": "lifespan.shutdown"})
    assert seen[0] is True
    assert seen.count("http.response.start") == 1
    assert not channel.is_running
    assert len(channel.manager("app").table) == 1


async def test_a_channel_that_cannot_start_says_so_to_every_request(
    make_config: MakeConfig,
) -> None:
    """And the error does not keep what the requests before had in hand."""
    task = ChannelTask(GroupChannel(make_config("a", contexts=("app",), address="192.0.2.1")))
    lengths = []
    for _ in range(3):
        with pytest.raises(ConfigError, match="insecure") as caught:
            await task.start()
        lengths.append(len(caught.traceback))
    assert lengths == [lengths[0]] * 3


async def test_trio_server_without_start_up(make_config: MakeConfig) -> None:
    """The first requests start the channel, once, and wait until it has joined."""
    channel = GroupChannel(make_config("a", contexts=("app",)))
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert channel.is_ready
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        statuses.append(message["status"])

    middleware = SessionMiddleware(app, channel)

    async def ask() -> None:
        await middleware({"type": "http", "headers": []}, None, send)  # type: ignore[arg-type]

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
    assert statuses == [200] * 3
    await middleware.binding.life.aleave()
    assert not channel.is_running


async def test_channel_that_cannot_start_says_so_to_the_server(make_config: MakeConfig) -> None:
    """The error is the start-up's, not the end of the server's run."""
    config = make_config("a", contexts=("app",), address="192.0.2.1")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    middleware = SessionMiddleware(app, GroupChannel(config))
    with pytest.raises(ConfigError, match="insecure"):
        await middleware({"type": "http", "headers": []}, None, None)  # type: ignore[arg-type]
