"""From a configuration to a core with its sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tribes.config.model import NodeConfig, check_config
from tribes.ids import UniqueId, make_unique_id, parse_unique_id
from tribes.interceptors.domain import parse_domain
from tribes.interceptors.static import adopt_local_member
from tribes.node import NodeCore
from tribes.runtime.addresses import with_addresses
from tribes.runtime.discovery import discovery_services
from tribes.runtime.key_files import read_keys, read_tls
from tribes.runtime.multicast import Multicast
from tribes.runtime.product import product_version
from tribes.runtime.shell import Shell
from tribes.runtime.sockets import listen, multicast_receiver, multicast_sender, udp_socket
from tribes.runtime.stacks import make_interceptors
from tribes.wire.member import Member, host_octets

if TYPE_CHECKING:
    import socket

    from tribes.channel.chain import Interceptor
    from tribes.config.model import MembershipConfig
    from tribes.runtime.listeners import ListenerRegistry
    from tribes.runtime.parts import Sessions

__all__ = ["make_shell"]


def make_shell(
    config: NodeConfig,
    *,
    sessions: Sessions,
    listeners: ListenerRegistry,
    interceptors: Sequence[Interceptor] | None = None,
) -> Shell:
    """Open the sockets and build a shell around a new core.

    Args:
        config: The node.
        sessions: Its managers.
        listeners: Who gets messages and events.
        interceptors: The chain; None: the configured one, or the default.

    Raises:
        ConfigError: A value cannot work, keys or certificates cannot be read, or an address or port
            cannot be had.
    """
    config = with_addresses(config)
    check_config(config)
    keys = read_keys(config.channel)
    tls = read_tls(config.channel)
    if interceptors is None:
        interceptors = make_interceptors(config.channel)
    membership = config.channel.membership
    services = discovery_services(membership)
    opened: list[socket.socket | Multicast] = []
    try:
        listener = listen(config.channel.receiver)
        opened.append(listener)
        multicast = None
        if membership.multicast:
            multicast = Multicast(
                membership,
                open_receiver=multicast_receiver,
                open_sender=multicast_sender,
                event=listeners.event,
                now=time.monotonic,
            )
            opened.append(multicast)
        udp = None
        if config.channel.receiver.udp_port >= 0:
            udp = udp_socket(config.channel.receiver)
            opened.append(udp)
        local = Member(
            host=host_octets(config.channel.receiver.address),
            port=listener.getsockname()[1],
            udp_port=-1 if udp is None else udp.getsockname()[1],
            unique_id=_own_id(membership),
            domain=parse_domain(membership.domain),
            payload=config.payload or config.name.encode(),
        )
        local = adopt_local_member(local, interceptors)
        core = NodeCore(
            config,
            local,
            interceptors=interceptors,
            make_manager=sessions.sources.make_manager(sessions.manager),
            wall_ms=sessions.sources.wall_ms,
            entropy=sessions.sources.entropy,
            randrange=sessions.sources.randrange,
            product=product_version(),
            keys=keys,
            endpoints=sessions.endpoints,
            maps=sessions.maps,
            lazy_maps=sessions.lazy_maps,
            tracing=sessions.sources.tracing(sessions.tracing),
        )
        if sessions.recorder is not None:
            sessions.recorder.record(core, sessions)
        shell = Shell(
            core,
            inbox=sessions.inbox,
            listener=listener,
            multicast=multicast,
            services=services,
            udp=udp,
            listeners=listeners,
            tls=tls,
            tracing=sessions.tracing,
        )
    except BaseException:
        for each in opened:
            with suppress(OSError):
                each.close()
        raise
    sessions.inbox.wake = shell.bell.ring
    return shell


def _own_id(membership: MembershipConfig) -> UniqueId:
    if membership.unique_id:
        return parse_unique_id(membership.unique_id)
    return make_unique_id(os.urandom(16))
