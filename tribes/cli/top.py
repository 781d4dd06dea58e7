"""``tribes top``: a node and its group, live in a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from tribes.cli.client import Client, asks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["top"]

_QUIT: Final = frozenset("qQ\x03\x04")
_LOOK_S: Final = 0.1
"""How soon a key or a new size of the terminal is seen."""


@click.command("top")
@click.option("--once", is_flag=True, help="Print one picture and end.")
@click.option(
    "--every",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between two pictures.",
)
@asks
def top(client: Client, as_json: bool, once: bool, every: float) -> None:
    """Watch a node: members, links, rates, sessions, transfers. q ends it.

    Where there is no terminal, one picture is printed, as with --once. With --json each picture is
    one line, the same as /status, until it is ended; with --once one line.

    Exit codes: 0: done; 1: the node does not answer (at the start, or with --json), or refuses; 2:
    wrong command line.
    """
    if as_json:
        _json_lines(client, once=once, every=every)
        return
    try:
        from tribes.cli.top_screen import print_once, watch
    except ModuleNotFoundError as why:
        raise click.ClickException(
            f"{why.name} is not installed; pip install 'tribes[top]'"
        ) from why
    first = client.get("/status")
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        print_once(first)
        return
    with _keys() as pressed:
        watch(first, lambda: _look(client), pressed, every=every)


def _json_lines(client: Client, *, once: bool, every: float) -> None:
    # Ctrl-C is how it is ended, also while a node is asked.
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            click.echo(json.dumps(client.get("/status")))
            if once:
                return
            sys.stdout.flush()
            time.sleep(every)


def _look(client: Client) -> dict[str, Any] | str:
    """The status; text: why there is none."""
    try:
        shown: dict[str, Any] = client.get("/status")
    except click.ClickException as error:
        return error.message
    return shown


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], bool]]:
    """Keys without Enter; gives what waits a moment for one, and tells whether it ends."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed() -> bool:
        if not select.select([descriptor], [], [], _LOOK_S)[0]:
            return False
        data = os.read(descriptor, 32)
        # Nothing at all: the terminal is gone.
        return not data or bool(_QUIT & set(data.decode("latin-1")))

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
