"""The answer to a balancer that asks whether to send requests here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

__all__ = ["answer_ready", "ready_answer"]

_ANSWERS: Final = {
    True: ("200 OK", b"ready\n"),
    False: ("503 Service Unavailable", b"not ready\n"),
}


def ready_answer(*, is_ready: bool) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status line, header fields and body."""
    status, body = _ANSWERS[is_ready]
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    return status, fields, body


async def answer_ready(
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]], *, is_ready: bool
) -> None:
    """The same for ASGI."""
    status, fields, body = ready_answer(is_ready=is_ready)
    headers = [(name.lower().encode(), value.encode()) for name, value in fields]
    await send({"type": "http.response.start", "status": int(status[:3]), "headers": headers})
    await send({"type": "http.response.body", "body": body})
