"""Session cookies: reading whatever a client sends, writing what a configuration asks for.

The reader is tolerant on purpose: other software on the same host sets odd cookies, and one of them
must never hide the session's (the standard library's parser stops at the first it dislikes).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tribes.config.cookies import check_cookie

if TYPE_CHECKING:
    from tribes.config.cookies import CookieConfig

__all__ = ["CookieSettings", "cookie_values", "join_route", "split_route"]

COOKIE_VALUE_MAX_CHARS = 256
"""A longer value cannot be a session id with its route, and is not looked at."""

COOKIES_MAX = 64
"""Cookies of the wanted name that are looked at; a browser sends one, or a few by path."""


def cookie_values(headers: Iterable[bytes], name: str) -> list[str]:
    """Every value that the ``Cookie`` headers give for one name, in order.

    Args:
        headers: The values of all ``Cookie`` headers.
        name: The cookie's name; case matters.
    """
    wanted = name.encode("latin-1")
    found: list[str] = []
    for header in headers:
        if wanted not in header:
            continue
        for part in header.split(b";"):
            key, equals, value = part.partition(b"=")
            if not equals or key.strip() != wanted:
                continue
            text = value.strip().strip(b'"').decode("latin-1")
            if len(text) <= COOKIE_VALUE_MAX_CHARS:
                found.append(text)
                if len(found) >= COOKIES_MAX:
                    return found
    return found


def split_route(value: str) -> tuple[str, str]:
    """Session id and route: the route is everything after the first dot (tomcat-sessions §7.4)."""
    session_id, _, route = value.partition(".")
    return session_id, route


def join_route(session_id: str, route: str) -> str:
    """The cookie's value: the id, and the route of the node that answers."""
    return f"{session_id}.{route}" if route else session_id


@dataclass(frozen=True, slots=True)
class CookieSettings:
    """How the session cookie is written (tomcat-sessions §7.2).

    Attributes:
        name: ``JSESSIONID`` unless set.
        path: Where it is sent back.
        domain: Hosts it is sent to; empty: only the one that set it.
        http_only: Keep it from scripts.
        same_site: ``lax``, ``strict``, ``none`` or empty for none of them.
        secure: Send it over TLS only; None: when the request came that way.
        partitioned: Keep one for each top-level site that embeds this one (CHIPS); browsers want
            ``Secure`` with it, so it is added.
        path_uses_trailing_slash: Append ``/`` to the path, so that ``/shop`` is not also the cookie
            of ``/shopping``.
        max_age_s: Seconds the client keeps it; None: until it is closed. It counts from the answer
            that sets the cookie, which is not every one.
        signing_keys: Secrets of 16 characters or more, the same on all members: ids are signed by
            the first, and one that was signed by none of them is as unknown, before anybody looks
            for it. See :mod:`tribes.web.signing`.
    """

    name: str = "JSESSIONID"
    path: str = "/"
    domain: str = ""
    http_only: bool = True
    same_site: Literal["lax", "strict", "none", ""] = "lax"
    secure: bool | None = None
    partitioned: bool = False
    path_uses_trailing_slash: bool = False
    max_age_s: int | None = None
    signing_keys: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_cookie(
            "cookie",
            name=self.name,
            path=self.path,
            domain=self.domain,
            same_site=self.same_site,
            max_age_s=self.max_age_s,
        )

    def under(self, config: CookieConfig | None) -> CookieSettings:
        """The same, where a context's configuration says nothing else."""
        if config is None:
            return self
        said = {
            name: value
            for name in config.__struct_fields__
            if (value := getattr(config, name)) is not None
        }
        return replace(self, **said)

    def header(self, value: str, *, is_secure: bool, max_age_s: int | None = None) -> bytes:
        """The value of a ``Set-Cookie`` header.

        Args:
            value: Session id with its route; empty: make the client forget the cookie.
            is_secure: Whether the request came over TLS.
            max_age_s: How long the client shall keep it, in seconds; None: as the settings say.
        """
        path = self.path
        if self.path_uses_trailing_slash and not path.endswith("/"):
            path += "/"
        parts = [f"{self.name}={value}", f"Path={path}"]
        if self.domain:
            parts.append(f"Domain={self.domain}")
        if not value:
            max_age_s = 0
        elif max_age_s is None:
            max_age_s = self.max_age_s
        if max_age_s is not None:
            parts.append(f"Max-Age={max_age_s}")
        secure = is_secure if self.secure is None else self.secure
        if secure or self.same_site == "none" or self.partitioned:
            # Browsers refuse the two without Secure.
            parts.append("Secure")
        if self.http_only:
            parts.append("HttpOnly")
        if self.same_site:
            parts.append(f"SameSite={self.same_site.capitalize()}")
        if self.partitioned:
            parts.append("Partitioned")
        return "; ".join(parts).encode("latin-1")
