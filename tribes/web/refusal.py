"""The answer to a request whose session is on too few members."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

__all__ = ["refuse"]

_BODY: Final = b"The session could not be stored safely. Please try again.\n"

_TRY_AGAIN_LATER: Final = 1013
"""WebSocket close code, from IANA's registry."""


async def refuse(
    scope: MutableMapping[str, Any],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    headers: Iterable[tuple[bytes, bytes]],
) -> None:
    """Answer 503, or close a WebSocket that has not been accepted.

    Args:
        scope: The request's.
        send: The server's.
        headers: To be added, such as the session's cookie.
    """
    prefix = "http.response"
    if scope["type"] == "websocket":
        prefix = "websocket.http.response"
        if prefix not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "try again"})
            return
    head = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_BODY)),
        (b"cache-control", b"no-store"),
        (b"retry-after", b"1"),
        *headers,
    ]
    await send({"type": f"{prefix}.start", "status": 503, "headers": head})
    await send({"type": f"{prefix}.body", "body": _BODY})
