"""Who asks, read alike from WSGI's ``environ`` and ASGI's ``scope``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["client_address", "header_values"]


def header_values(request: Mapping[str, Any], name: str) -> list[str]:
    """All values of a header field.

    Args:
        request: ``environ`` or ``scope``.
        name: As it is usually written, such as ``User-Agent``.
    """
    if "headers" in request:
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in request["headers"] if key == wanted]
    # Only with CGI's prefix: a client can set no other key.
    found = request.get("HTTP_" + name.upper().replace("-", "_"))
    return [] if found is None else [found]


def client_address(request: Mapping[str, Any]) -> str:
    """The address at the other end, as the server has it; empty where it has none."""
    if "headers" in request:
        client = request.get("client")
        return str(client[0]) if client else ""
    return str(request.get("REMOTE_ADDR", ""))
