"""How commands print structured events: one line each, for people or for machines."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["LOG_FORMATS", "set_up_logging"]

LOG_FORMATS = ("text", "json")


def set_up_logging(log_format: str, level: str) -> None:
    """Print events to standard output.

    Args:
        log_format: ``text`` (``time level event key=value …``) or ``json``.
        level: Lowest level that is printed: ``debug``, ``info``, ``warning`` or ``error``.
    """
    renderer: structlog.types.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), pad_event_to=0, sort_keys=False
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
