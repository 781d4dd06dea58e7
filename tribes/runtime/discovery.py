"""The services that name hosts: their look-ups run beside the node, and tell it what they found.

A look-up that fails changes nothing: the hosts of the last one are kept (as Tomcat 10.1.60 does).
Nothing depends on a service for longer than it takes to meet one member.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from tribes.channel.outputs import Event, Notice
from tribes.errors import DiscoveryError
from tribes.membership.seeker import NamedHost

if TYPE_CHECKING:
    from tribes.config.model import MembershipConfig, StaticMemberConfig

__all__ = [
    "HOSTS_MAX",
    "DiscoveryService",
    "HostNames",
    "discovery_services",
    "run_service",
    "static_names",
]

HOSTS_MAX: Final = 1000
"""Hosts that are taken from one service."""

_LOOK_UP_S: Final = 10.0
"""Until the look-up of a static name is given up."""


class DiscoveryService(Protocol):
    """Finds hosts.

    Attributes:
        name: Names it, in events and towards the node.
        refresh: Seconds between two look-ups.
    """

    name: str
    refresh: float

    async def look_up(self) -> list[NamedHost]:
        """Return all hosts there are now.

        Raises:
            DiscoveryError: They cannot be had now.
        """


async def run_service(
    service: DiscoveryService,
    discovered: Callable[[str, Sequence[NamedHost]], None],
    event: Callable[[Event], None],
) -> None:
    """Look hosts up until cancelled. A failure is told once, and so is its end."""
    has_failed = False
    while True:
        try:
            hosts = await service.look_up()
        except Exception as why:  # noqa: BLE001 - a boundary: others' libraries stand behind it
            if not has_failed:
                is_ours = isinstance(why, DiscoveryError)
                said = str(why) if is_ours else f"{type(why).__name__}: {why}"
                event(Notice("discovery failed", {"service": service.name, "why": said}))
            has_failed = True
        else:
            if has_failed:
                event(Notice("discovery works again", {"service": service.name}))
            has_failed = False
            discovered(service.name, hosts[:HOSTS_MAX])
        await trio.sleep(service.refresh)


@final
class HostNames:
    """The names among the static members, looked up by the system.

    Args:
        members: Those with names; addresses need no looking up.
        refresh: Seconds between two look-ups.
    """

    name = "static names"

    def __init__(self, members: Sequence[StaticMemberConfig], refresh: float) -> None:
        self.refresh = refresh
        self._members = members
        self._last: dict[str, list[str]] = {}

    async def look_up(self) -> list[NamedHost]:
        """See :class:`DiscoveryService`. A name that is not found keeps its last addresses."""
        failures = []
        for host in dict.fromkeys(each.host for each in self._members):
            try:
                self._last[host] = await self._addresses(host)
            except DiscoveryError as why:
                failures.append(why)
        if failures and not self._last:
            raise failures[0]
        hosts = [
            NamedHost(address, each.port, each.auto_bind)
            for each in self._members
            for address in self._last.get(each.host, ())
        ]
        return list(dict.fromkeys(hosts))

    async def _addresses(self, host: str) -> list[str]:
        with trio.move_on_after(_LOOK_UP_S):
            try:
                infos = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as why:
                raise DiscoveryError(f"{host!r} cannot be looked up: {why}") from why
            return [str(info[4][0]).partition("%")[0] for info in infos]
        raise DiscoveryError(f"{host!r} was not looked up within {_LOOK_UP_S:g} s")


def static_names(members: Sequence[StaticMemberConfig], refresh_ms: int) -> HostNames | None:
    """What looks up the names among the static members; None: there are none."""
    names = [each for each in members if not _is_address(each.host)]
    return HostNames(names, refresh_ms / 1000) if names else None


def discovery_services(config: MembershipConfig) -> list[DiscoveryService]:
    """Make the services that a configuration asks for.

    Raises:
        ConfigError: A package for one is not installed, or a setting is missing.
    """
    services: list[DiscoveryService] = []
    names = static_names(config.static, config.refresh)
    if names is not None:
        services.append(names)
    if config.dns is not None:
        from tribes.runtime.dns_hosts import DnsHosts

        services.append(DnsHosts(config.dns))
    if config.kubernetes is not None:
        from tribes.runtime.kubernetes import KubernetesPods

        services.append(KubernetesPods(config.kubernetes))
    return services


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
