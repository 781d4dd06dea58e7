"""The bar of a join."""

from __future__ import annotations

from io import StringIO

from tribes.cli.progress_bar import ProgressBar, bar_of
from tribes.manager.progress import JoinProgress

HALF = JoinProgress("app", 2000, 1000, 812.4, ("web-1", "web-2"))


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_says_how_far_how_fast_and_from_whom() -> None:
    assert bar_of(HALF) == f"app {15 * '█'}{15 * '░'} 1000 of 2000, 812/s from web-1, web-2"
    full = JoinProgress("app", 10, 12, 1.0, ("a",))
    assert 30 * "█" in bar_of(full), "under load more come than were known"


def test_it_is_drawn_in_a_terminal_only_and_leaves_its_line_to_the_log() -> None:
    terminal, file = Terminal(), StringIO()
    for out in (terminal, file):
        ProgressBar(out).watch(HALF)
    assert terminal.getvalue() == f"\r{bar_of(HALF)}\x1b[K\r"
    assert file.getvalue() == ""
