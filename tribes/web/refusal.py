"""The answer to a request whose session is on too few members."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

__all__ = ["BODY", "STATUS", "head", "refuse"]

STATUS: Final = "503 Service Unavailable"
BODY: Final = b"The session could not be stored safely. Please try again.\n"

_TRY_AGAIN_LATER: Final = 1013
"""WebSocket close code, from IANA's registry."""


def head() -> list[tuple[str, str]]:
    """The header fields of the answer, without the session's cookie."""
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(BODY))),
        ("Cache-Control", "no-store"),
        ("Retry-After", "1"),
    ]


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
    fields = [(name.lower().encode(), value.encode()) for name, value in head()]
    status = int(STATUS[:3])
    await send({"type": f"{prefix}.start", "status": status, "headers": [*fields, *headers]})
    await send({"type": f"{prefix}.body", "body": BODY})
