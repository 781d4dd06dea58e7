"""``tribes sim --replay FILE``: what a real node was given, once more."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from tribes.errors import RecordingError
from tribes.recorder.file import Recording, read_recording
from tribes.recorder.replay import Line, SegmentResult, replay

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

__all__ = ["show_replay"]

STATUS_NOT_RUN: Final = 3
_LINES_MAX: Final = 2000
_TOO_LONG: Final = 600
"""Seconds of work: nobody's ring takes so long, but a made-up state might never end."""


class _TooLongError(BaseException):
    """No `Exception`: what runs again may catch those."""


def show_replay(path: Path, *, quiet: bool = False) -> int:
    """Run a recording and print its timeline; the last line is JSON.

    Args:
        path: The file.
        quiet: Print only that last line.

    Returns:
        The exit status: 0: all outputs were equal; 1: they were not; 3: nothing could be run.

    Raises:
        click.ClickException: The file cannot be read, or not be run by this release.
    """
    try:
        recording = read_recording(path)
        with _limited():
            results = list(replay(recording))
    except RecordingError as error:
        raise click.ClickException(str(error)) from error
    except (MemoryError, RecursionError) as error:
        raise click.ClickException(f"{path}: its state is damaged: {error!r}") from error
    if not quiet:
        _print(recording, results)
    differences = [each.difference for each in results if each.difference is not None]
    ran = [each for each in results if each.ran]
    line: dict[str, Any] = {
        "replayed": bool(ran),
        "equal": bool(ran) and not differences,
        "steps": sum(each.run for each in results),
        "outputs": sum(each.outputs for each in results),
        "segments": len(results),
        "events": sum(len(each.lines) for each in results),
    }
    if differences:
        line["difference"] = differences[0].why
    click.echo(json.dumps(line))
    return STATUS_NOT_RUN if not ran else 1 if differences else 0


@contextmanager
def _limited() -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(_TOO_LONG)
    try:
        yield
    except _TooLongError:
        raise RecordingError(f"it did not end within {_TOO_LONG} s; its state is damaged") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _print(recording: Recording, results: list[SegmentResult]) -> None:
    head = recording.head
    click.echo(
        f"{_plain(head.get('node'))}, release {_plain(head.get('release'))}: "
        f"{_plain(head.get('why'))}"
    )
    if recording.is_redacted:
        click.echo("Without contents: this is what was recorded, and nothing is run again.")
    shown = 0
    for number, each in enumerate(results, 1):
        for line in each.lines:
            shown += 1
            if shown <= _LINES_MAX:
                click.echo(_line(line))
        click.echo(f"-- segment {number}: {_outcome(each)}")
    if shown > _LINES_MAX:
        click.echo(f"… and {shown - _LINES_MAX} events more", err=True)
    sys.stdout.flush()


def _outcome(result: SegmentResult) -> str:
    if not result.ran:
        return f"{result.steps} steps, not run"
    if result.difference is None:
        return f"{result.run} steps, {result.outputs} outputs, all equal"
    found = result.difference
    return (
        f"DIFFERENT at step {found.step} of {result.steps} ({_plain(found.op)}, "
        f"{_time(found.wall_ms)}): {_plain(found.why)}"
    )


def _line(line: Line) -> str:
    fields = " ".join(f"{_plain(name)}={_plain(value)}" for name, value in line.fields.items())
    return f"{_time(line.wall_ms)}  {_plain(line.event):22}  {fields}".rstrip()


def _time(ms: float) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (OverflowError, OSError, ValueError):
        return str(ms)


def _plain(value: object) -> str:
    """Somebody else wrote the file: a terminal must not act on it."""
    return "".join(c if c.isprintable() else "�" for c in str(value))[:500]
