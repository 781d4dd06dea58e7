"""Signed session ids: what no member has signed is refused before anybody looks for it.

An id has 128 random bits, so nobody guesses one. A signature saves the group the questions that
made-up ids cost: a node which does not have a session asks the others for it. And an id that was
read from a log, a store or a member's memory is worth nothing without the key.

The value of the cookie is ``<id>~<signature>.<route>``; the signature is 128 bits of HMAC-SHA256
over the context's name and the id.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from typing import Final, final

from tribes.errors import ConfigError
from tribes.web.cookies import join_route, split_route

__all__ = ["WireIds"]

_KEY_MIN_CHARS: Final = 16
_SIGNATURE_BYTES: Final = 16
_MARK: Final = "~"
"""Stands in neither an id nor a route, and needs no quoting in cookies and URLs."""


@final
class WireIds:
    """Session ids as clients have them.

    Args:
        context: Of the sessions; an id of another context is not signed for this one.
        route: This node's, appended.
        keys: Secrets: the first signs, all are accepted; empty: nothing is signed.

    Raises:
        ConfigError: A key is too short.
    """

    __slots__ = ("_context", "_keys", "refused", "route")

    def __init__(self, context: str, route: str, keys: tuple[str, ...]) -> None:
        for key in keys:
            if len(key) < _KEY_MIN_CHARS:
                raise ConfigError(
                    f"a key has {len(key)} characters, and must have {_KEY_MIN_CHARS} or more; "
                    "make one by: python -c 'import secrets; print(secrets.token_urlsafe())'",
                    key="cookie.signing_keys",
                )
        self._context = context.encode()
        self._keys = tuple(key.encode() for key in keys)
        self.route = route
        self.refused = 0
        """Ids that were offered with no good signature."""

    def written(self, session_id: str) -> str:
        """What the client gets."""
        if self._keys:
            session_id += _MARK + self._signature(self._keys[0], session_id)
        return join_route(session_id, self.route)

    def read(self, value: str) -> tuple[str, str]:
        """Id and route of what a client sent; the id is empty if its signature is not good."""
        session_id, route = split_route(value)
        if self._keys:
            session_id, _, found = session_id.partition(_MARK)
            if not any(
                # In constant time, and for whatever characters were sent.
                hmac.compare_digest(
                    self._signature(key, session_id).encode(), found.encode(errors="surrogatepass")
                )
                for key in self._keys
            ):
                self.refused += 1
                return "", route
        return session_id, route

    def _signature(self, key: bytes, session_id: str) -> str:
        # A client may send any characters, as ASGI servers decode them.
        text = self._context + b"\0" + session_id.encode(errors="surrogatepass")
        digest = hmac.digest(key, text, "sha256")[:_SIGNATURE_BYTES]
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
