"""What stands around the requests of every context, as typed data (tomcat-sessions §8, §10)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tribes.errors import ConfigError

__all__ = [
    "DEFAULT_VALVES",
    "PRIMARY_INDICATOR",
    "SSO_CONTEXT",
    "ReplicationConfig",
    "SingleSignOnConfig",
    "check_valves",
]

DEFAULT_VALVES: Final = ("JvmRouteBinderValve", "ReplicationValve")
"""What a cluster has that names none, in this order, as Tomcat's."""

SSO_CONTEXT: Final = "sso:logins"
"""The context that the entries of single sign-on are in."""

PRIMARY_INDICATOR: Final = "org.apache.catalina.ha.tcp.isPrimarySession"


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shared settings of the configuration records: immutable, by keyword, strict."""


class ReplicationConfig(_Config, frozen=True):
    """When a request's changes go to the members (Tomcat: ``ReplicationValve``).

    Attributes:
        filter: Regular expression; a request whose path matches in whole, decoded and without the
            query, is taken to have changed nothing: what it did change goes out with the next
            request of the session that does not match (``filter``). Empty: none.
        primary_indicator: Tell the application whether this member is the session's first, before
            each request (``primaryIndicator``).
        primary_indicator_name: Under which name (``primaryIndicatorName``).
    """

    filter: str = ""
    primary_indicator: bool = False
    primary_indicator_name: str = PRIMARY_INDICATOR


class SingleSignOnConfig(_Config, frozen=True):
    """One login for all contexts of all members (Tomcat: ``ClusterSingleSignOn``).

    Attributes:
        cookie_name: Name of its cookie (``cookieName``).
        cookie_domain: Domain of the cookie; empty: the host that was asked (``cookieDomain``).
        map_send_options: What a login and a logout wait for (``mapSendOptions``).
    """

    cookie_name: str = "JSESSIONIDSSO"
    cookie_domain: str = ""
    map_send_options: int = 6


def check_valves(valves: tuple[str, ...] | None, replication: ReplicationConfig) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: Names the key, what was found and what to write.
    """
    for name in valves or ():
        if name not in DEFAULT_VALVES:
            allowed = " and ".join(map(repr, DEFAULT_VALVES))
            raise ConfigError(f"found {name!r}; there are {allowed}", key="valves")
    try:
        re.compile(replication.filter)
    except re.error as why:
        raise ConfigError(f"is no regular expression: {why}", key="replication.filter") from None
