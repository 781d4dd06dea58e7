"""Where a sender of `bench.member` runs: a `bench.workload.Host` for each way into a node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import trio

from bench import workload
from bench.workload import run_here

if TYPE_CHECKING:
    from tribes import BackgroundNode, GroupChannel

PAUSE_S = 0.001


class InThread:
    """As a worker thread of WSGI: it blocks."""

    def __init__(self, node: BackgroundNode) -> None:
        self.node = node

    async def send(self, data: bytes, options: int) -> None:
        self.node.send(data, options=options)

    async def commit(self, session: Any) -> None:
        self.node.commit(session)

    async def checkpoint(self) -> None:
        pass

    async def pause(self) -> None:
        time.sleep(PAUSE_S)  # noqa: ASYNC251 - it is a thread

    async def gather(self, count: int, work: Callable[[int], Coroutine[Any, Any, int]]) -> int:
        return workload.in_threads(count, lambda index: run_here(work(index)))


class InAsyncio:
    """As a handler of ASGI."""

    def __init__(self, node: BackgroundNode) -> None:
        self.node = node

    async def send(self, data: bytes, options: int) -> None:
        await self.node.asend(data, options=options)

    async def commit(self, session: Any) -> None:
        await self.node.acommit(session)

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)

    async def pause(self) -> None:
        await asyncio.sleep(PAUSE_S)

    async def gather(self, count: int, work: Callable[[int], Coroutine[Any, Any, int]]) -> int:
        return await workload.in_asyncio(count, work)


class Native:
    """In the trio run of the channel."""

    def __init__(self, channel: GroupChannel) -> None:
        self.channel = channel

    async def send(self, data: bytes, options: int) -> None:
        await self.channel.send(data, options=options)

    async def commit(self, session: Any) -> None:
        await self.channel.acommit(session)

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    async def pause(self) -> None:
        await trio.sleep(PAUSE_S)

    async def gather(self, count: int, work: Callable[[int], Coroutine[Any, Any, int]]) -> int:
        return await workload.in_trio(count, work)
