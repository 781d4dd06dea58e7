"""A bar for a join, where somebody watches: in a terminal, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from tribes.manager.progress import JoinProgress

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

__all__ = ["ProgressBar", "bar_of"]

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
    share = min(1.0, event.received / event.known) if event.known else 1.0
    filled = round(WIDTH * share)
    bar = "█" * filled + "░" * (WIDTH - filled)
    donors = ", ".join(event.donors)
    return (
        f"{event.context} {bar} {event.received} of {event.known}, {event.rate:.0f}/s from {donors}"
    )
