"""The pictures of ``tribes top``, for terminals of any size."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tribes.cli.client import in_words, printable

__all__ = ["picture", "print_once", "watch"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_NARROW: Final = 72
"""Below so many columns only what matters most is shown."""
_CHART: Final = 24
_FAILURES: Final = 3
_PROGRESS: Final = 20
_WIDEST: Final = 24
"""Of a column: a long name shall not push the others out."""
_RATES: Final = {
    "messages_sent": "sent/s",
    "messages_received": "received/s",
    "bytes_received": "bytes in/s",
    "commits": "commits/s",
}


def print_once(status: dict[str, Any]) -> None:
    """Print one picture, as wide as the terminal and as long as it needs."""
    console = Console(highlight=False)
    console.print(picture(status, width=console.width, height=0))


def watch(
    status: dict[str, Any],
    look: Callable[[], dict[str, Any] | str],
    pressed: Callable[[], bool],
    *,
    every: float,
) -> None:
    """Show pictures until a key ends it.

    Args:
        status: The first one.
        look: Gives the next one, or why there is none: the last one stays then, and says so.
        pressed: Waits a moment for a key; whether it ends the watching.
        every: Seconds between two.
    """
    console = Console(highlight=False)
    wrong, looked = "", time.monotonic()
    shape = (0, 0)
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            is_due = time.monotonic() - looked >= every
            if is_due:
                found = look()
                looked = time.monotonic()
                wrong = found if isinstance(found, str) else ""
                status = status if isinstance(found, str) else found
            size = (console.width, console.height)
            if is_due or size != shape:
                shape = size
                live.update(picture(status, width=size[0], height=size[1], wrong=wrong))
                live.refresh()
            if pressed():
                return


def picture(status: dict[str, Any], *, width: int, height: int, wrong: str = "") -> RenderableType:
    """One picture.

    Args:
        status: As ``/status`` gives it.
        width: Columns.
        height: Lines it may take; what does not fit is left out and counted. 0: all it needs.
        wrong: Why it is not of now; empty: it is.
    """
    narrow = width < _NARROW
    parts: list[RenderableType] = _head(status, wrong)
    used = len(parts)
    blocks = [
        _rates(status, width),
        _transfers(status),
        _contexts(status, narrow=narrow),
        _members(status, narrow=narrow),
        _links(status, narrow=narrow),
        _failures(status),
    ]
    for block in blocks:
        room = height - used - 1 if height else 0
        if not block or (height and room < 1):
            continue
        if height and len(block) > room:
            kept = max(room - 1, 0)
            block = [*block[:kept], Text(f"… {len(block) - kept} lines more", style="dim")]
        parts += block
        used += len(block)
    return Group(*(_cut(part, width) for part in parts))


def _cut(part: RenderableType, width: int) -> RenderableType:
    if isinstance(part, Text):
        part.truncate(width, overflow="ellipsis")
        part.no_wrap = True
    return part


def _head(status: dict[str, Any], wrong: str) -> list[RenderableType]:
    ready = status["is_ready"]
    head = Text(printable(status["node"]) or "node", style="bold")
    head.append("  ")
    head.append("ready" if ready else "NOT READY", style="green" if ready else "bold red")
    suspected = sum(member["is_suspected"] for member in status["members"])
    head.append(f"  {len(status['members'])} other members")
    if suspected:
        head.append(f", {suspected} suspected", style="red")
    lacking = sum(context["under_replicated"] for context in status["contexts"])
    sessions = sum(context["sessions"] for context in status["contexts"])
    head.append(f"  {sessions} sessions")
    if lacking:
        head.append(f", {lacking} under-replicated", style="yellow")
    about = f"{status['address']}  view {status['view']}  up {_span(status['uptime_s'])}"
    lines: list[RenderableType] = [
        head,
        Text(f"{about}  version {status['version']}  q: quit", "dim"),
    ]
    if wrong:
        lines.append(Text(f"old: {printable(wrong)}", style="bold red"))
    return lines


def _rates(status: dict[str, Any], width: int) -> list[Text]:
    series = status["rates"]["series"]
    shown = []
    chart = max(min(_CHART, width - 26), 0)
    for name, title in _RATES.items():
        values = series.get(name, [])
        last = values[-1] if values else 0.0
        shown.append(Text(f"{title:<11}{_number(last):>8}  {_sparkline(values[-chart:])}"))
    return shown


def _sparkline(values: list[float]) -> str:
    most = max(values, default=0.0)
    if not most:
        return ""
    return "".join(_BARS[min(int(value / most * 8), 7)] if value else " " for value in values)


def _transfers(status: dict[str, Any]) -> list[Text]:
    found = []
    for context in status["contexts"]:
        transfer = context["transfer"]
        if transfer and not transfer["is_joined"]:
            known, received = transfer["known"], transfer["received"]
            filled = round(_PROGRESS * min(1.0, received / known)) if known else 0
            bar = "█" * filled + "░" * (_PROGRESS - filled)
            line = f"joining {printable(context['context'])} {bar} {received} of {known}"
            found.append(Text(line, style="yellow"))
    return found


def _contexts(status: dict[str, Any], *, narrow: bool) -> list[Text]:
    head = ["context", "sessions", "lacking"]
    if not narrow:
        head += ["kind", "size", "copies on"]
    rows = []
    for each in status["contexts"]:
        lacking = f"{each['under_replicated']}{'+' if each['needs_sync'] else ''}"
        row = [printable(each["context"]), str(each["sessions"]), lacking]
        if not narrow:
            copies = ", ".join(map(printable, each["copies_on"])) or "nobody else"
            row += [each["kind"], f"{_number(each['bytes'])}B", copies]
        rows.append((row, "yellow" if each["under_replicated"] or each["needs_sync"] else ""))
    return _table(head, rows)


def _members(status: dict[str, Any], *, narrow: bool) -> list[Text]:
    head = ["member", "state"] if narrow else ["member", "state", "address", "up", "domain"]
    rows = []
    for each in status["members"]:
        state = "suspected" if each["is_suspected"] else "answers"
        row = [printable(each["name"]), state]
        if not narrow:
            row += [each["address"], _span(each["alive_s"]), printable(each["domain"]) or "-"]
        rows.append((row, "red" if each["is_suspected"] else ""))
    return _table(head, rows)


def _links(status: dict[str, Any], *, narrow: bool) -> list[Text]:
    head = ["link to", "round trip", "lag"]
    if not narrow:
        head += ["queued", "unacked", "lacks", "state"]
    rows = []
    for each in status["links"]:
        row = [printable(each["name"]), in_words(each["round_trip_s"]), in_words(each["lag_s"])]
        is_behind = each["is_behind"] or each["needs_sync"]
        if not narrow:
            state = "suspected" if each["is_suspected"] else "behind" if is_behind else "fine"
            queued = each["raw_bytes"] + each["live_bytes"]
            lacks = "all" if each["needs_sync"] else str(each["dirty_keys"])
            row += [f"{_number(queued)}B", f"{_number(each['unacked_bytes'])}B", lacks, state]
        rows.append((row, "red" if each["is_suspected"] else "yellow" if is_behind else ""))
    return _table(head, rows)


def _failures(status: dict[str, Any]) -> list[Text]:
    found = []
    for each in status["failures"][-_FAILURES:][::-1]:
        at = time.strftime("%H:%M:%S", time.localtime(each["at_ms"] / 1000))
        fields = " ".join(f"{name}={value}" for name, value in each["fields"].items())
        found.append(Text(printable(f"{at} {each['event']} {fields}"), style="dim"))
    return found


def _table(head: list[str], rows: list[tuple[list[str], str]]) -> list[Text]:
    """Lines, the columns as wide as they must be."""
    if not rows:
        return []
    widths = [
        min(max(len(row[at]) for row in [head, *(cells for cells, _ in rows)]), _WIDEST)
        for at in range(len(head))
    ]
    lines = [Text("  ".join(_fit(c, w) for c, w in zip(head, widths, strict=True)), "bold cyan")]
    for cells, style in rows:
        text = "  ".join(_fit(cell, width) for cell, width in zip(cells, widths, strict=True))
        lines.append(Text(text.rstrip(), style))
    return lines


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def _number(value: float) -> str:
    units = ["", "k", "M", "G", "T"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        del units[0]
    is_whole = value >= 100 or value == int(value)
    return f"{value:.0f}{units[0]}" if is_whole else f"{value:.1f}{units[0]}"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
