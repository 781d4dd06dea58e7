"""A node in a background thread: started, used from other threads, stopped, or refused."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
import trio

from tests.waiting import wait_until
from tribes.config.managers import StandardConfig
from tribes.config.model import NodeConfig
from tribes.errors import ChannelClosedError, ChannelError, ConfigError, LocalProtocolError
from tribes.runtime import background
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.waiters import ThreadWaiter

from .test_replicated_map import running

MakeConfig = Callable[..., NodeConfig]


def test_threads_of_two_processes_worth_of_nodes_share_sessions(make_config: MakeConfig) -> None:
    """A commit waits for the other node; the other node's threads find it."""
    a = BackgroundNode(make_config("a", contexts=("app",), send_options=6))
    b = BackgroundNode(make_config("b", contexts=("app",), send_options=6))
    with running(a, b):
        assert a.wait_joined()
        assert b.wait_joined()
        for number in range(50):
            session = a.manager("app").create()
            session["number"] = number
            waiter = ThreadWaiter()
            a.manager("app").commit(session, waiter)
            result = waiter.wait(5)
            assert result is not None
            assert (result.acked, dict(result.missing)) == (("b",), {})
            found = b.manager("app").find(session.id)
            assert found is not None
            assert found["number"] == number
    assert not a.is_running
    assert not b.is_running


def test_a_node_that_is_told_to_stop_while_it_starts_does(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before its loop could be told: whoever stops it does not wait in vain."""
    node = BackgroundNode(make_config("a", contexts=("app",)))
    began, go_on = threading.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token

    def slow() -> trio.lowlevel.TrioToken:
        if threading.current_thread().name == "tribes-a" and not began.is_set():
            began.set()
            go_on.wait(20)
        return token()

    monkeypatch.setattr(trio.lowlevel, "current_trio_token", slow)
    starting = threading.Thread(target=node.start)
    starting.start()
    assert began.wait(20)
    stopping = threading.Thread(target=node.stop)
    stopping.start()
    wait_until(lambda: node._run is not None and node._run.is_over)
    go_on.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert not node.is_running
    starting.join(10)
    assert not starting.is_alive()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_node_that_is_being_started_has_not_ended(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, *, has_begun: bool
) -> None:
    """Whether its thread runs already or not: a request of that moment would else be answered from
    a memory that is still empty; and who stops it is heard.
    """
    node = BackgroundNode(make_config("a", contexts=("app",)))
    begin = threading.Thread.start
    seen: list[bool] = []

    def looked_at(thread: threading.Thread) -> None:
        if thread.name != "tribes-a":
            begin(thread)
            return
        if has_begun:
            begin(thread)
        seen.append(node.was_started and not node.is_running)
        node.stop()
        if not has_begun:
            begin(thread)

    monkeypatch.setattr(threading.Thread, "start", looked_at)
    try:
        node.start()
        assert seen == [False]
        wait_until(lambda: not node.is_running)
    finally:
        node.stop()


def test_a_send_while_a_failed_node_ends_is_refused(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender does not wait for ever."""
    config = make_config("a", contexts=("app",))
    node = BackgroundNode(msgspec.structs.replace(config, manager=StandardConfig()))
    ending, go_on = threading.Event(), threading.Event()
    stop_local = node.sessions.stop_local

    async def fail(channel: GroupChannel) -> bool:
        raise ChannelError("a manager that is to end its node then could not start")

    def stop_slowly() -> None:
        ending.set()
        go_on.wait(20)
        stop_local()

    monkeypatch.setattr(GroupChannel, "await_joined", fail)
    monkeypatch.setattr(node.sessions, "stop_local", stop_slowly)
    node.start()
    assert ending.wait(20)
    try:
        sent = node._submit(b"late", None, 0)
        assert isinstance(sent.exception(5), ChannelClosedError)
    finally:
        go_on.set()
        node.stop()


def test_a_node_that_is_not_to_run_without_the_others_sessions_says_why_it_ended(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `terminate_on_start_failure` its process learns of it, each time it asks."""

    async def fail(channel: GroupChannel) -> bool:
        raise ChannelError("the members did not say what they hold")

    monkeypatch.setattr(GroupChannel, "await_joined", fail)
    node = BackgroundNode(make_config("a", contexts=("app",)))
    node.start()
    try:
        for _ in range(2):
            with pytest.raises(ChannelError, match="what they hold"):
                node.wait_joined(20)
        wait_until(lambda: not node.is_running)
    finally:
        node.stop()


def test_settings_that_cannot_work_are_told_by_start(make_config: MakeConfig) -> None:
    """The error of the background thread is raised where start was called."""
    config = msgspec.structs.replace(
        make_config("a"),
        channel=msgspec.structs.replace(
            make_config("a").channel,
            receiver=type(make_config("a").channel.receiver)(address="192.0.2.1"),
        ),
    )
    node = BackgroundNode(config)
    with pytest.raises(ConfigError, match="insecure"):
        node.start()
    assert node.wait_joined(1) is False
    assert not node.is_running


def test_a_node_whose_start_failed_has_ended_when_that_is_told(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was, and however long its thread takes to end: it would be taken for running."""

    class Slow(Future[None]):
        def set_exception(self, exception: BaseException | None) -> None:
            super().set_exception(exception)
            threading.Event().wait(0.2)

    def broken() -> list[Any]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(background, "Future", Slow)
    node = BackgroundNode(make_config("a", contexts=("app",)), interceptors=broken)
    with pytest.raises(OSError, match="Too many open files"):
        node.start()
    assert not node.is_running


def test_misuse_is_told(make_config: MakeConfig) -> None:
    """Unknown context, use before start, start twice; stop twice is fine."""
    node = BackgroundNode(make_config("a", contexts=("app",)))
    with pytest.raises(LocalProtocolError, match="'shop' is not in the node's contexts"):
        node.manager("shop")
    with pytest.raises(ChannelClosedError, match="has not been started"):
        _ = node.view
    assert node.wait_joined(0.01) is False
    node.start()
    with pytest.raises(LocalProtocolError, match="started once"):
        node.start()
    assert node.member_names == ["a"]
    node.stop()
    node.stop()
