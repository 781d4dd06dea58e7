"""How commands print structured events: one line each, for people or for machines."""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, final

import structlog

__all__ = ["LOG_FORMATS", "REPEATS_MAX", "REPEATS_S", "Repeats", "set_log_level", "set_up_logging"]

LOG_FORMATS = ("text", "json")

REPEATS_MAX: Final = 5
REPEATS_S: Final = 10.0
"""The same line is printed so often within so many seconds."""
_KINDS_MAX: Final = 1024

_lowest = logging.INFO
"""Lines below it are dropped. Loggers are made once, so it stands outside of them."""


def set_log_level(level: str) -> None:
    """Print events of this level and above from now on."""
    global _lowest
    _lowest = _number(level)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _drop_below(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    del logger
    if _number("error" if method == "exception" else method) < _lowest:
        raise structlog.DropEvent
    return event


@final
class Repeats:
    """Drops lines that were printed again and again, and says how many.

    A line is the same when its event and its texts are, whatever its numbers say.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # Begin of its time, printed and dropped since, by line; the oldest begin first.
        self._lines: OrderedDict[tuple[Any, ...], list[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lines)

    def __call__(self, _logger: Any, _method: str, fields: Any) -> Any:
        """See structlog's processors.

        Raises:
            DropEvent: It is not to be printed.
        """
        line = tuple((name, value) for name, value in fields.items() if isinstance(value, str))
        now = self._now()
        known = self._lines.get(line)
        if known is not None and now - known[0] < REPEATS_S:
            if known[1] >= REPEATS_MAX:
                known[2] += 1
                raise structlog.DropEvent
            known[1] += 1
            return fields
        dropped = int(known[2]) if known is not None else 0
        self._lines[line] = [now, 1, 0]
        self._lines.move_to_end(line)
        if len(self._lines) > _KINDS_MAX:
            self._lines.popitem(last=False)
        if dropped:
            fields["repeats"] = fields.get("repeats", 0) + dropped
        return fields


@final
class _Printer:
    """Writes lines to standard output, and loses one rather than end what tells it.

    Names in a line are others' choice, and a terminal may not know their characters. A disk may be
    full, and whoever read a pipe may be gone.
    """

    lost = 0
    """Lines that could not be written since the last one that could."""

    def msg(self, message: str) -> None:
        """Write a line."""
        out = sys.stdout
        encoding = out.encoding or "utf-8"
        try:
            out.write(message.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            out.flush()
        except (OSError, ValueError):
            _Printer.lost += 1
        else:
            _Printer.lost = 0

    debug = info = warning = error = critical = exception = msg


def _say_lost(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    del logger, method
    if _Printer.lost:
        event["lines_lost"] = _Printer.lost
    return event


def set_up_logging(log_format: str, level: str) -> None:
    """Print events to standard output.

    Args:
        log_format: ``text`` (``time level event key=value …``) or ``json``.
        level: Lowest level that is printed: ``debug``, ``info``, ``warning`` or ``error``.
    """
    set_log_level(level)
    renderer: structlog.types.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), pad_event_to=0, sort_keys=False
        )
    structlog.configure(
        processors=[
            _drop_below,
            Repeats(time.monotonic),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _say_lost,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Printer(),
        cache_logger_on_first_use=True,
    )
