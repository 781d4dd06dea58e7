"""Replicated maps on real sockets: in trio, threads and asyncio, before the start, after a fork."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.waiting import until, wait_until
from tribes.config.model import NodeConfig
from tribes.errors import LocalProtocolError
from tribes.manager.values import ValueCodec
from tribes.maps.changes import ChangeKind, MapChange, MapMemberChange
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.replicated_map import ReplicatedMap

MakeConfig = Callable[..., NodeConfig]


@contextmanager
def running(*nodes: BackgroundNode) -> Iterator[None]:
    """Started, and each has found all others; stopped in the end."""
    try:
        for node in nodes:
            node.start()
        wait_until(lambda: all(len(node.view.members) == len(nodes) - 1 for node in nodes))
        yield
    finally:
        for node in nodes:
            node.stop()


async def test_a_map_is_a_mapping_that_members_share(make_config: MakeConfig) -> None:
    """What a dictionary can do, and the other member sees it."""
    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        one, two = ReplicatedMap(a, "m"), ReplicatedMap(b, "m")
        await until(lambda: one.members == ("b",) and two.members == ("a",))
        result = await one.aput("k", {"x": (1, 2)})
        assert (result.acked, result.replicated) == (("b",), True)
        assert two["k"] == {"x": (1, 2)}
        two.update({1: "one", b"b": None})
        await until(lambda: len(one) == 3)
        assert dict(one) == {"k": {"x": (1, 2)}, 1: "one", b"b": None}
        assert two.pop(1) == "one"
        assert two.get("nothing", 5) == 5
        assert 1.5 not in two
        await two.aremove("k")
        with pytest.raises(KeyError):
            await two.aremove("k")
        await until(lambda: list(one) == [b"b"])
        assert repr(one) == "<ReplicatedMap 'm', 1 entries>"
        with pytest.raises(LocalProtocolError, match="aput"):
            one.put("k", 1)


def test_clearing_a_map_clears_what_cannot_be_read_too(make_config: MakeConfig) -> None:
    """An entry of a class that is not registered here is still an entry."""
    node = BackgroundNode(make_config("a"))
    prices, codec = ReplicatedMap(node, "m"), ValueCodec()
    codec.register(ChangeKind, name="kind")
    unreadable = codec.encode(ChangeKind.ADDED)
    for key in ("a", "b", "c"):
        prices[key] = 1
        prices._manager.write(f"s:{key}", unreadable, None)
    prices["d"] = 1
    prices.clear()
    assert len(prices) == 0


async def test_listeners_are_told_and_nobody_waits_for_them(make_config: MakeConfig) -> None:
    """A listener that blocks holds up no acknowledgement; it gets copies, in order."""
    told: list[Any] = []
    may_go = threading.Event()

    def slow(change: MapChange | MapMemberChange) -> None:
        may_go.wait(5)
        told.append(change)

    async with GroupChannel(make_config("a")) as a, GroupChannel(make_config("b")) as b:
        one = ReplicatedMap(a, "m", options=6)
        two = ReplicatedMap(b, "m", listener=slow)
        await until(lambda: one.members == ("b",) and two.members == ("a",))
        for number in range(20):
            assert (await one.aput("k", number)).replicated
        may_go.set()
        await until(lambda: len(told) == 21)
        assert told[0] == MapMemberChange(a.local, is_added=True)
        assert [change.value for change in told[1:]] == list(range(20))
        assert [c.kind for c in told[1:3]] == [ChangeKind.ADDED, ChangeKind.UPDATED]
        one.close()
        await until(lambda: len(told) == 22)
        assert told[-1] == MapMemberChange(a.local, is_added=False)


async def test_a_listener_that_raises_costs_nothing(make_config: MakeConfig) -> None:
    """The next change is told all the same."""
    told: list[object] = []

    async def moody(change: MapChange | MapMemberChange) -> None:
        told.append(change)
        if len(told) == 1:
            raise RuntimeError("as told")

    async with GroupChannel(make_config("a")) as a:
        one = ReplicatedMap(a, "m", listener=moody)
        one["x"] = 1
        one["y"] = 2
        await until(lambda: len(told) == 2)


def test_threads_and_asyncio_use_a_map(make_config: MakeConfig) -> None:
    """``put`` blocks a thread, ``aput`` waits in asyncio; both return who has it."""
    a, b = BackgroundNode(make_config("a")), BackgroundNode(make_config("b"))
    early = ReplicatedMap(a, "m")
    early["early"] = 1
    assert early.put("early", 2).acked == ()
    with running(a, b):
        two = ReplicatedMap(b, "m")
        wait_until(lambda: early.members == ("b",) and "early" in two)
        assert two["early"] == 2
        assert two.put("x", 1).acked == ("a",)
        assert early.remove("x").acked == ("b",)

        async def write() -> None:
            with pytest.raises(LocalProtocolError, match="aput"):
                early.put("y", 1)
            results = await asyncio.gather(*(early.aput(n, n) for n in range(50)))
            assert {result.acked for result in results} == {("b",)}

        asyncio.run(write())
        assert sum(key for key in two if isinstance(key, int)) == sum(range(50))
        with pytest.raises(LocalProtocolError, match="open in this process"):
            ReplicatedMap(b, "m")
        two.close()
        wait_until(lambda: early.members == ())
        with ReplicatedMap(b, "m") as again:
            wait_until(lambda: len(again) == 51)


def test_a_thousand_entries_are_transferred(make_config: MakeConfig) -> None:
    """A member that comes later joins with all of them."""
    a, b = BackgroundNode(make_config("a")), BackgroundNode(make_config("b"))
    one, two = ReplicatedMap(a, "m", options=8), ReplicatedMap(b, "m")
    with running(a):
        for number in range(1000):
            one[number] = "x" * 500
        b.start()
        try:
            assert b.wait_joined(10)
            assert two.is_joined
            assert len(two) == 1000
        finally:
            b.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: no fork")
def test_a_forked_child_has_a_map_of_its_own(make_config: MakeConfig) -> None:
    """It starts a node when it first looks for an entry, and finds what the parent has."""
    a = BackgroundNode(make_config("a"))
    one = ReplicatedMap(a, "m")
    with running(a):
        one["k"] = "parent's"
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(writing, one["k"].encode())
                one.put("child", 2)
                a.stop()
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        assert os.read(reading, 100) == b"parent's"
        os.close(reading)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert one["child"] == 2
