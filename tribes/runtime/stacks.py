"""Which interceptors a channel has when nobody says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor

__all__ = ["default_interceptors"]


def default_interceptors() -> list[Interceptor]:
    """What Tomcat's ``SimpleTcpCluster`` adds when none is configured (tribes-wire §7.1)."""
    return [MessageDispatchInterceptor(), TcpFailureDetector()]
