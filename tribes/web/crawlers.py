"""One session for all requests of a robot (Tomcat's CrawlerSessionManagerValve, §13).

A robot keeps no cookie: each of its requests that stores something would make a session, with its
copies on other members. It is known by what it calls itself, so whoever claims to be one gets the
session of those at the same address that do. Nothing of a person belongs into it.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from tribes.web.client import client_address, header_values

if TYPE_CHECKING:
    from tribes.config.valves import CrawlerConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session

__all__ = ["CrawlerSessions"]


@final
class CrawlerSessions:
    """Which session each robot has on this node. Used from any thread.

    Args:
        config: Who is a robot, and how long its session lives.
        manager: Of the sessions.

    Attributes:
        requests: Of robots without a session of their own.
    """

    def __init__(self, config: CrawlerConfig, manager: SessionManager) -> None:
        self._config = config
        self._manager = manager
        self._agents = re.compile(config.user_agents)
        self._ips = re.compile(config.ips) if config.ips else None
        self._lock = threading.Lock()
        self._ids: OrderedDict[str, str] = OrderedDict()
        self.requests = 0

    def __len__(self) -> int:
        return len(self._ids)

    def identity(self, request: Mapping[str, Any]) -> str:
        """Who the robot is that sent a request; empty: no robot did.

        Args:
            request: WSGI's ``environ`` or ASGI's ``scope``.
        """
        agents = header_values(request, "User-Agent")
        address = client_address(request)
        is_robot = len(agents) == 1 and self._agents.fullmatch(agents[0]) is not None
        if not is_robot and self._ips is not None:
            is_robot = self._ips.fullmatch(address) is not None
        if not is_robot:
            return ""
        host = "".join(header_values(request, "Host")[:1]) if self._config.host_aware else ""
        return f"{address}-{host.lower()[:_HOST_MAX_CHARS]}"

    def find(self, identity: str) -> Session | None:
        """The session of this robot, if it has one that lives."""
        with self._lock:
            self.requests += 1
            session_id = self._ids.get(identity)
            if session_id is None:
                return None
            self._ids.move_to_end(identity)
        return self._manager.find(session_id)

    def made(self, identity: str, session: Session) -> None:
        """A request of the robot has begun a session: it is the one for the next, too."""
        session.max_inactive = self._config.session_inactive_s
        with self._lock:
            self._ids[identity] = session.id
            self._ids.move_to_end(identity)
            while len(self._ids) > self._config.clients_max:
                self._ids.popitem(last=False)


_HOST_MAX_CHARS = 253
"""Of a name in DNS; the client says what it likes."""
