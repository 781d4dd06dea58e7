"""Requests and answers of the port for operators, without their HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "RefusedError", "Request", "as_json"]


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks.

    Attributes:
        method: ``GET`` or ``POST``; a ``HEAD`` is a ``GET`` here.
        path: Of the target, as it was sent, without its query.
        query: What stands behind the question mark, as it was sent.
        headers: By name in lower case; of one that came more than once, the last.
        body: All of it; bounded by the server.
        peer: Who asks, for the log.
        repeated: Names of headers that came more than once.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""
    repeated: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Attributes:
        body: The content.
        status: Of HTTP.
        content_type: Of the body.
        headers: More of them.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A request gets an error.

    Args:
        status: Of HTTP.
        text: What is wrong and what to do.
        headers: More of the answer's.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of JSON, which ends its line."""
    return Answer(msgspec.json.encode(value) + b"\n", status, headers=headers or {})
