"""Sends of one pass of the loop are written together, and none is held for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from tests.runtime.test_group_channel import together
from tests.waiting import until
from tribes.config.model import NodeConfig
from tribes.runtime.cork import QUEUED_MAX, QUEUED_MAX_BYTES, Cork
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

    def send_asynchronously(self, size: int = 1) -> None:
        self.held += 1
        if not self.cork.queued(size):
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


async def test_asynchronous_sends_wait_for_the_next_pass(nursery: trio.Nursery) -> None:
    """Together, and no longer; the ones after it wait anew."""
    corked = Corked()
    nursery.start_soon(corked.cork.run)
    await wait_all_tasks_blocked()
    for turn in range(2):
        for _ in range(3):
            corked.send_asynchronously()
        assert corked.poured == [3] * turn
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert corked.poured == [3] * (turn + 1)


async def test_so_many_asynchronous_sends_wait_and_no_more(nursery: trio.Nursery) -> None:
    """By their number and by their bytes: then others have their turn."""
    corked = Corked()
    nursery.start_soon(corked.cork.run)
    await wait_all_tasks_blocked()
    for _ in range(2 * QUEUED_MAX):
        corked.send_asynchronously()
    assert corked.poured == [QUEUED_MAX, QUEUED_MAX]
    corked.send_asynchronously(1)
    corked.send_asynchronously(QUEUED_MAX_BYTES - 1)
    assert corked.poured == [QUEUED_MAX, QUEUED_MAX, 2]


async def test_no_asynchronous_send_waits_when_nobody_would_let_it_out() -> None:
    corked = Corked()
    corked.send_asynchronously()
    assert corked.poured == [1]


async def test_asynchronous_sends_share_system_calls_and_let_others_run(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a loop that waits for nothing else: all arrive, in order."""
    calls, passes, got = [0], [0], list[bytes]()
    wanted = [b"%d" % number for number in range(SENDERS * EACH)]
    real = Link.send

    def counted(link: Link) -> int | None:
        calls[0] += a.shell.links.open.get(link.number) is link
        return real(link)

    async def count() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            passes[0] += 1

    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        await a.send(b"", options=6)
        monkeypatch.setattr(Link, "send", counted)
        async with trio.open_nursery() as others:
            others.start_soon(count)
            for each in wanted:
                await a.send(each, options=8)
            others.cancel_scope.cancel()
        assert passes[0] > len(wanted) / QUEUED_MAX / 2
        assert calls[0] < len(wanted) / 2
        await until(lambda: len(got) > len(wanted))
    assert got[1:] == wanted


async def test_an_asynchronous_send_is_left_when_it_is_cancelled(make_config: MakeConfig) -> None:
    """Also where it would not have let others run; the message goes out."""
    got = list[bytes]()
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.send(b"1", options=8)
        assert scope.cancelled_caught
        await a.send(b"2", options=6)
    assert got == [b"1", b"2"]


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
        await together(a, b)

        async def send(number: int) -> None:
            for turn in range(EACH):
                await a.send(b"%d %d" % (number, turn), options=6)

        await a.send(b"open", options=6)
        monkeypatch.setattr(Link, "send", counted)
        async with trio.open_nursery() as nursery:
            for number in range(SENDERS):
                nursery.start_soon(send, number)
    for number in range(SENDERS):
        own = [message for message in got if message.startswith(b"%d " % number)]
        assert own == [b"%d %d" % (number, turn) for turn in range(EACH)]
    assert calls[0] < SENDERS * EACH / 2
