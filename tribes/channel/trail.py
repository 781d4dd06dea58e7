"""Which trace the core works for at this moment.

A trace follows a message from the commit or send that caused it, through the interceptors of both
members, to where it is applied. What a span is, is not known here: whoever makes them is handed in,
and gives each one 25 bytes (trace id, span id, flags) by which a span elsewhere can follow it.
Empty bytes stand for no trace. The core does one thing at a time, so there is one present span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar, final

__all__ = ["TRACE_BYTES", "Tracing", "Trail"]

TRACE_BYTES: Final = 25

T = TypeVar("T")


class Tracing(Protocol):
    """Makes spans."""

    def begin(
        self, name: str, parent: bytes, fields: Mapping[str, Any], links: Sequence[bytes] = ()
    ) -> bytes:
        """Begin a span; returns its 25 bytes, or none where it is not to be followed.

        Args:
            name: Of the span.
            parent: What it belongs to; empty: the present span of the calling task, if it has one.
            fields: Its attributes.
            links: Other spans that it also works for.
        """

    def end(self, span: bytes, error: str = "") -> None:
        """End a span, perhaps because of an error."""


@final
class Trail:
    """The present span.

    Args:
        tracing: Makes spans.

    Attributes:
        current: Of the present span; empty: none is followed.
    """

    __slots__ = ("_begin", "_end", "_links", "current")

    def __init__(self, tracing: Tracing) -> None:
        self._begin = tracing.begin
        self._end = tracing.end
        self._links: Sequence[bytes] = ()
        self.current = b""

    @contextmanager
    def following(self, spans: Sequence[bytes]) -> Iterator[None]:
        """Work for these: the next span belongs to the first, and is linked to the others."""
        before, self.current = self.current, spans[0] if spans else b""
        self._links = spans[1:]
        try:
            yield
        finally:
            self.current, self._links = before, ()

    def span(self, name: str, fields: Mapping[str, Any], work: Callable[..., T], *args: Any) -> T:
        """Do something within a span of its own, if there is anything to follow."""
        before = self.current
        if not before:
            return work(*args)
        links, self._links = self._links, ()
        self.current = self._begin(name, before, fields, links)
        error = ""
        try:
            return work(*args)
        except Exception as why:
            error = type(why).__name__
            raise
        finally:
            self._end(self.current, error)
            self.current = before
