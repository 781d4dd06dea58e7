"""The two UDP sockets of multicast membership, and their recovery.

An interface may vanish and come back: a cable, a VPN, a container's network. The sockets then stay
broken, so they are opened anew, every ``recovery_sleep_time`` until that works (tribes-wire §6.1).
When they count as broken :mod:`tribes.membership.recovery` says.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import trio

from tribes.channel.outputs import Event, Notice
from tribes.errors import ConfigError
from tribes.membership.recovery import MulticastHealth
from tribes.wire.limits import DATAGRAM_MAX_BYTES

if TYPE_CHECKING:
    from tribes.config.model import MembershipConfig

__all__ = ["Multicast"]

_DATAGRAMS_AT_ONCE = 64

Opener = Callable[["MembershipConfig"], socket.socket]
Heard = Callable[[bytes, tuple[str, int]], None]


@final
class Multicast:
    """The group's datagrams, in and out.

    Args:
        config: Group, interface and recovery.
        open_receiver: Opens the socket that hears the group.
        open_sender: Opens the one that heartbeats leave by.
        event: Takes the events.
        now: Monotonic seconds.

    Raises:
        ConfigError: The sockets cannot be opened.
    """

    def __init__(
        self,
        config: MembershipConfig,
        *,
        open_receiver: Opener,
        open_sender: Opener,
        event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self.recoveries = 0
        """How often the sockets were opened anew and the group was heard again."""
        self._config = config
        self._group = (config.address, config.port)
        self._open_receiver = open_receiver
        self._open_sender = open_sender
        self._event = event
        self._now = now
        silent_max = max(config.drop_time, config.recovery_counter * config.frequency) / 1000
        self._health = MulticastHealth(config.recovery_counter, silent_max)
        self._receiver: socket.socket | None = None
        self._sender: socket.socket | None = None
        self._is_closed = False
        self._tries = 0
        """How often they were opened anew since they broke; 0 while all is well."""
        self._open()

    def _open(self) -> None:
        receiver = self._open_receiver(self._config)
        try:
            self._sender = self._open_sender(self._config)
        except BaseException:
            receiver.close()
            raise
        self._receiver = receiver
        self._health.opened()

    def close(self) -> None:
        """Close the sockets for good."""
        self._is_closed = True
        self._close()

    def _close(self) -> None:
        for sock in (self._receiver, self._sender):
            if sock is not None:
                trio.lowlevel.notify_closing(sock)
                sock.close()
        self._receiver = self._sender = None

    def send(self, data: bytes) -> None:
        """Send one datagram to the group. One that cannot be sent is a lost one; the next heartbeat
        tries again.
        """
        if self._sender is None:
            return
        try:
            self._sender.sendto(data, self._group)
        except OSError as why:
            self._health.failed()
            self._check(why.strerror or str(why))
        else:
            self._health.sent(self._now())
            self._check("nothing is heard of the group")

    async def hear(self, heard: Heard, pump: Callable[[], None]) -> None:
        """Hand on every datagram, and call ``pump`` after some, until cancelled or closed."""
        while not self._is_closed:
            if self._receiver is None:
                await self._recover()
                continue
            try:
                await trio.lowlevel.wait_readable(self._receiver)
            except trio.ClosedResourceError:
                continue
            self.hear_waiting(heard)
            pump()

    def hear_waiting(self, heard: Heard) -> None:
        """Hand on what has arrived, within bounds."""
        for _ in range(_DATAGRAMS_AT_ONCE):
            if self._receiver is None:
                return
            try:
                data, addr = self._receiver.recvfrom(DATAGRAM_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError as why:
                self._health.failed()
                self._check(why.strerror or str(why))
                continue
            self._health.heard()
            if self._tries:
                self._tries = 0
                self.recoveries += 1
                self._event(Notice("multicast recovered", {"bind": self._config.bind}))
            heard(data, (addr[0], addr[1]))

    def _check(self, why: str) -> None:
        if self._config.recovery_enabled and self._health.is_broken(self._now()):
            self._close()
            if not self._tries:
                self._event(Notice("multicast lost", {"why": why}))

    async def _recover(self) -> None:
        if self._tries:
            await trio.sleep(self._config.recovery_sleep_time / 1000)
        self._tries += 1
        # An error as at the start: the interface is not there yet.
        with contextlib.suppress(ConfigError):
            self._open()
