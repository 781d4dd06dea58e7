"""What the datagrams of the group and the answers of its members say together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tribes.admin.doctor.asking import Answer, Outcome
from tribes.admin.doctor.findings import Finding, fail, ok, warn
from tribes.admin.doctor.machine import is_loopback
from tribes.security.mark import Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from tribes.admin.doctor.listening import Heard, Listening
    from tribes.config.model import MembershipConfig, NodeConfig
    from tribes.wire.member import Member

__all__ = ["is_own", "judge_answers", "judge_elsewhere", "judge_listening"]

_SKEW_WARN_MS: Final = 2000
"""Beyond it the lines of two logs cannot be put in order by their times."""
_SKEW_FAIL_MS: Final = 60 * 60 * 1000
"""Up to an hour has to work; 24 hours ahead is refused (``tribes.manager.clock``)."""


# ---- multicast ---------------------------------------------------------------------------------


def judge_listening(config: MembershipConfig, found: Listening) -> Iterator[Finding]:
    """What the group's datagrams say alone."""
    group = f"{config.address}:{config.port}"
    if not found.returned:
        why = found.error or "nothing of it comes back, not even to this machine"
        fix = (
            f"let UDP to {group} pass this machine's firewall and routes, or write multicast = "
            "false and name a member under [[channel.membership.static]]"
        )
        yield fail("multicast", f"{found.sent} datagrams were sent to {group}: {why}", fix)
    yield from _keys_heard(found.members.values())


def _keys_heard(heard: Collection[Heard]) -> Iterator[Finding]:
    for each in heard:
        who = f"{each.member.label} at {each.member.host_text}:{each.member.port}"
        match each.verdict:
            case None if each.key_id:
                fix = "name the group's key file in [channel] as key_file on this machine"
                text = f"{who} has the key {each.key_id}, and this configuration has none"
            case Verdict.UNKNOWN_KEY:
                fix = "put the same key file on every member, and reload each with SIGHUP"
                text = f"{who} signs with the key {each.key_id}, which is not in the file here"
            case Verdict.FORGED:
                fix = "put the same key file on every member; new keys need new numbers (--id)"
                text = f"{who} has another key with the number {each.key_id}"
            case Verdict.UNSIGNED:
                fix = "give it the key file too, or list its address in channel.plain_peers"
                text = f"{who} has no key, and counts for nothing here"
            case _:
                continue
        yield fail("member keys", text, fix)


# ---- members -----------------------------------------------------------------------------------


def judge_answers(
    config: NodeConfig,
    heard: Listening | None,
    answers: Sequence[Answer],
    *,
    version: str,
    own: Collection[str],
) -> Iterator[Finding]:
    """What the members' ports say, and whether it fits to what was heard.

    Args:
        config: The node.
        heard: None: multicast is off.
        answers: Of all who are known.
        version: Of this product.
        own: This machine's addresses.
    """
    heard = None if heard is None else _without_own(config, heard)
    members = [
        each
        for each in answers
        if each.outcome is Outcome.MEMBER and not (each.met and is_own(config, each.met.record))
    ]
    if len(members) < sum(each.outcome is Outcome.MEMBER for each in answers):
        yield ok("node", f"{config.name} runs on this machine, and answers")
    unreached = [each for each in answers if _is_trouble(each, own)]
    yield from map(_unreached, unreached)
    yield from _multicast(config.channel.membership, heard, members)
    if not members and not unreached:
        text = "no other member was found"
        fix = "nothing, if this is the first; else start one, or ask with --peer HOST:PORT"
        yield warn("members", text, fix)
        return
    if members:
        yield ok("members", f"{', '.join(each.label for each in members)} answer")
    yield from _clocks(members)
    yield from _versions(members, version)
    for each in members:
        if not each.takes_long:
            text = f"{each.label} answers a short question, and a long one is lost on the way"
            fix = (
                "set the MTU of both interfaces to what the path carries (ip link set DEV mtu "
                "1400), or let ICMP 'fragmentation needed' pass the firewalls between"
            )
            yield fail("path mtu", text, fix)


def is_own(config: NodeConfig, member: Member) -> bool:
    """Whether a member is the node of this configuration, which may run already."""
    address = config.channel.receiver.address
    return bool(config.name) and (member.label, member.host_text) == (config.name, address)


def _without_own(config: NodeConfig, heard: Listening) -> Listening:
    others = {k: each for k, each in heard.members.items() if not is_own(config, each.member)}
    return replace(heard, members=others)


def _is_trouble(answer: Answer, own: Collection[str]) -> bool:
    if answer.outcome is Outcome.MEMBER:
        return False
    # The configuration often names all members, and with them this one, which need not run now.
    return not (answer.outcome is Outcome.REFUSED and answer.address[0] in own)


def _unreached(answer: Answer) -> Finding:
    who, why = answer.label, answer.why
    match answer.outcome:
        case Outcome.OTHER_KEY:
            fix = "put the same key file on every member, and reload each with SIGHUP"
            return fail("member keys", f"{who} does not share the key: {why}", fix)
        case Outcome.OTHER_VERSION:
            fix = "upgrade the older release; two releases in a row always understand each other"
            return fail("versions", f"{who} speaks no protocol that is spoken here: {why}", fix)
        case Outcome.TLS:
            fix = "let both name the same authorities, and certificates that name their addresses"
            return fail("member keys", f"{who} is not reached by TLS: {why}", fix)
        case Outcome.REFUSED:
            fix = "start the member there, or mend its address and port in this configuration"
            return fail("members", f"nobody listens at {who}", fix)
        case Outcome.NOT_OURS:
            text = f"{who} is a plain member of Tribes (Tomcat), or none: {why}"
            return warn("members", text, "nothing, if it is Tomcat's; see docs/tomcat.md")
        case _:
            fix = "open its TCP port in the firewalls between, or mend its address"
            return fail("members", f"{who} does not answer: {why}", fix)


def _multicast(
    config: MembershipConfig, heard: Listening | None, members: Sequence[Answer]
) -> Iterator[Finding]:
    if heard is None:
        if config.names_hosts:
            yield ok("multicast", "is switched off; members are named by the configuration")
        else:
            text = "multicast is switched off, and nothing names a member"
            fix = "name a member under [[channel.membership.static]], or write multicast = true"
            yield warn("multicast", text, fix)
        return
    if not heard.returned:
        return  # told already
    group = f"{config.address}:{config.port}"
    answered = {each.met.record.unique_id: each for each in members if each.met}
    deaf = [each.label for unique_id, each in answered.items() if unique_id not in heard.members]
    if deaf:
        text = f"heartbeats of {', '.join(deaf)} do not arrive, although it answers by TCP"
        fix = (
            f"let the switches and firewalls between carry multicast to {group} (IGMP snooping "
            "needs a querier), or name members under [[channel.membership.static]]"
        )
        if config.names_hosts:
            yield warn("multicast", text, fix)
        else:
            yield fail("multicast", text, fix)
        return
    names = [each.member.label for each in heard.members.values()]
    names += [f"a doctor on {name}" for name in sorted(heard.doctors)]
    if names:
        yield ok("multicast", f"datagrams to {group} arrive; heard: {', '.join(names)}")
        return
    text = f"datagrams to {group} come back to this machine, and nobody else was heard"
    if config.names_hosts:
        yield ok("multicast", text)
    else:
        fix = "run tribes doctor on another member at the same time: the two must hear each other"
        yield warn("multicast", text, fix)


def _clocks(members: Sequence[Answer]) -> Iterator[Finding]:
    told = [each for each in members if each.met and each.met.about]
    is_fine = True
    for each in told:
        skew = max(0.0, abs(each.ahead_ms) - each.unsure_ms)
        if skew < _SKEW_WARN_MS:
            continue
        is_fine = False
        direction = "ahead of" if each.ahead_ms > 0 else "behind"
        text = f"the clock of {each.label} is {skew / 1000:.1f} s {direction} this machine's"
        fix = "let both follow the same time servers (timedatectl set-ntp true)"
        make = fail if skew >= _SKEW_FAIL_MS else warn
        yield make("clock", text, fix)
    if told and is_fine:
        most = max(abs(each.ahead_ms) + each.unsure_ms for each in told)
        yield ok("clock", f"no member's clock differs by more than {most:.0f} ms")


def _versions(members: Sequence[Answer], version: str) -> Iterator[Finding]:
    older = [each.label for each in members if each.met and each.met.about is None]
    by_version: dict[str, list[str]] = {}
    for each in members:
        if each.met and each.met.about:
            by_version.setdefault(each.met.about.version or "unknown", []).append(each.label)
    if older:
        by_version["an earlier release"] = older
    others = {key: labels for key, labels in by_version.items() if key != version}
    if others:
        shown = "; ".join(f"{key}: {', '.join(labels)}" for key, labels in others.items())
        text = f"this machine has {version}; {shown}"
        yield warn("versions", text, "finish the upgrade: all members should run one release")
    elif by_version:
        yield ok("versions", f"all run {version}")


def judge_elsewhere(config: NodeConfig, addresses: Collection[str]) -> Iterator[Finding]:
    """Whether a node that listens on loopback has members elsewhere."""
    address = config.channel.receiver.address
    if not is_loopback(address):
        return
    elsewhere = sorted({each for each in addresses if not is_loopback(each)})
    if elsewhere:
        text = f"{address} is loopback, and members are elsewhere: {', '.join(elsewhere)}"
        fix = (
            "write the address of the network interface, or auto, as channel.receiver.address and "
            "channel.membership.bind, and give the group a key"
        )
        yield fail("address", text, fix)
