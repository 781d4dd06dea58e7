"""Who may ask: the token, and on loopback without one no foreign page of a browser.

Without a token the port is on loopback and says nothing of single sessions. It still must not
answer any web page that a browser on this machine shows. So a request that names an origin must
name ours; and the Host must be loopback's, or a foreign name that was made to point to 127.0.0.1
would count as the same origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from typing import TYPE_CHECKING, Final

from tribes.admin.answers import RefusedError
from tribes.errors import ConfigError
from tribes.security.keys import check_file_mode, remedy_for

if TYPE_CHECKING:
    from tribes.admin.answers import Request

__all__ = ["TOKEN_MAX_BYTES", "TOKEN_MIN_BYTES", "Gate", "read_token"]

TOKEN_MIN_BYTES: Final = 16
TOKEN_MAX_BYTES: Final = 1024
_KEY: Final = "http.token_file"


class Gate:
    """Lets requests in, or refuses them.

    Args:
        token: The secret that clients show; None: none is asked for, and nothing may be changed.
    """

    def __init__(self, token: bytes | None) -> None:
        self._token = token

    def replace(self, token: bytes) -> None:
        """Ask for another token from now on."""
        self._token = token

    @property
    def has_token(self) -> bool:
        """Whether clients must show one."""
        return self._token is not None

    def check_origin(self, request: Request) -> None:
        """Refuse what a page from elsewhere made a browser send.

        Raises:
            RefusedError: 400 or 403.
        """
        doubled = request.repeated & {"host", "origin", "authorization"}
        if doubled:
            raise RefusedError(400, f"there is more than one {min(doubled)}")
        host = request.headers.get("host", "")
        if self._token is None and not _is_loopback(host):
            raise RefusedError(403, "without a token only a loopback address is answered as Host")
        origin = request.headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise RefusedError(403, "a page of another origin may not ask here")

    def check_token(self, request: Request) -> None:
        """Refuse who does not show the token, where there is one.

        Raises:
            RefusedError: 401.
        """
        if self._token is None:
            return
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        # Always compared, and in constant time: how long it takes tells nothing of the token.
        is_equal = hmac.compare_digest(shown.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() != "bearer" or not is_equal:
            raise RefusedError(
                401,
                "the token is missing or wrong: Authorization: Bearer TOKEN, with what stands in "
                "the file that http.token_file names",
                {"WWW-Authenticate": 'Bearer realm="tribes"'},
            )

    def check_power(self, request: Request) -> None:
        """Refuse what looks at single sessions or changes something, unless there is a token.

        Raises:
            RefusedError: 401 or 403.
        """
        if self._token is None:
            raise RefusedError(403, "sessions need a token: set http.token_file on the node")
        self.check_token(request)


def _is_loopback(host: str) -> bool:
    name = host.lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def read_token(path: str) -> bytes:
    """Read the token.

    Raises:
        ConfigError: The file cannot be read or used; names it and what to do.
    """
    try:
        # A pipe in its place must not hang the start; what was opened is what is looked at.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if os.name == "posix":
                check_file_mode(os.fstat(descriptor).st_mode, path, "token file")
            data = os.read(descriptor, TOKEN_MAX_BYTES + 2)
        finally:
            os.close(descriptor)
    except OSError as why:
        remedy = remedy_for(why, "write a secret into it")
        text = f"this token file can't be read: {why.strerror}; {remedy}"
        raise ConfigError(text, key=_KEY, source=path) from None
    token = data.strip()
    is_plain = all(0x21 <= byte <= 0x7E for byte in token)
    if not TOKEN_MIN_BYTES <= len(token) <= TOKEN_MAX_BYTES or not is_plain:
        data = token = b""
        raise ConfigError(
            f"a token is one line of {TOKEN_MIN_BYTES} to {TOKEN_MAX_BYTES} ASCII characters "
            "without spaces; make one with: python3 -c 'import secrets; "
            "print(secrets.token_hex(16))'",
            key=_KEY,
            source=path,
        )
    return token
