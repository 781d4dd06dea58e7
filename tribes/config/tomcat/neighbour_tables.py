"""Tomcat's attributes of what stands beside a cluster (tomcat-sessions §13)."""

from __future__ import annotations

from typing import Final

from tribes.config.tomcat.attributes import Table, refused

__all__ = ["NEIGHBOUR_NOTES", "NEIGHBOUR_TABLES"]

NEIGHBOUR_NOTES: Final[dict[str, str]] = {
    "HeartbeatListener": "a node reports its load to no balancer",
    "LoadBalancerDrainingValve": "requests are not redirected while a balancer drains a node; any "
    "member serves any session, so none is lost",
    "CrawlerSessionManagerValve": "crawlers get no session in common; max_active_sessions bounds "
    "how many sessions there are",
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
    "LoadBalancerDrainingValve": (
        ("redirectStatusCode", "307", "status of the redirection"),
        ("ignoreCookieName", "unset", "cookie that lets a request through"),
        ("ignoreCookieValue", "unset", "its value"),
    ),
    "CrawlerSessionManagerValve": (
        ("crawlerUserAgents", "a regex", "who is a crawler, by name"),
        ("crawlerIps", "unset", "who is, by address"),
        ("sessionInactiveInterval", "60", "seconds their session lives"),
        ("hostAware", "true", "one for each host"),
        ("contextAware", "true", "one for each context"),
    ),
}

NEIGHBOUR_TABLES: Final[dict[str, Table]] = {
    owner: tuple(refused(*each, NEIGHBOUR_NOTES[owner]) for each in attributes)
    for owner, attributes in _ATTRIBUTES.items()
}
"""By the name of the class."""
