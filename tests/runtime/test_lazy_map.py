"""Lazy maps on real sockets: three members, each with a part, used from threads and event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.waiting import until, wait_until
from tribes.config.model import NodeConfig
from tribes.errors import ChannelClosedError, LocalProtocolError, MapFullError
from tribes.maps.placement import EntryKind
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.lazy_map import LazyReplicatedMap

MakeConfig = Callable[..., NodeConfig]


@contextmanager
def three(
    make_config: MakeConfig, **options: int
) -> Iterator[tuple[list[BackgroundNode], list[LazyReplicatedMap]]]:
    nodes = [BackgroundNode(make_config(name)) for name in "abc"]
    maps = [LazyReplicatedMap(node, "m", **options) for node in nodes]  # type: ignore[arg-type]
    for node in nodes:
        node.start()
    try:
        cores = [node.channel.shell.core.lazy_maps["lazy:m"] for node in nodes]
        wait_until(lambda: all(core.is_settled and len(core.order(0)) == 3 for core in cores))
        yield nodes, maps
    finally:
        for node in nodes:
            node.stop()


def test_every_member_uses_every_entry(make_config: MakeConfig) -> None:
    """From threads and from asyncio, whatever the entry is there; a stopped one hands over."""
    with three(make_config) as (nodes, maps):
        a, b, c = maps
        for number in range(60):
            maps[number % 3][number] = {"n": (number,)}
        assert all(each[number] == {"n": (number,)} for each in maps for number in range(60))
        assert sum(map(len, maps)) == 120
        assert sorted({key for each in maps for key in each}) == list(range(60))
        kinds = {number: [each.kind_of(number) for each in maps] for number in range(60)}
        assert {tuple(sorted(kind.value for kind in found)) for found in kinds.values()} == {
            ("backup", "primary", "proxy")
        }
        proxy = next(n for n, found in kinds.items() if found[0] is EntryKind.PROXY)
        primary = next(n for n, found in kinds.items() if found[0] is EntryKind.PRIMARY)
        assert set(a.put(proxy, 1).acked) == {"b", "c"}
        assert len(a.put(primary, 1).acked) == 1
        a.remove(proxy)
        with pytest.raises(KeyError):
            a.remove(proxy)
        assert b.get(proxy) is None
        assert proxy not in c

        async def use() -> None:
            with pytest.raises(LocalProtocolError, match="aget"):
                a[proxy]
            with pytest.raises(LocalProtocolError, match="aput"):
                a[primary] = 2
            assert await a.aget(proxy, "none") == "none"
            await a.aput(proxy, "back")
            assert await a.aget(proxy) == "back"
            await a.aremove(proxy)
            with pytest.raises(KeyError):
                await a.aget(proxy)

        asyncio.run(use())
        nodes[0].stop()
        with pytest.raises(ChannelClosedError):
            a[proxy]
        wait_until(lambda: b.members == ("c",))
        assert all(b[n] in ({"n": (n,)}, 1) for n in range(60) if n != proxy)
        assert 2 * len(b) == len(b) + len(c)


def test_bounds_are_told_to_the_writer(make_config: MakeConfig) -> None:
    """A full partition refuses a new key, wherever the write is made."""
    with three(make_config, max_entries=32) as (_, maps):
        full: set[str] = set()
        for number in range(400):
            each = maps[number % 3]
            try:
                each[number] = 1
            except MapFullError:
                full.add(each.kind_of(number).value)
        assert full == {"primary", "backup", "proxy"}
        assert sum(map(len, maps)) == 128
        with pytest.raises(LocalProtocolError, match="at most"):
            maps[0][1] = bytes(600_000)
        with pytest.raises(LocalProtocolError, match="copies"):
            LazyReplicatedMap(BackgroundNode(make_config("x")), "m", copies=-1)


async def test_a_trio_program_uses_a_lazy_map(make_config: MakeConfig) -> None:
    """Alone it has everything, and leaving gives it to whoever has the map."""
    async with GroupChannel(make_config("b")) as b:
        theirs = LazyReplicatedMap(b, "m", copies=0)
        async with GroupChannel(make_config("a")) as a:
            ours = LazyReplicatedMap(a, "m", copies=0)
            await until(lambda: bool(ours.members and theirs.members))
            for number in range(30):
                await ours.aput(number, number)
        assert [await theirs.aget(number) for number in range(30)] == list(range(30))
        theirs.close()
        with pytest.raises(ChannelClosedError):
            await theirs.aget(1)
