"""Sends that one acknowledgement released are written together, and none is held for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from tribes.config.model import NodeConfig
from tribes.runtime.cork import Cork
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.link import Link

if TYPE_CHECKING:
    import pytest

MakeConfig = Callable[..., NodeConfig]
SENDERS = 8
EACH = 25


class Corked:
    """A cork and what it lets out; a send pours by itself unless it is held."""

    def __init__(self) -> None:
        self.cork = Cork(self.pour)
        self.held = 0
        self.poured: list[int] = []

    def pour(self) -> None:
        self.poured.append(self.held)
        self.held = 0

    def send(self) -> None:
        self.held += 1
        if not self.cork.holds():
            self.pour()


async def test_all_but_the_last_of_the_released_are_held(nursery: trio.Nursery) -> None:
    corked = Corked()
    nursery.start_soon(corked.cork.run)
    await wait_all_tasks_blocked()
    for _ in range(3):
        corked.cork.released()
    for _ in range(3):
        corked.send()
    assert corked.poured == [3]
    await wait_all_tasks_blocked()
    corked.send()
    assert corked.poured[-1] == 1
    assert corked.held == 0


async def test_held_sends_go_out_when_the_others_do_not_send(nursery: trio.Nursery) -> None:
    """Within two turns of the loop, whatever else happens."""
    corked = Corked()
    nursery.start_soon(corked.cork.run)
    await wait_all_tasks_blocked()
    for _ in range(3):
        corked.cork.released()
    corked.send()
    assert corked.poured == []
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    assert corked.poured == [1]


async def test_a_single_send_is_never_held(nursery: trio.Nursery) -> None:
    corked = Corked()
    corked.send()
    nursery.start_soon(corked.cork.run)
    await wait_all_tasks_blocked()
    for _ in range(3):
        corked.cork.released()
        corked.send()
    assert corked.poured == [1, 1, 1, 1]


async def test_nothing_is_held_when_nobody_would_let_it_out() -> None:
    """Before its task runs, and after it was cancelled."""
    corked = Corked()
    for _ in range(3):
        corked.cork.released()
    corked.send()
    assert corked.poured == [1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(corked.cork.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for _ in range(3):
        corked.cork.released()
    corked.send()
    assert corked.poured == [1, 1]


async def test_concurrent_senders_share_system_calls(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight tasks that wait for acknowledgements: several messages per call, in order, all."""
    calls, got = [0], list[bytes]()
    real = Link.send

    def counted(link: Link) -> int | None:
        if a.shell.links.open.get(link.number) is link:
            calls[0] += 1
        return real(link)

    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        with trio.fail_after(10):
            while not (a.members and b.members):  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)

        async def send(number: int) -> None:
            for turn in range(EACH):
                await a.send(b"%d %d" % (number, turn), options=6)

        await a.send(b"open")
        await trio.sleep(0.1)
        monkeypatch.setattr(Link, "send", counted)
        async with trio.open_nursery() as nursery:
            for number in range(SENDERS):
                nursery.start_soon(send, number)
    for number in range(SENDERS):
        own = [message for message in got if message.startswith(b"%d " % number)]
        assert own == [b"%d %d" % (number, turn) for turn in range(EACH)]
    assert calls[0] < SENDERS * EACH / 2
