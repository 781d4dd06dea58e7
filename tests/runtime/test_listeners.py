"""Events reach listeners in order, whatever one of them does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.waiting import until
from tribes.channel.outputs import MemberAdded, Notice
from tribes.errors import LocalProtocolError
from tribes.manager.expiry import SessionExpired
from tribes.runtime.listeners import EVENTS_MAX, ListenerRegistry
from tribes.wire.member import Member

if TYPE_CHECKING:
    from tribes.channel.outputs import Event
    from tribes.wire.data import ChannelData

MEMBER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=bytes(16))


async def tell(registry: ListenerRegistry) -> None:
    """Tell coroutine functions all that waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_expired_sessions_are_told_to_the_manager_in_a_worker_thread() -> None:
    """The destroyed listeners are users' code: they never run in the channel's loop."""
    told: list[tuple[str, bool]] = []

    def expired(event: SessionExpired) -> None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            told.append((event.key, True))

    registry = ListenerRegistry(max_threads=1, expired=expired)
    registry.event(SessionExpired("app", "KEY"))
    registry.event(Notice("something else"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.run)
        await until(lambda: bool(told))
        nursery.cancel_scope.cancel()
    assert told == [("KEY", True)]


async def test_slow_listener_costs_the_oldest_events_and_they_are_counted() -> None:
    """What waits is bounded."""
    heard: list[int] = []

    async def listen(event: Any) -> None:
        heard.append(event.view)

    registry = ListenerRegistry(max_threads=1)
    registry.add_membership_listener(listen)
    for number in range(EVENTS_MAX + 5):
        registry.event(MemberAdded(MEMBER, number))
    assert registry.dropped_events == 5
    await tell(registry)
    assert heard == list(range(5, EVENTS_MAX + 5))


async def test_listener_is_registered_once_and_not_in_an_impossible_way() -> None:
    """Twice, or a coroutine function inline, is a mistake that is told at once."""
    registry = ListenerRegistry(max_threads=1)

    def plain(message: ChannelData) -> None:
        del message

    async def coroutine(message: ChannelData) -> None:
        del message

    registry.add_message_listener(plain)
    with pytest.raises(LocalProtocolError, match="registered already"):
        registry.add_message_listener(plain)
    with pytest.raises(LocalProtocolError, match="coroutine"):
        registry.add_message_listener(coroutine, inline=True)
    registry.remove_message_listener(plain)
    registry.add_message_listener(plain)
    heard: list[str] = []

    async def first(event: Any) -> None:
        heard.append("first")

    async def other(event: Any) -> None:
        heard.append("other")

    for listener in (first, first, other, other):
        registry.add_membership_listener(listener)
    registry.remove_membership_listener(first)
    registry.event(MemberAdded(MEMBER, 1))
    await tell(registry)
    assert heard == ["other"]


def test_a_watch_that_raises_costs_itself_only(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a user's function, called in the channel's loop: the channel goes on."""
    seen: list[str] = []

    def watch(event: Event) -> None:
        seen.append(event.name)
        raise RuntimeError("a bug of the application")

    registry = ListenerRegistry(max_threads=1, watch=watch)
    registry.event(Notice("first"))
    registry.event(Notice("second"))
    assert seen == ["first", "second"]
    assert capsys.readouterr().out.count("RuntimeError: a bug") == 2
