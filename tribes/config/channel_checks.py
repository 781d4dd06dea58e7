"""Checks of a channel's settings: what cannot work is refused before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.config.bounds import (
    BUFFER_MAX_BYTES,
    IPAddress,
    check_ip,
    check_port,
    check_positive,
    check_within,
)
from tribes.config.channel import AUTO
from tribes.errors import ConfigError
from tribes.ids import parse_unique_id

if TYPE_CHECKING:
    from tribes.config.channel import (
        ChannelConfig,
        MembershipConfig,
        ReceiverConfig,
        SenderConfig,
        StaticMemberConfig,
    )

__all__ = ["check_channel", "check_exposure"]

PORTS_MAX: Final = 1000
"""Ports that are tried on one host."""

FRAME_MIN_BYTES: Final = 1024 * 1024
"""What nodes send each other in one message, with room to spare."""

_CHANNEL_NAME_MAX: Final = 255
_TTL_MAX: Final = 255
_NOBODYS_ID: Final = b"\xff" * 16
"""In the own link's language it means whoever is there, so it can name nobody."""


def check_channel(channel: ChannelConfig) -> None:
    """Refuse values that cannot work anywhere.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    _check_times(channel.membership)
    _check_receiver(channel)
    check_positive("channel.heartbeat_sleeptime", channel.heartbeat_sleeptime)
    _check_sender(channel.sender)
    _check_services(channel)
    _check_addresses(channel)
    _check_key(channel)
    _check_tls(channel)


def check_exposure(channel: ChannelConfig, *, is_insecure: bool) -> None:
    """Refuse a group that others can reach, and that nothing protects.

    Args:
        channel: Its settings.
        is_insecure: Somebody wants that.

    Raises:
        ConfigError: Says how to protect it.
    """
    membership, receiver = channel.membership, channel.receiver
    exposed = [("channel.receiver.address", receiver.address)]
    if membership.multicast:
        exposed.insert(0, ("channel.membership.bind", membership.bind))
    for key, text in exposed:
        address = _local_ip(key, text)
        is_loopback = address is not None and address.is_loopback
        if is_loopback or is_insecure or channel.is_protected:
            continue
        raise ConfigError(
            f"{text} is not a loopback address, and nothing protects the group there: whoever "
            "reaches the port could read and change sessions. Give the group a key, the same file "
            "on every member (on the command line: --key-file):\n\n"
            "    tribes keygen --output group.key\n"
            '    key_file = "group.key"    # under [channel]\n\n'
            "or certificates ([channel.tls]: certificate, private_key, authorities; see "
            "docs/security.md), "
            "or, if the network itself is trusted, say so in the node's configuration (on the "
            "command line: --insecure):\n\n"
            "    insecure = true\n",
            key=key,
        )


def _check_times(membership: MembershipConfig) -> None:
    check_positive("channel.membership.frequency", membership.frequency)
    check_positive("channel.membership.drop_time", membership.drop_time)
    if membership.drop_time < 2 * membership.frequency:
        raise ConfigError(
            f"drop_time is {membership.drop_time} ms, but a heartbeat comes only every "
            f"{membership.frequency} ms; write at least {2 * membership.frequency}",
            key="channel.membership.drop_time",
        )
    if membership.suspect_after and not (
        2 * membership.frequency <= membership.suspect_after <= membership.drop_time
    ):
        raise ConfigError(
            f"suspect_after is {membership.suspect_after} ms; write 0 (never), or a time from "
            f"{2 * membership.frequency} (two heartbeats) to {membership.drop_time} (drop_time)",
            key="channel.membership.suspect_after",
        )
    check_port("channel.membership.port", membership.port, lowest=1)
    if membership.ttl is not None:
        hops = f"from -1 (the kernel's) to {_TTL_MAX}"
        check_within("channel.membership.ttl", membership.ttl, -1, _TTL_MAX, what=hops)


def _check_receiver(channel: ChannelConfig) -> None:
    receiver = channel.receiver
    check_port("channel.receiver.port", receiver.port, lowest=0)
    check_port("channel.receiver.udp_port", receiver.udp_port, lowest=-1)
    _check_sockets("channel.receiver", receiver)
    if receiver.udp_port >= 0 and (channel.has_key or channel.tls is not None):
        raise ConfigError(
            "a group with a key or TLS receives no messages by UDP, because nothing protects "
            "them; take udp_port away",
            key="channel.receiver.udp_port",
        )
    check_positive("channel.receiver.max_threads", receiver.max_threads)
    check_positive("channel.receiver.max_connections", receiver.max_connections)
    if receiver.frame_max_bytes < FRAME_MIN_BYTES:
        raise ConfigError(
            f"must be at least {FRAME_MIN_BYTES}, found {receiver.frame_max_bytes}",
            key="channel.receiver.frame_max_bytes",
        )
    for name in ("pending_max", "pending_max_bytes"):
        check_positive(f"channel.receiver.{name}", getattr(receiver, name))


def _check_addresses(channel: ChannelConfig) -> None:
    membership, receiver = channel.membership, channel.receiver
    group = check_ip("channel.membership.address", membership.address)
    if not group.is_multicast:
        raise ConfigError(
            f"{membership.address} is not a multicast address; write one like 228.0.0.4",
            key="channel.membership.address",
        )
    bind = _local_ip("channel.membership.bind", membership.bind)
    if membership.multicast and bind is not None and bind.version != group.version:
        raise ConfigError(
            f"{membership.bind} is no address of IPv{group.version}, which the group "
            f"{membership.address} is of; write one of the same interface that is",
            key="channel.membership.bind",
        )
    address = _local_ip("channel.receiver.address", receiver.address)
    if address is not None and address.is_unspecified:
        raise ConfigError(
            f"{receiver.address} is no address that other members could reach; write the one of "
            "the interface they come by",
            key="channel.receiver.address",
        )


def _local_ip(key: str, text: str) -> IPAddress | None:
    """An address of this machine; None: the one that is found when the node starts."""
    return None if text == AUTO else check_ip(key, text)


def _check_services(channel: ChannelConfig) -> None:
    """What finds members beside multicast."""
    membership = channel.membership
    check_positive("channel.membership.recovery_counter", membership.recovery_counter)
    check_positive("channel.membership.recovery_sleep_time", membership.recovery_sleep_time)
    check_positive("channel.membership.refresh", membership.refresh)
    if membership.unique_id:
        _check_unique_id("channel.membership.unique_id", membership.unique_id)
    for i, each in enumerate(membership.static):
        _check_static(f"channel.membership.static[{i}]", each, channel)
    services = (
        ("channel.membership.dns", membership.dns),
        ("channel.membership.kubernetes", membership.kubernetes),
    )
    for key, service in services:
        if service is not None:
            _ports(key, service.port, service.auto_bind)
            check_positive(f"{key}.refresh", service.refresh)
            _needs_own_link(key, channel)
    name = membership.static_service_name
    if not name.isascii() or len(name) > _CHANNEL_NAME_MAX:
        raise ConfigError(
            f"must be up to {_CHANNEL_NAME_MAX} ASCII characters, found {name[:40]!r}: the name of "
            "the Tomcat members' channel, which is <cluster name>-Channel",
            key="channel.membership.static_service_name",
        )
    if membership.dns is not None:
        check_positive("channel.membership.dns.timeout", membership.dns.timeout)
        check_port(
            "channel.membership.dns.nameserver_port", membership.dns.nameserver_port, lowest=1
        )
        for server in membership.dns.nameservers:
            check_ip("channel.membership.dns.nameservers", server)
    if membership.kubernetes is not None:
        key = "channel.membership.kubernetes"
        check_positive(f"{key}.connect_timeout", membership.kubernetes.connect_timeout)
        check_positive(f"{key}.read_timeout", membership.kubernetes.read_timeout)


def _check_static(key: str, member: StaticMemberConfig, channel: ChannelConfig) -> None:
    if not member.host:
        raise ConfigError("is empty; write an IP address or a name", key=f"{key}.host")
    _ports(key, member.port, member.auto_bind)
    check_port(f"{key}.secure_port", member.secure_port, lowest=-1)
    check_port(f"{key}.udp_port", member.udp_port, lowest=-1)
    if not member.unique_id:
        _needs_own_link(key, channel)
        return
    _check_unique_id(f"{key}.unique_id", member.unique_id)
    check_ip(f"{key}.host", member.host)


def _check_unique_id(key: str, text: str) -> None:
    try:
        found = parse_unique_id(text)
    except ValueError as why:
        raise ConfigError(
            f"{why}; write 32 hexadecimal digits, or 16 decimal bytes like {{0,1,…,15}}", key=key
        ) from None
    if found == _NOBODYS_ID:
        raise ConfigError("sixteen times 255 is what asks who is there; write others", key=key)


def _ports(key: str, port: int, auto_bind: int) -> None:
    check_port(f"{key}.port", port, lowest=1)
    if not 1 <= auto_bind <= PORTS_MAX:
        raise ConfigError(
            f"must be from 1 to {PORTS_MAX} ports to try, found {auto_bind}",
            key=f"{key}.auto_bind",
        )


def _needs_own_link(key: str, channel: ChannelConfig) -> None:
    if not channel.own_link:
        raise ConfigError(
            "own_link is false, but who is at an address is asked in the own link's language; "
            "write own_link = true, or give the unique_id of a member of Tomcat",
            key=key,
        )


def _check_sockets(key: str, config: ReceiverConfig | SenderConfig) -> None:
    names = ("rx_buf_size", "tx_buf_size", "udp_rx_buf_size", "udp_tx_buf_size")
    kernels = f"from 0 (the kernel's choice) to {BUFFER_MAX_BYTES}"
    for name in (each for each in names if hasattr(config, each)):
        check_within(f"{key}.{name}", getattr(config, name), 0, BUFFER_MAX_BYTES, what=kernels)
    traffic = "from -1 (the kernel's) to 255"
    check_within(f"{key}.so_traffic_class", config.so_traffic_class, -1, 255, what=traffic)


def _check_sender(sender: SenderConfig) -> None:
    _check_sockets("channel.sender", sender)
    check_positive("channel.sender.pool_size", sender.pool_size)
    for name in (
        "timeout",
        "queue_max_bytes",
        "queue_timeout",
        "live_queue_max_bytes",
        "unacked_max_bytes",
    ):
        check_positive(f"channel.sender.{name}", getattr(sender, name))


def _check_key(channel: ChannelConfig) -> None:
    if channel.key_file and channel.keys:
        raise ConfigError(
            "there are keys in channel.keys too; keep one of the two", key="channel.key_file"
        )
    if channel.has_key and not channel.own_link:
        raise ConfigError(
            "is false, but only own links can be protected by a key; write own_link = true and, "
            "if there are members of Tomcat, their addresses into plain_peers",
            key="channel.own_link",
        )
    for text in channel.plain_peers:
        if text != "any":
            check_ip("channel.plain_peers", text)
    if channel.plain_peers and not channel.has_key:
        raise ConfigError(
            "without a key everybody may come without one; set key_file too, or take it away",
            key="channel.plain_peers",
        )


def _check_tls(channel: ChannelConfig) -> None:
    tls = channel.tls
    if tls is None:
        return
    for name in ("certificate", "authorities"):
        if not getattr(tls, name):
            raise ConfigError(
                "is empty; write the path of a file in PEM format", key=f"channel.tls.{name}"
            )
    if tls.minimum_version not in ("1.2", "1.3"):
        raise ConfigError(
            f"must be '1.2' or '1.3', found {tls.minimum_version!r}",
            key="channel.tls.minimum_version",
        )
    check_positive("channel.tls.handshake_timeout", tls.handshake_timeout)
    for text in tls.peer_names:
        if not text.strip() or "*" in text:
            raise ConfigError(
                f"{text!r} is no name; write whole DNS names or IP addresses, or 'any'",
                key="channel.tls.peer_names",
            )
    if not channel.own_link:
        raise ConfigError(
            "is false, but only members with the own link speak TLS; write own_link = true",
            key="channel.own_link",
        )
    if channel.plain_peers:
        raise ConfigError(
            "plain members don't speak TLS; take plain_peers away, or channel.tls",
            key="channel.plain_peers",
        )
    if not channel.has_key and not channel.membership.suspect_after:
        raise ConfigError(
            "is 0, but with TLS and no key anybody can send heartbeats, so only answers tell a "
            "hung member from a living one; write 1000, or set a key_file as well",
            key="channel.membership.suspect_after",
        )
