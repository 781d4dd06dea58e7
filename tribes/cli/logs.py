"""How commands print structured events: one line each, for people or for machines."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["LOG_FORMATS", "set_log_level", "set_up_logging"]

LOG_FORMATS = ("text", "json")

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
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
