"""Spans by OpenTelemetry (``tribes[otel]``). Whoever runs the process sets up where they go.

Imported only where ``tracing`` is set: without it nothing of OpenTelemetry is loaded or called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from tribes.channel.trail import TRACE_BYTES
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

__all__ = ["SPANS_MAX", "OtelTracing", "make_tracing"]

SPANS_MAX: Final = 10_000
"""Spans that have begun and not ended; the oldest of more is ended. Each ends in the call that
began it, so there are hardly ever more than a few per thread."""


def make_tracing() -> OtelTracing:
    """What makes this process's spans.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.trace import get_tracer
    except ModuleNotFoundError as why:
        raise ConfigError(
            f"{why.name} is not installed; pip install 'tribes[otel]'", key="tracing"
        ) from why
    return OtelTracing(get_tracer("tribes"))


@final
class OtelTracing:
    """Makes spans with a tracer; for any thread.

    Args:
        tracer: Of OpenTelemetry.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._spans: OrderedDict[bytes, Span] = OrderedDict()

    def present(self) -> bytes:
        """The span that the calling task or thread is in; empty: in none that is sampled."""
        from opentelemetry.trace import get_current_span

        return _bytes_of(get_current_span().get_span_context())

    def begin(
        self, name: str, parent: bytes, fields: Mapping[str, Any], links: Sequence[bytes] = ()
    ) -> bytes:
        """See :class:`tribes.channel.trail.Tracing`."""
        from opentelemetry.trace import Link

        span = self._tracer.start_span(
            name,
            context=_context_of(parent),
            attributes=dict(fields),
            links=[Link(_span_context(each)) for each in links],
        )
        found = _bytes_of(span.get_span_context())
        if not found:
            span.end()
            return b""
        self._spans[found] = span
        if len(self._spans) > SPANS_MAX:
            try:
                _, oldest = self._spans.popitem(last=False)
            except KeyError:
                return found
            oldest.end()
        return found

    def end(self, span: bytes, error: str = "") -> None:
        """See :class:`tribes.channel.trail.Tracing`."""
        from opentelemetry.trace import Status, StatusCode

        begun = self._spans.pop(span, None)
        if begun is not None:
            if error:
                begun.set_status(Status(StatusCode.ERROR, error))
            begun.end()


def _bytes_of(context: SpanContext) -> bytes:
    if not (context.is_valid and context.trace_flags.sampled):
        return b""
    flags = int(context.trace_flags) & 0xFF
    return (
        context.trace_id.to_bytes(16, "big")
        + context.span_id.to_bytes(8, "big")
        + flags.to_bytes(1, "big")
    )


def _span_context(data: bytes) -> SpanContext:
    from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags

    if len(data) != TRACE_BYTES:
        return INVALID_SPAN_CONTEXT
    return SpanContext(
        int.from_bytes(data[:16], "big"),
        int.from_bytes(data[16:24], "big"),
        is_remote=True,
        trace_flags=TraceFlags(data[24]),
    )


def _context_of(parent: bytes) -> Context | None:
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(_span_context(parent))) if parent else None
