"""What a session manager may want to know of a request, whichever way it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import re

__all__ = ["RequestLine"]


class RequestLine(NamedTuple):
    """What a manager may want to know of a request.

    Attributes:
        method: ``GET`` and so on.
        path: Without the query.
        query: Without the question mark.
        is_at_home: The id has this node's route: the last request of the session was here too.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    is_at_home: bool = False

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Whether a pattern is the path, path and query, or these with the method before them."""
        line = f"{self.path}?{self.query}" if self.query else self.path
        return any(
            pattern.fullmatch(text) is not None
            for text in (self.path, line, f"{self.method} {self.path}", f"{self.method} {line}")
        )
