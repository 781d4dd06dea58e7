"""What a context's configuration says of its session cookie, over what its application says."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from tribes.errors import ConfigError

__all__ = ["SAME_SITE", "CookieConfig", "check_cookie"]

SAME_SITE: Final = ("lax", "strict", "none")

_FORBIDDEN: Final = frozenset(';,\\" \t\r\n')


class CookieConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a context's session cookie is written, whatever its application says (Tomcat:
    ``Context``).

    What is unset is as the application says in its ``CookieSettings``, or as their defaults.

    Attributes:
        name: Its name, and that of the parameter in URLs (``sessionCookieName``).
        path: Where it is sent back (``sessionCookiePath``).
        path_uses_trailing_slash: Append ``/`` to the path, so that ``/shop`` is not also the cookie
            of ``/shopping`` (``sessionCookiePathUsesTrailingSlash``).
        domain: Hosts it is sent to (``sessionCookieDomain``).
        http_only: Keep it from scripts (``useHttpOnly``).
        same_site: ``lax``, ``strict``, ``none``, or empty (``sameSiteCookies``).
        secure: Send it over TLS only; unset: when the request came that way.
        partitioned: One for each top-level site (``usePartitioned``).
        max_age_s: Seconds the client keeps it.
    """

    name: str | None = None
    path: str | None = None
    path_uses_trailing_slash: bool | None = None
    domain: str | None = None
    http_only: bool | None = None
    same_site: Literal["lax", "strict", "none", ""] | None = None
    secure: bool | None = None
    partitioned: bool | None = None
    max_age_s: int | None = None


def check_cookie(
    key: str,
    *,
    name: str,
    path: str = "",
    domain: str = "",
    same_site: str = "",
    max_age_s: int | None = None,
    prefix: str = "",
) -> None:
    """Refuse what would break the header.

    Args:
        key: Where the settings stand.
        name: The cookie's.
        path: The cookie's.
        domain: The cookie's.
        same_site: The cookie's.
        max_age_s: The cookie's.
        prefix: How the settings' names begin there.

    Raises:
        ConfigError: Names the key, what was found and what is allowed.
    """
    for part, text in (("name", name), ("path", path), ("domain", domain)):
        if not text.isascii() or _FORBIDDEN & set(text) or not text.isprintable():
            raise ConfigError(
                f"{text!r} has a character that a cookie cannot carry", key=f"{key}.{prefix}{part}"
            )
    if not name or "=" in name:
        raise ConfigError("must be a name without '='", key=f"{key}.{prefix}name")
    if same_site and same_site not in SAME_SITE:
        raise ConfigError(
            f"must be one of {', '.join(SAME_SITE)} or empty, found {same_site!r}",
            key=f"{key}.{prefix}same_site",
        )
    if max_age_s is not None and max_age_s <= 0:
        raise ConfigError(
            f"must be more than 0 seconds, found {max_age_s}; leave it out for a cookie that goes "
            "when the browser is closed",
            key=f"{key}.{prefix}max_age_s",
        )
