"""The whole examination, in the order in which one thing explains the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from tribes.admin.doctor.asking import Answer, Outcome, ask_all
from tribes.admin.doctor.findings import Finding, State, fail
from tribes.admin.doctor.group import judge_answers, judge_elsewhere, judge_listening
from tribes.admin.doctor.interfaces import interfaces
from tribes.admin.doctor.listening import Listening, listen_to_group
from tribes.admin.doctor.machine import (
    Secrets,
    look_at_machine,
    look_at_settings,
    read_secrets,
)
from tribes.channel.discovery import static_hosts
from tribes.config.model import MembershipConfig
from tribes.errors import ConfigError, DiscoveryError
from tribes.interceptors.domain import parse_domain
from tribes.membership.seeker import NamedHost
from tribes.runtime.addresses import with_addresses
from tribes.runtime.discovery import discovery_services
from tribes.runtime.product import product_version
from tribes.wire.member import Member, encode_member, host_octets

if TYPE_CHECKING:
    from tribes.config.load import Loaded
    from tribes.config.model import NodeConfig, StaticMemberConfig

__all__ = ["examine"]

_ADDRESSES_MAX: Final = 256
"""Ports of named hosts that are asked."""


async def examine(
    loaded: Loaded,
    *,
    seconds: float,
    peers: Iterable[StaticMemberConfig] = (),
    tell: Callable[[Finding], None] = lambda finding: None,
) -> list[Finding]:
    """Look at everything.

    Args:
        loaded: The configuration of the node that is to run here, or runs.
        seconds: How long to listen to the group.
        peers: Where members should be, beyond what the configuration says.
        tell: Gets each finding as soon as there is one.
    """
    found: list[Finding] = []

    def take(findings: Iterable[Finding]) -> None:
        for finding in findings:
            found.append(finding)
            tell(finding)

    take(look_at_settings(loaded))
    about_secrets, secrets = read_secrets(loaded.config)
    take(about_secrets)
    if any(each.check == "configuration" and each.state is State.FAIL for each in found):
        return found
    try:
        config = with_addresses(loaded.config)
    except ConfigError as error:
        fix = "write the address of the interface to use, or add a route to the group"
        take([fail("address", str(loaded.located(error)), fix)])
        return found
    heard: Listening | None = None
    membership = config.channel.membership
    if membership.multicast:
        try:
            heard = await listen_to_group(membership, secrets.keys, seconds)
        except ConfigError as error:
            fix = "set channel.membership.bind to an interface that can multicast, or multicast off"
            take([fail("multicast", str(error), fix)])
            heard = Listening()
        else:
            take(judge_listening(membership, heard))
    hosts, failures = await _named(membership)
    take(failures)
    asked, failures = await _named(MembershipConfig(static=tuple(peers)))
    take(failures)
    hosts += asked
    if heard is not None:
        hosts += [NamedHost(*each.member.address) for each in heard.members.values()]
    answers = await _answers(hosts, secrets)
    take(judge_elsewhere(config, [host.host for host in hosts]))
    take(look_at_machine(config, heartbeat_bytes=_record_bytes(config), members=len(answers)))
    own = {each.address for each in interfaces()} | {config.channel.receiver.address}
    take(judge_answers(config, heard, answers, version=product_version(), own=own))
    return found


async def _named(membership: MembershipConfig) -> tuple[list[NamedHost], list[Finding]]:
    """Where a configuration says that members are, now."""
    hosts, failures = static_hosts(membership.static), []
    try:
        services = discovery_services(membership)
    except ConfigError as error:
        fix = "install what it needs, or mend the setting; see docs/membership.md"
        return hosts, [fail("discovery", str(error), fix)]
    for service in services:
        try:
            hosts += await service.look_up()
        except DiscoveryError as error:
            fix = "mend the name, or the service that should know it; see docs/membership.md"
            failures.append(fail("discovery", f"{service.name}: {error}", fix))
    return hosts, failures


async def _answers(hosts: list[NamedHost], secrets: Secrets) -> list[Answer]:
    """What each host says. Of several ports to try one that answers is enough."""
    ports = {
        host: [(host.host, port) for port in range(host.port, host.port + max(host.ports, 1))]
        for host in hosts
    }
    wanted = list(dict.fromkeys(each for host in hosts for each in ports[host]))
    by_address = {each.address: each for each in await ask_all(wanted[:_ADDRESSES_MAX], secrets)}
    kept: dict[tuple[str, int], Answer] = {}
    for host in hosts:
        answers = [by_address[each] for each in ports[host] if each in by_address]
        useful = [each for each in answers if each.outcome is not Outcome.REFUSED]
        kept |= {each.address: each for each in useful or answers[:1]}
    return list(kept.values())


def _record_bytes(config: NodeConfig) -> int:
    """Length of the member record that heartbeats of this node carry."""
    record = Member(
        host=host_octets(config.channel.receiver.address),
        port=config.channel.receiver.port,
        unique_id=bytes(16),
        domain=parse_domain(config.channel.membership.domain),
        payload=config.payload or config.name.encode(),
    )
    return len(encode_member(record))
