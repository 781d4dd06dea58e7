"""Tomcat's attributes of what stands beside a cluster (tomcat-sessions §13)."""

from __future__ import annotations

from typing import Final

from tribes.config.tomcat.attributes import Table, honoured, mapped, refused, unused

__all__ = ["NEIGHBOUR_NOTES", "NEIGHBOUR_TABLES"]

NEIGHBOUR_NOTES: Final[dict[str, str]] = {
    "HeartbeatListener": "a node reports its load to no balancer",
}
"""Why the class is not supported."""

_ATTRIBUTES: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "HeartbeatListener": (
        ("group", "224.0.1.105", "multicast group of the reports"),
        ("multiport", "23364", "its port"),
        ("ttl", "16", "hops a report may travel"),
        ("host", "unset", "address of the connector that is reported"),
        ("port", "8009", "its port"),
        ("proxyList", "unset", "balancers to report to by HTTP"),
        ("proxyURL", "/HeartbeatListener", "path there"),
    ),
}

NEIGHBOUR_TABLES: Final[dict[str, Table]] = {
    **{
        owner: tuple(refused(*each, NEIGHBOUR_NOTES[owner]) for each in attributes)
        for owner, attributes in _ATTRIBUTES.items()
    },
    "LoadBalancerDrainingValve": (
        honoured(
            "redirectStatusCode",
            "307",
            "int",
            "draining.redirect_status_code",
            "status of the redirection",
        ),
        honoured(
            "ignoreCookieName",
            "unset",
            "text",
            "draining.ignore_cookie_name",
            "cookie that lets a request through",
        ),
        honoured("ignoreCookieValue", "unset", "text", "draining.ignore_cookie_value", "its value"),
    ),
    "CrawlerSessionManagerValve": (
        mapped(
            "crawlerUserAgents",
            "a regex",
            "filter",
            "crawlers.user_agents",
            "who is a crawler, by name",
            "Java's regular expression is read as Python's",
        ),
        mapped(
            "crawlerIps",
            "unset",
            "filter",
            "crawlers.ips",
            "who is, by address",
            "Java's regular expression is read as Python's",
        ),
        honoured(
            "sessionInactiveInterval",
            "60",
            "int",
            "crawlers.session_inactive_s",
            "seconds their session lives",
        ),
        honoured("hostAware", "true", "bool", "crawlers.host_aware", "one for each host"),
        unused(
            "contextAware",
            "true",
            "one for each context",
            "sessions of two contexts are never one",
            "true",
        ),
    ),
}
"""By the name of the class."""
