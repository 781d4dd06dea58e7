"""A bar for a join, where somebody watches: in a terminal, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from tribes.manager.progress import JoinProgress

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

__all__ = ["ProgressBar", "bar", "bar_of"]

WIDTH = 30


class ProgressBar:
    """Draws what a joining node has got; the next line of the log takes its place.

    Args:
        out: Where; nothing is drawn unless that is a terminal.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_shown = out.isatty()

    def watch(self, event: Event) -> None:
        """See an event of the node."""
        if self._is_shown and isinstance(event, JoinProgress):
            self._out.write(f"\r{bar_of(event)}\x1b[K\r")
            self._out.flush()


def bar_of(event: JoinProgress) -> str:
    """The line, such as ``app ███████░░░ 1200 of 2000, 800/s from web-1, web-2``."""
    donors = ", ".join(event.donors)
    shown = bar(event.received, event.known)
    return (
        f"{event.context} {shown} {event.received} of {event.known}, "
        f"{event.rate:.0f}/s from {donors}"
    )


def bar(done: int, whole: int) -> str:
    """How much of it is done, such as ``███████░░░``."""
    share = min(1.0, done / whole) if whole else 1.0
    filled = round(WIDTH * share)
    return "█" * filled + "░" * (WIDTH - filled)
