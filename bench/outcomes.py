"""What a row comes to: samples of each contender, medians, spreads, ratios, a line of JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["OURS", "Case", "Contender", "Goal", "Outcome", "Sample"]

OURS = "ours"
_PER = 100_000
"""Updates that processor time is told for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one contender.

    Attributes:
        value: In the row's unit.
        updates: How many were made; with `cpu_s`, what each costs.
        cpu_s: Processor time of all processes of the contender, meanwhile.
        more: Other figures worth telling, with their units in their names.
    """

    value: float
    updates: float = 0
    cpu_s: float = 0.0
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Contender:
    """What was measured of one contender, or why nothing was."""

    samples: list[Sample] = field(default_factory=list)
    absent: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(each.value for each in self.samples) if self.samples else None

    def told(self) -> dict[str, Any]:
        """For JSON."""
        if not self.samples:
            return {"absent": self.absent}
        values = [each.value for each in self.samples]
        found: dict[str, Any] = {
            "median": _rounded(statistics.median(values)),
            "lowest": _rounded(min(values)),
            "highest": _rounded(max(values)),
        }
        costs = [each.cpu_s / each.updates * _PER for each in self.samples if each.updates]
        if costs:
            found["cpu_s_per_100k"] = _rounded(statistics.median(costs))
        for name in self.samples[0].more:
            found[name] = _rounded(statistics.median(each.more[name] for each in self.samples))
        return found


@dataclass(slots=True)
class Case:
    """One set of conditions of a row, with everybody who was measured in it."""

    name: str
    unit: str
    contenders: dict[str, Contender] = field(default_factory=dict)

    def of(self, name: str) -> Contender:
        return self.contenders.setdefault(name, Contender())

    def ratios(self) -> dict[str, float | None]:
        """Ours over each peer's: the median of the runs' ratios where they took turns."""
        mine, found = self.of(OURS).samples, {}
        for name, peer in self.contenders.items():
            if name == OURS:
                continue
            pairs = list(zip(mine, peer.samples, strict=False))
            ratios = [a.value / b.value for a, b in pairs if b.value]
            found[name] = _rounded(statistics.median(ratios)) if ratios else None
        return found

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "case": self.name,
            "unit": self.unit,
            "contenders": {name: each.told() for name, each in self.contenders.items()},
            "ratio_to": self.ratios(),
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached, in words and to compare.

    Attributes:
        words: As the design has it.
        limit: Of the figure, or of its ratio to `of`.
        of: A peer; empty: the figure itself.
        at_most: Whether less is better.
    """

    words: str
    limit: float
    of: str = ""
    at_most: bool = True

    def is_met(self, figure: float | None, ratios: Mapping[str, float | None]) -> bool | None:
        """None: it cannot be told."""
        value = ratios.get(self.of) if self.of else figure
        if value is None:
            return None
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(slots=True)
class Outcome:
    """A row: its cases, the first of which is the row's figure."""

    row: str
    title: str
    unit: str
    goal: Goal
    runs: int
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The one line of JSON that a row ends with."""
        main = self.cases[0]
        peers = {name: each.median for name, each in main.contenders.items() if name != OURS}
        ours = main.of(OURS).median
        return json.dumps(
            {
                "row": self.row,
                "ours": None if ours is None else _rounded(ours),
                "unit": self.unit,
                "peers": {
                    name: None if value is None else _rounded(value)
                    for name, value in peers.items()
                },
                "ratio_to": main.ratios(),
                "runs": self.runs,
            }
        )

    def told(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """Everything, for the file of results."""
        main = self.cases[0]
        return {
            "row": self.row,
            "title": self.title,
            "unit": self.unit,
            "goal": self.goal.words,
            "goal_met": self.goal.is_met(main.of(OURS).median, main.ratios()),
            "runs": self.runs,
            "notes": self.notes,
            "machine": dict(machine),
            "cases": [case.told() for case in self.cases],
        }

    def table(self) -> str:
        """For people."""
        lines = [f"{self.row}: {self.title}, {self.unit}. Goal: {self.goal.words}"]
        for case in self.cases:
            lines.append(f"  {case.name}" + (f" [{case.unit}]" if case.unit != self.unit else ""))
            ratios = case.ratios()
            for name, each in case.contenders.items():
                lines.append("    " + _row(name, each, ratios.get(name)))
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _row(name: str, contender: Contender, ratio: float | None) -> str:
    told = contender.told()
    if "absent" in told:
        return f"{name:12} –  ({told['absent']})"
    spread = f"({_short(told['lowest'])} to {_short(told['highest'])})"
    beside = "" if ratio is None else f"  ours / it {ratio:.2f}"
    known = ("median", "lowest", "highest")
    rest = "  ".join(f"{key} {_short(value)}" for key, value in told.items() if key not in known)
    return f"{name:12} {_short(told['median']):>12} {spread:28}{beside:18} {rest}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _rounded(value: float) -> float:
    """Five digits say more than a benchmark knows."""
    return float(f"{value:.5g}")


def rows_of(outcomes: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """By name."""
    return {str(each["row"]): each for each in outcomes}
