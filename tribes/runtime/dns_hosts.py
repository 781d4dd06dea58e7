"""Hosts by the addresses of a DNS name, such as that of a headless service (tribes-wire §6.3)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, final

from tribes.errors import ConfigError, DiscoveryError
from tribes.membership.seeker import NamedHost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tribes.config.model import DnsConfig

try:
    import dns.asyncresolver
    import dns.exception
    import dns.resolver
except ImportError as why:
    raise ConfigError(
        "needs the package dnspython; install it with: pip install 'tribes[dns]'",
        key="channel.membership.dns",
    ) from why

__all__ = ["DnsHosts"]

_TYPES = ("A", "AAAA")


@final
class DnsHosts:
    """The hosts of one name. A `DiscoveryService`.

    Args:
        config: Name, ports and servers.
        environment: Environment variables.

    Raises:
        ConfigError: There is no name.
    """

    def __init__(self, config: DnsConfig, environment: Mapping[str, str] = os.environ) -> None:
        self.name = "dns"
        self.refresh = config.refresh / 1000
        self._config = config
        self._host = config.name or environment.get("DNS_MEMBERSHIP_SERVICE_NAME", "")
        if not self._host:
            raise ConfigError(
                "is empty, and so is the environment variable DNS_MEMBERSHIP_SERVICE_NAME; write "
                "the name whose addresses are the members'",
                key="channel.membership.dns.name",
            )

    async def look_up(self) -> list[NamedHost]:
        """See `DiscoveryService`. A name without addresses has no hosts; one that does not exist
        is an error.
        """
        try:
            # Made anew each time: /etc/resolv.conf may change while this process runs.
            servers = self._config.nameservers
            resolver = dns.asyncresolver.Resolver(configure=not servers)
            if servers:
                resolver.nameservers = list(servers)
                resolver.port = self._config.nameserver_port
            resolver.cache = None
            found: dict[str, None] = {}
            for kind in _TYPES:
                answer = await resolver.resolve(
                    self._host,
                    kind,
                    raise_on_no_answer=False,
                    lifetime=self._config.timeout / 1000 / len(_TYPES),
                    search=True,
                )
                for record in answer:
                    found[str(record)] = None
        except (dns.exception.DNSException, OSError) as why:
            raise DiscoveryError(f"{self._host!r} cannot be looked up: {why}") from why
        return [NamedHost(each, self._config.port, self._config.auto_bind) for each in found]
