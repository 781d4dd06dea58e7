"""Session ids in URLs, for clients that keep no cookies (tomcat-sessions §7.2).

``/cart;jsessionid=<id>?page=2``: a parameter of the path's last segment. An id in a URL is shared
with whoever gets the link, and told to other sites as the referrer; so this is off unless asked
for.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from tribes.web.cookies import COOKIE_VALUE_MAX_CHARS

if TYPE_CHECKING:
    from tribes.web.request_session import RequestSession
    from tribes.web.signing import WireIds

__all__ = ["RequestUrl", "encode_url", "strip_environ", "strip_scope", "take_id"]

_SCHEMES: Final = {"ws": "http", "wss": "https"}
_PORTS: Final = {"http": ":80", "https": ":443"}
_SESSION_KEYS: Final = ("tribes.session", "session")


@dataclass(frozen=True, slots=True)
class RequestUrl:
    """The URL of a request, as far as links in its answer depend on it.

    Attributes:
        parameter: Name of the path parameter.
        ids: Writes ids as clients get them.
        scheme: ``http`` or ``https``.
        host: With the port, as the client named it.
        root: Path below which the application is, without a final slash.
        path: The request's, without its id.
        offered: What stood in the parameter, or empty.
    """

    parameter: str
    ids: WireIds
    scheme: str
    host: str
    root: str
    path: str
    offered: str


def take_id(path: str, parameter: str) -> tuple[str, str]:
    """Path without the parameter of its last segment, and the parameter's value or empty."""
    folder, slash, segment = path.rpartition("/")
    name, *parameters = segment.split(";")
    value = ""
    kept = []
    for each in parameters:
        key, equals, text = each.partition("=")
        if equals and key == parameter:
            value = value or text
        else:
            kept.append(each)
    if len(value) > COOKIE_VALUE_MAX_CHARS:
        value = ""
    return folder + slash + ";".join((name, *kept)), value


def strip_scope(scope: MutableMapping[str, Any], parameter: str, ids: WireIds) -> RequestUrl:
    """Take the id out of an ASGI scope, so that the application is routed without it."""
    scope["path"], offered = take_id(scope["path"], parameter)
    raw = scope.get("raw_path")
    if raw is not None:
        scope["raw_path"] = take_id(raw.decode("latin-1"), parameter)[0].encode("latin-1")
    scheme = scope.get("scheme", "http")
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return RequestUrl(
        parameter,
        ids,
        _SCHEMES.get(scheme, scheme),
        hosts[0] if hosts else "",
        scope.get("root_path", ""),
        scope["path"],
        offered,
    )


def strip_environ(environ: MutableMapping[str, Any], parameter: str, ids: WireIds) -> RequestUrl:
    """The same for WSGI."""
    environ["PATH_INFO"], offered = take_id(environ.get("PATH_INFO", ""), parameter)
    root = environ.get("SCRIPT_NAME", "")
    path = (root + environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
    host = environ.get("HTTP_HOST", "")
    return RequestUrl(parameter, ids, environ["wsgi.url_scheme"], host, root, path, offered)


def encode_url(request: Any, url: str) -> str:
    """The URL with the session's id in it, if this client needs that; else the URL as it is.

    For links and redirects. The id is added if URLs are used at all, there is a valid session, its
    id did not come by a cookie, and the URL is one of this application.

    Args:
        request: WSGI's ``environ``, ASGI's ``scope``, or an object that has one as ``scope``.
        url: Relative or absolute.
    """
    place: Mapping[str, Any] = getattr(request, "scope", request)
    held: RequestSession | None = next((place[key] for key in _SESSION_KEYS if key in place), None)
    here = None if held is None else held.url
    if held is None or here is None or held.session is None or not held.session.is_valid:
        return url
    if (held.offered and not here.offered) or url == "" or url.startswith("#"):
        return url
    try:
        scheme, host, path, query, fragment = urlsplit(url)
    except ValueError:
        return url
    if not _is_mine(here, scheme, host, path):
        return url
    # A URL that is a query only means the present path, and must name it to add to it.
    path, _ = take_id(path or ("/" if host else quote(here.path)), here.parameter)
    path += f";{here.parameter}={here.ids.written(held.session.id)}"
    return urlunsplit((scheme, host, path, query, fragment))


def _is_mine(here: RequestUrl, scheme: str, host: str, path: str) -> bool:
    if scheme and not host:
        return False  # mailto: and the like
    if host and _origin(scheme or here.scheme, host) != _origin(here.scheme, here.host):
        return False
    is_absolute = bool(host) or path.startswith("/")
    return not is_absolute or path == here.root or path.startswith(f"{here.root}/")


def _origin(scheme: str, host: str) -> tuple[str, str]:
    return scheme.lower(), host.lower().removesuffix(_PORTS.get(scheme.lower(), ":"))
