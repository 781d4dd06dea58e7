"""How long the Nth member takes from its start until it has joined and can serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Row

if TYPE_CHECKING:
    from bench.processes import Team

ASYNC = 8
SIZE = 1024
SESSIONS = 1000


def measure(bench: Bench, outcome: Outcome) -> None:
    """By which one it is; interpreter and JVM are up before, and there are a thousand sessions."""
    for number in (2,) if bench.size.is_quick else (4,) if bench.size.only_main else (4, 2, 8):
        groups: dict[str, Team] = {}

        def join(kind: str) -> Sample:
            if kind not in groups:
                groups[kind] = bench.fresh_team(kind, number - 1, manager="delta", options=ASYNC)
                groups[kind].first.ask("sessions", min(SESSIONS, bench.size.sessions), SIZE, 1)
            team = groups[kind]
            joiner = bench.member(kind, team.group, manager="delta", options=ASYNC)
            try:
                joiner.await_others(number - 1)
                return Sample(joiner.started["seconds"])
            finally:
                joiner.end()
                for child in team.children:
                    child.await_alone(number - 2)

        try:
            bench.compare(
                outcome,
                f"member number {number}",
                {OURS: lambda: join(OURS), "tribes": lambda: join("tribes")},
                warm=False,
            )
        finally:
            for team in groups.values():
                team.end()


ROW = Row(
    "join",
    "start of the fourth member until it has joined, with 1,000 sessions of 1 KB",
    "s",
    Goal("reported", float("inf")),
    measure,
)
