"""Recordings, spans and logs that tell too much, too little, or the wrong thing.

Plans of faults have none of them, so each of these names the test that notices it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.logs import test_logs
from tests.mutants import registry
from tests.recorder import test_file
from tests.runtime import test_tracing
from tribes.channel.trail import Trail
from tribes.cli import logs
from tribes.recorder import names
from tribes.runtime import otel

if TYPE_CHECKING:
    from tests.mutants.registry import Patch


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"recorder: {name}", text, *patches, test=test)


_add(
    "every module has names",
    "A file may name what reads, writes and starts things.",
    (names, "is_core", lambda module: True),
    test=partial(test_file.test_only_the_core_has_names, "tribes.runtime.shell", "Shell"),
)
_add(
    "anything is a constant",
    "A file may name functions and modules as constants.",
    (names, "_is_constant", lambda name, value: True),
    test=partial(test_file.test_only_the_core_has_names, "tribes.wire.codec", "msgpack"),
)
_add(
    "spans without their error",
    "A span that failed ends as if nothing had happened.",
    (otel.OtelTracing, "end", lambda self, span, error="": self._spans.pop(span).end()),
    test=test_tracing.test_an_error_ends_the_span_with_it,
)
_add(
    "no spans inside",
    "Work inside a trace makes no span of its own.",
    (Trail, "span", lambda self, name, fields, work, *args: work(*args)),
    test=test_tracing.test_an_error_ends_the_span_with_it,
)
_add(
    "spans without bound",
    "Spans that nobody ends are kept for ever.",
    (otel, "SPANS_MAX", 10**9),
    test=test_tracing.test_spans_that_nobody_ends_are_bounded,
)
_add(
    "every line is printed",
    "What is logged again and again is printed again and again.",
    (logs, "REPEATS_MAX", 10**9),
    test=test_logs.test_repeats_are_counted_not_printed,
)
_add(
    "every line is remembered",
    "Lines of others cost memory without bound.",
    (logs, "_KINDS_MAX", 10**9),
    test=test_logs.test_what_is_remembered_of_repeats_is_bounded,
)
