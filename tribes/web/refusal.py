"""The answer to a request whose session is on too few members, or cannot be had now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from tribes.errors import SessionInUseError

__all__ = ["BODY", "STATUS", "head", "refuse", "status_of"]

STATUS: Final = "503 Service Unavailable"
IN_USE: Final = "429 Too Many Requests"
"""As Tomcat's PersistentValve answers."""
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


def status_of(why: Exception) -> str:
    """Return the status line that an error means: 429 for a session in use, else 503."""
    return IN_USE if isinstance(why, SessionInUseError) else STATUS


async def refuse(
    scope: MutableMapping[str, Any],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    headers: Iterable[tuple[bytes, bytes]],
    status_line: str = STATUS,
) -> None:
    """Answer 503 or another status, or close a WebSocket that has not been accepted.

    Args:
        scope: The request's.
        send: The server's.
        headers: To be added, such as the session's cookie.
        status_line: See `status_of`.
    """
    prefix = "http.response"
    if scope["type"] == "websocket":
        prefix = "websocket.http.response"
        if prefix not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "try again"})
            return
    fields = [(name.lower().encode(), value.encode()) for name, value in head()]
    status = int(status_line[:3])
    await send({"type": f"{prefix}.start", "status": status, "headers": [*fields, *headers]})
    await send({"type": f"{prefix}.body", "body": BODY})
