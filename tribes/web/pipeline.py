"""What stands around each request of an application: Tomcat's valves, as the node's configuration
names them.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, final

from tribes.config.valves import DEFAULT_VALVES
from tribes.web.cookies import cookie_values
from tribes.web.crawlers import CrawlerSessions
from tribes.web.draining import Draining, location
from tribes.web.route_binder import JvmRouteBinder
from tribes.web.valve import ReplicationValve

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.manager.base import SessionManager
    from tribes.web.cookies import CookieSettings
    from tribes.web.request_session import RequestSession
    from tribes.web.signing import WireIds

__all__ = ["Pipeline"]


@final
class Pipeline:
    """The valves of one application on one node; None: it is not configured.

    Args:
        config: The node's.
        manager: Of the sessions.
        ids: As clients have them.
        is_alone: The sessions are in no group.

    Attributes:
        names: What is configured, or the default.
        binder: JvmRouteBinderValve.
        replication: ReplicationValve; None also where there is no group.
        draining: LoadBalancerDrainingValve.
        crawlers: CrawlerSessionManagerValve.
    """

    def __init__(
        self, config: NodeConfig, manager: SessionManager, ids: WireIds, *, is_alone: bool
    ) -> None:
        self.names = config.valves if config.valves is not None else DEFAULT_VALVES
        self._manager = manager
        self._ids = ids
        self.binder: JvmRouteBinder | None = None
        self.replication: ReplicationValve | None = None
        self.draining: Draining | None = None
        self.crawlers: CrawlerSessions | None = None
        if "JvmRouteBinderValve" in self.names:
            self.binder = JvmRouteBinder(config.route_binder, ids.route)
        if "ReplicationValve" in self.names and not is_alone:
            self.replication = ReplicationValve(config.replication)
        if "LoadBalancerDrainingValve" in self.names:
            self.draining = Draining(config.draining)
        if "CrawlerSessionManagerValve" in self.names:
            self.crawlers = CrawlerSessions(config.crawlers, manager)

    @property
    def keeps_routes(self) -> bool:
        """Whether the route in a cookie stays when another node answers."""
        return self.binder is None or not self.binder.enabled

    def begin(self, held: RequestSession, path: str, request: MutableMapping[str, Any]) -> None:
        """A request begins.

        Args:
            held: From the binding.
            path: Decoded, with the context's path and without the query.
            request: ``environ`` or ``scope``: the application finds there what it is told.
        """
        is_known = held.waiting is None
        if is_known and held.session is None and self.crawlers is not None:
            self._crawler(self.crawlers, held, request)
        session = held.session if is_known else None
        if session is not None and self.binder is not None:
            self.binder.begin(held.offered, request)
        valve = self.replication
        if valve is None:
            return
        held.is_filtered = valve.is_filtered(path)
        held.timed_until = valve.begin(is_filtered=held.is_filtered)
        if valve.indicator and session is not None:
            request[valve.indicator] = self._manager.is_primary(session.id)

    def _crawler(
        self, crawlers: CrawlerSessions, held: RequestSession, request: MutableMapping[str, Any]
    ) -> None:
        identity = crawlers.identity(request)
        if not identity:
            return
        found = crawlers.find(identity)
        if found is None:
            held.on_made = lambda session: crawlers.made(identity, session)
            return
        # It needs no cookie for what it gets without.
        held.session, held.offered = found, self._ids.written(found.id)

    def away(
        self,
        held: RequestSession,
        request: MutableMapping[str, Any],
        cookies: Iterable[bytes],
        cookie: CookieSettings,
        parameter: str,
        *,
        is_secure: bool,
    ) -> tuple[int, list[tuple[str, str]]] | None:
        """Status and header fields that send a client to another node; None: it is served.

        Args:
            held: From the binding.
            request: ``environ`` or ``scope``.
            cookies: The values of its ``Cookie`` headers.
            cookie: How the session's is written.
            parameter: Name of the path parameter with ids.
            is_secure: Whether the request came over TLS.
        """
        if self.draining is None or held.waiting is not None:
            return None
        cookies = tuple(cookies)
        has_session = held.session is not None
        if not self.draining.sends_away(request, cookies, has_session=has_session):
            return None
        fields = [
            ("Location", location(request, parameter)),
            ("Content-Length", "0"),
            ("Cache-Control", "no-store"),
        ]
        if cookie_values(cookies, cookie.name):
            fields.append(("Set-Cookie", cookie.header("", is_secure=is_secure).decode("latin-1")))
        return self.draining.status, fields
