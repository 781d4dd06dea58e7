"""The sockets of multicast: which interface they are on, and when they are opened anew."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from tests.runtime.test_group_channel import together
from tribes.config.model import (
    MembershipConfig,
    NodeConfig,
    StaticMemberConfig,
    check_config,
)
from tribes.errors import ConfigError
from tribes.runtime import sockets
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.multicast import Multicast

if TYPE_CHECKING:
    from tribes.channel.outputs import Event


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="not here: no IPv6 on loopback")


@needs_ipv6
async def test_members_find_each_other_on_ipv6_loopback(
    make_config: Callable[..., NodeConfig],
) -> None:
    """By name, since Linux has no multicast of IPv6 there; their records have 16 octets."""

    def config(name: str, port: int) -> NodeConfig:
        replace = msgspec.structs.replace
        made = make_config(name, address="::1")
        membership = replace(
            made.channel.membership,
            multicast=False,
            static=(StaticMemberConfig(host="::1", port=port),),
        )
        return replace(made, channel=replace(made.channel, membership=membership))

    async with GroupChannel(config("a", 1)) as a, GroupChannel(config("b", a.local.port)) as b:
        await together(a, b)
        assert a.members[0].host == socket.inet_pton(socket.AF_INET6, "::1")
        assert a.members[0].address == ("::1", b.local.port)
        await a.send(b"over six", options=6)


def test_the_address_must_be_of_the_groups_kind() -> None:
    """Said before anything is opened."""
    config = msgspec.convert({"channel": {"membership": {"address": "ff15::4:1"}}}, NodeConfig)
    with pytest.raises(ConfigError, match="no address of IPv6") as caught:
        check_config(config)
    assert caught.value.key == "channel.membership.bind"


def test_an_address_that_no_interface_has_is_refused() -> None:
    """With the key to change; both kinds."""
    for group, bind in (("228.0.0.4", "192.0.2.77"), ("ff15::4:1", "2001:db8::77")):
        config = MembershipConfig(address=group, bind=bind)
        for make in (sockets.multicast_receiver, sockets.multicast_sender):
            with pytest.raises(ConfigError) as caught:
                make(config)
            assert caught.value.key == "channel.membership.bind"


class Ear:
    """Hears what the mouth says, unless it is deaf."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: list[bytes] = []
        self.changed = trio.Event()
        self.is_closing = False

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        del size
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(), ("127.0.0.1", 1)

    def close(self) -> None:
        return


class Mouth:
    """Fails when told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_closing = False
        self.changed = trio.Event()

    def sendto(self, data: bytes, group: tuple[str, int]) -> int:
        del group
        if self.world.fails:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if not self.world.is_deaf:
            self.world.ears[-1].waiting.append(data)
            self.world.ears[-1].changed.set()
        return len(data)

    def close(self) -> None:
        return


class World:
    """Sockets that can be broken, and the object that is tested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.fails = self.is_deaf = False
        self.has_interface = True
        self.ears: list[Ear] = []
        self.tries: list[float] = []
        self.events: list[Event] = []
        monkeypatch.setattr(trio.lowlevel, "wait_readable", self._wait)
        monkeypatch.setattr(trio.lowlevel, "notify_closing", self._closing)
        self.multicast = Multicast(
            MembershipConfig(**settings),
            open_receiver=self._open,  # type: ignore[arg-type]
            open_sender=lambda config: Mouth(self),  # type: ignore[arg-type,return-value]
            event=self.events.append,
            now=trio.current_time,
        )

    def _open(self, config: MembershipConfig) -> Ear:
        del config
        self.tries.append(trio.current_time())
        if not self.has_interface:
            raise ConfigError("no such interface", key="bind")
        self.ears.append(Ear(self))
        return self.ears[-1]

    def _closing(self, sock: Ear | Mouth) -> None:
        sock.is_closing = True
        sock.changed.set()

    async def _wait(self, sock: Ear) -> None:
        while not sock.waiting:
            if sock.is_closing:
                raise trio.ClosedResourceError
            await sock.changed.wait()
            sock.changed = trio.Event()

    async def beat(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.multicast.send(b"beat")
            await trio.sleep(0.5)

    @property
    def told(self) -> list[str]:
        return [event.name for event in self.events]


async def test_errors_in_a_row_open_the_sockets_anew_until_that_works(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten errors, then a try at once and every five seconds, as Tomcat's McastService; told are the
    loss and the recovery, not the tries.
    """
    world = World(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.multicast.hear, lambda data, addr: None, lambda: None)
        await world.beat(60)
        assert world.told == []
        world.fails, world.has_interface = True, False
        await world.beat(4.5)
        assert world.told == []
        await world.beat(0.5)
        assert world.told == ["multicast lost"]
        await world.beat(21)
        # The start, the tenth error in a row, and from then on.
        assert world.tries == pytest.approx([0, 64.5, 69.5, 74.5, 79.5, 84.5])
        # The interface is back and does not work yet.
        world.has_interface = True
        await world.beat(31)
        assert world.told == ["multicast lost"]
        assert len(world.ears) <= 5
        world.fails = False
        await world.beat(10)
        assert world.told == ["multicast lost", "multicast recovered"]
        assert world.multicast.recoveries == 1
        nursery.cancel_scope.cancel()


async def test_who_hears_not_even_itself_opens_them_anew(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time of ten errors, or ``drop_time`` where that is longer."""
    world = World(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.multicast.hear, lambda data, addr: None, lambda: None)
        await world.beat(5)
        world.is_deaf = True
        await world.beat(5)
        assert world.told == []
        await world.beat(0.5)
        assert world.told == ["multicast lost"]
        world.is_deaf = False
        await world.beat(1)
        assert world.told == ["multicast lost", "multicast recovered"]
        assert len(world.ears) == 2
        nursery.cancel_scope.cancel()


async def test_recovery_can_be_turned_off(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the sockets stay as they are, as with Tomcat's ``recoveryEnabled``."""
    world = World(monkeypatch, recovery_enabled=False)
    world.fails = True
    await world.beat(60)
    assert world.told == []
    world.multicast.close()
    world.multicast.send(b"too late")
