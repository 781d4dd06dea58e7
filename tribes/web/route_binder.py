"""What Tomcat's JvmRouteBinderValve does (tomcat-sessions §7.4), where ids do not change.

Tomcat has the route in the id, so binding a session to another node renames it on every member, and
a request with the old name that is quicker than this makes a second session. Here the route stands
in the cookie alone: the session is found whatever route it came with, and the next cookie names the
node that answers.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tribes.config.valves import RouteBinderConfig

__all__ = ["JvmRouteBinder"]


@final
class JvmRouteBinder:
    """The settings as they are now, and the counter.

    Args:
        config: What to begin with.
        route: This node's; empty: nothing is ever bound.

    Attributes:
        enabled: May be changed at any time: so do the others while one node is drained, so that
            only sessions in use move.
        rebound: Requests that came with another node's route, and whose session is here
            (``numberOfSessions``).
    """

    def __init__(self, config: RouteBinderConfig, route: str) -> None:
        self.enabled = config.enabled
        self.rebound = 0
        self._attribute = config.session_id_attribute
        self._route = route

    def begin(self, offered: str, attributes: MutableMapping[str, Any]) -> None:
        """A request has a session; count it if that comes from another node.

        Args:
            offered: What the client sent that named the session, with the route.
            attributes: Where the application finds what belongs to its request.
        """
        _, dot, route = offered.partition(".")
        if not (self.enabled and self._route and dot) or route == self._route:
            return
        self.rebound += 1
        if self._attribute:
            attributes[self._attribute] = offered
