"""Away from a node that a balancer drains (Tomcat's LoadBalancerDrainingValve, §13).

While a node is drained a sticky balancer still sends it the clients whose cookie names it. Those
whose session lives are served. To the others it is told to come again without cookie and id, so
that the balancer chooses another node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote

from tribes.web.client import header_values
from tribes.web.cookies import cookie_values
from tribes.web.urls import take_id

if TYPE_CHECKING:
    from tribes.config.valves import DrainingConfig

__all__ = ["ACTIVATION", "Draining", "location"]

ACTIVATION: Final = "JK_LB_ACTIVATION"
"""Where mod_jk and AJP's gateways put it: in ``environ`` or ``scope``, where no client can."""

_DISABLED: Final = "DIS"
"""The balancer sends only requests of known sessions. ``ACT``: all; ``STP``: none."""

_PLAIN: Final = "/:@!$&'()*+,;=~-._"
_SAFE: Final = _PLAIN + "%"
"""Stands in a path as it is; the percent sign where the path is encoded already."""


@final
class Draining:
    """The settings as they are now, and the counter.

    Args:
        config: Status of the answer, and who is let through.

    Attributes:
        is_on: Set it to True and the node is drained whatever the balancer says.
        redirected: Requests that were sent away.
        status: Of the answer, a number.
    """

    def __init__(self, config: DrainingConfig) -> None:
        self.is_on = False
        self.redirected = 0
        self.status = config.redirect_status_code
        self._config = config

    def sends_away(
        self, request: Mapping[str, Any], cookies: Iterable[bytes], *, has_session: bool
    ) -> bool:
        """Whether a request is to be answered by `location`.

        Args:
            request: WSGI's ``environ`` or ASGI's ``scope``.
            cookies: The values of its ``Cookie`` headers.
            has_session: Whether it names a session that lives.
        """
        if has_session or not (self.is_on or self._activation(request) == _DISABLED):
            return False
        config = self._config
        if config.ignore_cookie_name and config.ignore_cookie_value:
            found = cookie_values(cookies, config.ignore_cookie_name)
            if config.ignore_cookie_value in found:
                return False
        self.redirected += 1
        return True

    def _activation(self, request: Mapping[str, Any]) -> str:
        found = request.get(ACTIVATION)
        if found is None and self._config.activation_header:
            # Of several the balancer's is the last: it may add its own behind a client's.
            found = "".join(header_values(request, self._config.activation_header)[-1:])
            found = found.rpartition(",")[2].strip()
        return str(found or "")


def location(request: Mapping[str, Any], parameter: str) -> str:
    """The request's path and query without a session's id; ASCII, without control characters.

    Args:
        request: WSGI's ``environ`` or ASGI's ``scope``.
        parameter: Name of the path parameter.
    """
    if "headers" in request:
        raw = request.get("raw_path")
        path = quote(request["path"], safe=_PLAIN) if raw is None else raw.decode("latin-1")
        query = request.get("query_string", b"").decode("latin-1")
    else:
        decoded = request.get("SCRIPT_NAME", "") + request.get("PATH_INFO", "")
        path = quote(decoded.encode("latin-1"), safe=_PLAIN)
        query = request.get("QUERY_STRING", "")
    path, _ = take_id(path, parameter)
    # Two slashes would name another host, also where a browser reads \ as one.
    path = "/" + quote(path.encode("latin-1"), safe=_SAFE).lstrip("/")
    return path + ("?" + quote(query.encode("latin-1"), safe=_SAFE + "?") if query else "")
