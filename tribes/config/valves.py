"""What stands around the requests of every context, as typed data (tomcat-sessions §7 to §13)."""

from __future__ import annotations

from typing import Final

import msgspec

from tribes.config.patterns import compiled
from tribes.errors import ConfigError

__all__ = [
    "CRAWLERS",
    "DEFAULT_VALVES",
    "MORE_VALVES",
    "ORIGINAL_ID",
    "PRIMARY_INDICATOR",
    "SSO_CONTEXT",
    "CrawlerConfig",
    "DrainingConfig",
    "ReplicationConfig",
    "RouteBinderConfig",
    "SingleSignOnConfig",
    "check_valves",
]

DEFAULT_VALVES: Final = ("JvmRouteBinderValve", "ReplicationValve")
"""What a cluster has that names none, in this order, as Tomcat's."""

MORE_VALVES: Final = ("LoadBalancerDrainingValve", "CrawlerSessionManagerValve")
"""What there is only where it is named."""

SSO_CONTEXT: Final = "sso:logins"
"""The context that the entries of single sign-on are in."""

ORIGINAL_ID: Final = "org.apache.catalina.ha.session.JvmRouteOriginalSessionID"

CRAWLERS: Final = r".*[bB]ot.*|.*Yahoo! Slurp.*|.*Feedseeker.*"
"""Tomcat's default, which knows most of those that say who they are."""

_REDIRECTS: Final = (302, 303, 307, 308)

PRIMARY_INDICATOR: Final = "org.apache.catalina.ha.tcp.isPrimarySession"


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shared settings of the configuration records: immutable, by keyword, strict."""


class ReplicationConfig(_Config, frozen=True):
    """When a request's changes go to the members (Tomcat: ``ReplicationValve``).

    Attributes:
        filter: Regular expression; a request whose path matches in whole, decoded and without the
            query, is taken to have changed nothing, so nobody waits: what it did change goes out at
            once, and at the latest before what the next request of the session changes, which
            waits for both (``filter``). Empty: none.
        primary_indicator: Tell the application whether this member is the session's first, before
            each request (``primaryIndicator``).
        primary_indicator_name: Under which name (``primaryIndicatorName``).
    """

    filter: str = ""
    primary_indicator: bool = False
    primary_indicator_name: str = PRIMARY_INDICATOR


class RouteBinderConfig(_Config, frozen=True):
    """When a balancer sends a client to another node (Tomcat: ``JvmRouteBinderValve``).

    Attributes:
        enabled: Write the answering node's route into the cookie; `JvmRouteBinder` changes it at
            run time (``enabled``).
        session_id_attribute: Under which name the application is told what the client sent; empty:
            it is not told (``sessionIdAttribute``).
    """

    enabled: bool = True
    session_id_attribute: str = ORIGINAL_ID


class DrainingConfig(_Config, frozen=True):
    """Where clients without a session go while a balancer drains this node (Tomcat:
    ``LoadBalancerDrainingValve``).

    Attributes:
        redirect_status_code: 302, 303, 307 or 308 (``redirectStatusCode``).
        ignore_cookie_name: A request with this cookie is served all the same, for those who test
            the node (``ignoreCookieName``).
        ignore_cookie_value: If it has this value; empty: none is let through
            (``ignoreCookieValue``).
        activation_header: Where the balancer says ``DIS`` of a node that is drained; mod_jk and AJP
            need none. Empty: no header counts.
    """

    redirect_status_code: int = 307
    ignore_cookie_name: str = ""
    ignore_cookie_value: str = ""
    activation_header: str = "JK-LB-Activation"


class CrawlerConfig(_Config, frozen=True):
    """Robots keep no cookies, so each of their requests would make a session (Tomcat:
    ``CrawlerSessionManagerValve``).

    Attributes:
        user_agents: Regular expression; a client whose ``User-Agent`` matches in whole is a robot
            (``crawlerUserAgents``).
        ips: The same for its address; empty: none (``crawlerIps``).
        session_inactive_s: Seconds of idleness after which their session ends
            (``sessionInactiveInterval``).
        host_aware: One for each host that is asked for (``hostAware``).
        clients_max: Robots whose sessions are remembered; the longest unseen is forgotten.
    """

    user_agents: str = CRAWLERS
    ips: str = ""
    session_inactive_s: int = 60
    host_aware: bool = True
    clients_max: int = 10_000


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


def check_valves(
    valves: tuple[str, ...] | None,
    replication: ReplicationConfig,
    draining: DrainingConfig,
    crawlers: CrawlerConfig,
) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: Names the key, what was found and what to write.
    """
    known = (*DEFAULT_VALVES, *MORE_VALVES)
    for name in valves or ():
        if name not in known:
            allowed = ", ".join(map(repr, known))
            raise ConfigError(f"found {name!r}; there are {allowed}", key="valves")
    for key, pattern in (
        ("replication.filter", replication.filter),
        ("crawlers.user_agents", crawlers.user_agents),
        ("crawlers.ips", crawlers.ips),
    ):
        compiled(pattern, key)
    if draining.redirect_status_code not in _REDIRECTS:
        allowed = ", ".join(map(str, _REDIRECTS))
        raise ConfigError(
            f"must be one of {allowed}, found {draining.redirect_status_code}",
            key="draining.redirect_status_code",
        )
    for key in ("session_inactive_s", "clients_max"):
        if getattr(crawlers, key) <= 0:
            raise ConfigError(
                f"must be more than 0, found {getattr(crawlers, key)}", key=f"crawlers.{key}"
            )
