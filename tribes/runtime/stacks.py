"""Which interceptors a channel has: the configured ones, or the default."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import structlog

from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
from tribes.interceptors.registry import build_interceptors
from tribes.wire.member import host_octets

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.config.model import ChannelConfig

__all__ = ["default_interceptors", "make_interceptors"]

log = structlog.get_logger("tribes")


def default_interceptors() -> list[Interceptor]:
    """What Tomcat's ``SimpleTcpCluster`` adds when none is configured (tribes-wire §7.1)."""
    return [MessageDispatchInterceptor(), TcpFailureDetector()]


def make_interceptors(config: ChannelConfig) -> list[Interceptor]:
    """New interceptors, as the configuration says. Names of static members are resolved here.

    Raises:
        ConfigError: One cannot be made.
    """
    if config.interceptors is None:
        return default_interceptors()
    built = build_interceptors(config.interceptors, resolve=_resolve)
    for text in built.ignored:
        log.warning("setting ignored", setting=text)
    return built.interceptors


def _resolve(host: str) -> bytes:
    try:
        return host_octets(host)
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A name with both kinds of addresses means the older one, as Java prefers it.
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    return host_octets(str(found[0][4][0]))
