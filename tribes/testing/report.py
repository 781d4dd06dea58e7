"""What a failed run tells: which invariant, the witness, the plan, a timeline, how to run it again.

The text is for the terminal; the HTML file holds the same with a drawing: one lane per node, time
from left to right, faults and broken promises marked.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.testing.execute import Outcome, TimelineEntry

__all__ = ["text_report", "write_html"]

CONTEXT_ENTRIES = 40
"""Entries of the timeline that the text shows before the first violation."""

_COLOURS = {
    "fault": "#b3261e",
    "crash": "#b3261e",
    "pause": "#b26a00",
    "resume": "#b26a00",
    "start": "#1b7f3b",
    "event": "#3556c4",
    "deliver": "#7a4cad",
    "write": "#9aa0ac",
    "bytes": "#9aa0ac",
    "datagram": "#d5d8de",
}
_QUIET = frozenset(("datagram", "bytes", "write", "probe"))


def text_report(outcome: Outcome, *, replay: str) -> str:
    """The report for a terminal.

    Args:
        outcome: A run with violations.
        replay: The command that runs the same again.
    """
    lines = []
    for violation in outcome.violations:
        lines.append(f"BROKEN  {violation.invariant}: {violation.message}")
        lines.extend(f"        witness: {fact}" for fact in violation.witness)
    lines.append("")
    lines.append("plan:")
    lines.extend("  " + line for line in outcome.plan.to_json().splitlines())
    shown = _around(outcome)
    if shown:
        lines.append("")
        lines.append("timeline:")
        lines.extend(f"  {at:9.4f}  {node:6} {kind:9} {text}" for at, node, kind, text in shown)
    lines.append("")
    lines.append(f"again:  {replay}")
    return "\n".join(lines)


def _around(outcome: Outcome) -> list[TimelineEntry]:
    when = min((violation.time for violation in outcome.violations), default=outcome.virtual_s)
    entries = [e for e in outcome.timeline if e[0] <= when and e[2] not in _QUIET]
    return entries[-CONTEXT_ENTRIES:]


def write_html(outcome: Outcome, path: Path, *, replay: str) -> None:
    """Write the report with its drawing to one file that needs nothing else.

    Args:
        outcome: A run with its timeline kept.
        path: Where to.
        replay: The command that runs the same again.

    Raises:
        OSError: The file cannot be written.
    """
    drawing = _drawing(outcome)
    text = html.escape(text_report(outcome, replay=replay))
    title = html.escape(f"tribes sim, seed {outcome.plan.seed}")
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:14px system-ui;margin:2em}svg{width:100%;border:1px solid #ccc}"
        "pre{overflow:auto;background:#f6f7f9;padding:1em}</style>"
        f"<h1>{title}</h1>{drawing}<pre>{text}</pre>\n"
    )


def _drawing(outcome: Outcome) -> str:
    width, lane, left = 1400, 46, 70
    lanes = {name: number for number, name in enumerate(["*", *outcome.nodes])}
    height = lane * len(lanes) + 30
    span = max(outcome.virtual_s, 1e-9)

    def x(at: float) -> float:
        return left + (width - left - 10) * at / span

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="timeline">']
    for name, number in lanes.items():
        y = lane * number + lane / 2
        parts.append(f'<text x="8" y="{y + 4}" font-size="13">{html.escape(name)}</text>')
        parts.append(f'<line x1="{left}" x2="{width - 10}" y1="{y}" y2="{y}" stroke="#ddd"/>')
    for at, node, kind, text in outcome.timeline:
        colour = _COLOURS.get(kind)
        place = lanes.get(node)
        if colour is None or place is None or kind == "datagram":
            continue
        y = lane * place + lane / 2
        size = 2 if kind in _QUIET else 5
        label = html.escape(f"{at:.4f} {node} {kind} {text}"[:300])
        parts.append(
            f'<circle cx="{x(at):.1f}" cy="{y}" r="{size}" fill="{colour}">'
            f"<title>{label}</title></circle>"
        )
    for violation in outcome.violations:
        at = x(violation.time)
        label = html.escape(f"{violation.invariant}: {violation.message}")
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - 20}" stroke="#b3261e" '
            f'stroke-width="2"><title>{label}</title></line>'
        )
    parts.append(f'<text x="{left}" y="{height - 6}" font-size="12">0 s</text>')
    parts.append(f'<text x="{width - 60}" y="{height - 6}" font-size="12">{span:.1f} s</text>')
    parts.append("</svg>")
    return "".join(parts)
